"""Overlapping windows of ``(N, C, *spatial)``: where they are, and what a network is given in each of them.

Shared by :mod:`dynunet.diffusion.windows`, which blends the estimates of a sampler's steps, and by
:meth:`dynunet.Supervised.predict`, which averages predictions.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

import convnd.functional as F
from convnd.arguments import per_axis

_WITHOUT_AXES = (
    "class_labels",
    "features",
    "context",
)  # conditions without spatial axes, whatever their shape

Place = tuple[int, tuple[slice, ...]]  # a window: its sample, and where it is along every axis


def check_windows(window: Any, overlap: Any, spatial_dims: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Window and overlap with one entry per axis; the overlap is a quarter of the window by default."""
    windows = per_axis(window, spatial_dims, "window")
    if overlap is None:
        return windows, tuple(w // 4 for w in windows)
    overlaps = per_axis(overlap, spatial_dims, "overlap", 0)
    if any(o >= w for o, w in zip(overlaps, windows, strict=True)):
        raise ValueError(f"overlap must be less than window, {windows}, on every axis, got {overlaps}")
    return windows, overlaps


def starts(size: int, window: int, overlap: int) -> list[int]:
    """First entries of the windows along an axis; the last window ends where the axis ends."""
    window = min(window, size)
    return [*range(0, size - window, max(window - overlap, 1)), size - window]


def fitted(conditions: Mapping[str, Any], x: Tensor) -> dict[str, Any]:
    """The conditions, with one named ``cond`` resized linearly to the spatial sizes of x, as networks do."""
    cond = conditions.get("cond")
    if isinstance(cond, Tensor) and cond.ndim == x.ndim and cond.shape[2:] != x.shape[2:]:
        return {**conditions, "cond": F.interpolate(cond, tuple(x.shape[2:]), mode="linear")}
    return dict(conditions)


def stack(x: Tensor, places: Sequence[Place]) -> Tensor:
    """The windows of x, as a batch."""
    return torch.stack([x[n, :, *at] for n, at in places])


def cut(conditions: Mapping[str, Any], x: Tensor, places: Sequence[Place]) -> dict[str, Any]:
    """The conditions for a batch of windows: cut as x is, or the row of each one's sample."""

    def of_windows(name: str, value: Any) -> Any:
        if not isinstance(value, Tensor) or value.ndim == 0:
            return value
        spatial = name not in _WITHOUT_AXES and value.ndim == x.ndim and value.shape[2:] == x.shape[2:]
        return stack(value, places) if spatial else rows(value, places)

    return {name: of_windows(name, value) for name, value in conditions.items()}


def rows(value: Tensor, places: Sequence[Place]) -> Tensor:
    """What belongs to the sample of each window, of one row per sample."""
    return value[torch.tensor([n for n, _ in places]).to(value.device, non_blocking=True)]
