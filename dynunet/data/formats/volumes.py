"""Volumes: nii and nii.gz by nibabel, in the closest canonical orientation, of three or four axes.

Axes run from left to right, posterior to anterior and inferior to superior, whatever their order in the
file. Four axes are four spatial ones (the fourth is time), or a series of three-dimensional examples. Parts
are read from uncompressed files through a memory map; others are decoded once and cached. A result has the
grid, axes, affine, header and type of numbers of its file.
"""

import gzip
import logging
from collections.abc import Sequence
from dataclasses import replace
from math import isfinite, prod
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UnreadableError, missing_package, shown
from ..memory import Cache, check_size
from ..options import DataOptions, missing_value
from ..spec import DataSpec
from ..values import Region, cut, resized, with_nan
from .arrays import as_array, channels_first, check_real, is_series
from .format import Format, Header, check_not_empty
from .numbers import Numbers


def nibabel() -> Any:
    """The package, which is imported when it is used."""
    try:
        import nibabel
    except ImportError as error:
        raise missing_package("nibabel", error) from None
    return nibabel


def _opened(path: Path, warn: bool = False) -> Any:
    """An image without its values; what nibabel logs of it has its name, and is said once."""

    def named(record: logging.LogRecord) -> bool:
        record.msg, record.args = f"{shown(path)}: {record.getMessage()}", ()
        return warn

    logger = nibabel().imageglobals.logger
    logger.addFilter(named)
    try:
        return nibabel().load(path)
    finally:
        logger.removeFilter(named)


class Volumes(Format):
    """Volumes on a grid of known spacing, each scaled by its own percentiles, or all by one range."""

    kind = "volumes"
    suffixes = (".nii", ".nii.gz")
    dims = range(2, 5)
    new = ".nii.gz"
    options = frozenset({"spacing", "value_range", "channel_axis", "series"})
    step_name = "spacing"

    def header(self, path: Path, options: DataOptions) -> Header:
        check_not_empty(path)
        image = _opened(path, warn=True)
        check_real(np.dtype(image.get_data_dtype()))
        if 0 in image.shape:
            raise UnreadableError(f"it has no entries, its shape is {image.shape}")
        if path.suffix != ".gz":
            np.asanyarray(image.dataobj.get_unscaled())  # a memory map: refuses a file that is too short
        else:
            check_size(prod(image.shape) * image.get_data_dtype().itemsize, path.stat().st_size)
        zooms, view = _canonical(image, _Unread(image.shape))
        if not all(map(isfinite, zooms)):
            raise UnreadableError(f"its spacing must be finite, got {zooms}")
        shape = _without_ones(view.shape, options)
        series = is_series(len(shape), options, options.series)
        one, steps = shape[: len(shape) - series], list(zooms[: len(shape) - series])
        axis = options.channel_axis
        channels = 1
        if axis is not None:
            channels_first(np.empty((1,) * len(one)), axis)  # an axis that is there
            channels = one[axis]
            one = tuple(n for i, n in enumerate(one) if i != axis % len(one))
            steps.pop(axis)
        return Header(
            path, self, channels, one, shape[-1] if series else 1, series,
            stored=np.dtype(image.get_data_dtype()).name, spacing=tuple(float(s) for s in steps),
            affine=_canonical_affine(image),
            numbers=Numbers(
                np.dtype(image.get_data_dtype()).name, float(image.dataobj.slope), float(image.dataobj.inter)
            ),
        )  # fmt: skip

    def grid(self, header: Header, spec: DataSpec) -> tuple[int, ...]:
        if spec.spacing is None:
            return header.shape
        if not all(
            here > 0 for here, wanted in zip(header.spacing or (), spec.spacing, strict=True) if wanted
        ):
            raise UnreadableError(f"its spacing must be positive to be resampled, got {header.spacing}")
        steps = zip(header.shape, header.spacing or (), spec.spacing, strict=True)
        return tuple(max(round(n * here / wanted), 1) if wanted else n for n, here, wanted in steps)

    def refined(self, header: Header, factors: Sequence[int]) -> Header:
        spacing = tuple(s / f for s, f in zip(header.spacing or (), factors, strict=True))
        return replace(super().refined(header, factors), spacing=spacing)

    def read(
        self, header: Header, index: int, spec: DataSpec, cache: Cache, region: Region | None = None
    ) -> np.ndarray:
        grid = self.grid(header, spec)
        if grid == header.shape:
            return header.numbers.values(_stored(header, index, spec, cache, region))

        def make() -> np.ndarray:
            whole = header.numbers.values(_stored(header, index, spec, cache, None))
            return resized(with_nan(whole, missing_value(spec.missing)), grid)

        return np.array(cut(cache.get((header.path, index, grid, spec.missing), make), region))

    def stored(self, header: Header, index: int, spec: DataSpec, cache: Cache) -> np.ndarray:
        return _stored(header, index, spec, cache, None)

    def spec_fields(self, options: DataOptions, headers: Sequence[Header], dims: int) -> dict[str, Any]:
        percentiles = options.percentiles if options.value_range is None else None
        return {"spacing": _spacing(options, dims), "percentiles": percentiles}

    def check_result(self, path: Path, spec: DataSpec, channels: int, like: Header | None) -> None:
        super().check_result(path, spec, channels, like)
        if like is not None and like.kind == self.kind and channels != like.channels:
            raise ValueError(f"x must have the {like.channels} channels of its source, got {channels}")

    def in_file_order(self, values: np.ndarray, header: Header) -> np.ndarray:
        return _as_stored(_opened(header.path), values)

    def encode(
        self, path: Path, stored: np.ndarray, numbers: Numbers, spec: DataSpec, like: Header | None
    ) -> bytes:
        nib = nibabel()
        if like is None or like.kind != self.kind:
            step = [s or 1.0 for s in spec.step or ()]
            affine = np.diag([*step[:3], *[1.0] * (3 - len(step)), 1.0])
            image = nib.Nifti1Image(as_array(stored, spec, False), affine)
            if len(step) == len(image.shape):
                image.header.set_zooms(step)
        else:
            source = _opened(like.path)
            array = _as_stored(source, as_array(stored, spec, like.series, series_axis=-1))
            image = type(source)(array, _finer(source, like.factors), source.header)
            image.header.set_data_dtype(array.dtype)
            image.header.set_slope_inter(numbers.slope, numbers.inter)
        made = image.to_bytes()
        return gzip.compress(made, 1, mtime=0) if path.suffix.lower() == ".gz" else made


def _canonical(image: Any, values: Any) -> tuple[tuple[float, ...], Any]:
    """The spacing of every axis and a view of the values, in canonical order; fewer than 3 axes stay."""
    zooms = tuple(float(z) for z in image.header.get_zooms())
    if len(image.shape) < 3:
        return zooms, values
    order = nibabel().orientations.io_orientation(image.affine)
    if not np.isfinite(order).all():
        raise UnreadableError("its affine has an axis without direction")
    if isinstance(values, _Unread):
        turned: Any = _Unread(tuple(values.shape[i] for i in order[:, 0].argsort()) + values.shape[3:])
    else:
        turned = nibabel().orientations.apply_orientation(values, order)
    return tuple(zooms[i] for i in order[:, 0].argsort()) + zooms[3:], turned


def _canonical_affine(image: Any) -> np.ndarray | None:
    """From places in the canonical order to millimetres; None with fewer than 3 axes, which stay."""
    if len(image.shape) < 3:
        return None
    orientations, shape = nibabel().orientations, image.shape[:3]
    order = orientations.io_orientation(image.affine)
    return image.affine @ orientations.inv_ornt_aff(order, shape)


def _spacing(options: DataOptions, dims: int) -> tuple[float, ...] | None:
    """One entry per axis, 0 for an axis that stays as it is: time, unless it is given too."""
    if options.spacing is None:
        return None
    given = options.spacing * min(dims, 3) if len(options.spacing) == 1 else options.spacing
    if len(given) not in (dims, min(dims, 3)):
        raise ValueError(f"spacing must be one number or one for each of {dims} axes, got {options.spacing}")
    return given + (0.0,) * (dims - len(given))


def _finer(image: Any, factors: Sequence[int] | None) -> np.ndarray:
    """The affine of an image, with entries that are finer along its first three axes, in canonical order."""
    if factors is None:
        return image.affine
    found, order = np.ones(3), range(len(image.shape[:3]))
    if len(image.shape) >= 3:
        order = nibabel().orientations.io_orientation(image.affine)[:, 0].astype(int)
    for stored, canonical in enumerate(order):
        found[stored] = factors[canonical]
    change = np.diag([*(1 / found), 1.0])
    change[:3, 3] = (1 / found - 1) / 2  # the middle of the first of the finer entries
    return image.affine @ change


class _Unread:
    """The shape of values that are not read."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape


def _without_ones(shape: tuple[int, ...], options: DataOptions | DataSpec) -> tuple[int, ...]:
    """Trailing axes of size 1 beyond those that are wanted are how files of one frame are often written."""
    wanted = (options.spatial_dims or 3) + (options.channel_axis is not None) + options.series
    kept = len(shape)
    while kept > wanted and shape[kept - 1] == 1:
        kept -= 1
    return shape[:kept]


def _stored(header: Header, index: int, spec: DataSpec, cache: Cache, region: Region | None) -> np.ndarray:
    """A region on the file's own grid, canonically oriented, in its own numbers."""
    image = _opened(header.path)
    proxy = image.dataobj
    if header.path.suffix == ".gz":
        values = cache.get((header.path, "volume"), lambda: np.array(proxy.get_unscaled()))
    else:
        values = np.asanyarray(proxy.get_unscaled())
    _, values = _canonical(image, values)
    values = values.reshape(_without_ones(values.shape, spec))
    example = channels_first(values[..., index] if header.series else values, spec.channel_axis)
    return np.array(cut(example, region))


def _as_stored(image: Any, values: np.ndarray) -> np.ndarray:
    """Values in canonical order, in the order of a file's own axes and with its trailing axes of size 1."""
    orientations = nibabel().orientations
    if len(image.shape) >= 3:
        there = orientations.io_orientation(image.affine)
        here = np.array([[0, 1], [1, 1], [2, 1]])
        values = orientations.apply_orientation(_three_axes(values), orientations.ornt_transform(here, there))
    # A result without the channels of its source has an axis less.
    return values.reshape(image.shape) if values.size == prod(image.shape) else values


def _three_axes(values: np.ndarray) -> np.ndarray:
    return values.reshape(values.shape + (1,) * (3 - values.ndim))
