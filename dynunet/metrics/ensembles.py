r"""Metrics of ensembles: whether several samples are as spread as the truth is uncertain, and near it.

An ensemble is ``(m, N, C, *spatial)``: m samples for each target in ``(N, C, *spatial)``; any shapes ``(m,
N, ...)`` and ``(N, ...)`` do. There is one value for each of the N, a mean over its entries that count (those
where ``mask`` is True; others may have any value, even NaN), on the device of the samples and in their
precision, float32 at least; it is NaN where none counts. For one value of all, make them one:
``samples.flatten(1).unsqueeze(1)`` and ``target.flatten().unsqueeze(0)``; for one of every entry, make each
one of N.

An ensemble that is calibrated, whose truth could be one more of its members, has

    coverage        of the intervals of :func:`dynunet.summarize` equal to their level
    spread_skill    1: below it is too sure, above it too unsure
    rank_histogram  flat: highest at both ends when too sure, in the middle when too unsure

and among the calibrated the sharper has the lower ``crps``.
"""

import torch
from torch import Tensor

from .._devices import moved
from ..diffusion.losses import expanded_mask
from ..ensembles import std

__all__ = ["coverage", "crps", "rank_histogram", "spread_skill"]


def crps(samples: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    r"""Continuous ranked probability score, in the units of the data; less is better.

    The fair one (Ferro 2014), an unbiased estimate, from any number of samples, of the score of the
    law they are drawn from:

    .. math:: \frac{1}{m} \sum_i |x_i - y| - \frac{1}{2 m (m - 1)} \sum_{i, j} |x_i - x_j|

    The second sum is that of the sorted samples with weights, so that it takes m log m operations. For a
    single answer without spread the score is the mean absolute error. A single value may be below 0.

    Args:
        samples: ``(m, N, C, *spatial)``, m at least 2.
        target: ``(N, C, *spatial)``.
        mask: bool, broadcast against the target: True where an entry counts.

    Returns:
        ``(N,)``, differentiable.

    >>> import torch
    >>> crps(torch.tensor([[[0.0]], [[2.0]]]), torch.tensor([[5.0]]))
    tensor([3.])
    """
    samples, target, counted = _checked(samples, target, mask, 2)
    m = len(samples)
    errors = samples - target
    weights = torch.arange(1 - m, m, 2, device=errors.device).to(errors.dtype)
    # Errors differ as the samples do, and are small where values are large. A product of matrices may round.
    weighted = weights.view(-1, *(1,) * target.ndim) * errors.sort(dim=0).values
    spread = weighted.sum(0) / (m * (m - 1))
    return _mean(errors.abs().mean(0) - spread, counted)


def coverage(low: Tensor, high: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """How often the truth lies in an interval, its ends included.

    Args:
        low, high, target: ``(N, C, *spatial)`` each.
        mask: see :func:`crps`.

    Returns:
        ``(N,)`` in [0, 1]; NaN if an entry that counts is.

    >>> import torch
    >>> coverage(torch.zeros(1, 4), torch.ones(1, 4), torch.tensor([[-1.0, 0.0, 0.5, 1.0]]))
    tensor([0.7500])
    """
    for name, end in (("low", low), ("high", high)):
        _check_real(end, name)
        if end.shape != target.shape:
            raise ValueError(
                f"{name} must have the shape of target, {tuple(target.shape)}, got {tuple(end.shape)}"
            )
    ends, target, counted = _checked(torch.stack([low, high]), target, mask, 2)
    inside = (ends[0] <= target) & (target <= ends[1])
    unknown = target.isnan() | ends.isnan().any(0)
    return _mean(inside.to(target.dtype).masked_fill(unknown, torch.nan), counted)


def spread_skill(samples: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    r"""Ratio of spread to error of an ensemble (Fortin et al. 2014).

    .. math:: \sqrt{\frac{m + 1}{m} \overline{s^2}} / \sqrt{\overline{(\bar x - y)^2}}

    with the variances :math:`s^2` of the samples (divided by m - 1) and the mean of the samples; the factor
    makes it 1 for a calibrated ensemble of any size.

    Args:
        samples, target, mask: see :func:`crps`.

    Returns:
        ``(N,)``, differentiable.
    """
    samples, target, counted = _checked(samples, target, mask, 2)
    m = len(samples)
    spread = (m + 1) / m * _mean(std(samples) ** 2, counted)
    return (spread / _mean((samples.mean(0) - target) ** 2, counted)).sqrt()


def rank_histogram(
    samples: Tensor,
    target: Tensor,
    mask: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """How many samples lie below the truth, counted over all entries (Hamill 2001).

    Args:
        samples, target, mask: see :func:`crps`; one sample will do.
        generator: of the rank of a truth that equals samples, any from below to above them alike.

    Returns:
        ``(m + 1,)`` int64, over all N: entry k is how often exactly k samples are below.

    Raises:
        ValueError: also if an entry that counts is NaN.

    >>> import torch
    >>> rank_histogram(torch.tensor([[[0.0, 0.0]], [[2.0, 2.0]]]), torch.tensor([[1.0, 3.0]]))
    tensor([0, 1, 1])
    """
    samples, target, counted = _checked(samples, target, mask, 1)
    if (target.isnan() | samples.isnan().any(0)).any():
        raise ValueError("samples and target must not be NaN where they count")
    ties = (samples == target).sum(0)
    place = torch.rand(
        ties.shape, generator=generator, device=target.device if generator is None else generator.device
    )
    among = (moved(place, ties.device) * (ties + 1)).long().minimum(ties)  # the product may be rounded up
    ranks = (samples < target).sum(0) + among
    return torch.bincount(ranks[counted], minlength=len(samples) + 1)


def _checked(
    samples: Tensor, target: Tensor, mask: Tensor | None, least: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Samples and target in one precision, 0 where they do not count, and where they count."""
    _check_real(samples, "samples")
    _check_real(target, "target")
    if target.ndim < 1 or samples.shape[1:] != target.shape or len(samples) < least:
        raise ValueError(
            f"samples must be (m, N, C, *spatial), m at least {least}, for target (N, C, *spatial), "
            f"got shapes {tuple(samples.shape)} and {tuple(target.shape)}"
        )
    dtype = torch.promote_types(torch.promote_types(samples.dtype, target.dtype), torch.float32)
    samples, target = samples.to(dtype), moved(target.to(dtype), samples.device)
    if mask is None:
        return samples, target, torch.ones_like(target, dtype=torch.bool)
    counted = expanded_mask(mask, target)
    return samples.where(counted, 0), target.where(counted, 0), counted


def _check_real(value: Tensor, name: str) -> None:
    if not isinstance(value, Tensor) or value.is_complex():
        got = f"dtype {value.dtype}" if isinstance(value, Tensor) else type(value).__name__
        raise TypeError(f"{name} must be a real tensor, got {got}")


def _mean(values: Tensor, counted: Tensor) -> Tensor:
    """The mean of each of N over the entries that count, ``(N,)``."""
    rows, where = (x.unsqueeze(1).flatten(1) for x in (values, counted))
    return rows.where(where, 0).sum(1) / where.sum(1)
