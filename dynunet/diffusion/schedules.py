"""Schedules: the amounts of signal and noise at each time.

A schedule maps a time t in [0, 1] to the signal scale alpha(t) and the noise scale sigma(t) of

    x_t = alpha(t) x_0 + sigma(t) noise,        noise ~ N(0, 1).

Time 0 is data (sigma = 0), time 1 is (nearly) pure noise. The log-SNR

    l(t) = log(alpha^2 / sigma^2),

is strictly decreasing from l(0) = inf (Kingma et al. 2021, section 3.2). A schedule is the curve l(t), its
inverse t(l), and a family that maps l to the scales:

    variance preserving     alpha^2 = sigmoid(l),   sigma^2 = sigmoid(-l)       alpha^2 + sigma^2 = 1
    rectified flow          alpha = sigmoid(l / 2), sigma = sigmoid(-l / 2)     alpha + sigma = 1
    variance exploding      alpha = 1,              sigma = exp(-l / 2)

Any callable ``alpha, sigma = schedule(t)`` is a schedule too (:func:`as_schedule` finds its inverse by
bisection). Arithmetic is elementwise in the dtype of ``t``, which may have any shape.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import cosh, exp, log, pi, sinh

import torch
from torch import Tensor

from .._devices import moved
from ..arguments import real
from ..config import Data

ScheduleLike = Callable[[Tensor], tuple[Tensor, Tensor]]


class Schedule(Data, ABC):
    """A curve of log-SNR over time, its inverse, and scales; variance preserving unless overridden."""

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """The scales alpha and sigma at times ``t``, each in the shape of ``t``."""
        return self.scales(self.log_snr(t))

    @abstractmethod
    def log_snr(self, t: Tensor) -> Tensor:
        """log(alpha^2 / sigma^2) at times ``t``: inf where sigma is 0, -inf where alpha is 0."""

    @abstractmethod
    def _invert(self, log_snr: Tensor) -> Tensor:
        """The time of a log-SNR that lies strictly between those of the ends."""

    def time(self, log_snr: Tensor) -> Tensor:
        """The inverse of :meth:`log_snr`; values beyond an end of the schedule give that end's time."""
        high, low = self.log_snr(log_snr.new_tensor([0.0, 1.0])).unbind()
        t = self._invert(log_snr.clamp(low, high)).clamp(0, 1)
        return torch.where(log_snr >= high, 0.0, torch.where(log_snr <= low, 1.0, t))

    def scales(self, log_snr: Tensor) -> tuple[Tensor, Tensor]:
        """The scales alpha and sigma of this family at any log-SNR, also beyond the schedule's ends."""
        return log_snr.sigmoid().sqrt(), (-log_snr).sigmoid().sqrt()


@dataclass(frozen=True)
class Linear(Schedule):
    """DDPM's linear beta in continuous time (Song et al. 2021, eq. 33): beta(t) from 0.1 to 20.

    ``alpha^2 = exp(-B)`` with ``B = beta_min t + (beta_max - beta_min) t^2 / 2``, so that
    ``l = -log(exp(B) - 1)``. Its thousand-step form has beta from 1e-4 to 0.02 (Ho et al. 2020).
    alpha(1) = 0.0066 is not zero.

    >>> import torch
    >>> alpha, sigma = Linear()(torch.tensor([0.0, 1.0]))
    >>> round(alpha[1].item(), 4), sigma[0].item()
    (0.0066, 0.0)
    """

    beta_min: float = 0.1
    beta_max: float = 20.0

    def __post_init__(self) -> None:
        check_betas(self.beta_min, self.beta_max)

    def log_snr(self, t: Tensor) -> Tensor:
        return _log_snr_of_decay(t * (self.beta_min + 0.5 * (self.beta_max - self.beta_min) * t))

    def _invert(self, log_snr: Tensor) -> Tensor:
        # The root of the quadratic, in the form without cancellation for small B.
        decay, growth = _decay(log_snr), self.beta_max - self.beta_min
        return 2 * decay / (self.beta_min + (self.beta_min**2 + 2 * growth * decay).sqrt())


@dataclass(frozen=True)
class ScaledLinear(Schedule):
    """Linear in the square root of beta, in continuous time (Rombach et al. 2022, as published in code).

    ``beta(t) = r(t)^2`` with r linear from sqrt(beta_min) to sqrt(beta_max); ``alpha^2 = exp(-B)`` with
    ``B = (r(t)^3 - r(0)^3) / (3 r')``. The thousand-step form has beta from 0.00085 to 0.012.
    """

    beta_min: float = 0.85
    beta_max: float = 12.0

    def __post_init__(self) -> None:
        check_betas(self.beta_min, self.beta_max)

    def log_snr(self, t: Tensor) -> Tensor:
        r, slope = self.beta_min**0.5, self.beta_max**0.5 - self.beta_min**0.5
        return _log_snr_of_decay(t * (r**2 + r * slope * t + slope**2 / 3 * t**2))

    def _invert(self, log_snr: Tensor) -> Tensor:
        # (c - r) / slope with c = r(t), without cancellation: c^3 - r^3 = 3 slope B.
        r, slope = self.beta_min**0.5, self.beta_max**0.5 - self.beta_min**0.5
        decay = _decay(log_snr)
        c = (r**3 + 3 * slope * decay) ** (1 / 3)
        return 3 * decay / (c**2 + c * r + r**2)


@dataclass(frozen=True)
class Cosine(Schedule):
    """``alpha = cos(pi t / 2)``, ``sigma = sin(pi t / 2)`` (Nichol and Dhariwal 2021, eq. 17, no offset).

    At t = 1 no signal is left: alpha is exactly 0.

    >>> import torch
    >>> alpha, sigma = Cosine()(torch.tensor([0.0, 1.0]))
    >>> alpha.tolist(), sigma.tolist()
    ([1.0, 0.0], [0.0, 1.0])
    """

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return torch.sin(pi / 2 * (1 - t)), torch.sin(pi / 2 * t)

    def log_snr(self, t: Tensor) -> Tensor:
        alpha, sigma = self(t)
        return 2 * (alpha.log() - sigma.log())

    def _invert(self, log_snr: Tensor) -> Tensor:
        return 2 / pi * torch.atan((-0.5 * log_snr).exp())


@dataclass(frozen=True)
class Sigmoid(Schedule):
    """``alpha^2`` falls as a sigmoid, rescaled to reach 1 and 0 (Jabri et al. 2023; Chen 2023, algorithm 1).

    With S the sigmoid and ``u(t) = (start + t (end - start)) / tau``,

        alpha^2 = (S(u(1)) - S(u(t))) / (S(u(1)) - S(u(0))).

    A difference of sigmoids is ``sinh((a - b) / 2) / (2 cosh(a / 2) cosh(b / 2))``, which gives the SNR
    ``k sinh((1 - t) w / 2) / sinh(t w / 2)`` with ``w = u(1) - u(0)``, and its inverse, without cancellation.
    """

    start: float = -3.0
    end: float = 3.0
    tau: float = 1.0

    def __post_init__(self) -> None:
        if not self.tau > 0:
            raise ValueError(f"tau must be positive, got {self.tau}")
        if not self.end > self.start:
            raise ValueError(f"end must be above start ({self.start}), got {self.end}")

    @property
    def _width(self) -> float:
        return (self.end - self.start) / self.tau

    @property
    def _log_ratio(self) -> float:
        """log k."""
        return log(cosh(self.start / self.tau / 2) / cosh(self.end / self.tau / 2))

    def log_snr(self, t: Tensor) -> Tensor:
        half = self._width / 2
        return self._log_ratio + torch.sinh((1 - t) * half).log() - torch.sinh(t * half).log()

    def _invert(self, log_snr: Tensor) -> Tensor:
        half = self._width / 2
        r = (log_snr - self._log_ratio).exp()
        return torch.log1p(2 * sinh(half) / (r + exp(-half))) / self._width


@dataclass(frozen=True)
class Flow(Schedule):
    """Rectified flow (Liu et al. 2023, eq. 1; Lipman et al. 2023): ``alpha = 1 - t``, ``sigma = t``."""

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return 1 - t, t.clone()

    def log_snr(self, t: Tensor) -> Tensor:
        return 2 * ((1 - t).log() - t.log())

    def _invert(self, log_snr: Tensor) -> Tensor:
        return (-0.5 * log_snr).sigmoid()

    def scales(self, log_snr: Tensor) -> tuple[Tensor, Tensor]:
        return (0.5 * log_snr).sigmoid(), (-0.5 * log_snr).sigmoid()


@dataclass(frozen=True)
class EDM(Schedule):
    """``alpha = 1`` and the noise levels of Karras et al. 2022, eq. 5, as a function of time.

    ``sigma^(1 / rho)`` is linear in t from sigma_min at t = 0.001 to sigma_max at t = 1; below t = 0.001
    sigma is proportional to t, so that time 0 is clean data as in every schedule and the log-SNR is
    invertible everywhere. Uniform times then give Karras's steps, including the last one to sigma = 0.
    """

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0

    def __post_init__(self) -> None:
        if not 0 < self.sigma_min < self.sigma_max:
            raise ValueError(
                f"sigma_min must be positive and below sigma_max ({self.sigma_max}), got {self.sigma_min}"
            )
        if not self.rho > 0:
            raise ValueError(f"rho must be positive, got {self.rho}")

    @property
    def _roots(self) -> tuple[float, float]:
        return self.sigma_min ** (1 / self.rho), self.sigma_max ** (1 / self.rho)

    def log_snr(self, t: Tensor) -> Tensor:
        low, high = self._roots
        karras = low + (t - _SIGMA_MIN_TIME) / (1 - _SIGMA_MIN_TIME) * (high - low)
        ramp = log(self.sigma_min) + (t / _SIGMA_MIN_TIME).log()
        return -2 * torch.where(t >= _SIGMA_MIN_TIME, self.rho * karras.log(), ramp)

    def _invert(self, log_snr: Tensor) -> Tensor:
        low, high = self._roots
        root = (-0.5 / self.rho * log_snr).exp()
        karras = _SIGMA_MIN_TIME + (1 - _SIGMA_MIN_TIME) * (root - low) / (high - low)
        ramp = _SIGMA_MIN_TIME / self.sigma_min * (-0.5 * log_snr).exp()
        return torch.where(root >= low, karras, ramp)

    def scales(self, log_snr: Tensor) -> tuple[Tensor, Tensor]:
        return torch.ones_like(log_snr), (-0.5 * log_snr).exp()


_SIGMA_MIN_TIME = 1e-3


@dataclass(frozen=True)
class Discrete(Schedule):
    """The table of a model trained with T discrete steps: entry i is time ``(i + 1) / T``.

    Between entries the log-SNR is linear in time. From clean data at t = 0 to the first entry the power
    ratio sigma^2 / alpha^2 grows linearly from 0. If the last entry is 0, alpha / sigma falls to it linearly.

    Args:
        alphas_cumprod: T values of ``alpha^2 = 1 - sigma^2``, at least two, strictly decreasing, in (0, 1)
            but for the last, which may be 0: DDPM's alpha-bar (Ho et al. 2020, eq. 4), a sequence or tensor.

    >>> import torch
    >>> alpha, sigma = Discrete([0.9, 0.5, 0.1])(torch.tensor([0.0, 1 / 3, 1.0]).double())
    >>> [round(a, 6) for a in (alpha**2).tolist()]
    [1.0, 0.9, 0.1]
    """

    alphas_cumprod: Sequence[float] | Tensor

    def __post_init__(self) -> None:
        table = torch.as_tensor(self.alphas_cumprod, dtype=torch.float64, device="cpu")
        if table.ndim != 1 or len(table) < 2:
            raise ValueError(
                f"alphas_cumprod must be one axis of at least 2 values, got shape {tuple(table.shape)}"
            )
        if not (table[0] < 1 and table[-1] >= 0 and (table.diff() < 0).all()):
            raise ValueError(
                f"alphas_cumprod must fall strictly within (0, 1), the last may be 0, got {_brief(table)}"
            )
        object.__setattr__(self, "alphas_cumprod", tuple(table.tolist()))  # hashable, comparable, plain data

    @cached_property
    def _nodes(self) -> Tensor:
        table = torch.tensor(self.alphas_cumprod, dtype=torch.float64)
        return table.log() - torch.log1p(-table)

    def log_snr(self, t: Tensor) -> Tensor:
        nodes = moved(self._nodes.to(t.dtype), t.device)
        last = len(nodes)
        position = t * last
        k = position.long().clamp(1, last - 1)
        start, step = nodes[k - 1], nodes[k] - nodes[k - 1]
        between = start + (position - k) * step
        ramp = start + 2 * (last - position).log()
        inside = torch.where(step.isinf(), ramp, between)
        return torch.where(position < 1, nodes[0] - position.log(), inside)

    def _invert(self, log_snr: Tensor) -> Tensor:
        nodes = moved(self._nodes.to(log_snr.dtype), log_snr.device)
        last = len(nodes)
        k = torch.searchsorted(-nodes, -log_snr.contiguous()).clamp(1, last - 1)
        start, step = nodes[k - 1], nodes[k] - nodes[k - 1]
        between = k + (log_snr - start) / step
        ramp = last - (0.5 * (log_snr - start)).exp()
        inside = torch.where(step.isinf(), ramp, between)
        return torch.where(log_snr > nodes[0], (nodes[0] - log_snr).exp(), inside) / last


@dataclass(frozen=True)
class Numerical(Schedule):
    """Any callable ``alpha, sigma = function(t)`` with decreasing log-SNR, inverted by bisection."""

    function: ScheduleLike

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return self.function(t)

    def log_snr(self, t: Tensor) -> Tensor:
        alpha, sigma = self(t)
        return 2 * (alpha.log() - sigma.log())

    def _invert(self, log_snr: Tensor) -> Tensor:
        low, high = torch.zeros_like(log_snr), torch.ones_like(log_snr)
        for _ in range(60):  # more than the bits of float64
            middle = (low + high) / 2
            later = self.log_snr(middle) > log_snr
            low, high = torch.where(later, middle, low), torch.where(later, high, middle)
        return (low + high) / 2

    def scales(self, log_snr: Tensor) -> tuple[Tensor, Tensor]:
        """The scales at the time of a log-SNR; values beyond an end of the schedule give that end."""
        return self(self.time(log_snr))


def as_schedule(schedule: ScheduleLike) -> Schedule:
    """Return a :class:`Schedule` as it is, and wrap any other callable in :class:`Numerical`."""
    if not callable(schedule):
        raise TypeError(f"schedule must be a callable alpha, sigma = schedule(t), got {schedule!r}")
    return schedule if isinstance(schedule, Schedule) else Numerical(schedule)


def widened(t: Tensor) -> Tensor:
    """Times in the precision for computing scales: float64 on the CPU.

    On another device they stay there, in at least float32, since reading them back would synchronise.
    """
    return t.double() if t.device.type == "cpu" else t.to(torch.promote_types(t.dtype, torch.float32))


def _log_snr_of_decay(decay: Tensor) -> Tensor:
    """-log(exp(B) - 1) of ``alpha^2 = exp(-B)``, without overflow."""
    return -(decay + (-torch.expm1(-decay)).log())


def _decay(log_snr: Tensor) -> Tensor:
    """B = log(1 + exp(-l)), inverse of :func:`_log_snr_of_decay` (torch's softplus is linear above 20)."""
    return torch.logaddexp(-log_snr, torch.zeros_like(log_snr))


def check_betas(beta_min: float, beta_max: float) -> None:
    for name, value in (("beta_min", beta_min), ("beta_max", beta_max)):
        real(value, name)
    if not 0 < beta_min <= beta_max < float("inf"):
        raise ValueError(
            f"beta_min and beta_max must be positive and finite with beta_min <= beta_max, "
            f"got {beta_min} and {beta_max}"
        )


def _brief(values: Tensor) -> str:
    shown = ", ".join(f"{v:.6g}" for v in values[:3].tolist())
    return f"[{shown}, ..., {values[-1].item():.6g}]"


SCHEDULES: dict[str, Schedule] = {
    "linear": Linear(),
    "cosine": Cosine(),
    "scaled_linear": ScaledLinear(),
    "sigmoid": Sigmoid(),
    "flow": Flow(),
    "edm": EDM(),
}
