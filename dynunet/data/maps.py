"""Maps that a network made of files: on the grid of the file, in a format that keeps them as they are."""

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from .errors import UnreadableError, attempt, shown
from .formats import Header, of_path, to_write
from .formats.numbers import Numbers
from .memory import Cache
from .options import DataOptions
from .saving import check_free, write_bytes
from .spec import DataSpec
from .values import greatest, resized

__all__ = ["class_map", "label_dtype", "label_map", "map_name", "write_array", "write_map"]

_DTYPES = ("uint8", "int16", "uint16", "int32")


def class_map(probabilities: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The most probable class at every place of a grid, ``shape``.

    Each class is resized by itself, so that no more than two maps are held beside the probabilities.

    Args:
        probabilities: ``(classes, *spatial)``, of whatever sizes.
        shape: sizes of the grid.
    """
    on_grid = (p if p.shape == shape else resized(p[None], shape)[0] for p in probabilities)
    return greatest(on_grid, shape)


def label_dtype(values: Sequence[int], stored: str, kind: str) -> str:
    """The type to store labels in: that of the label maps of training, or the shortest that has them all."""
    kinds = ("uint8", "uint16") if kind == "images" else _DTYPES
    kinds = (stored, *kinds) if stored in kinds else kinds
    fits = (d for d in kinds if np.iinfo(d).min <= min(values) and max(values) <= np.iinfo(d).max)
    return next(fits, "int32")


def label_map(path: Path, spec: DataSpec) -> np.ndarray:
    """The labels in a file, as they are there: ``spatial``.

    Args:
        spec: of the data that it is a map of.

    Raises:
        ValueError: it cannot be read, naming it and saying why.
    """
    own = of_path(path)
    if own is None:
        raise ValueError(f"{shown(path)} is of no known format")
    try:
        header = attempt(lambda: own.label_header(path, DataOptions(spatial_dims=spec.spatial_dims)))
        read = replace(spec, channels=1, percentiles=None, missing=None)
        return attempt(lambda: own.labels(header, 0, read, Cache(0)))[0]
    except UnreadableError as error:
        raise ValueError(f"{shown(path)}: {error}") from error


def map_name(path: Path, dtype: str, channels: int = 1) -> str:
    """The name of the map of a file: that of the file, with another suffix where its format holds none."""
    own = of_path(path)
    suffix = next((s for s in own.suffixes if path.name.lower().endswith(s)), "") if own else ""
    new = ".npy" if own is None else own.label_suffix(suffix, dtype)
    if channels > 1 and own is not None and own.kind == "volumes":
        new = ".npy"  # channels beside three axes have no place of their own
    return path.name if new == suffix else path.name[: len(path.name) - len(suffix)] + new


def write_map(
    path: Path, values: np.ndarray, dtype: str, spec: DataSpec, like: Header, overwrite: bool = False
) -> None:
    """Write a map.

    Args:
        path: the file to write.
        values: ``(N, C, *shape)`` on the grid of the file.
        dtype: to store them in; whole numbers are rounded.
        spec: of the model.
        like: of the file that the map was made of.

    Raises:
        FileExistsError: there is a file, and overwrite is False.
        ValueError: the format has no such maps.
        OSError: it cannot be written, such as :class:`dynunet.writing.DiskFull`; nothing is left of it.
    """
    check_free(path, overwrite)
    written, numbers = to_write(path), Numbers(dtype)
    if spec.spatial_dims not in written.dims or (written.kind == "images") != (like.kind == "images"):
        raise ValueError(f"path must be of a format for maps of {like.kind}, such as npy, got {shown(path)}")
    several = values.shape[1] > 1
    own = replace(spec, channel_axis=spec.channel_axis if several else None)
    source = None if written.kind == "images" else like
    write_bytes(path, written.encode(path, numbers.stored(values), numbers, own, source), overwrite)


def write_array(
    path: Path, maps: np.ndarray | Sequence[np.ndarray], like: Header, overwrite: bool = False
) -> None:
    """Write maps as an array (npy), on the grid of their file and with its axes in their own order.

    Args:
        maps: ``(..., *spatial)`` of one grid, such as one for each class.
    """
    check_free(path, overwrite)
    values = np.asarray(maps, np.float32)
    leading, spatial = values.shape[: -len(like.shape)], values.shape[-len(like.shape) :]
    flat = values.reshape(-1, *spatial)
    flat = flat if spatial == like.shape else resized(flat, like.shape)
    ordered = np.stack([like.format.in_file_order(one, like) for one in flat])
    file = io.BytesIO()
    np.save(file, ordered.reshape(*leading, *ordered.shape[1:]))
    write_bytes(path, file.getbuffer(), overwrite)
