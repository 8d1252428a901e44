"""Writing results as files: in the units, and on the grid, of the file they were made from.

    written      from                          how
    audio        wav, flac, ...                sample rate, length and subtype (24 bits stay 24 bits)
    images       png, jpg, ...                 size and bit depth
    volumes      nii, nii.gz                   grid, axes, affine, header and type of numbers
    arrays       npy, npz                      channel axis and type of numbers

Whole numbers are rounded and limited to their range. What was missing in the source is missing again. The
suffix says which format is written; without a source the units say the rest.
"""

import os
from dataclasses import replace
from math import gcd
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .audio import resampled, soundfile
from .cache import Cache
from .files import READERS, SUFFIXES
from .images import MODES, pillow
from .loading import Source
from .options import missing_value
from .resizing import resized
from .scaling import present, scale_of
from .sources import Units, shown
from .volumes import as_stored, nibabel


def save(
    path: Path | str,
    x: Tensor,
    units: "dict[str, Any] | Units",
    like: Source | None = None,
    *,
    only: Tensor | None = None,
    overwrite: bool = False,
) -> None:
    """Write what a network made.

    Args:
        path: the file to write; its suffix is one of :data:`dynunet.data.SUFFIXES`.
        x: ``(C, *spatial)`` in the network's units; of a file of several examples ``(N, C, *spatial)``.
        units: ``dataset.units``, which a trained model has as ``diffusion.data``.
        like: the source of the file that x was made from: ``load(...).source``.
        only: bool, of the shape of x: where it is False, the values of ``like`` are kept as they are stored,
            but for those that are missing.
        overwrite: replace a file that is there already.

    Raises:
        FileExistsError: there is a file, and overwrite is False.
        ValueError, TypeError: naming the argument, the rule and the value received.
    """
    path, units = Path(path), Units.of(units)
    if path.exists() and not overwrite:
        raise FileExistsError(f"path: {shown(path)} exists; overwrite=True would replace it")
    write = _writer(path, units)
    values = _in_units(_checked(x, units, like), units, like)
    if only is not None:
        values = _kept(values, like, only)
    # Written beside and moved, so that no half a file is left. The suffix stays: it says the format.
    partial = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        write(partial, values, units, like)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _writer(path: Path, units: Units) -> Any:
    name = path.name.lower()
    if name.endswith(SUFFIXES["audio"]):
        fits, write = units.spatial_dims == 1, _write_audio
    elif name.endswith(READERS["image"].suffixes):
        fits, write = units.spatial_dims == 2, _write_image
    elif name.endswith(SUFFIXES["volumes"]):
        fits, write = units.spatial_dims in (2, 3, 4), _write_volume
    elif name.endswith(SUFFIXES["arrays"]):
        fits, write = True, _write_array
    else:
        known = " ".join(s for suffixes in SUFFIXES.values() for s in suffixes)
        raise ValueError(f"path must end with one of {known}, got {shown(path)}")
    if not fits:
        raise ValueError(
            f"path must be of a format with {units.spatial_dims} spatial axes, got {shown(path)}"
        )
    return write


def _checked(x: Any, units: Units, like: Source | None) -> np.ndarray:
    if not isinstance(x, Tensor):
        raise TypeError(f"x must be a tensor, got {type(x).__name__}")
    if like is None:
        fits, rule = x.ndim == units.spatial_dims + 1, f"(C, *spatial) with {units.spatial_dims} spatial axes"
    else:
        several = len(like.shape) - 1 - units.spatial_dims
        expected = (
            *like.shape[:several],
            x.shape[several] if x.ndim > several else 0,
            *like.shape[several + 1 :],
        )
        fits, rule = (
            tuple(x.shape) == expected,
            f"of the shape {like.shape} of what was read, up to its channels",
        )
    if not fits:
        raise ValueError(f"x must be {rule}, got shape {tuple(x.shape)}")
    return x.detach().to("cpu", torch.float64).numpy()


def _in_units(x: np.ndarray, units: Units, like: Source | None) -> np.ndarray:
    """On the grid and in the units of the file to be written; audio keeps its rate until it is written."""
    if like is None:
        return scale_of(None, units).to_file(x)
    examples = x if like.info.series else x[None]
    values = like.scale.to_file(examples)
    if units.kind != "audio":
        values = np.stack([resized(v, like.info.shape) for v in values])
    if units.missing is not None:
        values = _with_missing(values, like)
    return values if like.info.series else values[0]


def _with_missing(values: np.ndarray, like: Source) -> np.ndarray:
    """Entries that are missing in the source get its value for that."""
    for n, one in enumerate(values):
        stored, there = _stored(like, n)
        if one.shape == stored.shape:
            one[~there] = stored[~there]
    return values


def _kept(values: np.ndarray, like: Source | None, only: Tensor) -> np.ndarray:
    """The values where they are asked for, or missing in the source, and elsewhere those of the source."""
    if like is None or tuple(only.shape) != like.shape:
        raise ValueError(
            f"only must have the shape of x, which was read from a file, got {tuple(only.shape)}"
        )
    asked = only.cpu().numpy().astype(np.float32)
    several = (values, asked) if like.info.series else (values[None], asked[None])
    for n, (one, new) in enumerate(zip(*several, strict=True)):
        stored, there = _stored(like, n)
        # On a finer grid an entry is new if any of those that it was made from is.
        one[:] = np.where((resized(new, one.shape[1:]) > 1e-6) | ~there, one, stored)
    return values


def _stored(like: Source, index: int) -> tuple[np.ndarray, np.ndarray]:
    """An example of the source as it is in the file, and where it has values."""
    plain = replace(like.units, spacing=None, channels=like.info.channels)
    values = READERS[like.info.format].read(like.info, index, plain, Cache(float("inf")))
    return values, present(values, missing_value(plain.missing))


def _as_type(values: np.ndarray, kind: str) -> np.ndarray:
    """Numbers as they are stored; whole ones rounded and limited."""
    dtype = np.dtype(kind)
    if dtype.kind == "b":
        return values > 0.5
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        # The greatest float64 below the limit of 64 bits; NaN, which no whole number is, becomes 0.
        high = np.nextafter(float(limits.max), 0) if limits.bits == 64 else limits.max
        return np.nan_to_num(values, nan=0).round().clip(limits.min, high).astype(dtype)
    return values.astype(dtype)


def _write_audio(path: Path, values: np.ndarray, units: Units, like: Source | None) -> None:
    rate, subtype = units.sample_rate, units.stored
    if like is not None and like.info.sample_rate is not None and rate is not None:
        common = gcd(rate, like.info.sample_rate)
        values = resampled(values, like.info.sample_rate // common, rate // common)
        missing = like.info.shape[0] - values.shape[1]
        values = np.pad(values[:, : like.info.shape[0]], [(0, 0), (0, max(missing, 0))])
        rate, subtype = like.info.sample_rate, like.info.stored
    if rate is None:
        raise ValueError(f"units must have a sample_rate to write audio, got kind {units.kind!r}")
    sf = soundfile()
    format = {"AIF": "AIFF"}.get(path.suffix[1:].upper(), path.suffix[1:].upper())
    if not sf.check_format(format, subtype):
        subtype = sf.default_subtype(format)
    bits = {"PCM_U8": 8, "PCM_S8": 8, "PCM_16": 16, "PCM_24": 24, "PCM_32": 32}.get(subtype)
    if bits is not None:
        # libsndfile reads k as k / 2^(bits - 1): written so, what was read comes back exactly.
        values = (values * 2.0 ** (bits - 1)).round().clip(-(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1)
        values = (values * 2.0 ** (32 - bits)).astype(np.int32)
    with open(path, "wb") as file:
        sf.write(file, values.T, rate, subtype, format=format)


def _write_image(path: Path, values: np.ndarray, units: Units, like: Source | None) -> None:
    if values.ndim > 3:
        raise ValueError(
            f"path must be of a format that holds {len(values)} images, such as npy, got {shown(path)}"
        )
    if values.shape[0] not in MODES:
        raise ValueError(f"x must have 1 to 4 channels to be written as an image, got {values.shape[0]}")
    stored = like.info.stored if like is not None else units.stored
    deep = stored == "uint16" and values.shape[0] == 1 and path.suffix.lower() in (".png", ".tif", ".tiff")
    if units.kind != "images":
        low, high = units.range or (-1.0, 1.0)
        values = (values - low) * 255 / (high - low)
    elif stored == "uint16" and not deep:  # pillow has 16 bits for grey alone
        values = values / 257
    pixels = np.moveaxis(_as_type(values, "uint16" if deep else "uint8"), 0, -1)
    image = pillow().fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    try:
        with open(path, "wb") as file:
            image.save(file, pillow().registered_extensions()[path.suffix.lower()])
    except OSError as error:
        raise ValueError(
            f"path must be of a format for images of {pixels.shape[-1]} channels: {error}"
        ) from error


def _write_volume(path: Path, values: np.ndarray, units: Units, like: Source | None) -> None:
    nib = nibabel()
    if like is None or like.info.format != "volume":
        step = [s or 1.0 for s in units.step or ()]
        affine = np.diag([*step[:3], *[1.0] * (3 - len(step)), 1.0])
        image = nib.Nifti1Image(_array(values, units, False).astype(np.float32), affine)
        if len(step) == len(image.shape):
            image.header.set_zooms(step)
    else:
        array = _array(values, units, like.info.series, series_axis=-1)
        source = nib.load(like.info.path)
        if array.size != np.prod(source.shape):
            raise ValueError(
                f"x must have the {like.info.channels} channels of its source, got {values.shape[0]}"
            )
        array = as_stored(source, array)
        slope, inter = source.dataobj.slope, source.dataobj.inter
        array = _as_type((array - inter) / slope, like.info.stored)
        image = type(source)(array, source.affine, source.header)
        image.header.set_data_dtype(array.dtype)
        image.header.set_slope_inter(slope, inter)
    nib.save(image, path)


def _write_array(path: Path, values: np.ndarray, units: Units, like: Source | None) -> None:
    series = like is not None and like.info.series
    stored = like.info.stored if like is not None and units.kind == "arrays" else "float32"
    array = _as_type(_array(values, units, series), stored)
    with open(path, "wb") as file:
        np.savez(file, data=array) if path.suffix.lower() == ".npz" else np.save(file, array)


def _array(values: np.ndarray, units: Units, series: bool, series_axis: int = 0) -> np.ndarray:
    """``(C, *spatial)`` with its channels where the units have them, and not at all where there is one."""
    examples = values if series else values[None]
    if units.channel_axis is not None:
        examples = np.stack([np.moveaxis(e, 0, units.channel_axis) for e in examples])
    elif examples.shape[1] == 1:
        examples = examples[:, 0]
    return np.moveaxis(examples, 0, series_axis) if series else examples[0]
