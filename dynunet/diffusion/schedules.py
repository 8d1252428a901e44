"""Schedules: how much signal and how much noise there is at each time.

A schedule maps a time t in [0, 1] to the signal scale alpha(t) and the noise scale sigma(t) of

    x_t = alpha(t) x_0 + sigma(t) noise,        noise ~ N(0, 1).

Time 0 is data (alpha = 1, sigma = 0), time 1 is (nearly) noise. Any callable ``schedule(t)`` that
returns the pair, each of the shape of ``t``, is a schedule; arithmetic is in the dtype of ``t``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import pi

import torch
from torch import Tensor

Schedule = Callable[[Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Linear:
    """DDPM's linear beta in continuous time (Song et al. 2021, eq. 33): beta(t) from 0.1 to 20.

    ``log alpha = -(beta_max - beta_min) t^2 / 4 - beta_min t / 2``, ``sigma^2 = 1 - alpha^2``. Its
    thousand-step form has beta from 1e-4 to 0.02 (Ho et al. 2020). alpha(1) = 0.0066 is not zero.

    >>> import torch
    >>> alpha, sigma = Linear()(torch.tensor([0.0, 1.0]))
    >>> round(alpha[1].item(), 4), sigma[0].item()
    (0.0066, 0.0)
    """

    beta_min: float = 0.1
    beta_max: float = 20.0

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        log_alpha = -0.25 * (self.beta_max - self.beta_min) * t**2 - 0.5 * self.beta_min * t
        return log_alpha.exp(), (-torch.expm1(2 * log_alpha)).sqrt()


@dataclass(frozen=True)
class Cosine:
    """``alpha = cos(pi t / 2)``, ``sigma = sin(pi t / 2)`` (Nichol and Dhariwal 2021, without the offset).

    At t = 1 no signal is left: alpha is exactly 0.

    >>> import torch
    >>> alpha, sigma = Cosine()(torch.tensor([0.0, 1.0]))
    >>> alpha.tolist(), sigma.tolist()
    ([1.0, 0.0], [0.0, 1.0])
    """

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return torch.sin(pi / 2 * (1 - t)), torch.sin(pi / 2 * t)


SCHEDULES: dict[str, Schedule] = {"linear": Linear(), "cosine": Cosine()}
