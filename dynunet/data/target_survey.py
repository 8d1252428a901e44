"""Looking at all targets before training: what is to be learned, its classes or its scale, what is no use."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf, isfinite, nan, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .census import Census, moments
from .classes import IGNORED, class_values, described, names_of, numbered, read_classes
from .errors import UnreadableError, attempt, count, shown
from .formats.format import most
from .label_table import read_table
from .memory import Cache
from .options import DataOptions
from .ranges import regions
from .selection import File, Selection, watched
from .target_spec import Classes, TargetSpec
from .targets import Known, Targets, map_header, map_spec, map_values
from .values import Scale

__all__ = ["survey"]

_MOST = 256  # classes that whole numbers are taken for, unless segmentation is asked for


def survey(
    files: list[File], options: DataOptions, known: Known | None, cache: Cache, selection: Selection
) -> tuple[list[File], Callable[..., Targets]]:
    """Look at all targets, and leave out the files whose target cannot be used.

    Args:
        known: what a model predicts that is to be evaluated; its classes are the ones there are.

    Returns:
        The files, and a function that makes :class:`Targets` once it is known which examples are held out.
    """
    classes, ignored = (None, None) if options.class_names is None else read_classes(options.class_names)
    if known is not None:
        classes = known[1]
    if options.ignore_index is None and ignored is not None:
        options = replace(options, ignore_index=ignored)
    about = _Survey(options, known, classes, cache, selection)
    if known is not None and options.targets is not None and known[0].maps == options.table:
        wanted = "a folder of maps" if known[0].maps else "a table (CSV)"
        raise ValueError(f"targets must be {wanted}, as the model predicts, got {shown(options.targets)}")
    if options.targets is None:
        return files, about.of_folders
    if options.table:
        return about.of_table(files)
    return about.of_maps(files)


@dataclass
class _Survey:
    options: DataOptions
    known: Known | None
    classes: Classes | None
    cache: Cache
    selection: Selection

    def made(self, spec: TargetSpec, counts: Sequence[int] = (), single: Sequence[Tensor] = ()) -> Targets:
        if self.classes is not None and self.known is None and sum(map(bool, counts)) < 2:
            raise ValueError(
                f"targets must have two classes at least to be told apart, got {described(self.classes)} "
                f"{count(sum(counts), 'time')}"
            )
        return Targets(spec, self.classes, tuple(counts), list(single), self.options, self.cache)

    def _task(self, values: bool) -> str:
        """That of the model or of the options, or what the targets look like."""
        if self.known is not None:
            return self.known[0].task
        classes = "classification" if self.options.table else "segmentation"
        return self.options.task or ("regression" if values else classes)

    # ---- maps

    def of_maps(self, files: list[File]) -> tuple[list[File], Callable[..., Targets]]:
        found: dict[Path, Census] = {}

        def look(file: File) -> str | None:
            try:
                found[file.header.path] = attempt(lambda: self._census(file))
            except UnreadableError as error:
                return f"{_its_target(file)}: {error}"
            empty = found[file.header.path].number == 0
            return f"{_its_target(file)}: all of it is missing" if empty else None

        files = self.selection.keep(watched(files, "reading targets"), look)
        total = sum((found[f.header.path] for f in files), Census())
        labels = total.labels
        task = self._task(labels is None or len(labels) > _MOST)
        if task == "classification":
            raise ValueError("task must be 'segmentation' or 'regression' for maps, got 'classification'")
        if task == "regression":
            return files, lambda entries, held, **_: self._values_of_maps(files, entries, held, found)
        if self.classes is None:
            if labels is None:
                raise ValueError("targets must be whole numbers to be labels, got others; --task regression")
            self.classes = names_of(set(labels) - {self.options.ignore_index})
            if not self.classes:
                raise ValueError(
                    f"targets must have labels that count, got {self.options.ignore_index} alone"
                )
        classes, ignored = self.classes, self.options.ignore_index

        def usable(file: File) -> str | None:
            there = np.array(list(found[file.header.path].labels or ()), np.int64)
            try:
                numbers = numbered(there, classes, ignored)
            except UnreadableError as error:
                return f"{_its_target(file)}: {error}"
            if (numbers == IGNORED).all():
                return f"{_its_target(file)}: all of it is {ignored}, which is ignored"
            return None

        files = self.selection.keep(files, usable)
        return files, lambda **_: self._label_maps(files, found)

    def _census(self, file: File) -> Census:
        result, header = Census(), map_header(file)
        for place in range(header.entries):
            for region in regions(header, map_spec(header, self.options)):
                result.add(map_values(header, place, self.options, self.cache, region))
        if self._task(False) != "regression" and result.labels is None and self.options.task is not None:
            raise UnreadableError("a label map has whole numbers, and this one has others")
        return result

    def _label_maps(self, files: list[File], found: Mapping[Path, Census]) -> Targets:
        assert self.classes is not None
        headers = [map_header(file) for file in files]
        palettes = (h.format.palette(h.path) for h in headers)
        palette = next((tuple(p) for p in palettes if p is not None), None)
        spec = TargetSpec("segmentation", headers[0].kind, 1, most(h.stored for h in headers), palette)
        total = sum((found[f.header.path] for f in files), Census()).labels or Counter()
        return self.made(spec, [total[value] for value in class_values(self.classes)])

    def _values_of_maps(
        self,
        files: list[File],
        entries: Sequence[tuple[int, int]],
        held: Sequence[bool],
        found: Mapping[Path, Census],
    ) -> Targets:
        headers = [map_header(file) for file in files]
        channels = most(h.channels for h in headers)
        trained = {file for (file, _), out in zip(entries, held, strict=True) if not out}
        total = sum((found[files[i].header.path] for i in sorted(trained)), Census())
        scale = self._scales([total])
        spec = TargetSpec(
            "regression", headers[0].kind, channels, most(h.stored for h in headers), scales=scale
        )
        return self.made(spec)

    def _scales(self, found: Sequence[Census]) -> tuple[tuple[float, float], ...]:
        if self.known is not None:
            return self.known[0].scales
        scales = []
        for census in found:
            mean = census.total / max(census.number, 1)
            deviation = sqrt(max(census.squares / max(census.number, 1) - mean**2, 0))
            if not isfinite(mean) or deviation <= 1e-12 * abs(mean) or deviation == 0:
                raise ValueError(f"targets must be different values to train on, got {mean:g} alone")
            scales.append((mean - deviation, mean + deviation))
        return tuple(scales)

    # ---- labels and values of whole examples

    def of_table(self, files: list[File]) -> tuple[list[File], Callable[..., Targets]]:
        path = self.options.targets
        assert path is not None
        columns = read_table(path).columns
        rows = [f.row for f in files if f.row is not None]
        values = all(_number(cell) is not None for row in rows for cell in row)
        task = self._task(values)
        _check_table(task, columns)
        if task == "classification" and self.classes is None:
            self.classes = _in_order({row[0] for row in rows} - {""})
        files = self.selection.keep(files, self._no_values if task == "regression" else self._no_class)
        spec = TargetSpec(task, channels=len(columns), columns=columns)
        return files, lambda entries, held, **_: self._of_rows(files, entries, held, spec)

    def _no_values(self, file: File) -> str | None:
        cells = file.row or ()
        wrong = [cell for cell in cells if _number(cell) is None]
        if wrong:
            return f"its value in the table is no number: {wrong[0]!r}"
        return "it has no value in the table" if all(np.isnan(_number(c) or 0.0) for c in cells) else None

    def _no_class(self, file: File) -> str | None:
        name = "".join(file.row or ())
        if not name:
            return "it has no label in the table"
        return None if name in self._classes_by_cell else f"its label {name!r} is none of the classes"

    @property
    def _classes_by_cell(self) -> dict[str, int]:
        """The number of a class by its name, and by its value."""
        classes = self.classes or ()
        by_value = {str(value): i for i, value in enumerate(class_values(classes))}
        return (by_value if isinstance(classes, Mapping) else {}) | {
            name: i for i, name in enumerate(classes)
        }

    def _of_rows(
        self, files: list[File], entries: Sequence[tuple[int, int]], held: Sequence[bool], spec: TargetSpec
    ) -> Targets:
        rows = [files[i].row or () for i, _ in entries]
        if spec.task == "classification":
            return self._classified(spec, [self._classes_by_cell["".join(row)] for row in rows])
        return self._values_of_rows(rows, held, spec)

    def _values_of_rows(
        self, rows: Sequence[Sequence[str]], held: Sequence[bool], spec: TargetSpec
    ) -> Targets:
        values = [[_number(cell) or 0.0 for cell in row] for row in rows]
        columns = np.array([v for v, out in zip(values, held, strict=True) if not out] or values).T
        scales = self._scales([moments(column) for column in columns])
        single = [torch.from_numpy(_to_model(row, scales)) for row in values]
        return self.made(replace(spec, scales=scales), single=single)

    def of_folders(self, labels: Sequence[int], names: Sequence[str], **_: Any) -> Targets:
        """Classes of sub-folders, or inside of files."""
        if self.classes is None:
            self.classes = tuple(names)
        numbers = []
        for label in labels:
            if names[label] not in self._classes_by_cell:
                raise ValueError(f"the class {names[label]!r} must be one of {described(self.classes)}")
            numbers.append(self._classes_by_cell[names[label]])
        return self._classified(TargetSpec("classification"), numbers)

    def _classified(self, spec: TargetSpec, numbers: Sequence[int]) -> Targets:
        often = Counter(numbers)
        counts = [often[i] for i in range(len(self.classes or ()))]
        return self.made(spec, counts, [torch.tensor(number) for number in numbers])


def _check_table(task: str, columns: Sequence[str]) -> None:
    """Refuse columns that are no targets of a task."""
    if task == "segmentation":
        raise ValueError("task must be 'classification' or 'regression' for a table, got 'segmentation'")
    if task == "classification" and len(columns) > 1:
        raise ValueError(f"targets must have one column of labels to classify, got {', '.join(columns)}")


def _in_order(names: set[str]) -> tuple[str, ...]:
    """Numbers by their values, other names by the alphabet."""
    numeric = all(_number(name) is not None for name in names)
    return tuple(sorted(names, key=lambda name: (_number(name) if numeric else 0, name)))


def _to_model(row: Sequence[float], scales: Sequence[tuple[float, float]]) -> np.ndarray:
    values = [Scale(*scale).to_model(np.array(value)) for scale, value in zip(scales, row, strict=True)]
    return np.array(values, np.float32)


def _its_target(file: File) -> str:
    return f"its target {shown(map_header(file).path)}"


def _number(cell: str) -> float | None:
    """A cell as a number, NaN where it is empty; None if it is none."""
    if not cell:
        return nan
    try:
        value = float(cell)
    except ValueError:
        return None
    return None if abs(value) == inf else value
