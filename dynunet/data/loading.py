"""Reading a new file as the training files were read."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .channel_files import stack_of
from .channel_mapping import ChannelMapping, channel_mapping
from .errors import UnreadableError, attempt, shown
from .files import no_file
from .formats import SUFFIXES, Header, of_path
from .formats.format import times
from .memory import check_size, stacked
from .options import DataOptions, missing_value
from .spec import DataSpec
from .values import Scale, limits, loudness, present, resized, touched

Marks = Callable[
    [Header], np.ndarray
]  # which entries of a file are to be made anew, bool (N, channels, *shape)


@dataclass(frozen=True)
class Source:
    """The file that something was read from, and how: what :func:`save` needs to write in its place."""

    header: Header
    spec: DataSpec
    scales: tuple[Scale, ...]  # one for each view
    channels: ChannelMapping
    shape: tuple[int, ...]  # (C, *spatial), or (N, C, *spatial) of several examples or views


@dataclass(frozen=True)
class Loaded:
    """A file as a network sees it.

    ``x`` is float32 ``(C, *spatial)``, or ``(N, C, *spatial)`` for a file of several examples, or of
    channels that a model of one channel takes one by one (:mod:`dynunet.data.channel_mapping`). ``mask`` is
    of its shape, False where an entry is missing and x is 0; None where nothing is. ``lost`` says what the
    model does not see.
    """

    x: Tensor
    source: Source
    mask: Tensor | None = None
    lost: tuple[str, ...] = ()


def load(path: Path | str, units: "dict[str, Any] | DataSpec", *, mix: bool = True) -> Loaded:
    """Read a whole file on the grid and the scale that a model was trained with.

    Nothing is cropped. Volumes are scaled by their own percentiles where the training files were, and audio
    to the level that the training examples had, if any.

    Args:
        path: a file of the kind that the units are of.
        units: ``dataset.units``, which a trained model has as ``diffusion.data``.
        mix: mix or copy other channels than the model's, as those of training files are. False gives
            them so that the result can have those of the file, see :mod:`dynunet.data.channel_mapping`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be read, or not with these units; the message says why.
    """
    path, spec = Path(path), DataSpec.of(units)

    def read() -> Loaded:
        reader = _Reader.of(path, spec, mix)
        values, missing = reader.values()
        no_missing(spec, missing)
        return reader.loaded(values, missing)

    return read_whole(path, read)


def load_gaps(path: Path, spec: DataSpec, marks: Marks | None = None) -> tuple[Loaded, np.ndarray]:
    """A file of which some is to be made anew: what is marked, or without marks what is missing.

    Args:
        marks: from what is known of the file, which of its entries are to be made anew.

    Returns:
        The file, whose mask is False wherever the model has to make something for that, or something is
        missing; and what is to be made anew on the grid of the file, bool ``(N, channels, *shape)``.

    Raises:
        FileNotFoundError, ValueError: as :func:`load`.
    """

    def read() -> tuple[Loaded, np.ndarray]:
        reader = _Reader.of(path, spec, mix=False)
        values, missing = reader.values()
        holes = missing if marks is None else np.broadcast_to(marks(reader.header), missing.shape)
        no_missing(spec, missing & ~holes)
        return reader.loaded(values, missing | holes, to_make=True), holes

    return read_whole(path, read)


def read_whole(path: Path, read: Callable[[], Any]) -> Any:
    """Call ``read``, and turn what it raises into an error with the name of the file."""
    if not os.path.lexists(path):
        raise FileNotFoundError(f"path: there is no file {shown(path)}")
    try:
        return attempt(read)
    except UnreadableError as error:
        raise ValueError(f"{shown(path)} cannot be read: {error}") from error


def header_of(path: Path, spec: DataSpec) -> Header:
    """The header of a file that is to be read like the training files."""
    found, why = of_path(path), no_file(path)
    if why is not None:
        raise UnreadableError(why)
    if found is None or found.kind != spec.kind:
        here, known = "no known kind" if found is None else found.kind, " ".join(SUFFIXES[spec.kind])
        raise UnreadableError(f"its name is of {here}, and the training files are {spec.kind}: {known}")
    options = DataOptions(
        spatial_dims=spec.spatial_dims,
        channel_axis=spec.channel_axis,
        series=spec.series,
        missing=spec.missing,
    )
    return stack_of(found, spec.channel_files).header(path, options)


def mapped(header: Header, spec: DataSpec, mix: bool) -> ChannelMapping:
    """The way from the channels of a file to those of a model, see :func:`load`."""
    given = spec.given_channels
    if mix and header.channels != given and not header.format.convertible(header, given):
        raise UnreadableError(f"it has {header.channels} channels, and {given} are used")
    return channel_mapping(spec.kind, given if mix else header.channels, given, spec.channels)


def no_missing(spec: DataSpec, missing: np.ndarray) -> None:
    """Refuse missing values, if the training files had none."""
    if spec.missing is None and missing.any():
        raise UnreadableError("it has values that are NaN or infinite, and the training files had none")


@dataclass(frozen=True)
class _Reader:
    """A file, and the way from its values to what a network is given."""

    header: Header
    spec: DataSpec
    channels: ChannelMapping

    @classmethod
    def of(cls, path: Path, spec: DataSpec, mix: bool) -> "_Reader":
        header = header_of(path, spec)
        channels = mapped(header, spec, mix)
        grid = header.format.grid(header, spec)
        check_size(4 * header.entries * header.channels * prod(grid), path.stat().st_size)
        return cls(header, spec, channels)

    def values(self) -> tuple[np.ndarray, np.ndarray]:
        """Those of the file, ``(N, channels, *shape)``, and which of them are missing."""
        read = replace(self.spec, channels=sum(self.channels.file))
        values = self.header.format.values(self.header, read)
        return values, ~present(values, missing_value(self.spec.missing))

    def loaded(self, values: np.ndarray, gone: np.ndarray, to_make: bool = False) -> Loaded:
        """The file as a network sees it.

        Args:
            values: ``(N, channels, *shape)``.
            gone: which of them are not there.
            to_make: that these are to be made, and may be all: the mask is False where any of one is.
        """
        header, spec = self.header, self.spec
        views, scales = self._views(np.where(gone, np.nan, values) if gone.any() else values)
        there = stacked([np.isfinite(v) for v in views])
        if to_make:
            there &= ~self._touched(gone, there.shape[2:])
        elif not there.any():
            raise UnreadableError("it has nothing but missing values")
        scaled = stacked([scales[n % len(scales)].to_model(v) for n, v in enumerate(views)])
        whole = bool(there.all())
        x = torch.from_numpy(scaled if whole else np.where(there, scaled, np.float32(0)))
        mask = None if whole else torch.from_numpy(there)
        if not header.series and len(scales) == 1:
            x, mask = x[0], None if mask is None else mask[0]
        lost = tuple(filter(None, (header.lost, header.format.lost(header, spec, there.shape[2:]))))
        return Loaded(x, Source(header, spec, scales, self.channels, tuple(x.shape)), mask, lost)

    def _views(self, values: np.ndarray) -> tuple[list[np.ndarray], tuple[Scale, ...]]:
        """Inputs of the model in the file's numbers, example by example, and the scales of those of one."""
        header, spec, count = self.header, self.spec, self.channels.views
        opaque = header.format.scale(spec, header).high
        views = [
            header.format.to_grid(v, header, spec) for e in values for v in self.channels.split(e, opaque)
        ]
        scales = tuple(_scale(header, spec, views[n::count]) for n in range(count))
        if spec.resize and spec.size is not None:
            views = [v if v.shape[1:] == spec.size else resized(v, spec.size) for v in views]
        return views, scales

    def _touched(self, gone: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
        """Entries of the views, on a grid of the given sizes, that some of what is gone lies in."""
        return np.stack([touched(m, sizes) for g in gone for m in self.channels.split(g, False)])


def _scale(header: Header, spec: DataSpec, views: list[np.ndarray]) -> Scale:
    """The scale of one channel, or of all that are given together, in all examples of a file."""
    known = [np.isfinite(v) for v in views]
    if len(views) == 1 and known[0].all():
        there = views[0].reshape(-1)
    else:
        there = np.concatenate([v[k] for v, k in zip(views, known, strict=True)])
    if spec.level is not None:
        full = loudness(there, spec.level)
        return Scale(-full, full)
    if spec.percentiles is None or not there.size:
        return header.format.scale(spec, header)
    own = limits(there, spec.percentiles)
    if own[0] == own[1]:
        raise UnreadableError(f"all its values are {own[0]:g}")
    return header.format.scale(spec, header, own)


def marks_of(mask: Path, spec: DataSpec) -> Marks:
    """Read from a mask what is to be made anew in a file: where it is not 0, or of images bright.

    Args:
        mask: a file of the kind that the spec is of, and of the size of the file; with its channels each
            has its own, with another number all have the same.
    """

    def marks(header: Header) -> np.ndarray:
        try:
            return attempt(lambda: _marks(header_of(mask, replace(spec, series=header.series)), spec, header))
        except UnreadableError as error:
            raise UnreadableError(f"its mask {shown(mask)}: {error}") from None

    return marks


def _marks(own: Header, spec: DataSpec, header: Header) -> np.ndarray:
    """Bool ``(N or 1, channels or 1, *shape)``."""
    if own.shape != header.shape or own.entries not in (1, header.entries):
        sizes = (times((*[i.entries] * i.series, *i.shape)) for i in (header, own))
        raise UnreadableError("it must have the size of the file, {}, and has {}".format(*sizes))
    marked = own.format.marked(own, spec)
    same = marked.shape[1] in (1, header.channels)
    return marked if same else np.asarray(marked.any(1, keepdims=True))
