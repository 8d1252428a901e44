"""Ensembles: several answers to one question, such as samples of a posterior, in a few maps.

For how good an ensemble is beside the truth, see :func:`dynunet.metrics.crps` and its neighbours.
"""

from math import ceil
from typing import overload

import torch
from torch import Tensor

from .arguments import real

__all__ = ["summarize"]

_ROUNDING = 1e-9


@overload
def summarize(samples: Tensor, level: float = ...) -> tuple[Tensor, Tensor, Tensor, Tensor]: ...
@overload
def summarize(samples: Tensor, level: None) -> tuple[Tensor, Tensor]: ...
def summarize(samples: Tensor, level: float | None = 0.9) -> tuple[Tensor, ...]:
    r"""Mean, standard deviation and an interval for every entry.

    The interval lies between the quantiles ``p = (1 - level) / 2`` and ``1 - p``, each at rank ``p (m + 1)``
    of the m samples, as NumPy's method ``"weibull"`` has it (Hyndman and Fan 1996, definition 6). A truth
    that is one more draw from where the samples come from lies in it with probability ``level``, however few
    they are. Below rank 1 there is nothing to say: 90 % take 19 samples at least.

    Args:
        samples: ``(num_samples, N, C, *spatial)``, or of any shape with the samples along the first axis.
        level: of the interval, above 0 and below 1; None for none.

    Returns:
        mean, std (divided by m - 1), low and high, each ``(N, C, *spatial)``; without a level the first two.
        They are NaN where a sample is.

    Raises:
        TypeError: if samples are not in floating point.
        ValueError: if there are fewer than two, or too few for the level.

    >>> import torch
    >>> mean, std, low, high = summarize(torch.arange(19.0).view(19, 1, 1), level=0.9)
    >>> mean.item(), low.item(), high.item()
    (9.0, 0.0, 18.0)
    """
    _check(samples)
    wide = samples.to(torch.promote_types(samples.dtype, torch.float32))
    mean_and_std = wide.mean(0), std(wide)
    if level is None:
        return tuple(value.to(samples.dtype) for value in mean_and_std)
    rank = _rank(level, len(samples))
    ordered = wide.sort(dim=0).values  # NaN comes last
    known = ~ordered[-1].isnan()
    ends = (_at(rank, end).where(known, torch.nan) for end in (ordered, ordered.flip(0)))
    return tuple(value.to(samples.dtype) for value in (*mean_and_std, *ends))


def std(samples: Tensor) -> Tensor:
    """Standard deviation along the first axis; unlike torch's, without a warning where there is no entry."""
    return samples.std(0) if samples.numel() else samples[0]


def _check(samples: Tensor) -> None:
    if not isinstance(samples, Tensor) or not samples.is_floating_point():
        got = f"dtype {samples.dtype}" if isinstance(samples, Tensor) else type(samples).__name__
        raise TypeError(f"samples must be a floating-point tensor, got {got}")
    if samples.ndim < 1 or len(samples) < 2:
        raise ValueError(
            f"samples must be (num_samples, N, C, *spatial) with two samples at least, "
            f"got shape {tuple(samples.shape)}"
        )


def _rank(level: float, m: int) -> float:
    """The rank of the lower quantile among m samples, counted from 0."""
    level = real(level, "level")
    if not 0 < level < 1:
        raise ValueError(f"level must be above 0 and below 1, got {level}")
    least = ceil(2 / (1 - level) - 1 - _ROUNDING)
    if m < least:
        raise ValueError(f"samples must be at least {least} for level {level:g}, got {m}")
    return max((1 - level) / 2 * (m + 1) - 1, 0.0)


def _at(rank: float, ordered: Tensor) -> Tensor:
    """The value at a rank from 0, with linear interpolation between neighbours."""
    below = int(rank)
    share = rank - below
    return torch.lerp(ordered[below], ordered[below + 1], share) if share else ordered[below]
