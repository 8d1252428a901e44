"""The formats that results are written in: what numbers each can hold, and how.

All take ``(N, channels, *shape)`` in numbers as they are stored, with N above 1 for a file of several
examples. A file is made in memory, for what writes to a disk by itself does not always say why it could not.
"""

import gzip
import io
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from .arrays import array_name
from .audio import numbers_of, soundfile
from .files import READERS, SUFFIXES
from .images import MODES, ORIENTATION, pillow, turned
from .loading import Source
from .numbers import Numbers
from .sources import Units, shown
from .volumes import as_stored, nibabel

Bytes = bytes | memoryview
_FLOATS = Numbers("float32")


class Writer(ABC):
    """One kind of formats."""

    kind: ClassVar[str]
    dims: ClassVar[range]

    def check(self, path: Path, units: Units, channels: int, like: Source | None) -> None:
        """Refuse a path whose format cannot hold a result of so many channels."""
        if units.spatial_dims not in self.dims:
            raise ValueError(
                f"path must be of a format with {units.spatial_dims} spatial axes, got {shown(path)}"
            )

    def numbers(self, path: Path, units: Units, channels: int, like: Source | None) -> Numbers:
        """How numbers are stored: as in the file that the result is made from, if that is of this kind."""
        return like.info.numbers if like is not None and like.info.kind == self.kind else _FLOATS

    @abstractmethod
    def encoded(
        self, path: Path, stored: np.ndarray, numbers: Numbers, units: Units, like: Source | None
    ) -> Bytes:
        """The bytes of the file."""


class AudioWriter(Writer):
    kind = "audio"
    dims = range(1, 2)

    def check(self, path: Path, units: Units, channels: int, like: Source | None) -> None:
        super().check(path, units, channels, like)
        if _rate(units, like) is None:
            raise ValueError(f"units must have a sample_rate to write audio, got kind {units.kind!r}")

    def numbers(self, path: Path, units: Units, channels: int, like: Source | None) -> Numbers:
        return numbers_of(_subtype(path, units, like))

    def encoded(
        self, path: Path, stored: np.ndarray, numbers: Numbers, units: Units, like: Source | None
    ) -> Bytes:
        if numbers.bits is not None:
            stored = stored << (32 - numbers.bits)
        made = io.BytesIO()
        subtype = _subtype(path, units, like)
        soundfile().write(made, stored[0].T, _rate(units, like), subtype, format=_container(path))
        return made.getbuffer()


def _rate(units: Units, like: Source | None) -> int | None:
    return units.sample_rate if like is None or like.info.sample_rate is None else like.info.sample_rate


def _container(path: Path) -> str:
    name = path.suffix[1:].upper()
    return {"AIF": "AIFF"}.get(name, name)


def _subtype(path: Path, units: Units, like: Source | None) -> str:
    """As in the source where that is exact and this container has it, else as precise if it can."""
    container, fits = _container(path), soundfile().check_format
    if like is None or like.info.kind != "audio":
        wanted = [units.stored]
    else:
        wanted = [like.info.stored] * (like.info.exact or container == "OGG")
        wanted += ["FLOAT"] * (like.info.numbers.bits is None)
    return next((s for s in wanted if fits(container, s)), soundfile().default_subtype(container))


class ImageWriter(Writer):
    kind = "images"
    dims = range(2, 3)

    def check(self, path: Path, units: Units, channels: int, like: Source | None) -> None:
        super().check(path, units, channels, like)
        if like is not None and like.info.series:
            raise ValueError(
                f"path must be of a format that holds {like.info.entries} images, such as npy, "
                f"got {shown(path)}"
            )
        if channels not in MODES:
            raise ValueError(f"x must have 1 to 4 channels to be written as an image, got {channels}")
        suffix = path.suffix.lower()
        if (suffix in (".jpg", ".jpeg") and channels in (2, 4)) or (suffix == ".bmp" and channels == 2):
            raise ValueError(
                f"path must be of a format for images with opacity, such as png, got {shown(path)}"
            )

    def numbers(self, path: Path, units: Units, channels: int, like: Source | None) -> Numbers:
        if units.kind != "images":
            low, high = units.range or (-1.0, 1.0)
            return Numbers("uint8", (high - low) / 255, low)
        lossless = path.suffix.lower() in (".png", ".tif", ".tiff")
        if like is not None and like.info.numbers.dtype == "bool" and lossless:
            return like.info.numbers
        if (like.info.stored if like is not None else units.stored) != "uint16":
            return Numbers("uint8")
        return Numbers("uint16") if channels == 1 and lossless else Numbers("uint8", 257.0)

    def encoded(
        self, path: Path, stored: np.ndarray, numbers: Numbers, units: Units, like: Source | None
    ) -> Bytes:
        pixels = np.moveaxis(stored[0], 0, -1)
        image = pillow().fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
        format = pillow().registered_extensions()[path.suffix.lower()]
        options: dict[str, Any] = {"quality": 95, "subsampling": 0} if format == "JPEG" else {}
        if like is not None and like.info.format == "image":
            image, kept = _as_turned(image, like.info.path, format)
            options |= kept
        made = io.BytesIO()
        image.save(made, format, **options)
        return made.getbuffer()


def _as_turned(image: Any, source: Path, format: str) -> tuple[Any, dict[str, Any]]:
    """What goes with the pixels: the meaning of colours; of png also where up is, and the image turned so."""
    turn = pillow().Transpose
    back = {
        2: turn.FLIP_LEFT_RIGHT, 3: turn.ROTATE_180, 4: turn.FLIP_TOP_BOTTOM, 5: turn.TRANSPOSE,
        6: turn.ROTATE_90, 7: turn.TRANSVERSE, 8: turn.ROTATE_270,
    }  # fmt: skip
    with open(source, "rb") as file, pillow().open(file) as original:
        names = ["icc_profile", "dpi"]
        if original.format == format == "PNG":
            names.append("exif")
            if original.mode == image.mode:
                names.append("transparency")
            if turned(original) > 1:
                image = image.transpose(back[original.getexif()[ORIENTATION]])
        kept = {name: original.info[name] for name in names if original.info.get(name) is not None}
    return image, kept


class VolumeWriter(Writer):
    kind = "volumes"
    dims = range(2, 5)

    def check(self, path: Path, units: Units, channels: int, like: Source | None) -> None:
        super().check(path, units, channels, like)
        if like is not None and like.info.kind == "volumes" and channels != like.info.channels:
            raise ValueError(f"x must have the {like.info.channels} channels of its source, got {channels}")

    def encoded(
        self, path: Path, stored: np.ndarray, numbers: Numbers, units: Units, like: Source | None
    ) -> Bytes:
        nib = nibabel()
        if like is None or like.info.kind != "volumes":
            step = [s or 1.0 for s in units.step or ()]
            affine = np.diag([*step[:3], *[1.0] * (3 - len(step)), 1.0])
            image = nib.Nifti1Image(_array(stored, units, False), affine)
            if len(step) == len(image.shape):
                image.header.set_zooms(step)
        else:
            source = nib.load(like.info.path)
            array = as_stored(source, _array(stored, units, like.info.series, series_axis=-1))
            image = type(source)(array, source.affine, source.header)
            image.header.set_data_dtype(array.dtype)
            image.header.set_slope_inter(numbers.slope, numbers.inter)
        made = image.to_bytes()
        return gzip.compress(made, 1, mtime=0) if path.suffix.lower() == ".gz" else made


class ArrayWriter(Writer):
    kind = "arrays"
    dims = range(1, 64)

    def encoded(
        self, path: Path, stored: np.ndarray, numbers: Numbers, units: Units, like: Source | None
    ) -> Bytes:
        array = _array(stored, units, like is not None and like.info.series)
        made = io.BytesIO()
        np.save(made, array) if path.suffix.lower() == ".npy" else np.savez(made, **_beside(like, array))
        return made.getbuffer()


def _beside(like: Source | None, array: np.ndarray) -> dict[str, Any]:
    """An array and what is beside it in its source, such as labels."""
    if like is None or like.info.format != "npz":
        return {"data": array}
    with np.load(like.info.path) as arrays:
        name = array_name(arrays.files)
        return {n: array if n == name else arrays[n] for n in arrays.files}


def _array(stored: np.ndarray, units: Units, series: bool, series_axis: int = 0) -> np.ndarray:
    """``(N, C, *spatial)`` with its channels where the units have them, and not at all where there is one."""
    if units.channel_axis is not None:
        stored = np.stack([np.moveaxis(e, 0, units.channel_axis) for e in stored])
    elif stored.shape[1] == 1:
        stored = stored[:, 0]
    return np.moveaxis(stored, 0, series_axis) if series else stored[0]


_WRITERS: dict[tuple[str, ...], Writer] = {
    SUFFIXES["audio"]: AudioWriter(),
    READERS["image"].suffixes: ImageWriter(),
    SUFFIXES["volumes"]: VolumeWriter(),
    SUFFIXES["arrays"]: ArrayWriter(),
}


def writer_of(path: Path) -> Writer:
    """The writer of a path, by its suffix."""
    name = path.name.lower()
    for suffixes, writer in _WRITERS.items():
        if name.endswith(suffixes):
            return writer
    known = " ".join(s for suffixes in SUFFIXES.values() for s in suffixes)
    raise ValueError(f"path must end with one of {known}, got {shown(path)}")
