"""``dynunet sample``: new data, in files of the kind the model was trained on."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm
from tyro.conf import Positional

from ..data import load, save
from ..data.errors import UnreadableError, attempt, shown
from ..data.loading import header_of
from ..data.saving import check_free
from ..data.spec import DataSpec
from ..diffusion import Diffusion
from ..writing import replacing
from .common import (
    bounded,
    check_counts,
    check_memory,
    check_seed,
    conditions,
    load_run,
    new_suffix,
    out_of_memory,
    restores,
    windows,
)
from .train import Stopped

_PICTURE = "samples.png"
_DRAWN = 64  # samples in the picture, at most
_LONGEST = 100  # bytes of a class in a file's name


@dataclass(frozen=True)
class Sample:
    """Make new data with a trained model, and a picture of it.

    Samples that are there are kept, so that the same command goes on where it was interrupted, and one with
    a larger --num makes more.
    """

    run_folder: Positional[Path]
    """folder of the run"""
    out: Path
    """folder for the files"""
    num: int = 16
    """how many"""
    size: tuple[int, ...] | None = None
    """one number for all axes or one for each, by default that of training; larger: in windows"""
    steps: int = 20
    """of the sampler: more are better and slower"""
    sampler: str = "dpmpp_2m"
    """ddpm, ddim, euler, heun, dpmpp_2m or dpmpp_2m_sde"""
    classes: tuple[str, ...] | None = None
    """names or numbers of classes, in turn; by default all of them"""
    guidance_scale: float = 1.0
    """more than 1: clearer examples of their class, and less varied"""
    batch_size: int | None = None
    """how many at a time; by default by their size"""
    seed: int = 0
    """the first sample has this one, the next ones those that follow"""
    device: str | None = None
    """cpu, cuda, cuda:1, mps, ...; by default the fastest"""
    overwrite: bool = False
    """make samples again that exist"""

    def run(self) -> None:
        diffusion, units = load_run(self.run_folder, self.device)
        if restores(units):
            run = shown(self.run_folder)
            raise ValueError(f"{run} was trained to restore: dynunet denoise {run} FILES")
        check_counts(num=self.num, batch_size=self.batch_size, steps=self.steps)
        check_seed(self.seed)
        labels = class_numbers(units, self.classes)
        shape = units.channels, *sample_size(units, self.size)
        batch = self.batch_size or bounded(shape)
        check_memory(diffusion, (min(batch, self.num), *shape), bool(self._windows(units, shape)))
        files = [self.out / self._name(units, i, labels) for i in range(self.num)]
        missing = self._missing(files, units, shape)
        self.out.mkdir(parents=True, exist_ok=True)
        # The batches are those of all samples, so that each is the same as without an interruption.
        batches = [range(first, min(first + batch, self.num)) for first in range(0, self.num, batch)]
        batches = [numbers for numbers in batches if not missing.isdisjoint(numbers)]
        try:
            for numbers in tqdm(batches, desc="batches", disable=None if len(batches) > 1 else True):
                with out_of_memory(f"a batch of {batch} samples"):
                    x = self._batch(diffusion, units, shape, numbers, labels)
                for i, sample in zip(numbers, x, strict=True):
                    if i in missing:
                        save(files[i], sample, units.document(), overwrite=self.overwrite)
                        missing.discard(i)
        except KeyboardInterrupt:
            done = f"{self.num - len(missing)} of {self.num} samples"
            raise Stopped(f"interrupted, {done} in {shown(self.out)}; the same command goes on") from None
        self._draw(files, units)

    def _missing(self, files: Sequence[Path], units: DataSpec, shape: tuple[int, ...]) -> set[int]:
        """The samples that are to be made; those that are there must be of this kind."""
        for path in (*files, self.out / _PICTURE):
            check_free(path, overwrite=True)
        if self.overwrite:
            return set(range(self.num))
        missing = {i for i, path in enumerate(files) if not path.exists()}
        for i in set(range(self.num)) - missing:
            self._check_kept(files[i], units, shape)
        if len(missing) < self.num:
            kept = f"{self.num - len(missing)} of {self.num} samples there already and kept"
            print(f"{kept} (--overwrite would make them again)")
        return missing

    def _check_kept(self, path: Path, units: DataSpec, shape: tuple[int, ...]) -> None:
        try:
            info = attempt(lambda: header_of(path, _as_written(units)))
        except UnreadableError as error:
            raise ValueError(f"out: {shown(path)} is there and cannot be read: {error}") from error
        if (info.channels, *info.shape) != shape:
            there, wanted = ("x".join(map(str, s)) for s in ((info.channels, *info.shape), shape))
            raise ValueError(
                f"out: {shown(path)} is there and is of {there}, not of {wanted}; choose another folder or "
                "give --overwrite"
            )

    def _name(self, units: DataSpec, i: int, labels: list[int]) -> str:
        text = f"sample-{i:0{len(str(self.num - 1))}d}"
        if labels and units.classes:
            name = units.classes[labels[i % len(labels)]].replace("/", "_").replace(os.sep, "_")
            text += "-" + name.encode()[:_LONGEST].decode(errors="ignore")
        return text + new_suffix(units)

    def _windows(self, units: DataSpec, shape: tuple[int, ...]) -> dict[str, Any]:
        """Samples larger than those of training are made in windows."""
        larger = units.size is not None and any(a > b for a, b in zip(shape[1:], units.size, strict=True))
        return windows(units, None, None) if larger else {}

    def _batch(
        self, diffusion: Diffusion, units: DataSpec, shape: tuple[int, ...], numbers: range, labels: list[int]
    ) -> Tensor:
        device = next(diffusion.parameters()).device
        full = len(numbers), *shape
        options = self._windows(units, shape)
        given = conditions(units, full)
        if labels:
            options["class_labels"] = torch.tensor([labels[i % len(labels)] for i in numbers])
        return diffusion.sample(
            full,
            self.steps,
            sampler=self.sampler,
            guidance_scale=self.guidance_scale,
            generator=[torch.Generator(device).manual_seed(self.seed + i) for i in numbers],
            **{name: value.to(device) for name, value in given.items()},
            **options,
        ).cpu()

    def _draw(self, files: Sequence[Path], units: DataSpec) -> None:
        """A picture of what is in the files, whichever of them were there already."""
        path, said = self.out / _PICTURE, f"{self.num} samples in {shown(self.out)}"
        if path.exists() and not self.overwrite:
            print(f"{said}; the picture {shown(path)} was there and is kept")
            return
        try:
            from ..plotting import pictures

            x = torch.stack([load(file, _as_written(units)).x for file in files[:_DRAWN]])
            with replacing(path) as (partial,):
                pictures(x, partial, units.sample_rate)
        except ImportError as error:
            print(f"{said}; no picture of them: {error}")
        else:
            print(f"{said}, and a picture of them, {shown(path)}")


def _as_written(units: DataSpec) -> DataSpec:
    """To read new data: what was done to training files is not done to it."""
    return replace(units, percentiles=None, resize=False, spacing=None, missing=None)


def sample_size(units: DataSpec, size: tuple[int, ...] | None) -> tuple[int, ...]:
    """Of one sample, one number for every axis."""
    if size is None:
        if units.size is None:
            raise ValueError("--size is missing: the model was trained on files of several sizes")
        return units.size
    sizes = size * units.spatial_dims if len(size) == 1 else size
    if len(sizes) != units.spatial_dims or min(sizes) < 1:
        raise ValueError(f"--size must be one number or {units.spatial_dims}, at least 1, got {size}")
    return sizes


def class_numbers(units: DataSpec, classes: tuple[str, ...] | None) -> list[int]:
    """Classes by their names or numbers; all of them by default, none if the model knows none."""
    known = list(units.classes or ())
    if classes is None:
        return list(range(len(known)))
    numbers = []
    for text in classes:
        number = known.index(text) if text in known else int(text) if text.isdecimal() else -1
        if not 0 <= number < len(known):
            raise ValueError(
                f"--classes must be of {', '.join(known) or 'a model with classes'}, got {text!r}"
            )
        numbers.append(number)
    return numbers
