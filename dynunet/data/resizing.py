"""Resizing of arrays along any axes, around what is missing.

Linear interpolation between the centres of cells; where an axis shrinks, the triangle widens to the size of
the new cells, so that every old entry counts (as pillow's bilinear filter does). Entries that are not finite
are left out; where they are most of the weight, the result is NaN.
"""

from collections.abc import Sequence

import numpy as np


def resized(values: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
    """``(channels, *spatial)`` with the given spatial sizes, float32 (float64 stays)."""
    values = np.asarray(values, np.float64 if values.dtype == np.float64 else np.float32)
    known = np.isfinite(values)
    if known.all():
        return _along_all(values, sizes)
    weight = _along_all(known.astype(values.dtype), sizes)
    total = _along_all(np.where(known, values, 0), sizes)
    mostly = weight > 0.5
    return np.where(mostly, total / np.where(mostly, weight, 1), np.nan).astype(values.dtype)


def _along_all(values: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
    for axis, size in enumerate(sizes, start=1):
        if values.shape[axis] != size:
            values = _along(values, axis, size)
    return values


def _along(values: np.ndarray, axis: int, size: int) -> np.ndarray:
    n = values.shape[axis]
    reach = max(n / size, 1.0)
    centre = (np.arange(size) + 0.5) * n / size - 0.5
    first = np.ceil(centre - reach).astype(int)
    taps = first[None] + np.arange(int(np.ceil(2 * reach)) + 1)[:, None]
    weights = np.clip(1 - np.abs(taps - centre) / reach, 0, None) * ((taps >= 0) & (taps < n))
    weights /= weights.sum(0)
    shape = [1] * values.ndim
    shape[axis] = size
    result = np.zeros((*values.shape[:axis], size, *values.shape[axis + 1 :]), values.dtype)
    for tap, weight in zip(taps.clip(0, n - 1), weights, strict=True):
        if weight.any():
            result += values.take(tap, axis) * weight.reshape(shape).astype(values.dtype)
    return result
