"""Reading a new file as the training files were read."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .cache import Cache
from .files import READERS, reader_of
from .measuring import measure
from .options import DataOptions, missing_value
from .resizing import resized
from .scaling import Scale, loudness, present, scale_of, with_nan
from .sources import Info, Units, UnreadableError, attempt, shown


@dataclass(frozen=True)
class Source:
    """The file that something was read from, and how: what :func:`save` needs to write in its place."""

    info: Info
    units: Units
    scale: Scale
    shape: tuple[int, ...]  # (C, *spatial), or (N, C, *spatial) for a file of several examples


@dataclass(frozen=True)
class Loaded:
    """A file as a network sees it.

    ``x`` is float32 ``(C, *spatial)``, or ``(N, C, *spatial)`` for a file of several examples. ``mask`` is of
    its shape, False where an entry is missing and x is 0; None where nothing is.
    """

    x: Tensor
    source: Source
    mask: Tensor | None = None


def load(path: Path | str, units: "dict[str, Any] | Units") -> Loaded:
    """Read a whole file on the grid and the scale that a model was trained with.

    Nothing is cropped. Volumes are scaled by their own percentiles where the training files were, and audio
    to the level that the training examples had, if any.

    Args:
        path: a file of the kind that the units are of.
        units: ``dataset.units``, which a trained model has as ``diffusion.data``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be read, or not with these units; the message says why.
    """
    path, units = Path(path), Units.of(units)
    if not path.exists():
        raise FileNotFoundError(f"path: there is no file {shown(path)}")
    try:
        return attempt(lambda: _load(path, units))
    except UnreadableError as error:
        raise ValueError(f"{shown(path)} cannot be read: {error}") from error


def options_of(units: Units) -> DataOptions:
    """The options of reading one more file."""
    return DataOptions(
        spatial_dims=units.spatial_dims,
        channel_axis=units.channel_axis,
        series=units.series,
        missing=units.missing,
    )


def _load(path: Path, units: Units) -> Loaded:
    reader = reader_of(path)
    if reader is None or reader.kind != units.kind:
        raise UnreadableError(f"it must be one of {units.kind}, as the training files are")
    info = reader.look(path, options_of(units))
    read_as = given(units)
    if info.channels != read_as.channels and not reader.convertible(info, read_as.channels):
        raise UnreadableError(f"it has {info.channels} channels, and {read_as.channels} are used")
    cache = Cache(float("inf"))
    own = measure(info, read_as, cache).own if units.percentiles is not None else None
    scale = scale_of(info, read_as, own)
    level = (units.restoration or {}).get("level")
    if level is not None:
        scale = loudness(READERS[info.format].read(info, 0, read_as, cache), level)
    examples = [_example(info, n, read_as, scale, cache) for n in range(info.entries)]
    x, mask = (np.stack(arrays) for arrays in zip(*examples, strict=True))
    if not info.series:
        x, mask = x[0], mask[0]
    if not mask.any():
        raise UnreadableError("it has nothing but missing values")
    masked = None if mask.all() else torch.from_numpy(mask)
    return Loaded(torch.from_numpy(x), Source(info, units, scale, x.shape), masked)


def given(units: Units) -> Units:
    """The units of what a network is given: the degraded version, of pairs, may have other channels."""
    return replace(units, channels=(units.restoration or {}).get("channels", units.channels))


def _example(
    info: Info, index: int, units: Units, scale: Scale, cache: Cache
) -> tuple[np.ndarray, np.ndarray]:
    values = READERS[info.format].read(info, index, units, cache)
    missing = missing_value(units.missing)
    if units.resize and units.size is not None and values.shape[1:] != units.size:
        values = resized(with_nan(values, missing), units.size)
    there = present(values, missing)
    if missing is None and not there.all():
        raise UnreadableError("it has values that are NaN or infinite, and the training files had none")
    return np.where(there, scale.to_model(values), np.float32(0)), there
