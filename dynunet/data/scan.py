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

from .degradation import paired, recorded_noise
from .errors import UnreadableError, attempt, shown
from .files import search
from .formats import Header, of_kind
from .formats.format import most
from .memory import Cache
from .options import DataOptions
from .ranges import ranges_of
from .selection import File, Selection, common_spec, example_size, mixes_noise, watched, wrong_size
from .spec import DataSpec
from .splits import held_out
from .target_files import find_targets
from .target_survey import survey
from .targets import Known, Targets


@dataclass
class Scan:
    """The result: what can be used, what it means, and what was skipped for which reason."""

    root: Path
    spec: DataSpec
    files: list[File]
    entries: list[tuple[int, int]]  # the file of every example, and its place in the file
    labels: list[int] | None
    held: list[bool]
    selection: Selection
    others: Counter[str] = field(default_factory=Counter)
    left_out: dict[Path, str] = field(default_factory=dict)  # folders, and what they are
    cond: DataSpec | None = None  # of the degraded versions
    noise: list[Header] = field(default_factory=list)
    targets: Targets | None = None


def scan(
    source: Path | str | Sequence[Path | str], options: DataOptions, cache: Cache, known: Known | None = None
) -> Scan:
    """Look through the files of a source.

    Args:
        known: what a model predicts that is to be evaluated.

    Raises:
        FileNotFoundError, ValueError: there is nothing to train on, or files are not alike that must be.
    """
    found = search(source, "source")
    selection = Selection(found.unusable)
    files = selection.read_headers(found.files, options)
    spec, files = common_spec(files, options, selection)
    files = selection.keep(files, lambda f: _placed(f, spec))
    if options.self_supervised is not None:
        files = selection.keep(files, lambda f: mixes_noise(f, spec))
    cond = None
    if options.pairs is not None:
        cond, files = paired(files, found.root, options, spec, selection)
    files = find_targets(files, found.root, options, spec, selection)
    spec = replace(spec, size=example_size(files, options, spec), step=_typical_step(files))
    if options.self_supervised == "noise2void" and {*(spec.size or ())} == {1}:
        raise ValueError(
            "size must be above 1 along an axis with self_supervised='noise2void', which hides an entry "
            f"behind another, got {spec.size}"
        )
    files = selection.keep(files, lambda f: wrong_size(f, spec, options))
    files = _in_folders(files, found.root, options, selection)
    files = _measured(files, spec, cond, options, cache, selection)
    files, targets = survey(files, options, known, cache, selection) if options.supervised else (files, None)

    entries = [(i, n) for i, f in enumerate(files) for n in range(f.header.entries) if not _unusable(f, n)]
    if not entries:
        raise ValueError("none of the examples can be used; of each pair, one or the other cannot")
    spec, labels = _classes(spec, files, entries, options)
    held = held_out(
        [f.header for f in files],
        entries,
        [f.folder for f in files],
        options.validation,
        options.seed,
        options.labels == "folder",
    )
    spec = replace(spec, range=_range(spec, files, entries, held, options))
    noise = recorded_noise(options, spec, selection)
    restoration, channels = _restoration(options, cond), _cond_channels(options, spec, cond)
    spec = replace(spec, restoration=restoration, cond_channels=channels)
    if cond is not None:
        cond = replace(cond, range=spec.range)
    learned = None
    if targets is not None:  # classes are the model's own, not a condition
        learned = targets(entries=entries, held=held, labels=labels, names=spec.classes)
        spec, labels = replace(spec, classes=None, target=learned.spec.document()), None
    return Scan(
        found.root, spec, files, entries, labels, held, selection, found.others, found.left_out, cond, noise,
        learned,
    )  # fmt: skip


def _placed(file: File, spec: DataSpec) -> None:
    """Note the grid of a file, or fail with the reason why it has none."""
    file.grid = attempt(lambda: file.header.format.grid(file.header, spec))


def _in_folders(files: list[File], root: Path, options: DataOptions, selection: Selection) -> list[File]:
    """Note the top-level sub-folder of every file; what all files are in, is none (unless it is a class)."""
    places = [Path(os.path.relpath(f.header.place, root)) for f in files]
    shared = 0
    if options.labels != "folder":
        shared = len(Path(os.path.commonpath([p.parent for p in places])).parts)
    for file, place in zip(files, places, strict=True):
        folders = place.parent.parts[shared:]
        file.folder = folders[0] if folders else ""
    if options.labels != "folder":
        return files
    return selection.keep(files, lambda f: None if f.folder else "it is in no sub-folder, so it has no class")


def _typical_step(files: list[File]) -> tuple[float, ...] | None:
    """The spacing of most examples, as read."""
    steps = [
        tuple(round(s * n / m, 6) for s, n, m in zip(f.header.spacing, f.header.shape, f.grid, strict=True))
        for f in files
        if f.header.spacing is not None
    ]
    return most(steps) if steps else None


def _measured(
    files: list[File],
    spec: DataSpec,
    cond: DataSpec | None,
    options: DataOptions,
    cache: Cache,
    selection: Selection,
) -> list[File]:
    """Ranges of values where the scale depends on them, and what is missing where something may be."""

    def wanted(file: File) -> bool:
        return options.missing is not None or file.header.format.measured(file.header)

    def look(file: File) -> str | None:
        if file.pair is not None and cond is not None and wanted(file.pair):
            pair = file.pair
            try:
                pair.ranges = attempt(lambda header=pair.header, spec=cond: ranges_of(header, spec, cache))
            except UnreadableError as error:
                return f"its pair: {error}"
        if not wanted(file):
            return None
        file.ranges = found = attempt(lambda: ranges_of(file.header, spec, cache))
        if found.odd:
            n, why = len(found.odd), next(iter(found.odd.values()))
            selection.partly[file.header.path] = f"{n} of {file.header.entries} examples: {why}"
        return None

    return selection.keep(watched(files, "measuring values"), look)


def _unusable(file: File, index: int) -> bool:
    return any(f is not None and f.ranges is not None and index in f.ranges.odd for f in (file, file.pair))


def _classes(
    spec: DataSpec, files: list[File], entries: list[tuple[int, int]], options: DataOptions
) -> tuple[DataSpec, list[int] | None]:
    if options.labels is None:
        return spec, None
    if options.labels == "folder":
        folders = sorted({f.folder for f in files})
        labels = [folders.index(files[f].folder) for f, _ in entries]
        names = map(shown, folders)
    else:
        labels = _labels_in_files(files, entries)
        names = files[0].header.classes or map(str, range(max(labels) + 1))
    return replace(spec, classes=tuple(names)), labels


def _labels_in_files(files: list[File], entries: list[tuple[int, int]]) -> list[int]:
    if any(f.header.labels is None for f in files):
        raise ValueError("labels='file' is of IDX, CIFAR-10 and npz files; labels='folder' takes sub-folders")
    return [int(labels[n]) for f, n in entries if (labels := files[f].header.labels) is not None]


def _range(
    spec: DataSpec, files: list[File], entries: list[tuple[int, int]], held: list[bool], options: DataOptions
) -> tuple[float, float] | None:
    """The values that become -1 and 1: as asked, of the training examples, or typical ones of volumes."""
    if spec.percentiles is not None:
        return _typical_range(files)
    trained = [(files[f].ranges, n) for (f, n), out in zip(entries, held, strict=True) if not out]
    spans = [(float(m.low[n]), float(m.high[n])) for m, n in trained if m is not None]
    whole = (min(low for low, _ in spans), max(high for _, high in spans)) if spans else None
    return of_kind(spec.kind).range_of(spec, options.value_range, whole)


def _typical_range(files: list[File]) -> tuple[float, float]:
    """The medians of the files' own ranges."""
    found = [p for f in files if f.ranges is not None and (p := f.ranges.percentiles) is not None]
    return median(low for low, _ in found), median(high for _, high in found)


def _restoration(options: DataOptions, cond: DataSpec | None) -> dict[str, Any] | None:
    if not options.restores:
        return None
    level = {} if options.level is None else {"level": options.level}
    if cond is not None:
        return {"pairs": True, "channels": cond.channels, **level}
    if options.self_supervised is not None:
        known = {} if options.noise_std is None else {"noise_std": options.noise_std}
        known |= {"noise": True} if options.noise is not None else {}
        return {"self_supervised": options.self_supervised, **known, **level}
    noise = {"noise": options.noise is not None, "coloured": options.coloured, "snr": list(options.snr)}
    return {**noise, **level}


def _cond_channels(options: DataOptions, spec: DataSpec, cond: DataSpec | None) -> int:
    degraded = cond.channels if cond is not None else spec.channels if options.restores else 0
    return degraded + spec.spatial_dims * options.coordinates
