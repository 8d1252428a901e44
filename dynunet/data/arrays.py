"""Arrays: npy, read in part through a memory map, and npz, of any rank.

An npz holds one array beside integer ``labels``, or the one named ``images``, ``data``, ``x`` or ``arr_0``.
With labels, its first axis counts the examples.
"""

import zipfile
from pathlib import Path

import numpy as np

from .cache import Cache
from .memory import check_size
from .numbers import Numbers
from .options import DataOptions
from .sources import Info, Reader, Region, Units, UnreadableError, is_series

_NAMES = ("images", "data", "x", "arr_0")


def labels_of(labels: np.ndarray, entries: int) -> np.ndarray:
    """Labels as int64, or a reason why they are none."""
    if labels.shape != (entries,) or labels.dtype.kind not in "iu" or labels.min(initial=0) < 0:
        raise UnreadableError(
            f"its labels must be {entries} whole numbers from 0, got {labels.dtype} of shape {labels.shape}"
        )
    return labels.astype(np.int64)


def check_numbers(dtype: np.dtype) -> None:
    if dtype.kind not in "fiub" or dtype.itemsize > 8:
        raise UnreadableError(f"its numbers must be real, in up to 64 bits, got {dtype}")


class Npy(Reader):
    format = "npy"
    kind = "arrays"
    suffixes = (".npy",)

    def look(self, path: Path, options: DataOptions) -> Info:
        if path.stat().st_size == 0:
            raise UnreadableError("it is empty (0 bytes)")
        return self._info(path, np.load(path, mmap_mode="r"), options)

    def _info(
        self, path: Path, array: np.ndarray, options: DataOptions, labels: np.ndarray | None = None
    ) -> Info:
        check_numbers(array.dtype)
        if options.labels == "file" and labels is None:
            raise UnreadableError("it has no labels; an npz has them as an array named labels")
        if array.size == 0:
            raise UnreadableError(f"it has no entries, its shape is {array.shape}")
        series = is_series(array.ndim, options, options.series or labels is not None)
        entries = array.shape[0] if series else 1
        if labels is not None:
            labels = labels_of(labels, entries)
        example = channels_first(array[0] if series else array, options.channel_axis)
        return Info(
            path, self.format, self.kind, example.shape[0], example.shape[1:], entries, series,
            stored=array.dtype.name, numbers=Numbers(array.dtype.name), labels=labels,
        )  # fmt: skip

    def read(
        self, info: Info, index: int, units: Units, cache: Cache, region: Region | None = None
    ) -> np.ndarray:
        array = self._array(info, cache)
        example = channels_first(array[index] if info.series else array, units.channel_axis)
        if region is not None:
            example = example[:, *(slice(a, b) for a, b in region)]
        return np.array(example)

    def _array(self, info: Info, cache: Cache) -> np.ndarray:
        return np.load(info.path, mmap_mode="r")


class Npz(Npy):
    format = "npz"
    suffixes = (".npz",)

    def look(self, path: Path, options: DataOptions) -> Info:
        if not zipfile.is_zipfile(path):
            raise UnreadableError("it is no npz file, or truncated")
        with zipfile.ZipFile(path) as archive:
            arrays = {m.filename.removesuffix(".npy"): _header(archive, m) for m in archive.infolist()}
        for array in arrays.values():
            check_size(array.nbytes, path.stat().st_size)
        labels = None
        if "labels" in arrays:
            with np.load(path) as loaded:
                labels = loaded["labels"]
        return self._info(path, arrays[array_name(list(arrays))], options, labels)

    def _array(self, info: Info, cache: Cache) -> np.ndarray:
        return cache.get((info.path, "npz"), lambda: _loaded(info.path))


def channels_first(example: np.ndarray, channel_axis: int | None) -> np.ndarray:
    """A view ``(channels, *spatial)``; without a channel axis there is one channel."""
    if channel_axis is None:
        return example[None]
    if not -example.ndim <= channel_axis < example.ndim:
        raise UnreadableError(f"channel_axis is {channel_axis}, and it has {example.ndim} axes")
    return np.moveaxis(example, channel_axis, 0)


def _header(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    """The shape and the type of an array in an archive, as one that takes no memory."""
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        if version == (1, 0):
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        elif version == (2, 0):
            shape, _, dtype = np.lib.format.read_array_header_2_0(file)
        else:
            raise UnreadableError(f"its array {member.filename!r} is of version {version} of the npy format")
    check_numbers(dtype)
    return np.broadcast_to(np.zeros((), dtype), shape)


def _loaded(path: Path) -> np.ndarray:
    with np.load(path) as arrays:
        return arrays[array_name(arrays.files)]


def array_name(names: list[str]) -> str:
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
