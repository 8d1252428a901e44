"""Looking through files before training: which can be used, what they have in common, what is held out.

Most files decide. The number of axes, the kind, the channels, the sample rate and (without a crop size) the
size are those of most examples; a file that cannot be read like them is skipped, with the reason.
"""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from .cache import Cache
from .common import common_units, example_size, most, wrong_size
from .companions import paired, recorded_noise
from .files import READERS, search
from .measuring import measure
from .options import DataOptions
from .sieve import File, Sieve, watched
from .sources import Info, Units, UnreadableError, attempt, shown
from .splits import held_out
from .standard import classes_of


@dataclass
class Scan:
    """The result: what can be used, what it means, and what was skipped for which reason."""

    root: Path
    units: Units
    files: list[File]
    entries: list[tuple[int, int]]  # the file of every example, and its place in the file
    labels: list[int] | None
    held: list[bool]
    sieve: Sieve
    others: Counter[str] = field(default_factory=Counter)
    left_out: dict[Path, str] = field(default_factory=dict)  # folders, and what they are
    cond: Units | None = None  # of the degraded versions
    noise: list[Info] = field(default_factory=list)


def scan(source: Path | str | Sequence[Path | str], options: DataOptions, cache: Cache) -> Scan:
    """Look through the files of a source.

    Raises:
        FileNotFoundError, ValueError: there is nothing to train on, or files are not alike that must be.
    """
    found = search(source, "source")
    sieve = Sieve(found.unusable)
    files = sieve.look(found.files, options)
    units, files = common_units(files, options, sieve)
    files = sieve.keep(files, lambda f: _placed(f, units))
    cond = None
    if options.pairs is not None:
        cond, files = paired(files, found.root, options, units, sieve)
    units = replace(units, size=example_size(files, options, units), step=_typical_step(files))
    files = sieve.keep(files, lambda f: wrong_size(f, units, options))
    _name_folders(files, found.root, options)
    if options.labels == "folder":
        files = sieve.keep(
            files, lambda f: None if f.folder else "it is in no sub-folder, so it has no class"
        )
    files = _measured(files, units, cond, options, cache, sieve)

    entries = [(i, n) for i, f in enumerate(files) for n in range(f.info.entries) if not _odd(f, n)]
    if not entries:
        raise ValueError("none of the examples can be used; of each pair, one or the other cannot")
    units, labels = _classes(units, files, entries, options)
    held = held_out(
        [f.info for f in files],
        entries,
        [f.folder for f in files],
        options.validation,
        options.seed,
        options.labels == "folder",
    )
    units = replace(units, range=_range(units, files, entries, held, options))
    noise = recorded_noise(options, units, sieve)
    if options.level is not None and units.kind != "audio":
        raise ValueError(f"level must be left out but for audio, got {options.level} with {units.kind}")
    restoration, channels = _restoration(options, cond), _cond_channels(options, units, cond)
    units = replace(units, restoration=restoration, cond_channels=channels)
    if cond is not None:
        cond = replace(cond, range=units.range)
    return Scan(
        found.root, units, files, entries, labels, held, sieve, found.others, found.left_out, cond, noise
    )


def _placed(file: File, units: Units) -> None:
    """Note the grid of a file, or fail with the reason why it has none."""
    file.grid = attempt(lambda: READERS[file.info.format].grid(file.info, units))


def _name_folders(files: list[File], root: Path, options: DataOptions) -> None:
    """The top-level sub-folder of every file; what all files are in, is none (unless it is a class)."""
    places = [Path(os.path.relpath(f.info.path, root)) for f in files]
    shared = 0
    if options.labels != "folder":
        shared = len(Path(os.path.commonpath([p.parent for p in places])).parts)
    for file, place in zip(files, places, strict=True):
        folders = place.parent.parts[shared:]
        file.folder = folders[0] if folders else ""


def _typical_step(files: list[File]) -> tuple[float, ...] | None:
    """The spacing of most examples, as read."""
    steps = [
        tuple(round(s * n / m, 6) for s, n, m in zip(f.info.spacing, f.info.shape, f.grid, strict=True))
        for f in files
        if f.info.spacing is not None
    ]
    return most(steps) if steps else None


def _measured(
    files: list[File], units: Units, cond: Units | None, options: DataOptions, cache: Cache, sieve: Sieve
) -> list[File]:
    """Ranges of volumes and arrays, and what is missing where something may be."""
    if units.kind in ("audio", "images") and options.missing is None:
        return files

    def look(file: File) -> str | None:
        if file.pair is not None and cond is not None:
            pair = file.pair
            try:
                pair.measure = attempt(lambda info=pair.info, units=cond: measure(info, units, cache))
            except UnreadableError as error:
                return f"its pair: {error}"
        file.measure = found = attempt(lambda: measure(file.info, units, cache))
        if found.odd:
            n, why = len(found.odd), next(iter(found.odd.values()))
            sieve.partly[file.info.path] = f"{n} of {file.info.entries} examples: {why}"
        return None

    return sieve.keep(watched(files, "measuring values"), look)


def _odd(file: File, index: int) -> bool:
    return any(f is not None and f.measure is not None and index in f.measure.odd for f in (file, file.pair))


def _classes(
    units: Units, files: list[File], entries: list[tuple[int, int]], options: DataOptions
) -> tuple[Units, list[int] | None]:
    if options.labels is None:
        return units, None
    if options.labels == "folder":
        names = sorted({f.folder for f in files})
        labels = [names.index(files[f].folder) for f, _ in entries]
        return replace(units, classes=tuple(map(shown, names))), labels
    if any(f.info.labels is None for f in files):
        raise ValueError("labels='file' is of IDX, CIFAR-10 and npz files; labels='folder' takes sub-folders")
    labels = [int(labels[n]) for f, n in entries if (labels := files[f].info.labels) is not None]
    names = classes_of(files[0].info) or tuple(str(c) for c in range(max(labels) + 1))
    return replace(units, classes=tuple(names)), labels


def _range(
    units: Units, files: list[File], entries: list[tuple[int, int]], held: list[bool], options: DataOptions
) -> tuple[float, float] | None:
    """What becomes -1 and 1: as asked, the range of the training examples, or what is typical of volumes."""
    if units.kind not in ("volumes", "arrays"):
        return None
    if options.value_range is not None:
        return options.value_range
    if units.percentiles is not None:
        own = [f.measure.own for f in files if f.measure is not None and f.measure.own is not None]
        return median(low for low, _ in own), median(high for _, high in own)
    trained = [(files[f].measure, n) for (f, n), out in zip(entries, held, strict=True) if not out]
    low = min(float(m.low[n]) for m, n in trained if m is not None)
    high = max(float(m.high[n]) for m, n in trained if m is not None)
    if not low < high or not np.isfinite(2 / (high - low)):
        raise ValueError(f"value_range must be given: all values to train on are {low:g}")
    return low, high


def _restoration(options: DataOptions, cond: Units | None) -> dict[str, Any] | None:
    if not options.restores:
        return None
    level = {} if options.level is None else {"level": options.level}
    if cond is not None:
        return {"pairs": True, "channels": cond.channels, **level}
    noise = {"noise": options.noise is not None, "coloured": options.coloured, "snr": list(options.snr)}
    return {**noise, **level}


def _cond_channels(options: DataOptions, units: Units, cond: Units | None) -> int:
    degraded = cond.channels if cond is not None else units.channels if options.restores else 0
    return degraded + units.spatial_dims * options.coordinates
