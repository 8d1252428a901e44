"""Guidance: how strongly an estimate follows its condition, and thresholds that keep it in range.

An *estimate* is a function ``estimate(x, t, cond) -> x_0`` with a dict ``cond`` of conditions.
Classifier-free guidance (Ho and Salimans 2022, eq. 6) evaluates it with and without the condition and
extrapolates:

    guided = without + scale (with - without)

Autoguidance (Karras et al. 2024) does the same with another model, a weaker one, in place of that without a
condition: ``guided = weaker + scale (estimate - weaker)``, both with the same conditions, if any.

A large scale makes the estimate too large. To counter that, ``rescale`` mixes in the guided estimate rescaled
to the standard deviation of the conditional one (Lin et al. 2024, eq. 14 to 16), and an ``interval`` of noise
levels turns guidance off where it harms (Kynkaanniemi et al. 2024, eq. 5), which also halves the work there.
:class:`dynunet.diffusion.APG` leaves out what makes it too large.
All of this acts on estimates of the data, so it does not depend on what the network predicts.
"""

from collections.abc import Callable, Mapping
from math import ceil, floor
from typing import Any

import torch
from torch import Tensor

from .._devices import moved
from .projection import APG
from .schedules import as_schedule, widened

Estimate = Callable[[Tensor, Tensor, Mapping[str, Any]], Tensor]
Interval = tuple[float, float]

NOTHING = {"class_labels": -1, "context": 0}  # mean "no condition"; all other conditions are always kept
_QUANTILE = 0.995  # quantile of dynamic thresholding


def can_guide(cond: Mapping[str, Any]) -> bool:
    """True if there is a condition that can be left out."""
    return any(cond.get(name) is not None for name in NOTHING)


def unconditional(cond: Mapping[str, Any]) -> dict[str, Any]:
    """The conditions with class labels -1 and a context of zeros, which mean "no condition"."""
    return {
        name: torch.full_like(value, NOTHING[name]) if name in NOTHING and _tensor(value) else value
        for name, value in cond.items()
    }


def dropped(cond: Mapping[str, Any], drop: Tensor) -> dict[str, Any]:
    """Drop all conditions of the samples marked in ``drop``, bool ``(N,)``, for training."""
    nothing = unconditional(cond)

    def mixed(name: str, value: Any) -> Any:
        if name not in NOTHING or not _tensor(value):
            return value
        return torch.where(_per_sample(moved(drop, value.device), value), nothing[name], value)

    return {name: mixed(name, value) for name, value in cond.items()}


def guided(
    estimate: Estimate,
    schedule: Any,
    scale: float,
    rescale: float = 0.0,
    interval: Interval | None = None,
    projection: APG | None = None,
    weaker: Estimate | None = None,
) -> Estimate:
    """An estimate with guidance, which evaluates twice as many samples.

    Args:
        estimate: ``estimate(x, t, cond)``.
        schedule: ``alpha, sigma = schedule(t)``, for the interval.
        scale: 1 for no guidance.
        rescale: in [0, 1], how much of the rescaled estimate to mix in (phi of Lin et al. 2024).
        interval: ``(low, high)``: guide only where ``low < sigma / alpha <= high``.
        projection: of the difference that is scaled; with momentum the estimate is for one run of a sampler.
        weaker: the estimate to lead away from, with the same conditions (autoguidance); by default the
            estimate without its conditions.
    """
    if scale == 1:
        return estimate
    change = None if projection is None else projection.begun()

    def run(x: Tensor, t: Tensor, cond: Mapping[str, Any]) -> Tensor:
        inside = None if interval is None else _inside(schedule, t, interval)
        if inside is not None and inside.device.type == "cpu" and not inside.any():
            return estimate(x, t, cond)
        if weaker is None:
            strong, weak = _with_and_without(estimate, x, t, cond)
        else:
            strong, weak = estimate(x, t, cond), weaker(x, t, cond)
        if change is None:
            out = weak + scale * (strong - weak)
        else:
            out = strong + (scale - 1) * change(strong, strong - weak)
        out = rescaled(out, strong, rescale)
        if inside is None:
            return out
        return torch.where(_per_sample(moved(inside, x.device), x), out, strong)

    return run


def _with_and_without(
    estimate: Estimate, x: Tensor, t: Tensor, cond: Mapping[str, Any]
) -> tuple[Tensor, Tensor]:
    """The estimates with and without a condition, in one batch."""
    both = {
        name: torch.cat([value, nothing]) if _tensor(value) else value
        for (name, value), nothing in zip(cond.items(), unconditional(cond).values(), strict=True)
    }
    strong, weak = estimate(torch.cat([x, x]), torch.cat([t, t]), both).chunk(2)
    return strong, weak


def at_levels(estimate: Estimate, own: Any, schedule: Any) -> Estimate:
    """The estimate of a model for noisy data of another schedule than its own.

    It is asked at its time of the same sigma / alpha, or at its noisiest, with the data brought to the scale
    that they have there.

    Args:
        estimate: ``estimate(x, t, cond)`` with its own schedule.
        own: that schedule, ``alpha, sigma = own(t)``.
        schedule: the schedule of the data, to be used in its place.
    """
    if own == schedule:
        return estimate

    def run(x: Tensor, t: Tensor, cond: Mapping[str, Any]) -> Tensor:
        alpha, sigma = schedule(widened(t))
        there = as_schedule(own).time(2 * (alpha.log() - sigma.log()))
        scale = torch.hypot(*own(there)) / torch.hypot(alpha, sigma)
        return estimate(_per_sample(moved(scale.to(x.dtype), x.device), x) * x, there.to(t.dtype), cond)

    return run


def rescaled(guided: Tensor, with_cond: Tensor, rescale: float) -> Tensor:
    """Mix in the estimate rescaled to the std of the unguided one (Lin et al. 2024, eq. 15 and 16)."""
    if rescale == 0:
        return guided
    std, wanted = _std(guided), _std(with_cond)
    ratio = torch.where(std > 0, wanted / torch.where(std > 0, std, 1), 1)
    return (rescale * ratio + 1 - rescale) * guided


def threshold(x0: Tensor, clip: float | str | None) -> Tensor:
    """Keep an estimate in range (Saharia et al. 2022, section 2.3).

    Args:
        x0: ``(N, C, *spatial)``.
        clip: a number limits to [-clip, clip] (static thresholding). ``"dynamic"`` limits each sample to
            the 99.5 % quantile of its absolute values if that is above 1, and then divides by it.
    """
    if clip is None:
        return x0
    if not isinstance(clip, str):
        return x0.clamp(-clip, clip)
    limit = _per_sample(_quantile(x0.flatten(1).abs(), _QUANTILE).clamp(min=1), x0)
    return x0.clamp(-limit, limit) / limit


def _quantile(x: Tensor, q: float) -> Tensor:
    """Quantile per row, with linear interpolation; ``torch.quantile`` refuses more than 2^24 entries."""
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    at = q * (x.shape[1] - 1)
    below, above = (x.kthvalue(1 + k, dim=1).values for k in (floor(at), ceil(at)))
    return below + (at - floor(at)) * (above - below)


def _std(x: Tensor) -> Tensor:
    """Standard deviation of each sample; unlike torch's, without a warning for empty samples."""
    axes = tuple(range(1, x.ndim))
    return (x - x.mean(axes, keepdim=True)).square().mean(axes, keepdim=True).sqrt()


def _inside(schedule: Any, t: Tensor, interval: Interval) -> Tensor:
    """``(N,)`` bool: True for samples whose noise level is inside the guidance interval."""
    alpha, sigma = schedule(widened(t))
    level = sigma / alpha  # infinite in pure noise
    return (interval[0] < level) & (level <= interval[1])


def _tensor(value: Any) -> bool:
    return isinstance(value, Tensor) and value.ndim > 0


def _per_sample(value: Tensor, x: Tensor) -> Tensor:
    """Reshape ``(N,)`` to broadcast against ``x``."""
    return value.view(-1, *(1,) * (x.ndim - 1))
