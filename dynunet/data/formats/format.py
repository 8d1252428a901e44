"""Format: all that is known of one kind of files, and Header: all that is known of one file.

A format is an object without state, so that worker processes can have it; no file stays open. It first reads
the header of a file (:meth:`Format.header`), and as little more as shows that the rest can be read; later one
example of it, or a region of one (:meth:`Format.read`), on the grid that a :class:`DataSpec` asks for.
Results are encoded in memory (:meth:`Format.encode`), where a library that writes to a disk by itself may not
say why it could not; long ones are written part by part (:meth:`Format.appending`).
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from math import inf
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypeVar

import numpy as np

from ..errors import UnreadableError, shown
from ..memory import Cache, stacked
from ..options import DataOptions
from ..spec import DataSpec
from ..values import Region, Scale, resized
from .numbers import FLOATS, Numbers

__all__ = ["Format", "Header", "Resampling", "check_not_empty", "misplaced", "most", "times"]

_FAR = 0.1  # of an entry, by which the grids of files that belong together may differ

_T = TypeVar("_T", bound=Hashable)


@dataclass(frozen=True)
class Header:
    """A file without its values."""

    path: Path
    format: "Format"
    channels: int
    shape: tuple[int, ...]  # spatial sizes of an example as stored (volumes: in canonical orientation)
    entries: int = 1  # examples in this file
    series: bool = False  # an axis of the file counts examples
    stored: str = ""  # how numbers are stored: PCM_16, uint8, float32, ...
    numbers: Numbers = FLOATS  # and what they mean
    lost: str | None = None  # what is in the file and is not read
    exact: bool = True  # the format can give back what is written: a jpg cannot
    sample_rate: int | None = None  # Hz
    spacing: tuple[float, ...] | None = None
    affine: np.ndarray | None = field(default=None, compare=False)  # of volumes, in canonical orientation
    factors: tuple[int, ...] | None = None  # by which the grid of a result is finer than that of the file
    labels: np.ndarray | None = field(default=None, compare=False)  # one per example
    classes: tuple[str, ...] | None = None  # names of the labels
    parts: tuple["Header", ...] = ()  # the files of its channels, if each has one
    case: Path | None = None  # the name that these have in common

    @property
    def kind(self) -> str:
        return self.format.kind

    @property
    def place(self) -> Path:
        """The path by which it is matched with other files."""
        return self.case or self.path


class Resampling(NamedTuple):
    """The way from a file along its only axis to the model's grid.

    Attributes:
        up, down: entries of the grid, and of the file, that make the same length.
        reach: entries of the grid to each side that one of the file depends on, on the way back.
    """

    up: int
    down: int
    reach: int


class Format(ABC):
    """One format of files: what it is called, how it is read, what its numbers mean, how it is written.

    Attributes:
        kind: what such files hold, which decides what they can be trained with: files of one kind are
            interchangeable.
        suffixes: of its names, in lower case.
        dims: numbers of spatial axes that a file can be written with.
        new: the suffix of new data of this kind.
        options: fields of :class:`DataOptions` that mean something for this kind and not for every other.
        writable: results can be written in it.
        lossy: suffixes that do not give back what is written, each with one of the same kind that does.
        fixed_scale: the numbers have a full scale of their own.
        clips: values beyond full scale are cut when they are written.
        pads: files that are shorter than an example are padded.
        resizable: examples can be resized without becoming something else.
        copies: one channel may stand for several: a channel more is one more of the same.
        opacity: the last of 2 or 4 channels says how opaque the others are.
        partial: a part is read without reading the rest.
        standard: the files of an image set, which are split into examples, with a test set of their own.
        step_name: what is said of the distance of its entries: rate, spacing.
    """

    kind: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]]
    dims: ClassVar[range] = range(1, 64)
    new: ClassVar[str]
    options: ClassVar[frozenset[str]] = frozenset()
    writable: ClassVar[bool] = True
    lossy: ClassVar[Mapping[str, str]] = {}
    fixed_scale: ClassVar[bool] = False
    clips: ClassVar[bool] = False
    pads: ClassVar[bool] = False
    resizable: ClassVar[bool] = True
    copies: ClassVar[bool] = False
    opacity: ClassVar[bool] = False
    partial: ClassVar[bool] = False
    standard: ClassVar[bool] = False
    step_name: ClassVar[str] = ""

    # ---- which files

    def matches(self, name: str) -> bool:
        """True if a file of this name, in lower case, is of this format."""
        return name.endswith(self.suffixes)

    def holds_labels(self, name: str) -> bool:
        """True if a file of this name, in lower case, has the labels of another one, and is none itself."""
        return False

    def in_test_set(self, path: Path) -> bool:
        """True if the standard split of an image set holds this file out."""
        return False

    # ---- reading

    @abstractmethod
    def header(self, path: Path, options: DataOptions) -> Header:
        """Look at a file.

        Raises:
            UnreadableError: it cannot be used; any other exception is a reason, too.
        """

    def grid(self, header: Header, spec: DataSpec) -> tuple[int, ...]:
        """Spatial sizes of an example once read, before it is cropped or resized."""
        return header.shape

    def refined(self, header: Header, factors: Sequence[int]) -> Header:
        """A result whose entries are finer by these factors, so that their means are those of the file."""
        shape = tuple(n * factor for n, factor in zip(header.shape, factors, strict=True))
        return replace(header, shape=shape, factors=tuple(factors))

    @abstractmethod
    def read(
        self, header: Header, index: int, spec: DataSpec, cache: Cache, region: Region | None = None
    ) -> np.ndarray:
        """Example ``index``, ``(channels, *spatial)``, in the units of the file: all of it, or a region."""

    def stored(self, header: Header, index: int, spec: DataSpec, cache: Cache) -> np.ndarray:
        """Example ``index``, ``(header.channels, *header.shape)``, in the file's own numbers and grid."""
        own = replace(spec, channels=header.channels, spacing=None, sample_rate=None)
        return self.read(header, index, own, cache)

    def values(self, header: Header, spec: DataSpec) -> np.ndarray:
        """All examples of a file, in the units of the file and on its grid, with the channels of the spec.

        Returns:
            ``(N, spec.channels, *header.shape)``, as precise as training files are read.
        """
        cache, numbers = Cache(inf), range(header.entries)
        if spec.channels == header.channels:
            return header.numbers.values(stacked([self.stored(header, n, spec, cache) for n in numbers]))
        own = replace(spec, spacing=None, sample_rate=None)
        return stacked([self.read(header, n, own, cache) for n in numbers])

    def all_stored(self, header: Header, spec: DataSpec) -> np.ndarray:
        """A whole file as it is stored, ``(N, channels, *shape)``."""
        cache = Cache(inf)
        return stacked([self.stored(header, n, spec, cache) for n in range(header.entries)])

    def marked(self, header: Header, spec: DataSpec) -> np.ndarray:
        """Entries that a file marks as a mask, bool ``(N, channels, *shape)``: where it is not 0."""
        return np.nan_to_num(header.numbers.values(self.all_stored(header, spec))) != 0

    def convertible(self, header: Header, channels: int) -> bool:
        """True if a file can be read with another number of channels than it has."""
        return False

    # ---- label maps: the values are labels

    def label_header(self, path: Path, options: DataOptions) -> Header:
        """Look at a file as a label map, which has one channel.

        Raises:
            UnreadableError: it cannot be one; any other exception is a reason, too.
        """
        return self.header(path, options)

    def labels(
        self, header: Header, index: int, spec: DataSpec, cache: Cache, region: Region | None = None
    ) -> np.ndarray:
        """Labels of example ``index`` as they are in the file, ``(1, *spatial)``: all, or a region."""
        return self.read(header, index, spec, cache, region)

    def in_file_order(self, values: np.ndarray, header: Header) -> np.ndarray:
        """A map ``(*header.shape)`` with the axes of the file in their own order."""
        return values

    def palette(self, path: Path) -> list[int] | None:
        """The colours of the labels, red, green and blue of each in turn, if the file has some."""
        return None

    def label_suffix(self, suffix: str, dtype: str) -> str:
        """The suffix of a label map that is made from a file of this format.

        Args:
            suffix: of the file, in lower case.
            dtype: of the labels.
        """
        return suffix if self.writable else ".npy"

    # ---- what numbers mean

    def check_options(self, options: DataOptions, dims: int) -> None:
        """Refuse options that mean nothing for these files, rather than ignore them."""
        if any(axis >= dims for axis in options.flips):
            raise ValueError(f"flips must be axes below {dims}, got {options.flips}")

    def defaults(self, options: DataOptions) -> dict[str, Any]:
        """Values for options that the command line was not given."""
        return {}

    def spec_fields(self, options: DataOptions, headers: Sequence[Header], dims: int) -> dict[str, Any]:
        """The fields of a :class:`DataSpec` that are of this kind alone.

        Args:
            headers: each as often as it has examples.
        """
        return {}

    def measured(self, header: Header) -> bool:
        """True if the values of a training file are looked at, for what becomes -1 and 1."""
        return not self.fixed_scale

    def range_of(
        self, spec: DataSpec, asked: tuple[float, float] | None, found: tuple[float, float] | None
    ) -> tuple[float, float] | None:
        """The values that become -1 and 1 in all files; None for those of the full scale.

        Args:
            spec: without a range.
            asked: in the options.
            found: the least and greatest value of the training examples, as far as they are measured.

        Raises:
            ValueError: no range can be made of them.
        """
        if asked is not None or self.fixed_scale or found is None:
            return asked
        low, high = found
        if not low < high or not np.isfinite(2 / (high - low)):
            raise ValueError(f"value_range must be given: all values to train on are {low:g}")
        return found

    def scale(
        self, spec: DataSpec, header: Header | None = None, own: tuple[float, float] | None = None
    ) -> Scale:
        """The values that become -1 and 1 in a file, or without a header in a new one.

        Args:
            own: the percentiles of this file, where the spec asks for them.
        """
        if spec.percentiles is not None and own is not None:
            return Scale(*own)
        return Scale(*spec.range) if spec.range is not None else Scale()

    def scale_text(self, spec: DataSpec, options: DataOptions) -> str:
        """The scale in words, for a report."""
        scale = self.scale(spec)
        text = f"{scale.low:.6g} becomes -1, {scale.high:.6g} becomes 1"
        if spec.percentiles is None:
            return text
        return text + " in a typical file, the percentiles {:g} and {:g} of each".format(*spec.percentiles)

    def to_grid(self, values: np.ndarray, header: Header, spec: DataSpec) -> np.ndarray:
        """``(channels, *header.shape)``, NaN where missing, on the grid that training files were read on.

        NaN is where most of what an entry is made of is missing.
        """
        grid = self.grid(header, spec)
        return values if grid == header.shape else resized(values, grid)

    def to_file(self, values: np.ndarray, header: Header, spec: DataSpec) -> np.ndarray:
        """The way back from that grid: ``(channels, *header.shape)``."""
        return resized(values, header.shape)

    def lost(self, header: Header, spec: DataSpec, grid: tuple[int, ...]) -> str | None:
        """Details of a file that a result does not have, in words, for the grid of a model."""
        if all(a >= b for a, b in zip(grid, header.shape, strict=True)):
            return None
        own = f"size, {times(grid)}" if spec.resize else "spacing"
        return f"what is finer than the model's {own}, is lost"

    # ---- writing

    def check_result(self, path: Path, spec: DataSpec, channels: int, like: Header | None) -> None:
        """Refuse a path whose format cannot hold a result of so many channels.

        Args:
            like: of the file that the result is made from.
        """
        if spec.spatial_dims not in self.dims:
            raise ValueError(
                f"path must be of a format with {spec.spatial_dims} spatial axes, got {shown(path)}"
            )

    def numbers(self, path: Path, spec: DataSpec, channels: int, like: Header | None) -> Numbers:
        """The numbers to store: as in the file that the result is made from, if that is of this kind."""
        return like.numbers if like is not None and like.kind == self.kind else FLOATS

    def resampling(self, header: Header, spec: DataSpec) -> Resampling | None:
        """How a file that is read part by part gets to the model's grid; None if it is read as a whole."""
        return None

    @contextmanager
    def appending(
        self, path: Path, numbers: Numbers, spec: DataSpec, channels: int, like: Header | None
    ) -> Iterator[Callable[[np.ndarray], None]]:
        """A file to be written part by part, each ``(1, channels, n)`` in numbers as they are stored.

        Unless a format does better, all of it is in memory in the end.
        """
        stored: list[np.ndarray] = []
        yield stored.append
        path.write_bytes(self.encode(path, np.concatenate(stored, -1), numbers, spec, like))

    @abstractmethod
    def encode(
        self, path: Path, stored: np.ndarray, numbers: Numbers, spec: DataSpec, like: Header | None
    ) -> bytes | memoryview:
        """The bytes of a file.

        Args:
            stored: ``(N, channels, *shape)`` in numbers as they are stored, with N above 1 for a file of
                several examples.
        """


def check_not_empty(path: Path) -> None:
    """Refuse a file of no bytes.

    Raises:
        UnreadableError: it is one.
    """
    if path.stat().st_size == 0:
        raise UnreadableError("it is empty (0 bytes)")


def misplaced(header: Header, other: Header) -> str | None:
    """Why a file does not lie on the grid of another one: its size, or where it is."""
    here, there = ((*[h.entries] * h.series, *h.shape) for h in (header, other))
    if here != there:
        return f"has another size: {times(there)}, not {times(here)}"
    if header.affine is None or other.affine is None:
        return None
    corners = np.meshgrid(*((0, n - 1) for n in header.shape[:3]), [1], indexing="ij")
    far = np.abs((header.affine - other.affine) @ np.stack(corners).reshape(4, -1)).max()
    if far <= _FAR * min(header.spacing or (1.0,)):
        return None
    return f"has another grid: their affines differ by up to {far:.3g}"


def most(values: Iterable[_T]) -> _T:
    """The commonest value, of equally common ones the first."""
    return Counter(values).most_common(1)[0][0]


def times(sizes: Iterable[int]) -> str:
    """Sizes as text: ``4x8``."""
    return "x".join(map(str, sizes))
