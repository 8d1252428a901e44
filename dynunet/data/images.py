"""Images: png, jpg and others that pillow reads; two spatial axes, rows and columns.

8 bits per channel, or 16 of grey images (pillow reduces 16-bit colour to 8). Palettes become colours,
phones' rotation is applied. Where another number of channels is wanted, colours become grey, grey becomes
colours, and an alpha channel is left out or opaque.
"""

from pathlib import Path
from typing import Any

import numpy as np

from .cache import Cache
from .options import DataOptions
from .sources import Info, Reader, Region, Units, UnreadableError, cut, missing_package

MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
_CHANNELS = {"1": 1, "L": 1, "LA": 2, "RGB": 3, "RGBX": 3, "CMYK": 3, "YCbCr": 3, "RGBA": 4, "PA": 4}
_DEEP = ("I;16", "I;16B", "I;16L")
_ORIENTATION = 0x0112  # EXIF; 5 to 8 exchange rows and columns


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
        # An open file, not its name: names need not be UTF-8.
        with open(path, "rb") as file, pillow().open(file) as image:
            if getattr(image, "n_frames", 1) > 1:
                raise UnreadableError(f"it has {image.n_frames} pages, and one is expected; save them as npy")
            channels = _channels(image)
            columns, rows = image.size
            if image.format == "JPEG" and image.getexif().get(_ORIENTATION, 1) >= 5:
                rows, columns = columns, rows
            stored = "uint16" if image.mode in _DEEP else "uint8"
            _check_whole(image, file)
        return Info(path, self.format, self.kind, channels, (rows, columns), stored=stored)

    def convertible(self, info: Info, channels: int) -> bool:
        return channels in MODES

    def read(
        self, info: Info, index: int, units: Units, cache: Cache, region: Region | None = None
    ) -> np.ndarray:
        key = info.path, "image", units.channels
        return cut(cache.get(key, lambda: _decoded(info.path, units.channels)), region)


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


def _check_whole(image: Any, file: Any) -> None:
    """Refuse what is truncated, decoding it only where nothing cheaper tells."""
    if image.format == "PNG":
        image.verify()  # the checksum of every chunk
        return
    file.seek(-min(64, file.seek(0, 2)), 2)
    complete = image.format == "JPEG" and file.read().rstrip(b"\0\r\n").endswith(b"\xff\xd9")
    if not complete:
        image.load()


def _decoded(path: Path, channels: int) -> np.ndarray:
    """``(channels, rows, columns)``, uint8 or uint16."""
    from PIL import ImageOps

    with open(path, "rb") as file, pillow().open(file) as image:
        if image.mode in _DEEP:
            grey = np.asarray(image, dtype=np.uint16)
            opaque = [np.full_like(grey, 65535)] if channels in (2, 4) else []
            return np.stack([grey] * (channels - len(opaque)) + opaque)
        if image.format == "JPEG":
            image = ImageOps.exif_transpose(image)
        if image.mode in ("P", "PA"):  # through colours: pillow makes no LA of a palette
            image = image.convert("RGBA")
        pixels = np.array(image.convert(MODES[channels]))
    return np.ascontiguousarray(np.moveaxis(np.atleast_3d(pixels), -1, 0))
