"""Restoration: using a sampler on given data that is noisy, incomplete or to be varied.

Each task needs a start, a constraint on the estimates, or both; sampler and network stay as they are.

    denoise     y = x_0 + sigma noise: alpha y is x at the time whose sigma / alpha is that sigma
    sdedit      alpha x_0 + sigma noise at some time, then sample from there (Meng et al. 2022, algorithm 1)
    inpaint     the estimate is known at some entries; with RePaint's resampling (Lugmayr et al. 2022)
"""

from functools import wraps
from math import inf, log, sqrt
from typing import Any

import torch
from torch import Tensor

from ..arguments import real
from .noise import Noise, randn
from .schedules import ScheduleLike, as_schedule
from .steps import Callback, Denoise, Sampler, add_noise, level


def time_of(schedule: ScheduleLike, sigma: float) -> float:
    """The time at which sigma / alpha is ``sigma``.

    Raises:
        ValueError: if there is no such time.
        TypeError: if sigma is not a number.
    """
    sigma = real(sigma, "sigma")
    most = level(schedule, 1.0).ratio
    if not 0 < sigma < inf or sigma > most:
        raise ValueError(
            f"sigma must be a noise level sigma / alpha that the schedule reaches, above 0 and up to "
            f"{most:.6g}, got {sigma}"
        )
    return as_schedule(schedule).time(torch.tensor([-2 * log(sigma)], dtype=torch.float64)).item()


def noised(x0: Tensor, schedule: ScheduleLike, t: float, generator: Noise) -> Tensor:
    """Add noise to data at the level of time ``t``."""
    at = level(schedule, t)
    return at.alpha * x0 + at.sigma * randn(x0.shape, generator, x0.device, x0.dtype)


def inpainting(sampler: Sampler, y: Tensor, known: Tensor, resamplings: int = 1, jump: int = 1) -> Sampler:
    """A sampler that keeps known entries.

    The estimate at known entries is replaced by their values, so every sampler moves them as with a perfect
    denoiser. Each group of ``jump`` steps is taken ``resamplings`` times, with noise added back in between,
    so that the other entries adapt to the known ones (Lugmayr et al. 2022, algorithm 1 and section 4.2).

    Args:
        sampler: any sampler.
        y: ``(N, C, *spatial)``; its values at unknown entries do not matter.
        known: bool, broadcast against y.
        resamplings: how often each step is taken; multiplies the number of evaluations.
        jump: number of steps that are repeated together. Within them a sampler keeps its order.

    Returns:
        A sampler that starts from pure noise. Its callback is called after the last repetition of a step.
    """
    y = torch.where(known, y, 0)

    @wraps(sampler)  # with the same options
    def run(
        denoise: Denoise,
        x: Tensor,
        schedule: ScheduleLike,
        times: Tensor,
        generator: Noise = None,
        callback: Callback | None = None,
        **options: Any,
    ) -> Tensor:
        @wraps(denoise)  # with its attributes, such as time_device
        def conditioned(x: Tensor, t: Tensor) -> Tensor:
            return torch.where(known, y, denoise(x, t))

        x = torch.where(known, x + level(schedule, times[0].item()).alpha * y, x)
        length = jump if resamplings > 1 else len(times) - 1
        for first in range(0, len(times) - 1, length):
            part = times[first : first + length + 1]
            for repetition in range(resamplings):
                if repetition:
                    x = _back(x, schedule, part[-1].item(), part[0].item(), generator)
                last = repetition == resamplings - 1
                after = _counted_from(first, callback) if callback is not None and last else None
                x = sampler(conditioned, x, schedule, part, generator, after, **options)
        return torch.where(known, y, x)

    return run


def _back(x: Tensor, schedule: ScheduleLike, t: float, t_noisier: float, generator: Noise) -> Tensor:
    """Draw x at a noisier time given x at this time: the forward process."""
    now, noisier = level(schedule, t), level(schedule, t_noisier)
    ratio = noisier.alpha / now.alpha
    std = sqrt(max(noisier.sigma**2 - (ratio * now.sigma) ** 2, 0.0))
    return add_noise(ratio * x, std, generator)


def _counted_from(first: int, callback: Callback) -> Callback:
    return lambda step, t, x, x0: callback(first + step, t, x, x0)
