"""Images: png, jpg and others that pillow reads; two spatial axes, rows and columns.

8 bits per channel, or 16 of grey images (pillow reduces 16-bit colour to 8), of which as many count as the
training files use. Palettes become colours, a
camera's rotation is applied, of several views in one jpg (MPO) the first is taken. Where another number of
channels is wanted, colours become grey, grey becomes colours, and pictures with an alpha channel are laid on
white, or get an opaque one. The colours that are under what is fully transparent, which nobody sees, become
white.
A result has the size, bit depth, opacity and colour profile of its file.
"""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ..errors import UnreadableError, missing_package, shown
from ..memory import Cache
from ..options import DataOptions
from ..spec import DataSpec
from ..values import Region, Scale, cut
from .format import Format, Header, check_not_empty
from .numbers import Numbers

_FULL_SCALE = {"uint8": 255.0, "uint16": 65535.0}
_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
_CHANNELS = {"1": 1, "L": 1, "LA": 2, "RGB": 3, "RGBX": 3, "CMYK": 3, "YCbCr": 3, "RGBA": 4, "PA": 4}
_DEEP = ("I;16", "I;16B", "I;16L")
_CAMERA = ("JPEG", "MPO")
_BLACK, _WHITE = 0, 255
_ORIENTATION = 0x0112  # EXIF; 5 to 8 exchange rows and columns


def pillow() -> Any:
    """The package's ``Image``, which is imported when it is used."""
    try:
        from PIL import Image
    except ImportError as error:
        raise missing_package("pillow", error) from None
    return Image


class Pixels(Format):
    """Images in any kind of file: their scale, their opacity, masks."""

    kind = "images"
    dims = range(2, 3)
    new = ".png"
    options = frozenset({"value_range"})
    fixed_scale = copies = opacity = True

    def measured(self, header: Header) -> bool:
        return header.stored == "uint16"

    def range_of(
        self, spec: DataSpec, asked: tuple[float, float] | None, found: tuple[float, float] | None
    ) -> tuple[float, float] | None:
        """As asked; else of 16 bits those that are used: many cameras have 10, 12 or 14."""
        opaque = spec.channels in (2, 4)
        if asked is None and found is not None and spec.stored == "uint16" and found[1] > 0 and not opaque:
            asked = 0.0, 2.0 ** int(found[1]).bit_length() - 1
        if asked is None or Scale(*asked) == self.scale(spec):
            return None
        if opaque:
            raise ValueError(
                f"value_range is of images without opacity, which have 1 or 3 channels, got {asked} for "
                f"{spec.channels}"
            )
        return asked

    def scale(
        self, spec: DataSpec, header: Header | None = None, own: tuple[float, float] | None = None
    ) -> Scale:
        """The range of the spec is of files that are stored as most are; others have their full scale."""
        usual = spec.stored or "uint8"
        stored = (header.stored if header is not None else "") or usual
        if spec.range is not None and stored == usual:
            return Scale(*spec.range)
        return Scale(0.0, _FULL_SCALE[stored])

    def scale_text(self, spec: DataSpec, options: DataOptions) -> str:
        text = super().scale_text(spec, options)
        if spec.range is None:
            return text
        if options.value_range is not None:
            return f"{text}, as asked"
        return f"{text}: of the 16 bits of a file {int(spec.range[1]).bit_length()} are used"

    def marked(self, header: Header, spec: DataSpec) -> np.ndarray:
        """Marked is where a mask is bright, and of a mask of 0 and one other value, where it is that."""
        values = self._mask(header)
        full = self.scale(DataSpec(self.kind, 2, 1), header).high
        least = values.max(initial=0)
        two_valued = ((values == 0) | (values == least)).all()
        return values > 0 if two_valued else values > full / 2

    def _mask(self, header: Header) -> np.ndarray:
        """``(N, 1, rows, columns)``."""
        return self.values(header, DataSpec(self.kind, 2, 1))


class Images(Pixels):
    """Image files, with one image each."""

    suffixes = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
    lossy: ClassVar[Mapping[str, str]] = {".jpg": ".png", ".jpeg": ".png"}

    def header(self, path: Path, options: DataOptions) -> Header:
        if options.spatial_dims not in (None, 2):
            raise UnreadableError(f"an image has 2 spatial axes, and {options.spatial_dims} were asked for")
        check_not_empty(path)
        _check_whole(path)
        with open(path, "rb") as file, pillow().open(file) as image:
            sizes = _sizes(image)
            channels, lost = _channels(image), _lost(image, path)
            exact = image.format not in _CAMERA and image.info.get("compression") != "jpeg"
            stored = "uint16" if image.mode in _DEEP else "uint8"
            numbers = Numbers("bool", 255.0) if image.mode == "1" else Numbers(stored)
        return Header(path, self, channels, sizes, stored=stored, numbers=numbers, lost=lost, exact=exact)

    def label_header(self, path: Path, options: DataOptions) -> Header:
        check_not_empty(path)
        _check_whole(path)
        with open(path, "rb") as file, pillow().open(file) as image:
            sizes = _sizes(image)
        if path.suffix.lower() in self.lossy:
            raise UnreadableError(f"a {path.suffix} file does not keep labels as they are; save it as png")
        dtype = _labels(path).dtype.name
        return Header(path, self, 1, sizes, stored=dtype, numbers=Numbers(dtype))

    def labels(
        self, header: Header, index: int, spec: DataSpec, cache: Cache, region: Region | None = None
    ) -> np.ndarray:
        return cut(cache.get((header.path, "labels"), lambda: _labels(header.path)[None]), region)

    def palette(self, path: Path) -> list[int] | None:
        with open(path, "rb") as file, pillow().open(file) as image:
            return image.getpalette("RGB") if image.mode == "P" else None

    def label_suffix(self, suffix: str, dtype: str) -> str:
        if dtype not in _FULL_SCALE:
            return ".npy"
        return suffix if suffix in (".png", ".tif", ".tiff") else ".png"

    def convertible(self, header: Header, channels: int) -> bool:
        return channels in _MODES

    def read(
        self, header: Header, index: int, spec: DataSpec, cache: Cache, region: Region | None = None
    ) -> np.ndarray:
        key = header.path, "image", spec.channels
        return cut(cache.get(key, lambda: _decoded(header.path, spec.channels, _WHITE)), region)

    def stored(self, header: Header, index: int, spec: DataSpec, cache: Cache) -> np.ndarray:
        pixels = _decoded(header.path, header.channels, None)
        return pixels > 0 if header.numbers.dtype == "bool" else pixels

    def values(self, header: Header, spec: DataSpec) -> np.ndarray:
        return _decoded(header.path, spec.channels, _WHITE)[None]

    def _mask(self, header: Header) -> np.ndarray:
        return _decoded(header.path, 1, _BLACK)[None]  # what is transparent is not marked

    def check_result(self, path: Path, spec: DataSpec, channels: int, like: Header | None) -> None:
        super().check_result(path, spec, channels, like)
        if like is not None and like.series:
            raise ValueError(
                f"path must be of a format that holds {like.entries} images, such as npy, got {shown(path)}"
            )
        if channels not in _MODES:
            raise ValueError(f"x must have 1 to 4 channels to be written as an image, got {channels}")
        suffix = path.suffix.lower()
        if (suffix in self.lossy and channels in (2, 4)) or (suffix == ".bmp" and channels == 2):
            raise ValueError(
                f"path must be of a format for images with opacity, such as png, got {shown(path)}"
            )

    def numbers(self, path: Path, spec: DataSpec, channels: int, like: Header | None) -> Numbers:
        if spec.kind != self.kind:
            low, high = spec.range or (-1.0, 1.0)
            return Numbers("uint8", (high - low) / 255, low)
        lossless = path.suffix.lower() in (".png", ".tif", ".tiff")
        if like is not None and like.numbers.dtype == "bool" and lossless:
            return like.numbers
        if (like.stored if like is not None else spec.stored) != "uint16":
            return Numbers("uint8")
        if channels == 1 and lossless:
            return Numbers("uint16")
        scale = self.scale(spec, like)
        return Numbers("uint8", (scale.high - scale.low) / 255, scale.low)

    def encode(
        self, path: Path, stored: np.ndarray, numbers: Numbers, spec: DataSpec, like: Header | None
    ) -> memoryview:
        pixels = np.moveaxis(stored[0], 0, -1)
        image = pillow().fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
        if spec.learned is not None and spec.learned.palette is not None and image.mode == "L":
            image.putpalette(spec.learned.palette)
        name = pillow().registered_extensions()[path.suffix.lower()]
        options: dict[str, Any] = {"quality": 95, "subsampling": 0} if name == "JPEG" else {}
        if like is not None and isinstance(like.format, Images):
            image, kept = _as_turned(image, like.path, name)
            options |= kept
        made = io.BytesIO()
        image.save(made, name, **options)
        return made.getbuffer()


class ImagesToRead(Images):
    """Images in files that results are not written in; they become png."""

    suffixes = (".webp", ".gif")
    writable = False
    lossy: ClassVar[Mapping[str, str]] = {}


def _sizes(image: Any) -> tuple[int, int]:
    """Rows and columns as the image is seen."""
    if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
        raise UnreadableError(f"it has {image.n_frames} pages, and one is expected; save them as npy")
    columns, rows = image.size
    return (columns, rows) if turned(image) >= 5 else (rows, columns)


def _labels(path: Path) -> np.ndarray:
    """The labels in an image, ``(rows, columns)``: its palette's indices, or its grey values."""
    from PIL import ImageOps

    with open(path, "rb") as file, pillow().open(file) as image:
        found = np.array(ImageOps.exif_transpose(image) if turned(image) > 1 else image)
    if found.dtype == bool:
        return np.where(found, np.uint8(255), np.uint8(0))
    if found.ndim == 2:
        return found
    opaque = found.shape[-1] not in (2, 4) or (found[..., -1] == 255).all()
    colours = found[..., : found.shape[-1] - (found.shape[-1] in (2, 4))]
    if not opaque or (colours != colours[..., :1]).any():
        raise UnreadableError("its colours are no labels: a label map is grey or has a palette")
    return np.ascontiguousarray(colours[..., 0])


def turned(image: Any) -> int:
    """The turn that a camera asks for, 1 for none; pillow turns tif by itself."""
    if image.format == "PNG" and not {"exif", "Raw profile type exif"} & set(image.info):
        return 1  # without decoding all of it to look behind its pixels
    orientation = image.getexif().get(_ORIENTATION, 1)
    if image.format != "TIFF":
        return orientation if orientation in range(1, 9) else 1
    if orientation in range(5, 9) and image.info.get("compression") == "raw":
        raise UnreadableError("it is a tif that is turned and not compressed, which pillow garbles")
    return 1


def _lost(image: Any, path: Path) -> str | None:
    """Bits or colours that pillow does not keep, in words."""
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


def _decoded(path: Path, channels: int, behind: int | None) -> np.ndarray:
    """``(channels, rows, columns)``, uint8 or uint16.

    Args:
        behind: the grey that is seen through what is transparent; None for the colours as they are stored.
    """
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
        if behind is not None and image.has_transparency_data:
            image = _laid_on(behind, image, channels)
        pixels = np.array(image.convert(_MODES[channels]))
    return np.ascontiguousarray(np.moveaxis(np.atleast_3d(pixels), -1, 0))


def _laid_on(grey: int, image: Any, channels: int) -> Any:
    """An image as it is seen before a grey; where its opacity is kept, only what is not seen is that grey."""
    image = image.convert("RGBA")
    opacity = image.getchannel("A")
    if channels in (2, 4):
        unseen = opacity.point(lambda alpha: 255 * (alpha == 0))
        image.paste((grey, grey, grey, 0), mask=unseen)
        return image
    ground = pillow().new("RGB", image.size, (grey, grey, grey))
    ground.paste(image, mask=opacity)
    return ground


def _as_turned(image: Any, source: Path, format: str) -> tuple[Any, dict[str, Any]]:
    """An image turned as its source is stored, and what else goes with the pixels, for pillow's ``save``."""
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
                image = image.transpose(back[original.getexif()[_ORIENTATION]])
        kept = {name: original.info[name] for name in names if original.info.get(name) is not None}
    return image, kept
