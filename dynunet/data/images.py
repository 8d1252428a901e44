"""Images: png, jpg and others that pillow reads; two spatial axes, rows and columns.

8 bits per channel, or 16 of grey images (pillow reduces 16-bit colour to 8). Palettes become colours, a
camera's rotation is applied, of several views in one jpg (MPO) the first is taken. Where another number of
channels is wanted, colours become grey, grey becomes colours, and an alpha channel is left out or opaque.
"""

from pathlib import Path
from typing import Any

import numpy as np

from .cache import Cache
from .numbers import Numbers
from .options import DataOptions
from .sources import Info, Reader, Region, Units, UnreadableError, cut, missing_package

MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
_CHANNELS = {"1": 1, "L": 1, "LA": 2, "RGB": 3, "RGBX": 3, "CMYK": 3, "YCbCr": 3, "RGBA": 4, "PA": 4}
_DEEP = ("I;16", "I;16B", "I;16L")
_CAMERA = ("JPEG", "MPO")
ORIENTATION = 0x0112  # EXIF; 5 to 8 exchange rows and columns


def pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise missing_package("pillow", error) from None
    return Image


class Images(Reader):
    format = "image"
    kind = "images"
    suffixes = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")

    def look(self, path: Path, options: DataOptions) -> Info:
        if options.spatial_dims not in (None, 2):
            raise UnreadableError(f"an image has 2 spatial axes, and {options.spatial_dims} were asked for")
        if path.stat().st_size == 0:
            raise UnreadableError("it is empty (0 bytes)")
        _check_whole(path)
        with open(path, "rb") as file, pillow().open(file) as image:
            if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
                raise UnreadableError(f"it has {image.n_frames} pages, and one is expected; save them as npy")
            channels, lost = _channels(image), _lost(image, path)
            exact = image.format not in _CAMERA and image.info.get("compression") != "jpeg"
            stored = "uint16" if image.mode in _DEEP else "uint8"
            numbers = Numbers("bool", 255.0) if image.mode == "1" else Numbers(stored)
            columns, rows = image.size
            if turned(image) >= 5:
                rows, columns = columns, rows
        return Info(
            path, self.format, self.kind, channels, (rows, columns), stored=stored, numbers=numbers,
            lost=lost, exact=exact,
        )  # fmt: skip

    def convertible(self, info: Info, channels: int) -> bool:
        return channels in MODES

    def read(
        self, info: Info, index: int, units: Units, cache: Cache, region: Region | None = None
    ) -> np.ndarray:
        key = info.path, "image", units.channels
        return cut(cache.get(key, lambda: _decoded(info.path, units.channels)), region)

    def stored(self, info: Info, index: int, units: Units, cache: Cache) -> np.ndarray:
        pixels = super().stored(info, index, units, cache)
        return pixels > 0 if info.numbers.dtype == "bool" else pixels


def turned(image: Any) -> int:
    """How a camera says that an image is to be turned, 1 for not at all; pillow turns tif by itself."""
    if image.format == "PNG" and not {"exif", "Raw profile type exif"} & set(image.info):
        return 1  # without decoding all of it to look behind its pixels
    orientation = image.getexif().get(ORIENTATION, 1)
    if image.format != "TIFF":
        return orientation if orientation in range(1, 9) else 1
    if orientation in range(5, 9) and image.info.get("compression") == "raw":
        raise UnreadableError("it is a tif that is turned and not compressed, which pillow garbles")
    return 1


def _lost(image: Any, path: Path) -> str | None:
    """What pillow does not keep."""
    if image.mode in ("CMYK", "YCbCr"):
        return f"its {image.mode} colours become RGB"
    if image.format == "PNG" and image.mode not in _DEEP:
        with open(path, "rb") as file:
            if file.read(25)[24:] == b"\x10":  # the bit depth, at its place in every png
                return "its 16 bits of each colour become 8"
    return None


def _channels(image: Any) -> int:
    if image.mode == "P":
        return 4 if "transparency" in image.info else 3
    if image.mode in _DEEP:
        return 1
    if image.mode not in _CHANNELS:
        raise UnreadableError(
            f"its pixels are of pillow's mode {image.mode!r}, not of 8 or 16 bits; save it as npy"
        )
    return _CHANNELS[image.mode]


def _check_whole(path: Path) -> None:
    """Refuse what is truncated, decoding it only where nothing cheaper tells."""
    with open(path, "rb") as file, pillow().open(file) as image:  # not its name, which need not be UTF-8
        if image.format == "PNG":
            image.verify()  # the checksum of every chunk
            return
        file.seek(-min(64, file.seek(0, 2)), 2)
        complete = image.format in _CAMERA and file.read().rstrip(b"\0\r\n").endswith(b"\xff\xd9")
        if not complete:
            image.load()


def _decoded(path: Path, channels: int) -> np.ndarray:
    """``(channels, rows, columns)``, uint8 or uint16."""
    from PIL import ImageOps

    with open(path, "rb") as file, pillow().open(file) as image:
        if turned(image) > 1:
            image = ImageOps.exif_transpose(image)
        if image.mode in _DEEP:
            grey = np.asarray(image, dtype=np.uint16)
            opaque = [np.full_like(grey, 65535)] if channels in (2, 4) else []
            return np.stack([grey] * (channels - len(opaque)) + opaque)
        if image.mode in ("P", "PA"):  # through colours: pillow makes no LA of a palette
            image = image.convert("RGBA")
        pixels = np.array(image.convert(MODES[channels]))
    return np.ascontiguousarray(np.moveaxis(np.atleast_3d(pixels), -1, 0))
