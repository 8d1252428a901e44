"""New data from a trained model, in files of the kind that it was trained on."""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, overload

import torch
from torch import Tensor

from .arguments import check_counts
from .data.errors import UnreadableError, attempt, count, shown
from .data.formats import of_kind
from .data.formats.format import times
from .data.loading import header_of, load
from .data.saving import check_free, save
from .data.spec import DataSpec
from .diffusion import Diffusion
from .progress import Bar, Interrupted
from .runs import averaged, called, check_memory, conditions, device_of, out_of_memory, trained, windows
from .runs import batch_size as fitting
from .writing import replacing

__all__ = ["Generated", "as_written", "generate"]

_SAMPLE = re.compile(r"sample-(\d+)[-.]")
_PICTURE = "-overview.png"  # beside the folder of the samples, which has nothing but data
_ALIKE = ("spatial_dims", "channels", "range", "percentiles", "classes", "cond_channels")  # of a guide
_FILM = "-film.gif"
_FILMED = 16  # samples in it, at most
_DRAWN = 64  # samples in the picture, at most
_CLASSES = 16  # that have a column each in the picture, at most
_LONGEST = 100  # bytes of a class in a file's name


@dataclass(frozen=True)
class Generated:
    """Files of new data. As text it is a sentence about them.

    Attributes:
        files: all that were asked for, in order; of millions only those that are looked at are in memory.
        kept: how many of them were there already.
        picture: of them, if it could be drawn.
        note: what there is to say of the picture.
    """

    files: Sequence[Path]
    kept: int
    picture: Path | None
    note: str

    def __str__(self) -> str:
        said = f"{count(len(self.files), 'sample')} in {shown(self.files[0].parent)}{self.note}"
        if not self.kept:
            return said
        kept = f"{self.kept} of {count(len(self.files), 'sample')} there already and kept"
        return f"{kept} (--overwrite would make them again)\n{said}"


def generate(
    model: Path | str | Diffusion,
    out: Path | str,
    *,
    num: int = 16,
    size: int | Sequence[int] | None = None,
    steps: int | None = None,
    sampler: str | None = None,
    classes: Sequence[str] | None = None,
    guidance_scale: float = 1.0,
    guide: Path | str | Diffusion | None = None,
    guide_scale: float | None = None,
    length: float | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    film: bool = False,
    device: str | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> Generated:
    """Make new data with a trained model, and a picture of it, as ``dynunet sample`` does.

    Samples that are there are kept, so that the same call goes on where it was interrupted, and one with a
    larger ``num`` makes more. The picture of the first ones is beside the folder, as ``OUT-overview.png``.

    Args:
        model: the folder of a run, or a model that was trained from files.
        out: folder for the files, which is made if need be.
        num: how many.
        size: one number for all axes or one for each, by default that of training; larger: in windows.
        steps: of the sampler: more are better and slower. By default 20, for a model of few steps its own.
        sampler: by its name, see :meth:`dynunet.Diffusion.sample`; by default the model's own.
        classes: names or numbers of classes, in turn; by default all of them.
        guidance_scale: more than 1: clearer examples of their class, and less varied.
        guide, guide_scale: a weaker model of the same data to lead away from, as a folder or itself, and how
            far, see :meth:`dynunet.Diffusion.sample`.
        length: of the average of the weights, for a run with several, see :func:`dynunet.average`.
        batch_size: how many at a time; by default by their size. The samples do not depend on it.
        seed: of the first sample; the next ones have those that follow.
        film: draw how the first 16 come out of noise, too: an animation, ``OUT-film.gif``.
        device: ``"cpu"``, ``"cuda"``, ...; by default the fastest for a folder, and for a model where it is.
        overwrite: make samples again that exist.
        progress: show progress bars.

    Raises:
        ValueError, TypeError: naming the argument, the rule and the value received.
        KeyboardInterrupt: the message says what is done, which is kept.
    """
    check_counts(num=num, steps=steps, batch_size=batch_size)
    diffusion, spec = trained(averaged(model, length, device), device)
    if spec.restoration is not None:
        run = called(model)
        raise ValueError(f"{run} was trained to restore: dynunet denoise {run} FILES")
    shape = spec.channels, *sample_size(spec, size)
    options = _windows(spec, shape[1:])
    batch = batch_size or fitting(shape)
    check_memory(diffusion, (min(batch, num), *shape), bool(options))
    options |= {k: v for k, v in (("steps", steps), ("sampler", sampler)) if v is not None}
    options |= {"guidance_scale": guidance_scale, "progress": progress}
    options |= {"guide": _guide(guide, diffusion, spec), "guide_scale": guide_scale}
    batches = _Batches(diffusion, spec, shape, class_numbers(spec, classes), seed, options)

    there = _there(Path(out))
    if overwrite:
        _check_replaced(there.values(), num, out)
    digits = min(map(len, there.values()), default=len(str(num - 1)))  # so that a larger num finds them
    files, picture = _Files(Path(out), num, digits, batches.name), _picture_of(Path(out))
    found = _numbers(files, there)
    for place in (*(files[i] for i in found), picture):
        check_free(place, overwrite=True)
    kept: set[int] = set() if overwrite else found
    for i in Bar(sorted(kept), desc="looking at samples", leave=False, delay=1, disable=not progress):
        _check_kept(files[i], spec, shape)
    Path(out).mkdir(parents=True, exist_ok=True)
    done = len(kept)
    try:
        for i, x in batches.samples(kept, num, batch):
            save(files[i], x, spec.document(), overwrite=overwrite)
            done += 1
    except KeyboardInterrupt:
        said = f"interrupted, {done} of {count(num, 'sample')} in {shown(out)}; the same command goes on"
        raise Interrupted(said) from None
    path, note = _draw(files, picture, spec, batches.titles(), overwrite)
    return Generated(files, len(kept), path, note + (_draw_film(batches, num, Path(out)) if film else ""))


def _guide(guide: Path | str | Diffusion | None, diffusion: Diffusion, spec: DataSpec) -> Diffusion | None:
    """A weaker model, beside the one that it guides."""
    if guide is None:
        return None
    weaker, other = trained(guide, str(device_of(diffusion)))
    for name in _ALIKE:
        here, there = getattr(spec, name), getattr(other, name)
        if here != there:
            raise ValueError(f"guide must be a model of the same data, with {name} {here}, got {there}")
    return weaker


def _windows(spec: DataSpec, size: Sequence[int]) -> dict[str, Any]:
    """The options with which samples larger than those of training are made."""
    larger = spec.size is not None and any(a > b for a, b in zip(size, spec.size, strict=True))
    return windows(spec, None, None) if larger else {}


def _check_replaced(numbers: Iterable[str], num: int, out: Path | str) -> None:
    """Refuse to replace samples by fewer."""
    others = sorted(n for n in numbers if int(n) >= num)
    if others:
        raise ValueError(
            f"out: {shown(out)} holds {count(len(others), 'sample')} of an earlier call, from {others[0]} "
            f"on, which would stay beside the {num} new ones; choose another folder or a larger num"
        )


def _picture_of(out: Path, name: str = _PICTURE) -> Path:
    """The picture of the samples in a folder, beside it."""
    folder = out if out.name not in ("", "..") else out.resolve()
    return folder.with_name(folder.name + name)


@dataclass(frozen=True)
class _Files(Sequence[Path]):
    """The files of samples, by their numbers: there may be more than fit in memory."""

    folder: Path
    num: int
    digits: int
    name: Callable[[int, int], str]

    def __len__(self) -> int:
        return self.num

    @overload
    def __getitem__(self, index: int) -> Path: ...
    @overload
    def __getitem__(self, index: slice) -> list[Path]: ...
    def __getitem__(self, index: int | slice) -> Path | list[Path]:
        numbers = range(self.num)[index]
        if isinstance(numbers, range):
            return [self[i] for i in numbers]
        return self.folder / self.name(numbers, self.digits)


@dataclass(frozen=True)
class _Batches:
    """A model, and what all its samples have in common."""

    diffusion: Diffusion
    spec: DataSpec
    shape: tuple[int, ...]
    labels: list[int]  # of the classes, in turn
    seed: int
    options: dict[str, Any]

    def samples(self, kept: set[int], num: int, batch: int) -> Iterator[tuple[int, Tensor]]:
        """All of ``num`` samples that are not kept, with their numbers.

        The batches are those of all samples, so that each is the same as without an interruption.
        """
        quiet = not self.options["progress"] or num <= batch
        with Bar(total=num, desc="samples", unit="sample", disable=quiet) as bar:
            for first in range(0, num, batch):
                numbers = range(first, min(first + batch, num))
                if not kept.issuperset(numbers):
                    with out_of_memory(f"a batch of {batch} samples"):
                        x = self._batch(numbers)
                    yield from ((i, sample) for i, sample in zip(numbers, x, strict=True) if i not in kept)
                bar.update(len(numbers))

    def film(self, numbers: range) -> list[Tensor]:
        """Samples after every step, from noise to what they are."""
        frames: list[Tensor] = []
        last = self._batch(numbers, callback=lambda step, t, x, x0: frames.append(x.cpu()))
        return [*frames[:-1], last]

    def _batch(self, numbers: range, **more: Any) -> Tensor:
        device, shape = device_of(self.diffusion), (len(numbers), *self.shape)
        given = conditions(self.spec, shape, device=device)
        if self.labels:
            given["class_labels"] = torch.tensor([self.labels[i % len(self.labels)] for i in numbers])
        chance = [torch.Generator(device).manual_seed(self.seed + i) for i in numbers]
        return self.diffusion.sample(shape, generator=chance, **given, **self.options, **more).cpu()

    def titles(self) -> list[str]:
        """The names of the classes, in turn."""
        return [self.spec.classes[label] for label in self.labels] if self.spec.classes else []

    def name(self, i: int, digits: int) -> str:
        """Of the file of a sample: its number, and its class."""
        text = f"sample-{i:0{digits}d}"
        if self.labels and self.spec.classes:
            name = self.spec.classes[self.labels[i % len(self.labels)]].replace("/", "_").replace(os.sep, "_")
            text += "-" + name.encode()[:_LONGEST].decode(errors="ignore")
        return text + of_kind(self.spec.kind).new


def _there(out: Path) -> dict[str, str]:
    """What is in a folder and has the name of a sample, and the number in it."""
    names = os.listdir(out) if out.is_dir() else []
    return {name: found[1] for name in names if (found := _SAMPLE.match(name))}


def _numbers(files: Sequence[Path], there: Mapping[str, str]) -> set[int]:
    """Samples at whose place there is something."""
    numbers = {int(n) for n in there.values() if int(n) < len(files)}
    return {i for i in numbers if files[i].name in there}


def _check_kept(path: Path, spec: DataSpec, shape: tuple[int, ...]) -> None:
    try:
        header = attempt(lambda: header_of(path, as_written(spec)))
    except UnreadableError as error:
        raise ValueError(f"out: {shown(path)} is there and cannot be read: {error}") from error
    if (header.channels, *header.shape) != shape:
        there, wanted = times((header.channels, *header.shape)), times(shape)
        raise ValueError(
            f"out: {shown(path)} is there and is of {there}, not of {wanted}; choose another folder or "
            "give --overwrite"
        )


def _draw(
    files: Sequence[Path], path: Path, spec: DataSpec, titles: Sequence[str], overwrite: bool
) -> tuple[Path | None, str]:
    """A picture of the files, whichever of them were there already; and what there is to say of it."""
    if path.exists() and not overwrite:
        return path, f"; the picture {shown(path)} was there and is kept"
    try:
        from .plotting import pictures

        x: Tensor = torch.stack([load(file, as_written(spec)).x for file in files[:_DRAWN]])
        labels = [titles[i % len(titles)] for i in range(len(x))] if titles else []
        columns = len(titles) if 0 < len(titles) <= _CLASSES else None
        with replacing(path) as (partial,):
            pictures(x, partial, spec.sample_rate, columns=columns, labels=labels)
    except ImportError as error:
        return None, f"; no picture of them: {error}"
    return path, f", and a picture of them, {shown(path)}"


def _draw_film(batches: _Batches, num: int, out: Path) -> str:
    """An animation of the first samples, and what there is to say of it."""
    from .plotting import gif

    path = _picture_of(out, _FILM)
    check_free(path, overwrite=True)
    frames = batches.film(range(min(num, _FILMED)))
    with replacing(path) as (partial,):
        gif(frames, partial)
    return f", and a film of them, {shown(path)}"


def as_written(spec: DataSpec) -> DataSpec:
    """To read new data: what was done to training files is not done to it."""
    return replace(spec, percentiles=None, resize=False, spacing=None, missing=None)


def sample_size(spec: DataSpec, size: int | Sequence[int] | None) -> tuple[int, ...]:
    """Spatial sizes of one sample.

    Raises:
        ValueError: it is not one number or one for every axis.
    """
    if size is None:
        if spec.size is None:
            raise ValueError("size must be given: the model was trained on files of several sizes")
        return spec.size
    given = (size,) if isinstance(size, int) else tuple(size)
    sizes = given * spec.spatial_dims if len(given) == 1 else given
    if len(sizes) != spec.spatial_dims or min(sizes) < 1:
        raise ValueError(f"size must be one number or {spec.spatial_dims}, at least 1, got {size}")
    return sizes


def class_numbers(spec: DataSpec, classes: Sequence[str] | None) -> list[int]:
    """Classes by their names or numbers; all of them by default, none if the model knows none."""
    known = list(spec.classes or ())
    if classes is None:
        return list(range(len(known)))
    numbers = []
    for text in classes:
        number = known.index(text) if text in known else int(text) if text.isdecimal() else -1
        if not 0 <= number < len(known):
            raise ValueError(f"classes must be of {', '.join(known) or 'a model with classes'}, got {text!r}")
        numbers.append(number)
    return numbers
