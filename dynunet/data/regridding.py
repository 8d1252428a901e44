"""From a file's grid to a model's and back, and where on it something is missing."""

from collections.abc import Sequence

import numpy as np

from .audio import ratio, resampled
from .files import READERS
from .resizing import resized
from .sources import Info, Units


def to_model(values: np.ndarray, info: Info, units: Units) -> np.ndarray:
    """``(channels, *info.shape)``, NaN where missing, on the grid that training files were read on.

    NaN is where most of what an entry is made of is missing.
    """
    if units.kind == "audio":
        return _resampled(values, info, units)
    grid = READERS[info.format].grid(info, units)
    return values if grid == info.shape else resized(values, grid)


def to_size(values: np.ndarray, units: Units) -> np.ndarray:
    """From that grid to the size of an example, where training files were resized to it."""
    if not units.resize or units.size is None or values.shape[1:] == units.size:
        return values
    return resized(values, units.size)


def to_file(values: np.ndarray, info: Info, units: Units) -> np.ndarray:
    """And back: ``(channels, *info.shape)``."""
    if units.kind != "audio":
        return resized(values, info.shape)
    up, down = ratio(info, units)
    values = resampled(values, down, up)[:, : info.shape[0]]
    return np.pad(values, [(0, 0), (0, info.shape[0] - values.shape[1])])


def _resampled(values: np.ndarray, info: Info, units: Units) -> np.ndarray:
    """Sound at another rate; a gap is bridged by a line, so that it does not ring beside it."""
    up, down = ratio(info, units)
    gone = np.isnan(values)
    if up == down or not gone.any():
        return resampled(values, up, down)
    result = resampled(np.stack([_bridged(*channel) for channel in zip(values, gone, strict=True)]), up, down)
    mostly = resized(np.where(gone, np.nan, 0).astype(np.float32), result.shape[1:])
    return np.where(np.isnan(mostly), np.nan, result)


def _bridged(values: np.ndarray, gone: np.ndarray) -> np.ndarray:
    if gone.all():
        return np.zeros_like(values)
    places = np.arange(len(values))
    return np.interp(places, places[~gone], values[~gone]).astype(values.dtype)


def touched(marked: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
    """Which entries of a grid of other sizes lie in those that are marked, or hold one of them.

    An entry lies in the one that its centre is in. So whatever is marked, something is, and not much more.

    Args:
        marked: bool ``(channels, *spatial)``.
        sizes: of the other grid.
    """
    for axis, size in enumerate(sizes, start=1):
        n = marked.shape[axis]
        if n == size:
            continue
        there = np.minimum(((np.arange(n) + 0.5) * size / n).astype(int), size - 1)
        back = np.minimum(((np.arange(size) + 0.5) * n / size).astype(int), n - 1)
        result = marked.take(back, axis)
        np.logical_or.at(np.moveaxis(result, axis, 0), there, np.moveaxis(marked, axis, 0))
        marked = result
    return marked
