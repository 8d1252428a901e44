"""Long recordings, read and written part by part, in memory that does not grow with their length.

A part begins where an entry of the file falls on one of the model's grid, so that it is exactly that part of
the whole file resampled. A result is computed, and resampled back, with what is around each part.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import lcm
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..writing import replacing
from .channel_mapping import ChannelMapping
from .formats import Header, to_write
from .formats.format import Resampling
from .loading import Source, header_of, mapped, no_missing, read_whole
from .memory import Cache, check_density, stacked
from .saving import check_free, check_result, in_file_units
from .spec import DataSpec
from .values import Scale, amplitude, present, squares

__all__ = ["LongFile", "Part"]

_UNCACHED = Cache(0)


@dataclass(frozen=True)
class Part:
    """The entries from ``start`` to ``stop``, and those from ``first`` to ``last`` that they depend on."""

    first: int
    start: int
    stop: int
    last: int


@dataclass(frozen=True)
class LongFile:
    """A file that is read as :func:`dynunet.data.load` reads it, and written as ``save`` writes it, in parts.

    Attributes:
        size: of its grid, on which the model sees it.
        resampling: the way from the file to the grid.
    """

    header: Header
    spec: DataSpec
    channels: ChannelMapping
    scales: tuple[Scale, ...]
    size: int
    resampling: Resampling

    @classmethod
    def of(cls, path: Path, spec: DataSpec, to: Path, least: int) -> "LongFile | None":
        """A file whose grid has more than ``least`` entries; None where it, or its result, goes as a whole.

        Raises:
            FileNotFoundError, ValueError: it cannot be read, or the result cannot be written there.
        """
        header = read_whole(path, lambda: header_of(path, spec))
        resampling = header.format.resampling(header, spec)
        if resampling is None or spec.missing is not None or spec.coordinates:
            return None
        (size,) = header.format.grid(header, spec)
        if size <= least:
            return None
        read_whole(path, lambda: check_density(4 * header.channels * size, path.stat().st_size))
        channels = read_whole(path, lambda: mapped(header, spec, mix=False))
        file = cls(header, spec, channels, (Scale(),) * channels.views, size, resampling)
        check_result(to, spec, file._source(header, (channels.views, spec.given_channels, size)))
        scales = read_whole(path, lambda: file._scales(least))
        return replace(file, scales=scales)

    @property
    def lost(self) -> tuple[str, ...]:
        """What of the file the model does not see, in words."""
        lost = self.header.lost, self.header.format.lost(self.header, self.spec, (self.size,))
        return tuple(filter(None, lost))

    def parts(self, length: int, around: int, window: int, stride: int) -> list[Part]:
        """Parts of about a length, each with what is around it.

        Args:
            around: entries that a result depends on to each side.
            window, stride: the windows of a part are those of the whole file.
        """
        unit, around = lcm(stride, self.resampling.up), around + self.resampling.reach
        length = -(-length // unit) * unit
        found = []
        for start in range(0, self.size, length):
            stop = min(start + length, self.size)
            first = max((start - around) // unit * unit, 0)
            windows = -(-(stop + around - first - window) // stride)
            found.append(Part(first, start, stop, min(first + window + windows * stride, self.size)))
        return found

    def read(self, part: Part) -> Tensor:
        """A part and what is around it, float32 ``(C, n)``, or ``(N, C, n)`` of several views."""
        views = read_whole(self.header.path, lambda: self._views(part.first, part.last))
        x = torch.from_numpy(stacked([s.to_model(v) for s, v in zip(self.scales, views, strict=True)]))
        return x[0] if len(views) == 1 else x

    def write(self, to: Path, results: Iterable[tuple[Part, Tensor]], overwrite: bool) -> None:
        """Write results for all parts in turn; the file appears when it is whole.

        Raises:
            FileExistsError, OSError: as :func:`dynunet.data.save`.
        """
        check_free(to, overwrite)
        written, like, channels = to_write(to), self.header, self.channels.results
        numbers = written.numbers(to, self.spec, channels, like)
        entry = np.dtype(numbers.dtype).itemsize
        with replacing(to, needs=entry * channels * like.shape[0]) as (partial,):
            with written.appending(partial, numbers, self.spec, channels, like) as append:
                for values in self._in_file_units(results):
                    append(numbers.stored(values))
            check_free(to, overwrite)

    def _in_file_units(self, results: Iterable[tuple[Part, Tensor]]) -> Iterator[np.ndarray]:
        """Results ``(1, channels, n)`` that follow each other."""
        for part, x in results:
            places = part.first, part.start, part.stop, part.last
            first, start, stop, last = (self._in_file(n) for n in places)
            source = self._source(replace(self.header, shape=(last - first,)), tuple(x.shape))
            yield in_file_units(x, self.spec, source)[..., start - first : stop - first]

    def _in_file(self, place: int) -> int:
        """The place in the file of one on the grid."""
        up, down, _ = self.resampling
        return self.header.shape[0] if place == self.size else place * down // up

    def _source(self, header: Header, shape: tuple[int, ...]) -> Source:
        return Source(header, self.spec, self.scales, self.channels, shape)

    def _scales(self, length: int) -> tuple[Scale, ...]:
        """Those of the whole file, which is read once for the loudness of each view."""
        count, level = self.channels.views, self.spec.level
        if level is None:
            return (self.header.format.scale(self.spec, self.header),) * count
        totals, entries = [0.0] * count, 0
        for first in range(0, self.size, length):
            views = self._views(first, min(first + length, self.size))
            totals = [total + squares(view) for total, view in zip(totals, views, strict=True)]
            entries += views[0].size
        full = [amplitude(total / entries, level) for total in totals]
        return tuple(Scale(-value, value) for value in full)

    def _views(self, first: int, last: int) -> Sequence[np.ndarray]:
        """Inputs of the model in the file's numbers, each ``(C, n)``."""
        spec = replace(self.spec, channels=sum(self.channels.file))
        values = self.header.format.read(self.header, 0, spec, _UNCACHED, [(first, last)])
        no_missing(self.spec, ~present(values, None))
        return list(self.channels.split(values, False))
