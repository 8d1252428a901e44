"""Targets: what a model is to predict of an example, from files beside it, from a table or from folders.

Label maps (segmentation) and maps of values (regression) have the grid of their file, and what is done to it
is done to them: canonical order, resampling, resizing, crop. Labels are resampled as one map for each class,
linearly, of which the greatest wins, so that there are no labels but those of the file. Values are
standardised: the mean of the training targets minus and plus their standard deviation become -1 and 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .classes import described, numbered, one_hot_resized
from .errors import attempt
from .formats import Header
from .memory import Cache
from .options import DataOptions
from .selection import File
from .spec import DataSpec
from .target_spec import Classes, TargetSpec
from .values import Region, Scale, cut, resized

__all__ = ["Known", "Targets", "in_file_units", "map_header", "map_spec", "map_values"]

Known = tuple[TargetSpec, Classes | None]  # what a model predicts, and its classes


@dataclass
class Targets:
    """The targets of a data set.

    Attributes:
        spec: what they are.
        classes: names, with their values in label maps; None for values.
        counts: positions, or examples, of each class.
        single: of every example, where they are no maps.
    """

    spec: TargetSpec
    classes: Classes | None
    counts: tuple[int, ...]
    single: list[Tensor]
    options: DataOptions
    cache: Cache

    def item(self, file: File, place: int, entry: int, region: Region | None, size: Sequence[int]) -> Tensor:
        """The target of an example as the loss takes it, but with a channel axis where it is a map.

        Args:
            file, place: of the example, and its place in the file.
            entry: its number among all.
            region: of a crop, on the grid that files are read on; None for all of it resized to ``size``.
        """
        if not self.spec.maps:
            return self.single[entry]
        grid = file.grid if region is not None else tuple(size)
        key = (file.header.path, place, "target", grid)
        if grid == file.header.shape:
            values = self._read(file, place, region)
        else:
            values = cut(self.cache.get(key, lambda: self._on_grid(file, place, grid)), region)
        if self.classes is not None:
            return torch.from_numpy(values.astype(np.int64))
        return torch.from_numpy(Scale(*self.spec.scales[0]).to_model(values))

    def whole(self, file: File, place: int, entry: int) -> np.ndarray:
        """The target of an example on the file's own grid: numbers of classes, or values as they are.

        Returns:
            ``(C, *shape)``, or ``()`` or ``(values,)`` where it is no map.
        """
        if self.spec.maps:
            return self._read(file, place, None)
        value = self.single[entry].numpy()
        if self.classes is not None:
            return value
        return in_file_units(self.spec, value)

    def _on_grid(self, file: File, place: int, grid: tuple[int, ...]) -> np.ndarray:
        values = self._read(file, place, None)
        return resized(values, grid) if self.classes is None else one_hot_resized(values, grid)

    def _read(self, file: File, place: int, region: Region | None) -> np.ndarray:
        values = attempt(lambda: map_values(map_header(file), place, self.options, self.cache, region))
        if self.classes is None:
            return np.where(np.isfinite(values), values, np.nan).astype(np.float32)
        return numbered(values, self.classes, self.options.ignore_index)

    def text(self) -> str:
        """What is predicted, in words, for a report."""
        of = "label maps" if self.spec.maps else "whole examples"
        if self.classes is None:
            scales = ", ".join(f"{low:.4g} to {high:.4g}" for low, high in self.spec.scales)
            return f"regression of {'maps' if self.spec.maps else of}; -1 to 1 is {scales}"
        total, number = max(sum(self.counts), 1), len(self.counts)
        names = described(self.classes).split(", ")
        some = ", ".join(f"{n} {c / total:.1%}" for n, c in zip(names[:30], self.counts[:30], strict=True))
        return f"{self.spec.task} of {number} classes of {of}: {some}{' ...' if number > 30 else ''}"


def in_file_units(spec: TargetSpec, values: np.ndarray) -> np.ndarray:
    """Standardised values of a whole example ``(values,)``, in the units of the table."""
    scales = (Scale(*scale) for scale in spec.scales)
    return np.array([scale.to_file(value) for scale, value in zip(scales, values, strict=True)])


def map_header(file: File) -> Header:
    """The header of the map of a file that has one."""
    if file.target is None:
        raise ValueError(f"{file.header.path} has no target")
    return file.target.header


def map_spec(header: Header, options: DataOptions) -> DataSpec:
    """How a map is read: as it is in its file."""
    return DataSpec(
        header.kind,
        len(header.shape),
        header.channels,
        channel_axis=options.channel_axis if header.channels > 1 else None,
        series=header.series,
        stored=header.stored,
        sample_rate=header.sample_rate,
    )


def map_values(
    header: Header, place: int, options: DataOptions, cache: Cache, region: Region | None
) -> np.ndarray:
    """Of one example, as they are in the file of its map, ``(C, *shape)``."""
    read = header.format.read if options.task == "regression" else header.format.labels
    return read(header, place, map_spec(header, options), cache, region)
