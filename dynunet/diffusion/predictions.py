"""Predictions: what the network outputs, and how to recover the clean data from it.

With ``x_t = alpha x_0 + sigma noise`` each prediction is a training target and its inverse:

    name            target                          x_0
    epsilon         noise                           (x_t - sigma output) / alpha
    sample          x_0                             output
    v_prediction    alpha noise - sigma x_0         (alpha x_t - sigma output) / (alpha^2 + sigma^2)
    flow            noise - x_0                     (x_t - sigma output) / (alpha + sigma)
    edm             (sigma x_0 / d - alpha d noise) / s         (alpha d^2 x_t / s + sigma d output) / s

with ``d = sigma_data`` and ``s^2 = sigma^2 + alpha^2 d^2``. No denominator but epsilon's is ever 0: where
alpha is 0 the noise contains no information about the data, and epsilon gives 0, the mean of centred data.
``alpha`` and ``sigma`` broadcast against the data; they need not satisfy alpha^2 + sigma^2 = 1 or
alpha + sigma = 1.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from ..arguments import positive
from ..config import Data


class Prediction(Data, ABC):
    @abstractmethod
    def target(self, x0: Tensor, noise: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """The training target of the network, in the shape of ``x0``."""

    @abstractmethod
    def denoised(self, output: Tensor, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """The estimate of x_0 from an output of the network."""

    @abstractmethod
    def gains(self, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """Absolute derivatives of the estimates of x_0 and of the noise with respect to the output.

        The second is the first times alpha / sigma, computed without 0 times infinity. Loss weightings use
        both. They are inf where the output does not determine the estimate.
        """

    def scaled(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """The input of the network for noisy data ``x``: ``x`` itself, except for EDM."""
        return x


@dataclass(frozen=True)
class Epsilon(Prediction):
    """The noise (Ho et al. 2020, eq. 14)."""

    def target(self, x0: Tensor, noise: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return noise

    def denoised(self, output: Tensor, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        safe = torch.where(alpha > 0, alpha, 1)
        return torch.where(alpha > 0, (x - sigma * output) / safe, 0)

    def gains(self, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        return sigma / alpha, torch.ones_like(alpha)


@dataclass(frozen=True)
class Sample(Prediction):
    """The clean data itself (Ho et al. 2020, section 3.2)."""

    def target(self, x0: Tensor, noise: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return x0

    def denoised(self, output: Tensor, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return output

    def gains(self, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        return torch.ones_like(alpha), alpha / sigma


@dataclass(frozen=True)
class VPrediction(Prediction):
    """The velocity along the circle of alpha and sigma (Salimans and Ho 2022, appendix D)."""

    def target(self, x0: Tensor, noise: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return alpha * noise - sigma * x0

    def denoised(self, output: Tensor, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return (alpha * x - sigma * output) / (alpha**2 + sigma**2)

    def gains(self, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        square = alpha**2 + sigma**2
        return sigma / square, alpha / square


@dataclass(frozen=True)
class FlowPrediction(Prediction):
    """The velocity along the line from data to noise (Liu et al. 2023, eq. 1), at any alpha and sigma."""

    def target(self, x0: Tensor, noise: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return noise - x0

    def denoised(self, output: Tensor, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return (x - sigma * output) / (alpha + sigma)

    def gains(self, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        return sigma / (alpha + sigma), alpha / (alpha + sigma)


@dataclass(frozen=True)
class EDMPrediction(Prediction):
    """EDM's preconditioned network (Karras et al. 2022, eq. 7 and table 1) at any alpha and sigma.

    The paper's ``D = c_skip y + c_out F(c_in y)`` at noise level sigma / alpha with ``y = x / alpha``,
    multiplied out to avoid division by alpha or sigma. Input and target have unit variance.

    Args:
        sigma_data: standard deviation of the data.
    """

    sigma_data: float = 0.5

    def __post_init__(self) -> None:
        positive(self.sigma_data, "sigma_data")

    def _std(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        """The standard deviation of x."""
        return (sigma**2 + (alpha * self.sigma_data) ** 2).sqrt()

    def target(self, x0: Tensor, noise: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        std = self._std(alpha, sigma)
        return sigma / (std * self.sigma_data) * x0 - alpha * self.sigma_data / std * noise

    def denoised(self, output: Tensor, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        std = self._std(alpha, sigma)
        return alpha * (self.sigma_data / std) ** 2 * x + sigma * self.sigma_data / std * output

    def gains(self, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        scale = self.sigma_data / self._std(alpha, sigma)
        return sigma * scale, alpha * scale

    def scaled(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return x / self._std(alpha, sigma)


PREDICTIONS: dict[str, Prediction] = {
    "epsilon": Epsilon(),
    "sample": Sample(),
    "v_prediction": VPrediction(),
    "flow": FlowPrediction(),
    "edm": EDMPrediction(),
}
