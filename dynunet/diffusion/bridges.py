"""Bridges: diffusion that starts from a condition, such as the noisy signal, instead of from noise.

A bridge between the data x_0 and a condition y is a Brownian path with both ends given (I2SB, Liu et al.
2023, eq. 11; Jukic et al. 2024, "Schroedinger bridge for generative speech enhancement"). If its noise has
gathered the variance v(t) from time 0 to t, and v = v(1), then with u = v(t) / v

    x_t = (1 - u) x_0 + u y + sqrt(v u (1 - u)) noise,

which is y itself at t = 1. Beside y it says as much of x_0 as ``x = alpha x_0 + sigma noise`` of a schedule
with ``sigma^2 / alpha^2 = v u / (1 - u)``, from which it follows:

    x_t = (v alpha x + sigma^2 y) / (v alpha^2 + sigma^2)

So a bridge is a schedule of these ratios, with no signal left at t = 1, whose network is shown x_t in place
of x. Samplers, losses and guidance are of x, as with any other schedule, and do what those of bridges do:
:func:`..samplers.ddpm` draws from I2SB's posterior, and samplers without noise follow the probability-flow
ODE from y, where the noise of x at t = 1 enters with the first step (Zheng et al. 2024, "Diffusion bridge
implicit models"); with ``generator=torch.zeros`` none does, as in the ODE sampler of Jukic et al. The network
is not shown that noise, so that predictions with an estimate that takes it, epsilon and flow, are refused.
"""

from abc import abstractmethod
from dataclasses import dataclass, replace
from math import log
from typing import Any, Self

import torch
from torch import Tensor

from ..arguments import positive
from .schedules import Schedule, check_betas


class Bridge(Schedule):
    """A bridge by the variance that its noise has gathered; the scales of x are variance preserving."""

    @abstractmethod
    def gathered(self, t: Tensor) -> Tensor:
        """The variance v(t) from 0 to ``t``, increasing from 0."""

    @abstractmethod
    def remaining(self, t: Tensor) -> Tensor:
        """The variance v(1) - v(t) from ``t`` to 1, without cancellation."""

    @abstractmethod
    def _time_of(self, gathered: Tensor, remaining: Tensor) -> Tensor:
        """The time at which v(t) and v(1) - v(t) have these shares of v(1), which add up to 1."""

    @abstractmethod
    def shifted(self, shift: float) -> Self:
        """The bridge with ``shift`` times as much noise, so that sigma / alpha is multiplied by it."""

    @property
    @abstractmethod
    def variance(self) -> float:
        """v(1), of the whole path."""

    def log_snr(self, t: Tensor) -> Tensor:
        return self.remaining(t).log() - self.gathered(t).log() - log(self.variance)

    def _invert(self, log_snr: Tensor) -> Tensor:
        logit = log_snr + log(self.variance)
        return self._time_of((-logit).sigmoid(), logit.sigmoid())

    def between(self, x: Tensor, alpha: Tensor, sigma: Tensor, y: Tensor) -> Tensor:
        """The point x_t of the bridge to y, from ``x = alpha x_0 + sigma noise``.

        It is also what x says of x_0 if that is normal with mean y and variance v: the mean of x_0 given x.
        """
        signal, noise = self.variance * alpha, sigma**2
        return (signal * x + noise * y) / (signal * alpha + noise)


@dataclass(frozen=True)
class SymmetricBridge(Bridge):
    """I2SB's beta, which grows to the middle of the path and falls again (Liu et al. 2023, section 4.1).

    Its root is linear up to t = 1/2, on the line from sqrt(beta_min) at 0 to sqrt(beta_max) at 1, as in the
    authors' code; from there it is mirrored. The defaults are theirs, for data in [-1, 1]: v = 0.141. With
    both equal it is a Brownian bridge.

    >>> import torch
    >>> bridge = SymmetricBridge()
    >>> alpha, sigma = bridge(torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64))
    >>> x, y = alpha * 1.0, torch.full((3,), 3.0)  # x_0 = 1, without noise
    >>> bridge.between(x, alpha, sigma, y).tolist()
    [1.0, 2.0, 3.0]
    """

    beta_min: float = 0.1
    beta_max: float = 0.3

    def __post_init__(self) -> None:
        check_betas(self.beta_min, self.beta_max)

    @property
    def _roots(self) -> tuple[float, float]:
        """sqrt(beta) at 0, and its slope."""
        return self.beta_min**0.5, self.beta_max**0.5 - self.beta_min**0.5

    def _first_half(self, t: Any) -> Any:
        root, slope = self._roots
        return t * (root**2 + root * slope * t + slope**2 / 3 * t**2)

    @property
    def variance(self) -> float:
        return 2 * self._first_half(0.5)

    def gathered(self, t: Tensor) -> Tensor:
        return torch.where(t <= 0.5, self._first_half(t), self.variance - self._first_half(1 - t))

    def remaining(self, t: Tensor) -> Tensor:
        return self.gathered(1 - t)

    def _time_of(self, gathered: Tensor, remaining: Tensor) -> Tensor:
        # The root of the cubic without cancellation, as in ScaledLinear, from the nearer end.
        root, slope = self._roots
        part = torch.minimum(gathered, remaining) * self.variance
        c = (root**3 + 3 * slope * part) ** (1 / 3)
        t = 3 * part / (c**2 + c * root + root**2)
        return torch.where(gathered <= remaining, t, 1 - t)

    def shifted(self, shift: float) -> Self:
        return replace(self, beta_min=self.beta_min * shift**2, beta_max=self.beta_max * shift**2)


@dataclass(frozen=True)
class ExponentialBridge(Bridge):
    """The "variance exploding" bridge of Jukic et al. 2024 (table 1): ``beta(t) = c k^(2t)``.

    Most of the noise is near y. The defaults are theirs, for compressed spectra: v = 1.21.
    """

    c: float = 0.4
    k: float = 2.6

    def __post_init__(self) -> None:
        positive(self.c, "c")
        if not positive(self.k, "k") > 1:
            raise ValueError(f"k must be above 1, got {self.k}")

    @property
    def _rate(self) -> float:
        return 2 * log(self.k)

    @property
    def variance(self) -> float:
        return self.c / self._rate * (self.k**2 - 1)

    def gathered(self, t: Tensor) -> Tensor:
        return self.c / self._rate * torch.expm1(self._rate * t)

    def remaining(self, t: Tensor) -> Tensor:
        return self.c / self._rate * (self._rate * t).exp() * torch.expm1(self._rate * (1 - t))

    def _time_of(self, gathered: Tensor, remaining: Tensor) -> Tensor:
        return torch.log1p(gathered * (self.k**2 - 1)) / self._rate

    def shifted(self, shift: float) -> Self:
        return replace(self, c=self.c * shift**2)


BRIDGES: dict[str, Bridge] = {"bridge": SymmetricBridge(), "bridge_ve": ExponentialBridge()}
