"""Volumes: nii and nii.gz by nibabel, in the closest canonical orientation, of three or four axes.

Axes run from left to right, posterior to anterior and inferior to superior, whatever their order in the
file. Four axes are four spatial ones (the fourth is time), or a series of three-dimensional examples. Parts
are read from uncompressed files through a memory map; others are decoded once and cached.
"""

from math import isfinite, prod
from pathlib import Path
from typing import Any

import numpy as np

from .arrays import channels_first, check_numbers
from .cache import Cache
from .memory import check_size
from .numbers import Numbers
from .options import DataOptions, missing_value
from .resizing import resized
from .scaling import with_nan
from .sources import Info, Reader, Region, Units, UnreadableError, cut, is_series, missing_package


def nibabel() -> Any:
    try:
        import nibabel
    except ImportError as error:
        raise missing_package("nibabel", error) from None
    return nibabel


class Volumes(Reader):
    format = "volume"
    kind = "volumes"
    suffixes = (".nii", ".nii.gz")

    def look(self, path: Path, options: DataOptions) -> Info:
        if path.stat().st_size == 0:
            raise UnreadableError("it is empty (0 bytes)")
        image = nibabel().load(path)
        check_numbers(np.dtype(image.get_data_dtype()))
        if 0 in image.shape:
            raise UnreadableError(f"it has no entries, its shape is {image.shape}")
        if path.suffix != ".gz":
            np.asanyarray(image.dataobj.get_unscaled())  # a memory map: refuses a file that is too short
        else:
            check_size(prod(image.shape) * image.get_data_dtype().itemsize, path.stat().st_size)
        zooms, view = canonical(image, _Unread(image.shape))
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
        return Info(
            path, self.format, self.kind, channels, one, shape[-1] if series else 1, series,
            stored=np.dtype(image.get_data_dtype()).name, spacing=tuple(float(s) for s in steps),
            numbers=Numbers(
                np.dtype(image.get_data_dtype()).name, float(image.dataobj.slope), float(image.dataobj.inter)
            ),
        )  # fmt: skip

    def grid(self, info: Info, units: Units) -> tuple[int, ...]:
        if units.spacing is None:
            return info.shape
        if not all(
            here > 0 for here, wanted in zip(info.spacing or (), units.spacing, strict=True) if wanted
        ):
            raise UnreadableError(f"its spacing must be positive to be resampled, got {info.spacing}")
        steps = zip(info.shape, info.spacing or (), units.spacing, strict=True)
        return tuple(max(round(n * here / wanted), 1) if wanted else n for n, here, wanted in steps)

    def read(
        self, info: Info, index: int, units: Units, cache: Cache, region: Region | None = None
    ) -> np.ndarray:
        grid = self.grid(info, units)
        if grid == info.shape:
            return info.numbers.values(_stored(info, index, units, cache, region))

        def make() -> np.ndarray:
            whole = info.numbers.values(_stored(info, index, units, cache, None))
            return resized(with_nan(whole, missing_value(units.missing)), grid)

        return np.array(cut(cache.get((info.path, index, grid, units.missing), make), region))

    def stored(self, info: Info, index: int, units: Units, cache: Cache) -> np.ndarray:
        return _stored(info, index, units, cache, None)


def canonical(image: Any, values: Any) -> tuple[tuple[float, ...], Any]:
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


class _Unread:
    """The shape of values that are not read."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape


def _without_ones(shape: tuple[int, ...], options: DataOptions | Units) -> tuple[int, ...]:
    """Trailing axes of size 1 beyond those that are wanted are how files of one frame are often written."""
    wanted = (options.spatial_dims or 3) + (options.channel_axis is not None) + options.series
    kept = len(shape)
    while kept > wanted and shape[kept - 1] == 1:
        kept -= 1
    return shape[:kept]


def _stored(info: Info, index: int, units: Units, cache: Cache, region: Region | None) -> np.ndarray:
    """A region on the file's own grid, canonically oriented, in its own numbers."""
    image = nibabel().load(info.path)
    proxy = image.dataobj
    if info.path.suffix == ".gz":
        values = cache.get((info.path, "volume"), lambda: np.array(proxy.get_unscaled()))
    else:
        values = np.asanyarray(proxy.get_unscaled())
    _, values = canonical(image, values)
    values = values.reshape(_without_ones(values.shape, units))
    example = channels_first(values[..., index] if info.series else values, units.channel_axis)
    return np.array(cut(example, region))


def as_stored(image: Any, values: np.ndarray) -> np.ndarray:
    """Values in canonical order, in the order of a file's own axes and with its trailing axes of size 1."""
    orientations = nibabel().orientations
    if len(image.shape) >= 3:
        there = orientations.io_orientation(image.affine)
        here = np.array([[0, 1], [1, 1], [2, 1]])
        values = orientations.apply_orientation(_three_axes(values), orientations.ornt_transform(here, there))
    return values.reshape(image.shape)


def _three_axes(values: np.ndarray) -> np.ndarray:
    return values.reshape(values.shape + (1,) * (3 - values.ndim))
