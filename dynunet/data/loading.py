"""Reading a new file as the training files were read."""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import inf, prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .cache import Cache
from .channels import Channels, matched
from .files import READERS, no_file, reader_of
from .memory import check_size
from .options import DataOptions, missing_value
from .regridding import to_model, to_size, touched
from .scaling import Scale, limits, loudness, present, scale_of
from .sources import Info, Units, UnreadableError, attempt, shown

Marks = Callable[
    [Info], np.ndarray
]  # which entries of a file are to be made anew, bool (N, channels, *shape)


@dataclass(frozen=True)
class Source:
    """The file that something was read from, and how: what :func:`save` needs to write in its place."""

    info: Info
    units: Units
    scales: tuple[Scale, ...]  # one for each view
    channels: Channels
    shape: tuple[int, ...]  # (C, *spatial), or (N, C, *spatial) of several examples or views


@dataclass(frozen=True)
class Loaded:
    """A file as a network sees it.

    ``x`` is float32 ``(C, *spatial)``, or ``(N, C, *spatial)`` for a file of several examples, or of
    channels that a model of one channel takes one by one (:mod:`dynunet.data.channels`). ``mask`` is of its
    shape, False where an entry is missing and x is 0; None where nothing is. ``lost`` says what the model
    does not see.
    """

    x: Tensor
    source: Source
    mask: Tensor | None = None
    lost: tuple[str, ...] = ()


def load(path: Path | str, units: "dict[str, Any] | Units", *, mix: bool = True) -> Loaded:
    """Read a whole file on the grid and the scale that a model was trained with.

    Nothing is cropped. Volumes are scaled by their own percentiles where the training files were, and audio
    to the level that the training examples had, if any.

    Args:
        path: a file of the kind that the units are of.
        units: ``dataset.units``, which a trained model has as ``diffusion.data``.
        mix: whether other channels than the model's are mixed or copied, as those of training files are.
            False gives them so that the result can have those of the file, see :mod:`dynunet.data.channels`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be read, or not with these units; the message says why.
    """
    path, units = Path(path), Units.of(units)
    return read_whole(path, lambda: _load(path, units, mix)[0])


def load_gaps(path: Path, units: Units, marks: Marks | None = None) -> tuple[Loaded, np.ndarray]:
    """A file of which some is to be made anew: what is marked, or without marks what is missing.

    Args:
        marks: from what is known of the file, which of its entries are to be made anew.

    Returns:
        The file, whose mask is False wherever the model has to make something for that, or something is
        missing; and what is to be made anew on the grid of the file, bool ``(N, channels, *shape)``.

    Raises:
        FileNotFoundError, ValueError: as :func:`load`.
    """
    return read_whole(path, lambda: _load(path, units, False, True, marks))


def read_whole(path: Path, read: Callable[[], Any]) -> Any:
    """What reading a file gives, or an error with its name."""
    if not os.path.lexists(path):
        raise FileNotFoundError(f"path: there is no file {shown(path)}")
    try:
        return attempt(read)
    except UnreadableError as error:
        raise ValueError(f"{shown(path)} cannot be read: {error}") from error


def look(path: Path, units: Units) -> Info:
    """What is known of a file that is to be read with these units."""
    reader, why = reader_of(path), no_file(path)
    if why is not None:
        raise UnreadableError(why)
    if reader is None or reader.kind != units.kind:
        raise UnreadableError(f"it must be one of {units.kind}, as the training files are")
    options = DataOptions(
        spatial_dims=units.spatial_dims,
        channel_axis=units.channel_axis,
        series=units.series,
        missing=units.missing,
    )
    return reader.look(path, options)


def _load(
    path: Path, units: Units, mix: bool, gaps: bool = False, marks: Marks | None = None
) -> tuple[Loaded, np.ndarray]:
    info = look(path, units)
    # Of pairs, the degraded ones may have other channels.
    given = (units.restoration or {}).get("channels", units.channels)
    channels = matched(units.kind, given if mix else info.channels, given, units.channels)
    if mix and info.channels != given and not READERS[info.format].convertible(info, given):
        raise UnreadableError(f"it has {info.channels} channels, and {given} are used")
    grid = READERS[info.format].grid(info, units)
    check_size(4 * info.entries * info.channels * prod(grid), path.stat().st_size)
    examples = _examples(info, units, sum(channels.file))
    missing = ~present(examples, missing_value(units.missing))
    holes = missing if marks is None else np.broadcast_to(marks(info), missing.shape)
    if units.missing is None and (missing & ~holes if gaps else missing).any():
        raise UnreadableError("it has values that are NaN or infinite, and the training files had none")
    gone = missing | holes
    if gone.any():
        examples = np.where(gone, np.nan, examples)
    opaque = scale_of(info, units).high
    views = [to_model(v, info, units) for e in examples for v in channels.split(e, opaque)]
    scales = tuple(_scale(info, units, views[n :: channels.views]) for n in range(channels.views))
    views = [to_size(v, units) for v in views]
    there = np.stack([np.isfinite(v) for v in views])
    if gaps:
        marked = (touched(m, there.shape[2:]) for g in gone for m in channels.split(g, False))
        there &= ~np.stack(list(marked))
    elif not there.any():
        raise UnreadableError("it has nothing but missing values")
    scaled = np.stack([scales[n % channels.views].to_model(v) for n, v in enumerate(views)])
    x = torch.from_numpy(np.where(there, scaled, np.float32(0)))
    mask = None if there.all() else torch.from_numpy(there)
    if not info.series and channels.views == 1:
        x, mask = x[0], None if mask is None else mask[0]
    source = Source(info, units, scales, channels, tuple(x.shape))
    return Loaded(x, source, mask, _lost(info, units, there.shape[2:])), holes


def _examples(info: Info, units: Units, channels: int) -> np.ndarray:
    """All of a file ``(N, channels, *shape)``, as precise as training files are read."""
    reader, cache = READERS[info.format], Cache(inf)
    if channels == info.channels:
        values = [info.numbers.values(reader.stored(info, n, units, cache)) for n in range(info.entries)]
    else:
        own = replace(units, channels=channels, spacing=None, sample_rate=None)
        values = [reader.read(info, n, own, cache) for n in range(info.entries)]
    return np.stack(values).astype(np.float32) if info.kind == "audio" else np.stack(values)


def _scale(info: Info, units: Units, views: list[np.ndarray]) -> Scale:
    """The scale of one channel, or of all that are given together, in all examples of a file."""
    there = np.concatenate([v[np.isfinite(v)] for v in views])
    level = (units.restoration or {}).get("level")
    if level is not None:
        return loudness(there, level)
    if units.percentiles is None or not there.size:
        return scale_of(info, units)
    own = limits(there, units.percentiles)
    if own[0] == own[1]:
        raise UnreadableError(f"all its values are {own[0]:g}")
    return scale_of(info, units, own)


def _lost(info: Info, units: Units, grid: tuple[int, ...]) -> tuple[str, ...]:
    """What a result does not have of its file."""
    lost = [] if info.lost is None else [info.lost]
    if units.kind == "audio" and (info.sample_rate or 0) > (units.sample_rate or inf):
        rate = units.sample_rate or 0
        lost.append(f"what is above {rate / 2:g} Hz is lost, for the model is of {rate} Hz")
    elif units.kind != "audio" and any(a < b for a, b in zip(grid, info.shape, strict=True)):
        own = "size, " + "x".join(map(str, grid)) if units.resize else "spacing"
        lost.append(f"what is finer than the model's {own}, is lost")
    return tuple(lost)
