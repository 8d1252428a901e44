"""Overlapping windows of ``(N, C, *spatial)``: their positions, and the input of the network in each.

Used by :mod:`dynunet.diffusion.windows`, which blends the estimates of each sampling step, and by
:meth:`dynunet.Supervised.predict`, whose outputs :func:`averaged` combines.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Any

import torch
from torch import Tensor

import convnd.functional as F
from convnd.arguments import PerAxis, per_axis

from ._devices import moved, placed
from .progress import Bar

__all__ = ["averaged", "check_windows", "cut", "fitted", "has_spatial_axes", "rows", "stack", "starts"]

# Conditions without spatial axes, whatever their shape.
_WITHOUT_AXES = ("class_labels", "features", "context")
_SIGMA = 1 / 8  # std of the Gaussian weights, as a fraction of the window size
_LEAST = 1e-3  # the smallest weight

Place = tuple[int, tuple[slice, ...]]  # a window: the index of its sample, and its slice of every axis


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
    """The start of each window along an axis; the last window ends where the axis ends."""
    window = min(window, size)
    return [*range(0, size - window, max(window - overlap, 1)), size - window]


def fitted(conditions: Mapping[str, Any], x: Tensor) -> dict[str, Any]:
    """The conditions, with ``cond`` resized linearly to the spatial sizes of x, as the networks do."""
    cond = conditions.get("cond")
    if isinstance(cond, Tensor) and cond.ndim == x.ndim and cond.shape[2:] != x.shape[2:]:
        return {**conditions, "cond": F.interpolate(cond, tuple(x.shape[2:]), mode="linear")}
    return dict(conditions)


def stack(x: Tensor, places: Sequence[Place]) -> Tensor:
    """The windows of x, as a batch."""
    return torch.stack([x[n, :, *at] for n, at in places])


def has_spatial_axes(name: str, value: Any, x: Tensor) -> bool:
    """True for a condition with the spatial axes of x, of whatever size."""
    return name not in _WITHOUT_AXES and isinstance(value, Tensor) and value.ndim == x.ndim


def cut(conditions: Mapping[str, Any], x: Tensor, places: Sequence[Place]) -> dict[str, Any]:
    """The conditions for a batch of windows: cut like x, or else the row of each window's sample."""

    def of_windows(name: str, value: Any) -> Any:
        if not isinstance(value, Tensor) or value.ndim == 0:
            return value
        alike = has_spatial_axes(name, value, x) and value.shape[2:] == x.shape[2:]
        return stack(value, places) if alike else rows(value, places)

    return {name: of_windows(name, value) for name, value in conditions.items()}


def rows(value: Tensor, places: Sequence[Place]) -> Tensor:
    """For each window, the row of ``value`` (one row per sample) that belongs to its sample."""
    return value[moved(torch.tensor([n for n, _ in places]), value.device)]


def averaged(
    run: Callable[[Tensor, Mapping[str, Any]], Tensor],
    x: Tensor,
    conditions: Mapping[str, Any],
    window: PerAxis,
    overlap: PerAxis | None,
    batch_size: int,
    *,
    device: torch.device | str,
    progress: bool = False,
) -> Tensor:
    """The Gaussian-weighted mean of a network's outputs in overlapping windows (Isensee et al. 2021).

    Args:
        run: ``run(x, conditions)`` returns ``(N, channels, *spatial)``.
        x: ``(N, C, *spatial)``.
        conditions: tensors with the spatial axes of x are cut like x; others have one row per sample.
        window, overlap: see :func:`check_windows`. An axis not longer than the window is not cut.
        batch_size: number of windows per call.
        device: the device to run the windows on; the sums stay on the CPU.
        progress: whether to show a progress bar.

    Returns:
        ``(N, channels, *spatial)`` in float32 on the CPU.
    """
    windows, overlaps = check_windows(window, overlap, x.ndim - 2)
    windows = tuple(map(min, windows, x.shape[2:]))
    slices = _slices(x.shape[2:], windows, overlaps)
    weight, weights, total = _gaussian(windows), torch.zeros(tuple(x.shape[2:])), None
    for at in slices:
        weights[at] += weight
    places = list(product(range(len(x)), slices))
    conditions, groups = fitted(conditions, x), range(0, len(places), batch_size)
    for first in Bar(groups, desc="windows", leave=False, delay=1, disable=not progress):
        group = places[first : first + batch_size]
        output = run(moved(stack(x, group), device), placed(cut(conditions, x, group), device))
        if output.ndim != x.ndim:
            raise ValueError(f"window must be None for outputs without spatial axes, got {window!r}")
        if total is None:
            total = torch.zeros(len(x), output.shape[1], *x.shape[2:])
        for (n, at), part in zip(group, output.float().cpu(), strict=True):
            total[n, :, *at] += part * weight
    return run(x, conditions) if total is None else total.div_(weights)


def _slices(sizes: Sequence[int], windows: Sequence[int], overlaps: Sequence[int]) -> list[tuple[slice, ...]]:
    """The slices of every window of one sample."""
    axes = zip(sizes, windows, overlaps, strict=True)
    return list(product(*([slice(at, at + row[1]) for at in starts(*row)] for row in axes)))


def _gaussian(windows: Sequence[int]) -> Tensor:
    """Gaussian weights of the entries of a window, largest in the middle."""
    weight = torch.ones(())
    for size in windows:
        place = torch.arange(size) - (size - 1) / 2
        weight = weight.unsqueeze(-1) * (-0.5 * (place / (_SIGMA * size)).square()).exp()
    return weight.clamp(min=max(weight.min().item(), _LEAST))
