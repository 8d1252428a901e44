"""Samplers: algorithms that go from noise to data, given an estimate of the data at every step.

A sampler is a pure function ``sampler(denoise, x, schedule, times, generator=None, callback=None)``:

    denoise     ``denoise(x, t) -> x_0`` estimate, with ``t`` of shape ``(N,)``
    x           the noisy start at ``times[0]``, ``(N, ...)`` with any number of axes
    schedule    ``alpha, sigma = schedule(t)``
    times       ``(steps + 1,)``, strictly decreasing, usually from 1 to 0; see :func:`..spacing.spaced`
    generator   source of noise, see :func:`..noise.randn`
    callback    ``callback(step, t, x, x_0)`` after every step, with x at the time t that the step reached
                and the last estimate x_0 used in it; or None

It returns x at ``times[-1]``. Each step goes from noise level (a, s) to the less noisy (a', s'); h is its
length in lambda = log(alpha / sigma). A step to sigma = 0 returns exactly a' times the estimate; a step from
alpha = 0 (pure noise), where h is infinite, does not extrapolate.

Deterministic samplers solve the probability-flow ODE, which for y = x / alpha over r = sigma / alpha is

    dy / dr = (x - alpha x_0(x, t)) / sigma        (Karras et al. 2022, eq. 3; Song et al. 2021, eq. 14)

for every schedule. One step costs one evaluation of the denoiser, with ``heun`` two.
"""

from math import exp, expm1, inf, log, sqrt

import torch
from torch import Tensor

from .noise import Noise
from .schedulers import from_scheduler
from .schedules import ScheduleLike, as_schedule
from .steps import Callback, Denoise, Level, Sampler, add_noise, estimate, level, report, walk
from .unipc import unipc

__all__ = [
    "SAMPLERS",
    "Callback",
    "Denoise",
    "Sampler",
    "consistency",
    "ddim",
    "ddpm",
    "dpmpp_2m",
    "dpmpp_2m_sde",
    "euler",
    "from_scheduler",
    "heun",
    "unipc",
]


def _posterior_std(now: Level, then: Level) -> float:
    """Standard deviation of x' given x and x_0: s' sqrt(1 - (a s' / (a' s))^2) (Ho et al. 2020, eq. 7)."""
    return then.sigma * sqrt(-expm1(-2 * (then.log_ratio - now.log_ratio)))


def ddpm(
    denoise: Denoise,
    x: Tensor,
    schedule: ScheduleLike,
    times: Tensor,
    generator: Noise = None,
    callback: Callback | None = None,
) -> Tensor:
    """Ancestral sampling (Ho et al. 2020, algorithm 2): draw x' from its posterior given x and x_0."""
    for i, now, then in walk(x, schedule, times):
        x0 = estimate(denoise, x, now.t)
        kept = (now.alpha / then.alpha) * (then.sigma / now.sigma) ** 2
        x = kept * x + then.alpha * -expm1(-2 * (then.log_ratio - now.log_ratio)) * x0
        x = add_noise(x, _posterior_std(now, then), generator)
        report(callback, i, then, x, x0)
    return x


def ddim(
    denoise: Denoise,
    x: Tensor,
    schedule: ScheduleLike,
    times: Tensor,
    generator: Noise = None,
    callback: Callback | None = None,
    *,
    eta: float = 0.0,
) -> Tensor:
    """DDIM (Song et al. 2021, eq. 12 and 16): deterministic for eta = 0, :func:`ddpm` for eta = 1.

    Raises:
        ValueError: unless eta is in [0, 1].
    """
    if not 0 <= eta <= 1:
        raise ValueError(f"eta must be in [0, 1], got {eta}")
    for i, now, then in walk(x, schedule, times):
        x0 = estimate(denoise, x, now.t)
        noise = (x - now.alpha * x0) / now.sigma
        std = eta * _posterior_std(now, then)
        x = then.alpha * x0 + sqrt(max(then.sigma**2 - std**2, 0.0)) * noise
        x = add_noise(x, std, generator)
        report(callback, i, then, x, x0)
    return x


def euler(
    denoise: Denoise,
    x: Tensor,
    schedule: ScheduleLike,
    times: Tensor,
    generator: Noise = None,
    callback: Callback | None = None,
) -> Tensor:
    """Euler's method: y' = y + (r' - r) dy/dr, which is ``ddim`` with eta 0 in any schedule.

    Multiplied by a', with y = x_0 + r dy/dr, this is x' = a' x_0 + s' dy/dr, which is finite even at a = 0.
    """
    for i, now, then in walk(x, schedule, times):
        x0 = estimate(denoise, x, now.t)
        slope = (x - now.alpha * x0) / now.sigma
        x = then.alpha * x0 + then.sigma * slope
        report(callback, i, then, x, x0)
    return x


def heun(
    denoise: Denoise,
    x: Tensor,
    schedule: ScheduleLike,
    times: Tensor,
    generator: Noise = None,
    callback: Callback | None = None,
    *,
    churn: float = 0.0,
    churn_range: tuple[float, float] = (0.0, inf),
    churn_noise: float = 1.0,
) -> Tensor:
    """Heun's method, optionally with churn (Karras et al. 2022, algorithms 1 and 2).

    After Euler's step the slope is evaluated again and replaced by the mean of both: y changes by another
    ``(r - r') / 2`` times the change of slope. This is accurate if the slope is linear in r. Far above the
    spread of the data the slope is ``noise + c / r^2``, whose integral from r' on, even from pure noise, is
    exactly r' times the change; so the factor is at most r', which matters only if ``r > 3 r'``. Without this
    limit the first of a few steps overshoots by up to ``0.2 r / r'``, a factor of thousands.

    Args:
        churn: S_churn, the amount of fresh noise over all steps; in each step r grows by at most a factor
            sqrt(2), and never beyond the schedule's largest value.
        churn_range: S_tmin and S_tmax, the range of r = sigma / alpha in which there is churn.
        churn_noise: S_noise, the scale of that noise.

    Raises:
        ValueError: if churn or churn_noise is negative, or churn_range is not (low, high).
    """
    if not churn >= 0:
        raise ValueError(f"churn must be at least 0, got {churn}")
    if not churn_noise >= 0:
        raise ValueError(f"churn_noise must be at least 0, got {churn_noise}")
    low, high = churn_range
    if not 0 <= low <= high:
        raise ValueError(f"churn_range must be (low, high) with 0 <= low <= high, got {churn_range}")
    gamma = min(churn / (len(times) - 1), sqrt(2) - 1)
    for i, now, then in walk(x, schedule, times):
        if gamma > 0 and low <= now.ratio <= high and now.ratio < inf:
            noisier = _noisier(schedule, now, 1 + gamma)
            std = noisier.alpha * sqrt(max(noisier.ratio**2 - now.ratio**2, 0.0))
            x = add_noise(noisier.alpha / now.alpha * x, churn_noise * std, generator)
            now = noisier
        x0 = estimate(denoise, x, now.t)
        slope = (x - now.alpha * x0) / now.sigma
        x = then.alpha * x0 + then.sigma * slope  # Euler's step
        if then.sigma > 0:
            x0 = estimate(denoise, x, then.t)
            slope_there = (x - then.alpha * x0) / then.sigma
            x = x - then.alpha * min((now.ratio - then.ratio) / 2, then.ratio) * (slope_there - slope)
        report(callback, i, then, x, x0)
    return x


def _noisier(schedule: ScheduleLike, now: Level, factor: float) -> Level:
    """The level with sigma / alpha larger by ``factor``, at most the schedule's noisiest finite level."""
    log_snr = -2 * log(now.ratio * factor)
    t = as_schedule(schedule).time(torch.tensor([log_snr], dtype=torch.float64)).item()
    there = level(schedule, max(t, now.t))
    return there if there.ratio < inf else now


def consistency(
    denoise: Denoise,
    x: Tensor,
    schedule: ScheduleLike,
    times: Tensor,
    generator: Noise = None,
    callback: Callback | None = None,
) -> Tensor:
    """Multistep consistency sampling (Song et al. 2023, algorithm 1): x' = a' x_0 + s' noise, all fresh.

    It is for a denoiser that gives the end of the ODE's path, :class:`dynunet.diffusion.Consistency`, not the
    mean of the data, for which it has no order of accuracy.
    """
    for i, now, then in walk(x, schedule, times):
        x0 = estimate(denoise, x, now.t)
        x = add_noise(then.alpha * x0, then.sigma, generator)
        report(callback, i, then, x, x0)
    return x


def dpmpp_2m(
    denoise: Denoise,
    x: Tensor,
    schedule: ScheduleLike,
    times: Tensor,
    generator: Noise = None,
    callback: Callback | None = None,
) -> Tensor:
    """DPM-Solver++(2M) (Lu et al. 2022, algorithm 2), a second-order multistep method in lambda."""
    return dpmpp_2m_sde(denoise, x, schedule, times, generator, callback, eta=0.0)


def dpmpp_2m_sde(
    denoise: Denoise,
    x: Tensor,
    schedule: ScheduleLike,
    times: Tensor,
    generator: Noise = None,
    callback: Callback | None = None,
    *,
    eta: float = 1.0,
) -> Tensor:
    """SDE-DPM-Solver++(2M) (Lu et al. 2022): eta = 1 solves the reverse SDE, eta = 0 is :func:`dpmpp_2m`.

    x' = (s' / s) exp(-eta h) x + a' (1 - exp(-(1 + eta) h)) D + s' sqrt(1 - exp(-2 eta h)) noise, where D
    extrapolates the last two estimates to the middle of the step.

    Raises:
        ValueError: if eta is negative or infinite.
    """
    if not 0 <= eta < inf:
        raise ValueError(f"eta must be at least 0 and finite, got {eta}")
    previous: Tensor | None = None
    h_previous = inf
    for i, now, then in walk(x, schedule, times):
        x0 = estimate(denoise, x, now.t)
        h = then.log_ratio - now.log_ratio
        eta_h = eta * h if eta > 0 else 0.0  # where h is infinite as well
        middle = x0
        if previous is not None and h < inf:  # after an infinite step the weight is 0
            middle = x0 + h / (2 * h_previous) * (x0 - previous)
        x = (then.sigma / now.sigma) * exp(-eta_h) * x
        x -= then.alpha * expm1(-h - eta_h) * middle  # in place: x may be as large as memory allows
        x = add_noise(x, then.sigma * sqrt(-expm1(-2 * eta_h)), generator)
        previous, h_previous = x0, h
        report(callback, i, then, x, x0)
    return x


SAMPLERS: dict[str, Sampler] = {
    "ddpm": ddpm,
    "ddim": ddim,
    "euler": euler,
    "heun": heun,
    "dpmpp_2m": dpmpp_2m,
    "dpmpp_2m_sde": dpmpp_2m_sde,
    "unipc": unipc,
    "consistency": consistency,
}
