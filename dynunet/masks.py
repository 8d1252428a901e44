"""Masks: bool tensors that say which entries of data count, are given, or are measured."""

import torch
from torch import Tensor

from ._devices import moved

__all__ = ["expanded_mask"]


def expanded_mask(
    mask: Tensor, x: Tensor, name: str = "mask", of: str = "the data", meaning: str = "an entry counts"
) -> Tensor:
    """Expand ``mask`` to the shape of ``x``; refuses masks that are not bool or do not match axis by axis."""
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        got = f"dtype {mask.dtype}" if isinstance(mask, Tensor) else type(mask).__name__
        raise TypeError(f"{name} must be a bool tensor, True where {meaning}, got {got}")
    if mask.ndim != x.ndim or any(m not in (1, n) for m, n in zip(mask.shape, x.shape, strict=True)):
        raise ValueError(
            f"{name} must have the axes of {of}, {tuple(x.shape)}, each of its size or 1, "
            f"got {tuple(mask.shape)}"
        )
    return moved(mask, x.device).expand_as(x)
