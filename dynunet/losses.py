"""Classification losses for data of any rank: cross-entropy, focal loss and soft Dice.

Outputs are ``(N, C, *spatial)``, where spatial may be empty. Targets are int64 ``(N, *spatial)``, or bool
``(N, C, *spatial)`` if a position may have several labels; ``counted`` says which positions count.
"""

import torch
from torch import Tensor
from torch.nn import functional as T

from ._devices import moved

__all__ = ["cross_entropy", "soft_dice"]

FOCUS = 2.0  # gamma of the focal loss


def cross_entropy(
    output: Tensor, target: Tensor, counted: Tensor, weight: Tensor | None, focus: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Cross-entropy summed over positions, and the divisor that makes it torch's (class-weighted) mean.

    Args:
        output: logits ``(N, C, *spatial)``.
        target: int64 ``(N, *spatial)``, or bool ``(N, C, *spatial)`` for independent labels.
        counted: bool ``(N, *spatial)``.
        weight: ``(C,)``, the class weights; None for 1.
        focus: gamma of the focal loss (Lin et al. 2017, eq. 4): an entry whose true class is predicted with
            probability p is weighted by ``(1 - p)^gamma``. The divisor does not change.
    """
    several = target.dtype == torch.bool
    if several:
        errors = T.binary_cross_entropy_with_logits(output, target.to(output.dtype), reduction="none")
        each = torch.ones_like(errors) if weight is None else _per_channel(weight, output).expand_as(errors)
        counted = counted.unsqueeze(1)
    else:
        safe = torch.where(counted, target, 0)
        errors = T.cross_entropy(output, safe, reduction="none")
        each = (
            torch.ones_like(errors) if weight is None else moved(weight.to(errors.dtype), errors.device)[safe]
        )
    if focus:
        errors = errors * (1 - (-errors).exp()) ** focus
    each = torch.where(counted, each, 0)
    return (each * torch.where(counted, errors, 0)).sum(), each.sum()


def soft_dice(
    output: Tensor,
    target: Tensor,
    counted: Tensor,
    *,
    background: bool = True,
    per_sample: bool = False,
    smooth: float = 1e-5,
) -> Tensor:
    r"""Soft Dice loss (Milletari et al. 2016, Drozdzal et al. 2016), averaged over classes.

    .. math:: 1 - \frac{2 \sum p t + smooth}{\sum p + \sum t + smooth}

    With ``per_sample`` the values are MONAI's (``DiceLoss(softmax=True, to_onehot_y=True)``, with
    ``sigmoid=True`` for independent labels) and, minus 1, nnU-Net's (``MemoryEfficientSoftDiceLoss``).

    Args:
        output: logits ``(N, C, *spatial)``.
        target, counted: see :func:`cross_entropy`.
        background: whether to include class 0.
        per_sample: whether to sum over each sample by itself instead of over the batch.
        smooth: added to numerator and denominator.
    """
    dtype = torch.promote_types(output.dtype, torch.float32)
    if target.dtype == torch.bool:
        probabilities, truth = output.to(dtype).sigmoid(), target
    else:
        probabilities = output.to(dtype).softmax(1)
        classes = torch.arange(output.shape[1], device=output.device)
        truth = torch.where(counted, target, -1).unsqueeze(1) == _per_channel(classes, output)
    first = 0 if background else 1
    probabilities = torch.where(counted.unsqueeze(1), probabilities, 0)[:, first:]
    truth = truth.logical_and(counted.unsqueeze(1))[:, first:].to(dtype)
    axes = [*range(2, output.ndim)] if per_sample else [0, *range(2, output.ndim)]
    overlap = probabilities * truth
    both = probabilities + truth
    if axes:
        overlap, both = overlap.sum(axes), both.sum(axes)
    return 1 - ((2 * overlap + smooth) / (both + smooth)).mean()


def _per_channel(values: Tensor, x: Tensor) -> Tensor:
    """Reshape ``(C,)`` to broadcast against ``(N, C, *spatial)``."""
    return moved(values, x.device).view(-1, *(1,) * (x.ndim - 2))
