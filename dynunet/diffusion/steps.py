"""Common code of the samplers: their noise levels, and one evaluation of the denoiser.

All scales are computed in float64 on the CPU, once per run, and multiply tensors as Python numbers, so the
schedule's arithmetic does not depend on the dtype and device of the data.
"""

from collections.abc import Callable, Iterator
from itertools import pairwise
from math import inf, log
from typing import NamedTuple

import torch
from torch import Tensor

from .noise import Noise, randn
from .schedules import ScheduleLike

Denoise = Callable[[Tensor, Tensor], Tensor]
Callback = Callable[[int, float, Tensor, Tensor], None]
Sampler = Callable[..., Tensor]


class Level(NamedTuple):
    """A time and its scales."""

    t: float
    alpha: float
    sigma: float

    @property
    def log_ratio(self) -> float:
        """lambda = log(alpha / sigma), half the log-SNR: inf for clean data, -inf for pure noise."""
        if self.sigma == 0:
            return inf
        # A schedule's exact zero may arrive rounded, as cos(pi / 2) = 6e-17.
        return log(self.alpha / self.sigma) if self.alpha > 1e-7 * self.sigma else -inf

    @property
    def ratio(self) -> float:
        """sigma / alpha, the noise level of x / alpha: inf for pure noise."""
        return inf if self.log_ratio == -inf else self.sigma / self.alpha


def level(schedule: ScheduleLike, t: float) -> Level:
    """The noise level at time ``t``."""
    alpha, sigma = schedule(torch.tensor([t], dtype=torch.float64))
    return Level(t, alpha.item(), sigma.item())


def walk(x: Tensor, schedule: ScheduleLike, times: Tensor) -> Iterator[tuple[int, Level, Level]]:
    """Iterate over the steps of a sampler: step number, start level, end level.

    Args:
        x: the noisy start, ``(N, ...)``.
        times: ``(steps + 1,)``, strictly decreasing within [0, 1].

    Raises:
        TypeError, ValueError: naming ``x`` or ``times``, the rule and the value received.
    """
    if not isinstance(x, Tensor) or not x.is_floating_point():
        raise TypeError(f"x must be a floating-point tensor, got {getattr(x, 'dtype', type(x).__name__)}")
    if x.ndim < 1:
        raise ValueError("x must be (N, ...), got a tensor without axes")
    times = check_times(times)
    alphas, sigmas = schedule(times)
    levels = list(map(Level, times.tolist(), alphas.tolist(), sigmas.tolist()))
    if not (all(at.sigma > 0 for at in levels[:-1]) and levels[-1].sigma >= 0):
        raise ValueError(f"times must have sigma > 0 at all but the last, got sigma {sigmas.tolist()}")
    return ((i, now, then) for i, (now, then) in enumerate(pairwise(levels)))


def check_times(times: Tensor) -> Tensor:
    """Check the times of a sampler and return them in float64 on the CPU."""
    times = torch.as_tensor(times, dtype=torch.float64, device="cpu")
    if times.ndim != 1 or len(times) < 2:
        raise ValueError(f"times must be (steps + 1,) with at least 1 step, got shape {tuple(times.shape)}")
    if not ((times.diff() < 0).all() and times[0] <= 1 and times[-1] >= 0):
        raise ValueError(f"times must fall strictly within [0, 1], got {times.tolist()}")
    return times


def estimate(denoise: Denoise, x: Tensor, t: float) -> Tensor:
    """The denoiser's x_0 at one time, passed as ``(N,)`` in at least float32.

    Times are on the device of x, or on the denoiser's ``time_device`` if it has that attribute.
    """
    dtype, device = torch.promote_types(x.dtype, torch.float32), getattr(denoise, "time_device", x.device)
    x0 = denoise(x, torch.full(x.shape[:1], t, dtype=dtype, device=device))
    if x0.shape != x.shape:
        raise ValueError(f"denoise must return the shape of x, {tuple(x.shape)}, got {tuple(x0.shape)}")
    return x0.to(x.dtype)


def add_noise(x: Tensor, std: float, generator: Noise) -> Tensor:
    """Add fresh noise to x; none is drawn if ``std`` is 0."""
    return x + std * randn(x.shape, generator, x.device, x.dtype) if std > 0 else x


def report(callback: Callback | None, step: int, reached: Level, x: Tensor, x0: Tensor) -> None:
    if callback is not None:
        callback(step, reached.t, x, x0)
