"""Samplers: ways to walk from noise to data, given an estimate of the data at every step.

A sampler is a function ``sampler(denoise, x, schedule, times, generator, callback)``:

    denoise     ``denoise(x, t) -> x_0`` estimate, with ``t`` of shape ``(N,)``
    x           the noisy start at ``times[0]``
    schedule    ``alpha, sigma = schedule(t)``
    times       ``(steps + 1,)``, decreasing, usually from 1 to 0
    generator   source of noise, see :func:`dynunet.diffusion.noise.randn`
    callback    ``callback(step, t, x, x_0)`` after every step: x at the time t it reached, and the
                estimate that led there; or None

It returns x at ``times[-1]``. All scales are computed in float64, whatever the dtype of x. In the
comments a, s are alpha and sigma at this time, and primed at the next, which is less noisy.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import expm1, inf, log, sqrt

import torch
from torch import Tensor

from .noise import Noise, randn
from .schedules import Schedule

Denoise = Callable[[Tensor, Tensor], Tensor]
Callback = Callable[[int, float, Tensor, Tensor], None]
Scales = tuple[float, float]


@dataclass(frozen=True)
class _Step:
    """From ``time`` with scales ``now`` to ``reached`` with scales ``then``."""

    number: int
    time: Tensor
    now: Scales
    reached: float
    then: Scales

    def per_sample(self, x: Tensor) -> Tensor:
        """The time as the network takes it, ``(N,)``."""
        return self.time.to(x.device, torch.promote_types(x.dtype, torch.float32)).expand(x.shape[0])


def _steps(schedule: Schedule, times: Tensor) -> Iterator[_Step]:
    times = times.to("cpu", torch.float64)
    alphas, sigmas = schedule(times)
    scales = list(zip(alphas.tolist(), sigmas.tolist(), strict=True))
    for i in range(len(scales) - 1):
        yield _Step(i, times[i], scales[i], times[i + 1].item(), scales[i + 1])


def _posterior_std(now: Scales, then: Scales) -> float:
    """Standard deviation of x' given x and x_0: s'/s sqrt(s^2 - (a/a')^2 s'^2) (Ho et al. 2020, eq. 7)."""
    (a, s), (a_next, s_next) = now, then
    return s_next / s * sqrt(max(s**2 - (a / a_next * s_next) ** 2, 0.0))


def ddpm(
    denoise: Denoise,
    x: Tensor,
    schedule: Schedule,
    times: Tensor,
    generator: Noise = None,
    callback: Callback | None = None,
) -> Tensor:
    """Ancestral sampling (Ho et al. 2020, algorithm 2): draw x' from its posterior given x and x_0."""
    for step in _steps(schedule, times):
        (a, s), (a_next, s_next) = step.now, step.then
        x0 = denoise(x, step.per_sample(x))
        ratio = a / a_next
        conditional = s**2 - ratio**2 * s_next**2  # variance of x given x'
        x = (ratio * s_next**2 / s**2) * x + (a_next * conditional / s**2) * x0
        std = _posterior_std(step.now, step.then)
        if std > 0:
            x = x + std * randn(x.shape, generator, x.device, x.dtype)
        if callback is not None:
            callback(step.number, step.reached, x, x0)
    return x


def ddim(
    denoise: Denoise,
    x: Tensor,
    schedule: Schedule,
    times: Tensor,
    generator: Noise = None,
    callback: Callback | None = None,
    *,
    eta: float = 0.0,
) -> Tensor:
    """DDIM (Song et al. 2021, eq. 12 and 16): deterministic for eta = 0, ddpm for eta = 1."""
    for step in _steps(schedule, times):
        (a, s), (a_next, s_next) = step.now, step.then
        x0 = denoise(x, step.per_sample(x))
        noise = (x - a * x0) / s
        std = eta * _posterior_std(step.now, step.then)
        x = a_next * x0 + sqrt(max(s_next**2 - std**2, 0.0)) * noise
        if std > 0:
            x = x + std * randn(x.shape, generator, x.device, x.dtype)
        if callback is not None:
            callback(step.number, step.reached, x, x0)
    return x


def dpmpp_2m(
    denoise: Denoise,
    x: Tensor,
    schedule: Schedule,
    times: Tensor,
    generator: Noise = None,
    callback: Callback | None = None,
) -> Tensor:
    """DPM-Solver++(2M) (Lu et al. 2022, algorithm 2), a second-order multistep method in log(a / s).

    A step into sigma = 0, or the one after alpha = 0, spans an infinite log-ratio and is of first order.
    """
    previous: Tensor | None = None
    h_previous = inf
    for step in _steps(schedule, times):
        (a, s), (a_next, s_next) = step.now, step.then
        x0 = denoise(x, step.per_sample(x))
        h = _log_ratio(a_next, s_next) - _log_ratio(a, s)
        estimate = x0
        if previous is not None and h < inf and h_previous < inf:
            weight = h / (2 * h_previous)
            estimate = (1 + weight) * x0 - weight * previous
        x = (s_next / s) * x - (a_next * expm1(-h)) * estimate
        previous, h_previous = x0, h
        if callback is not None:
            callback(step.number, step.reached, x, x0)
    return x


def _log_ratio(alpha: float, sigma: float) -> float:
    if sigma == 0:
        return inf
    return log(alpha / sigma) if alpha > 0 else -inf


Sampler = Callable[..., Tensor]

SAMPLERS: dict[str, Sampler] = {"ddpm": ddpm, "ddim": ddim, "dpmpp_2m": dpmpp_2m}
