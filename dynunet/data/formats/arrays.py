"""Arrays: npy, read in part through a memory map, and npz, of any rank.

A result has the channel axis and the type of numbers of its file, and what else is in an npz.

An npz holds one array beside integer ``labels``, or the one named ``images``, ``data``, ``x`` or ``arr_0``.
With labels, its first axis counts the examples.
"""

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UnreadableError
from ..memory import Cache, check_size
from ..options import DataOptions
from ..spec import DataSpec
from ..values import Region, cut
from .format import Format, Header, check_not_empty
from .numbers import Numbers

_WHOLE = ("bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
_NAMES = ("images", "data", "x", "arr_0")


def labels_of(labels: np.ndarray, entries: int) -> np.ndarray:
    """Labels as int64.

    Raises:
        UnreadableError: they are none.
    """
    if labels.shape != (entries,) or labels.dtype.kind not in "iu" or labels.min(initial=0) < 0:
        raise UnreadableError(
            f"its labels must be {entries} whole numbers from 0, got {labels.dtype} of shape {labels.shape}"
        )
    return labels.astype(np.int64)


class Npy(Format):
    """One array, scaled by the range of the training files or by one that is given."""

    kind = "arrays"
    suffixes = (".npy",)
    new = ".npy"
    options = frozenset({"value_range", "channel_axis", "series"})
    partial = True

    def header(self, path: Path, options: DataOptions) -> Header:
        check_not_empty(path)
        return self._of_array(path, np.load(path, mmap_mode="r"), options)

    def _of_array(
        self, path: Path, array: np.ndarray, options: DataOptions, labels: np.ndarray | None = None
    ) -> Header:
        check_real(array.dtype)
        if options.labels == "file" and labels is None:
            raise UnreadableError("it has no labels; an npz has them as an array named labels")
        if array.size == 0:
            raise UnreadableError(f"it has no entries, its shape is {array.shape}")
        series = is_series(array.ndim, options, options.series or labels is not None)
        entries = array.shape[0] if series else 1
        if labels is not None:
            labels = labels_of(labels, entries)
        example = channels_first(array[0] if series else array, options.channel_axis)
        return Header(
            path, self, example.shape[0], example.shape[1:], entries, series,
            stored=array.dtype.name, numbers=Numbers(array.dtype.name), labels=labels,
        )  # fmt: skip

    def read(
        self, header: Header, index: int, spec: DataSpec, cache: Cache, region: Region | None = None
    ) -> np.ndarray:
        array = self._array(header, cache)
        example = channels_first(array[index] if header.series else array, spec.channel_axis)
        return np.array(cut(example, region))

    def _array(self, header: Header, cache: Cache) -> np.ndarray:
        return np.load(header.path, mmap_mode="r")

    def scale_text(self, spec: DataSpec, options: DataOptions) -> str:
        asked = "as asked" if options.value_range is not None else "the range of what is trained on"
        return f"{super().scale_text(spec, options)}, {asked}"

    def numbers(self, path: Path, spec: DataSpec, channels: int, like: Header | None) -> Numbers:
        """Those of the source; new arrays have whole numbers where those of training had."""
        whole = like is None and spec.kind == self.kind and spec.stored in _WHOLE
        return Numbers(spec.stored) if whole else super().numbers(path, spec, channels, like)

    def encode(
        self, path: Path, stored: np.ndarray, numbers: Numbers, spec: DataSpec, like: Header | None
    ) -> memoryview:
        made = io.BytesIO()
        self._save(made, as_array(stored, spec, like is not None and like.series), like)
        return made.getbuffer()

    def _save(self, file: io.BytesIO, array: np.ndarray, like: Header | None) -> None:
        np.save(file, array)


class Npz(Npy):
    """One array among others."""

    suffixes = (".npz",)
    partial = False

    def header(self, path: Path, options: DataOptions) -> Header:
        if not zipfile.is_zipfile(path):
            raise UnreadableError("it is no npz file, or truncated")
        with zipfile.ZipFile(path) as archive:
            arrays = {m.filename.removesuffix(".npy"): _unread(archive, m) for m in archive.infolist()}
        for array in arrays.values():
            check_size(array.nbytes, path.stat().st_size)
        labels = None
        if "labels" in arrays:
            with np.load(path) as loaded:
                labels = loaded["labels"]
        return self._of_array(path, arrays[_array_name(list(arrays))], options, labels)

    def _array(self, header: Header, cache: Cache) -> np.ndarray:
        return cache.get((header.path, "npz"), lambda: _loaded(header.path))

    def _save(self, file: io.BytesIO, array: np.ndarray, like: Header | None) -> None:
        """Save it with what is beside it in its source, such as labels."""
        beside: dict[str, Any] = {"data": array}
        if like is not None and isinstance(like.format, Npz):
            with np.load(like.path) as arrays:
                name = _array_name(arrays.files)
                beside = {n: array if n == name else arrays[n] for n in arrays.files}
        np.savez(file, **beside)


def is_series(ndim: int, options: DataOptions, series: bool) -> bool:
    """True if an axis of an array counts examples.

    Args:
        ndim: axes of the array.
        options: how many of them are spatial, and whether one counts channels.
        series: one more may count examples.

    Raises:
        UnreadableError: it has another number of axes.
    """
    spatial = ndim - (options.channel_axis is not None)
    dims = options.spatial_dims or max(spatial - series, 1)
    if spatial == dims:
        return False
    if series and spatial == dims + 1:
        return True
    channel = "no channel axis" if options.channel_axis is None else "a channel axis"
    raise UnreadableError(
        f"it has {ndim} axes, and {dims + ndim - spatial} were expected ({dims} spatial, {channel}); "
        f"channel_axis says which one counts channels, series=True that one more counts examples"
    )


def channels_first(example: np.ndarray, channel_axis: int | None) -> np.ndarray:
    """A view ``(channels, *spatial)``; without a channel axis there is one channel."""
    if channel_axis is None:
        return example[None]
    if not -example.ndim <= channel_axis < example.ndim:
        raise UnreadableError(f"channel_axis is {channel_axis}, and it has {example.ndim} axes")
    return np.moveaxis(example, channel_axis, 0)


def as_array(stored: np.ndarray, spec: DataSpec, series: bool, series_axis: int = 0) -> np.ndarray:
    """``(N, C, *spatial)`` with its channels where the spec has them, and not at all where there is one."""
    if spec.channel_axis is not None:
        stored = np.stack([np.moveaxis(e, 0, spec.channel_axis) for e in stored])
    elif stored.shape[1] == 1:
        stored = stored[:, 0]
    return np.moveaxis(stored, 0, series_axis) if series else stored[0]


def check_real(dtype: np.dtype) -> None:
    """Refuse numbers that are not real, or wider than 64 bits."""
    if dtype.kind not in "fiub" or dtype.itemsize > 8:
        raise UnreadableError(f"its numbers must be real, in up to 64 bits, got {dtype}")


def _unread(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    """The shape and the type of an array in an archive, as one that takes no memory."""
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        if version == (1, 0):
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        elif version == (2, 0):
            shape, _, dtype = np.lib.format.read_array_header_2_0(file)
        else:
            raise UnreadableError(f"its array {member.filename!r} is of version {version} of the npy format")
    check_real(dtype)
    return np.broadcast_to(np.zeros((), dtype), shape)


def _loaded(path: Path) -> np.ndarray:
    with np.load(path) as arrays:
        return arrays[_array_name(arrays.files)]


def _array_name(names: list[str]) -> str:
    """The array of an npz that is the data."""
    data = [name for name in names if name != "labels"]
    if len(data) == 1:
        return data[0]
    for name in _NAMES:
        if name in data:
            return name
    raise UnreadableError(
        f"it must hold one array, or one named {', '.join(_NAMES)}, got {', '.join(data) or 'none'}"
    )
