"""``dynunet sample``: new data, in files of the kind the model was trained on."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm.auto import trange
from tyro.conf import Positional

from ..data import save
from ..data.sources import Units
from ..diffusion import Diffusion
from .common import bounded, check_new, conditions, load_run, new_suffix, restores, windows


@dataclass(frozen=True)
class Sample:
    """Make new data with a trained model, and a picture of it."""

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
    """replace files that exist"""

    def run(self) -> None:
        diffusion, units = load_run(self.run_folder, self.device)
        if restores(units):
            raise ValueError(
                f"{self.run_folder} was trained to restore: dynunet denoise {self.run_folder} FILES"
            )
        for name in ("num", "batch_size"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"--{name} must be at least 1, got {getattr(self, name)}")
        labels = class_numbers(units, self.classes)
        shape = units.channels, *sample_size(units, self.size)
        names = [self._name(units, i, labels) for i in range(self.num)]
        picture = self.out / "samples.png"
        check_new([*(self.out / name for name in names), picture], self.overwrite)
        self.out.mkdir(parents=True, exist_ok=True)
        batch, shown = self.batch_size or bounded(shape), []
        for first in trange(0, self.num, batch, desc="batches", disable=None if self.num > batch else True):
            numbers = range(first, min(first + batch, self.num))
            x = self._batch(diffusion, units, shape, numbers, labels)
            for i, sample in zip(numbers, x, strict=True):
                save(self.out / names[i], sample, units.document(), overwrite=self.overwrite)
            shown += [*x[: max(0, 64 - len(shown))]]
        self._draw(torch.stack(shown), units, picture)

    def _name(self, units: Units, i: int, labels: list[int]) -> str:
        text = f"sample-{i:0{len(str(self.num - 1))}d}"
        if labels and units.classes:
            text += "-" + units.classes[labels[i % len(labels)]].replace("/", "_")
        return text + new_suffix(units)

    def _batch(
        self, diffusion: Diffusion, units: Units, shape: tuple[int, ...], numbers: range, labels: list[int]
    ) -> Tensor:
        device = next(diffusion.parameters()).device
        full = len(numbers), *shape
        larger = units.size is not None and any(a > b for a, b in zip(shape[1:], units.size, strict=True))
        options = windows(units, None, None) if larger else {}
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

    def _draw(self, x: Tensor, units: Units, path: Path) -> None:
        try:
            from ..plotting import pictures

            pictures(x, path, units.sample_rate)
        except ImportError as error:
            print(f"{self.num} samples in {self.out}; no picture of them: {error}")
        else:
            print(f"{self.num} samples in {self.out}, and a picture of them, {path}")


def sample_size(units: Units, size: tuple[int, ...] | None) -> tuple[int, ...]:
    """Of one sample, one number for every axis."""
    if size is None:
        if units.size is None:
            raise ValueError("--size is missing: the model was trained on files of several sizes")
        return units.size
    sizes = size * units.spatial_dims if len(size) == 1 else size
    if len(sizes) != units.spatial_dims or min(sizes) < 1:
        raise ValueError(f"--size must be one number or {units.spatial_dims}, at least 1, got {size}")
    return sizes


def class_numbers(units: Units, classes: tuple[str, ...] | None) -> list[int]:
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
