"""The binary files of image sets: MNIST's IDX (also .gz) and CIFAR-10's batches. They are read, not written.

IDX is big-endian: two zero bytes, 0x08 for unsigned bytes, the number of axes, their sizes in four bytes
each, then the pixels (http://yann.lecun.com/exdb/mnist). A CIFAR-10 batch is a row of 3073 bytes per image:
the label, then 32 x 32 pixels of red, green and blue (https://www.cs.toronto.edu/~kriz/cifar.html).
"""

import gzip
import re
from math import prod
from pathlib import Path

import numpy as np

from ..errors import UnreadableError
from ..memory import Cache, check_size
from ..options import DataOptions
from ..spec import DataSpec
from ..values import Region, cut
from .arrays import labels_of
from .format import Header
from .images import Pixels
from .numbers import Numbers

_IDX = re.compile(r"idx[2-9]-ubyte(\.gz)?$")
_IDX_LABELS = re.compile(r"idx1-ubyte(\.gz)?$")
_BYTES = 0x08
_CIFAR_ROW = 1 + 3 * 32 * 32
_CIFAR_CLASSES = tuple("airplane automobile bird cat deer dog frog horse ship truck".split())


class ImageSet(Pixels):
    """A file of many small images, which is read and not written."""

    writable = False
    standard = True

    def in_test_set(self, path: Path) -> bool:
        return path.name.startswith(("t10k", "test"))

    def encode(
        self, path: Path, stored: np.ndarray, numbers: Numbers, spec: DataSpec, like: Header | None
    ) -> bytes:
        raise ValueError(f"path must be of a format that is written, got {path}")


class Mnist(ImageSet):
    """IDX files of grey images."""

    suffixes = ("idx3-ubyte", "idx3-ubyte.gz")

    def matches(self, name: str) -> bool:
        return _IDX.search(name) is not None

    def holds_labels(self, name: str) -> bool:
        return _IDX_LABELS.search(name) is not None

    def header(self, path: Path, options: DataOptions) -> Header:
        if options.spatial_dims not in (None, 2):
            raise UnreadableError(
                f"an IDX image has 2 spatial axes, and {options.spatial_dims} were asked for"
            )
        shape, _ = idx_header(path)
        if len(shape) != 3 or 0 in shape:
            raise UnreadableError(f"it must hold images (count, rows, columns), got the sizes {shape}")
        pixels = idx_array(path)
        labels = _idx_labels(path, len(pixels)) if options.labels == "file" else None
        return Header(
            path,
            self,
            1,
            pixels.shape[1:],
            len(pixels),
            True,
            stored="uint8",
            numbers=Numbers("uint8"),
            labels=labels,
        )

    def convertible(self, header: Header, channels: int) -> bool:
        return True

    def read(
        self, header: Header, index: int, spec: DataSpec, cache: Cache, region: Region | None = None
    ) -> np.ndarray:
        if header.path.suffix == ".gz":
            pixels = cache.get((header.path, "idx"), lambda: idx_array(header.path))
        else:
            pixels = idx_array(header.path)
        return np.repeat(cut(pixels[index][None], region), spec.channels, 0)


class Cifar(ImageSet):
    """CIFAR-10's batches of colour images."""

    suffixes = (".bin",)

    def header(self, path: Path, options: DataOptions) -> Header:
        if options.spatial_dims not in (None, 2):
            raise UnreadableError(
                f"a CIFAR-10 image has 2 spatial axes, and {options.spatial_dims} were asked for"
            )
        size = path.stat().st_size
        if size == 0 or size % _CIFAR_ROW:
            raise UnreadableError(f"a CIFAR-10 batch has {_CIFAR_ROW} bytes for each image, got {size} bytes")
        labels = np.array(_cifar_rows(path)[:, 0])
        if labels.max() > 9:
            raise UnreadableError(f"a CIFAR-10 batch has labels from 0 to 9, got {labels.max()}")
        labels = labels.astype(np.int64) if options.labels == "file" else None
        return Header(
            path, self, 3, (32, 32), size // _CIFAR_ROW, True, stored="uint8",
            numbers=Numbers("uint8"), labels=labels, classes=_CIFAR_CLASSES,
        )  # fmt: skip

    def read(
        self, header: Header, index: int, spec: DataSpec, cache: Cache, region: Region | None = None
    ) -> np.ndarray:
        return np.array(cut(_cifar_rows(header.path)[index, 1:].reshape(3, 32, 32), region))


def idx_header(path: Path) -> tuple[tuple[int, ...], int]:
    """The sizes of an IDX file and where its bytes start."""
    with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
        head = file.read(4)
        if len(head) < 4 or head[:2] != b"\0\0" or head[2] != _BYTES or not 1 <= head[3] <= 8:
            raise UnreadableError(
                f"an IDX file of bytes starts with 00 00 08 and its axes, got {head.hex(' ')}"
            )
        sizes = np.frombuffer(file.read(4 * head[3]), ">u4")
    return tuple(int(n) for n in sizes), 4 + 4 * head[3]


def idx_array(path: Path) -> np.ndarray:
    """The bytes of an IDX file: memory-mapped, or all of them out of a .gz."""
    shape, start = idx_header(path)
    if path.suffix != ".gz":
        return np.memmap(path, np.uint8, "r", start, shape)  # refuses a file that is too short
    check_size(prod(shape), path.stat().st_size)
    with gzip.open(path) as file:
        file.seek(start)
        return np.frombuffer(file.read(prod(shape)), np.uint8).reshape(shape)


def _idx_labels(path: Path, entries: int) -> np.ndarray:
    name = re.sub(r"idx\d", "idx1", path.name.replace("images", "labels"))
    stem = name.removesuffix(".gz")
    for candidate in (path.with_name(stem), path.with_name(stem + ".gz")):
        if candidate.is_file() and candidate != path:
            return labels_of(np.array(idx_array(candidate)), entries)
    raise UnreadableError(f"its labels, {name}, are not beside it")


def _cifar_rows(path: Path) -> np.ndarray:
    return np.memmap(path, np.uint8, "r").reshape(-1, _CIFAR_ROW)
