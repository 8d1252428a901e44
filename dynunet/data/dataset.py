"""A folder of files as training examples."""

import copy
import warnings
from collections.abc import Sequence
from dataclasses import replace
from operator import index as as_index
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..arguments import choice
from .degradation import Degradation, NoiseDegradation, NoiseFiles
from .errors import UnreadableError, VanishedError, attempt, shown
from .formats import of_kind
from .memory import Cache
from .options import DataOptions, missing_value
from .report import table
from .scan import scan
from .selection import File
from .self_supervision import BlindSpots, Recorruption
from .spec import DataSpec
from .target_spec import Classes, TargetSpec
from .targets import Known, Targets
from .values import (
    Region,
    Scale,
    loudness,
    padded,
    present,
    random_place,
    region_coordinates,
    resized,
    with_nan,
)

_TRIES = 20  # crops of a file with missing values, until one has something in it
_NAMED = 10  # files that are warned of, there may be thousands
_SPLITS = ("train", "validation", "all")


class FolderDataset(Dataset[dict[str, Tensor]]):
    """Audio, images, volumes or arrays in a folder and all below, as examples to train on.

    An item is a dict of what :meth:`dynunet.Diffusion.loss` takes: ``x0``, float32 ``(C, *size)`` in about
    [-1, 1]; and where they are asked for, ``cond`` (the degraded version, then the coordinates),
    ``class_labels``, ``target`` (of :meth:`dynunet.Supervised.loss`, see ``dynunet/data/targets.py``) and
    ``mask`` (False where an entry is missing, or beyond the end of a short recording; with
    ``self_supervised="noise2void"`` also where the target is in ``cond``). With ``self_supervised`` x0 is
    noisy, and the loss must be l2, see ``dynunet/data/self_supervision.py``.
    Crops, mirroring and noise are of torch's global random generator and of nothing else.

    What is held out for validation: see ``dynunet/data/splits.py``. With ``labels="folder"`` the top-level
    sub-folders are classes, and files of every class are held out.

    A file that cannot be used is skipped, and :meth:`report` says why. One that fails only when it is read is
    counted in ``failed``, the first ten with a warning, and the next one takes its place. Recordings shorter
    than ``size`` are padded with zeros that do not count in the loss; other files that are smaller are
    skipped.

    Args:
        source: a folder, a file, or several files.
        spatial_dims: as in the options.
        options: how to read; keywords replace single fields of it.
        split: ``"train"`` (all but what is held out), ``"validation"`` (what is held out) or ``"all"``.
        known: the targets that a model predicts and their classes, to read targets as it learned them.

    Raises:
        FileNotFoundError, ValueError, TypeError: naming the argument, the rule and the value received, or
            what was looked for and not found.
        ImportError: naming the package that reads these files.
    """

    def __init__(
        self,
        source: Path | str | Sequence[Path | str],
        spatial_dims: int | None = None,
        *,
        options: DataOptions | None = None,
        split: str = "train",
        known: Known | None = None,
        **fields: Any,
    ) -> None:
        if spatial_dims is not None:
            fields["spatial_dims"] = spatial_dims
        self.options = replace(options or DataOptions(), **fields)
        self.split = choice(split, _SPLITS, "split")
        self.failed: dict[Path, str] = {}
        self._cache = Cache(self.options.cache * 1e9)
        self._scan = scan(source, self.options, self._cache, known)
        self._spec = self._scan.spec
        self._degrade = self._degradation()
        hides = isinstance(self._degrade, BlindSpots)
        self._masked = hides or self.options.missing is not None or self._some_short()
        self._chosen = self._choose(split)
        if not self._chosen:
            raise ValueError(
                f"split={split!r} has no example: of {len(self._scan.entries)}, none is held out "
                f"(validation={self.options.validation}); split='all' has all"
            )

    def __len__(self) -> int:
        return len(self._chosen)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        n, index = len(self), as_index(index)
        if not -n <= index < n:
            raise IndexError(f"index must be in [-{n}, {n}), got {index}")
        for step in range(n):
            entry = self._chosen[(index + step) % n]
            file, place = self._scan.entries[entry]
            try:
                item = self._example(self._scan.files[file], place, entry)
            except UnreadableError as error:
                self._failed(self._scan.files[file].header.path, str(error))
                continue
            if self._scan.labels is not None:
                item["class_labels"] = torch.tensor(self._scan.labels[entry])
            return item
        raise VanishedError(f"no file can be read any more, such as {shown(next(iter(self.failed)))}")

    @property
    def units(self) -> dict[str, Any]:
        """The meaning of the numbers, in JSON's types, for ``Diffusion(data=...)``, ``load`` and ``save``."""
        return self._spec.document()

    @property
    def channels(self) -> int:
        """Channels of ``x0``."""
        return self._spec.channels

    @property
    def cond_channels(self) -> int:
        """Channels of ``cond``, 0 if there is none."""
        return self._spec.cond_channels

    @property
    def num_classes(self) -> int | None:
        """Number of class labels, None if there are none."""
        return None if self._spec.classes is None else len(self._spec.classes)

    @property
    def target(self) -> TargetSpec | None:
        """What is to be predicted, if anything is."""
        return None if self._scan.targets is None else self._scan.targets.spec

    @property
    def classes(self) -> Classes | None:
        """The classes to predict, for ``Supervised(classes=...)``: names, with their values in label maps."""
        return None if self._scan.targets is None else self._scan.targets.classes

    @property
    def shape(self) -> tuple[int, ...]:
        """``(C, *size)`` of ``x0``."""
        return self._spec.channels, *self._size

    @property
    def skipped(self) -> dict[Path, str]:
        """Files that are not used, and why, including those that failed when they were read."""
        noise = self._degrade.files.failed if self._degrade is not None and self._degrade.files else {}
        return {**self._scan.selection.skipped, **self.failed, **noise}

    @property
    def paths(self) -> list[Path]:
        """The file of every example, in order."""
        entries = (self._scan.entries[i] for i in self._chosen)
        return [self._scan.files[file].header.path for file, _ in entries]

    def truth(self, index: int) -> tuple[Path, int, np.ndarray]:
        """The file of an example, its place in the file, and its target on the file's own grid.

        Returns:
            The target has numbers of classes (-1 for what does not count), or values as they are in files,
            ``(C, *shape)``; of whole examples ``()`` or ``(values,)``.
        """
        entry = self._chosen[index]
        file, place = self._scan.entries[entry]
        return (
            self._scan.files[file].header.path,
            place,
            self._targets.whole(self._scan.files[file], place, entry),
        )

    def validation(self) -> "FolderDataset | None":
        """The held-out examples; None if there are none, as with too few files and in ``split="all"``."""
        held = [] if self.split == "all" else self._choose("validation")
        if not held:
            return None
        other = copy.copy(self)
        other.split, other._chosen, other.failed = "validation", held, {}
        return other

    def report(self) -> str:
        """A table of sizes, spacings and ranges, and every skipped file with its reason."""
        return table(self._scan, self.options, self.shape, self._masked, self.skipped)

    @property
    def _size(self) -> tuple[int, ...]:
        assert self._spec.size is not None
        return self._spec.size

    @property
    def _targets(self) -> Targets:
        if self._scan.targets is None:
            raise ValueError("targets must be given: the examples have none")
        return self._scan.targets

    def _choose(self, split: str) -> list[int]:
        held = self._scan.held
        return [i for i in range(len(held)) if split == "all" or held[i] == (split == "validation")]

    def _some_short(self) -> bool:
        files = self._scan.files
        return not self.options.resize and any(
            n < s for f in files for n, s in zip(f.grid, self._size, strict=True)
        )

    def _degradation(self) -> Degradation | None:
        if not self.options.restores or self.options.pairs is not None:
            return None
        files = NoiseFiles(self._scan.noise, self._spec) if self._scan.noise else None
        if self.options.self_supervised is not None:
            blind = self.options.self_supervised == "noise2void"
            return BlindSpots() if blind else Recorruption(self.options.noise_std, files)
        clips = of_kind(self._spec.kind).clips
        return NoiseDegradation(self.options.snr, self.options.coloured, files, clips)

    def _failed(self, path: Path, why: str) -> None:
        if path not in self.failed:
            self.failed[path] = why
            last = "; further ones are not named" if len(self.failed) == _NAMED else ""
            if len(self.failed) <= _NAMED:
                warnings.warn(f"{shown(path)} is skipped: {why}{last}", RuntimeWarning, stacklevel=3)

    def _example(self, file: File, index: int, entry: int) -> dict[str, Tensor]:
        """One item, without its class label."""
        region, parts = self._numbers(file, index)
        target = None
        if self._scan.targets is not None:
            target = self._scan.targets.item(file, index, entry, region, self._size)
            parts |= {"target": target} if self._scan.targets.spec.maps else {}
        coordinates = self._coordinates(file, region) if self.options.coordinates else None
        parts, coordinates = self._flipped(parts, coordinates)
        if coordinates is not None:
            there = [padded(parts["cond"], self._size)] if "cond" in parts else []
            parts["cond"] = torch.cat([*there, padded(coordinates, self._size, 1)])
        if not self._masked:
            del parts["mask"]
        item = {name: padded(value, self._size).contiguous() for name, value in parts.items()}
        if target is None:
            return item
        found = item.get("target", target)
        return item | {"target": found[0] if self._targets.spec.task == "segmentation" else found}

    def _numbers(self, file: File, index: int) -> tuple[Region | None, dict[str, Tensor]]:
        """The place of a crop, its numbers, their mask, and as ``cond`` those that they are restored from."""
        region, x, mask = self._crop(file, index)
        if self._scan.cond is not None and file.pair is not None:
            cond, there = self._values(file.pair, index, self._scan.cond, region)
            mask = mask & there.all(0) if self.options.missing is not None else mask
        elif self._degrade is not None:
            x, cond, mask = self._degrade(x, mask, self._scale(file, self._spec).gain, self._cache)
        else:
            return region, {"x0": x, "mask": mask}
        if self.options.level is not None:
            full = loudness(cond.numpy(), self.options.level)
            x, cond = x / full, cond / full
        return region, {"x0": x, "mask": mask, "cond": cond}

    def _crop(self, file: File, index: int) -> tuple[Region | None, Tensor, Tensor]:
        """A random crop, of several the first with anything in it, and its place (None for all of a file)."""
        for _ in range(_TRIES):
            region = None if self.options.resize else random_place(file.grid, self._size)
            x, mask = self._values(file, index, self._spec, region)
            if region is None or mask.any():
                return region, x, mask
        raise UnreadableError(f"{_TRIES} random crops had nothing but missing values")

    def _values(self, file: File, index: int, spec: DataSpec, region: Region | None) -> tuple[Tensor, Tensor]:
        """Numbers as the network sees them, 0 where missing, and where they are there."""
        header = file.header
        values = attempt(lambda: header.format.read(header, index, spec, self._cache, region))
        missing = missing_value(spec.missing)
        if self.options.resize and values.shape[1:] != self._size:
            values = resized(with_nan(values, missing), self._size)
        there = torch.from_numpy(present(values, missing))
        if missing is None and not there.all():
            raise UnreadableError(
                "it has values that are NaN or infinite; missing='nan' would leave them out"
            )
        x = torch.from_numpy(self._scale(file, spec).to_model(values))
        return torch.where(there, x, 0), there

    def _scale(self, file: File, spec: DataSpec) -> Scale:
        own = (file.pair or file).ranges  # what is to be restored is seen on the scale of what is given
        return file.header.format.scale(spec, file.header, None if own is None else own.percentiles)

    def _coordinates(self, file: File, region: Region | None) -> Tensor:
        if region is None:
            return region_coordinates(self._size, [(0, n) for n in self._size])
        return region_coordinates(file.grid, region)

    def _flipped(
        self, parts: dict[str, Tensor], coordinates: Tensor | None
    ) -> tuple[dict[str, Tensor], Tensor | None]:
        """Mirrored along every asked axis with probability one half; a validation example never is.

        The coordinates are those of the crop in the mirrored file.
        """
        if self.split == "validation":
            return parts, coordinates
        for axis in self.options.flips:
            if torch.rand(()) < 0.5:
                parts = {name: value.flip(1 + axis) for name, value in parts.items()}
                if coordinates is not None:
                    coordinates = coordinates.flip(1 + axis)
                    coordinates[axis] = -coordinates[axis]
        return parts, coordinates
