"""Arrays of values: what is missing in them, their scale, resizing and cropping.

Resizing is linear interpolation between the centres of cells; where an axis shrinks, the triangle widens to
the size of the new cells, so that every old entry counts (as pillow's bilinear filter does). Entries that are
not finite are left out; where they are most of the weight, the result is NaN.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
import torch
from torch import Tensor

from .memory import by_parts, parts

__all__ = [
    "Region",
    "Scale",
    "amplitude",
    "cut",
    "greatest",
    "limits",
    "loudness",
    "padded",
    "present",
    "random_place",
    "region_coordinates",
    "resized",
    "squared_frequencies",
    "squares",
    "touched",
    "with_gain",
    "with_nan",
]

Region = Sequence[tuple[int, int]]  # (start, stop) along every spatial axis

SILENT = 1e-5  # -100 dB of full scale


@dataclass(frozen=True)
class Scale:
    """``low`` becomes -1 and ``high`` becomes 1; values beyond are not clipped."""

    low: float = -1.0
    high: float = 1.0

    @property
    def gain(self) -> float:
        """By how much the file's numbers change where those of the network change by 1."""
        return (self.high - self.low) / 2

    def to_model(self, values: np.ndarray) -> np.ndarray:
        """Numbers of the file as the network sees them, float32."""
        gain = 2 / (self.high - self.low)
        shift = -(self.high + self.low) / (self.high - self.low)
        return by_parts(values, np.float32, lambda part: part.astype(np.float64) * gain + shift)

    def to_file(self, x: np.ndarray) -> np.ndarray:
        """The network's numbers as those of the file, float64."""
        width, double = self.high - self.low, self.high + self.low
        return by_parts(x, np.float64, lambda part: (part.astype(np.float64) * width + double) / 2)


def loudness(values: np.ndarray, level: float) -> float:
    """The amplitude that becomes 1 when audio is brought to a level, see :func:`amplitude`.

    Args:
        values: of any shape; without any they are silent.
        level: the root mean square to bring them to.
    """
    return amplitude(squares(values) / max(values.size, 1), level)


def amplitude(power: float, level: float) -> float:
    """The amplitude that becomes 1 when audio of a mean square is brought to a level.

    What is nearly silent stays so.
    """
    return max(float(np.sqrt(power)), SILENT) / level


def squares(values: np.ndarray) -> float:
    """The sum of all squares, in double precision."""
    return sum(float(np.square(part, dtype=np.float64).sum()) for part in parts(values))


def present(values: np.ndarray, missing: float | None) -> np.ndarray:
    """True for entries that are there: finite, and not the value that means missing."""
    there = np.isfinite(values) if values.dtype.kind == "f" else np.ones(values.shape, bool)
    if missing is not None and not np.isnan(missing):
        with np.errstate(over="ignore"):  # beyond float32: equal to nothing finite
            there &= values != missing
    return there


def with_nan(values: np.ndarray, missing: float | None) -> np.ndarray:
    """The values in floating point, NaN where missing."""
    there = present(values, missing)
    return values if there.all() else np.where(there, values, np.nan)


def limits(values: np.ndarray, percentiles: tuple[float, float] | None) -> tuple[float, float]:
    """The least and greatest of some values, or their percentiles where these differ."""
    if percentiles is not None:
        low, high = (float(p) for p in np.percentile(values, percentiles))
        if low < high:
            return low, high
    return float(values.min()), float(values.max())


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


def greatest(maps: Iterable[np.ndarray], sizes: Sequence[int]) -> np.ndarray:
    """Which of several maps is the greatest at every place, of equals the first: int16, of the given sizes.

    No more than one map is held beside the greatest values so far.
    """
    result, best = np.zeros(sizes, np.int16), np.full(sizes, -np.inf, np.float32)
    for number, values in enumerate(maps):
        better = values > best
        result[better], best[better] = number, values[better]
    return result


def touched(marked: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
    """Entries of a grid of other sizes that lie in those that are marked, or hold one of them.

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


def cut(values: np.ndarray, region: Region | None) -> np.ndarray:
    """A region of ``(channels, *spatial)``."""
    return values if region is None else values[:, *(slice(a, b) for a, b in region)]


def random_place(grid: Sequence[int], size: Sequence[int]) -> Region:
    """The place of a random crop, uniform; an axis that is no longer than the crop is not cut.

    Draws from torch's global generator, once for every axis.
    """
    starts = [int(torch.randint(max(n - s, 0) + 1, ())) for n, s in zip(grid, size, strict=True)]
    return [(at, min(at + s, n)) for at, n, s in zip(starts, grid, size, strict=True)]


def region_coordinates(grid: Sequence[int], region: Region) -> Tensor:
    """The part of :func:`dynunet.diffusion.coordinates` of a file in one region, ``(axes, *region)``.

    Only that part is made: a file may be far larger than a crop.
    """
    lines = [
        torch.linspace(-1, 1, n)[a:b] if n > 1 else torch.zeros(1)
        for n, (a, b) in zip(grid, region, strict=True)
    ]
    return torch.stack(torch.meshgrid(*lines, indexing="ij"))


def squared_frequencies(sizes: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
    """Squared lengths of the frequencies of :func:`torch.fft.rfftn` over all axes, in cycles per entry."""
    lines = [torch.fft.fftfreq(n, dtype=dtype) for n in sizes[:-1]]
    lines.append(torch.fft.rfftfreq(sizes[-1], dtype=dtype))
    return reduce(torch.add, (f.square() for f in torch.meshgrid(*lines, indexing="ij")))


def with_gain(x: Tensor, gain: Tensor) -> Tensor:
    """``(C, *spatial)`` with a gain for each frequency of :func:`torch.fft.rfftn` over the spatial axes."""
    axes = tuple(range(1, x.ndim))
    return torch.fft.irfftn(torch.fft.rfftn(x, dim=axes) * gain, s=tuple(x.shape[1:]), dim=axes)


def padded(x: Tensor, size: Sequence[int], value: float | bool = 0) -> Tensor:
    """``(C, *spatial)`` made as large as ``size`` at the ends of its axes."""
    if x.shape[1:] == tuple(size):
        return x
    result = x.new_full((x.shape[0], *size), value)
    result[:, *(slice(0, n) for n in x.shape[1:])] = x
    return result
