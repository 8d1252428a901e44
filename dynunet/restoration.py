"""Files restored, or filled in where something is missing, by a trained model; each on its own grid.

``restore`` is for a model that was trained with ``noise``, ``coloured``, ``pairs`` or ``self_supervised``,
and for any other with the level of white noise. ``fill_gaps`` is for a model of clean data. Both keep the
format, the grid and the units of a file, and work on long recordings and large volumes in overlapping
windows. ``restore`` reads and writes long recordings part by part, in memory that does not grow with their
length.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ._devices import moved
from .arguments import check_counts, integer
from .data.errors import shown
from .data.files import search, stem
from .data.formats import FORMATS, of_path
from .data.loading import load, load_gaps, marks_of
from .data.long_files import LongFile, Part
from .data.options import missing_value
from .data.saving import check_result, save, write
from .data.spec import DataSpec
from .diffusion import Diffusion
from .diffusion.noise import Noise, PlacedNoise
from .progress import Bar
from .results import NothingToDoError, Outcome, Results
from .runs import (
    Sizes,
    called,
    conditions,
    device_of,
    restoration_sampler,
    restoration_steps,
    trained,
    windows,
)

__all__ = ["Outcome", "fill_gaps", "restore"]

_PART = 2**21  # entries of a long file that are worked on at once
_LEAST = 8  # times what is around a part on each side, which is computed again with its neighbour


def restore(
    model: Path | str | Diffusion,
    source: Path | str,
    out: Path | str,
    *,
    steps: int | None = None,
    sigma: float | None = None,
    window: Sizes = None,
    overlap: Sizes = None,
    seed: int = 0,
    device: str | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> Outcome:
    """Restore files with a model that has learned it, as ``dynunet denoise`` does.

    A file that cannot be restored is named in the outcome, and the others are restored. Results that are
    there are kept, so that the same call goes on where it was interrupted.

    Args:
        model: the folder of a run, or a model that was trained from files.
        source: a file, or a folder with all below it.
        out: a folder for the results, with the names of the files; for one file also the file to write.
        steps: 1 gives the mean of what the clean data may be, more one sharp guess; by default 1, and 20 with
            ``sigma`` or a prediction of the noise. Of a model that was trained without clean examples 1.
        sigma: standard deviation of white noise, where 2 is the range of the data: for a model that was
            trained without noise or pairs, and for no other.
        window: work in windows of this size, one number or one per axis; by default that of training.
        overlap: of the windows; by default a quarter.
        seed: of the noise it starts from.
        device: ``"cpu"``, ``"cuda"``, ...; by default the fastest for a folder, and for a model where it is.
        overwrite: make results again that exist.
        progress: show a bar, and say on stderr which files are skipped and why.

    Raises:
        FileNotFoundError: there is no such source.
        ValueError, TypeError: naming the argument, the rule and the value received.
        dynunet.writing.DiskFull: at the first result that does not fit on the disk.
        KeyboardInterrupt: the message says what is done, which is kept.
    """
    check_counts(steps=steps)
    diffusion, spec = trained(model, device)
    if spec.restoration is None and sigma is None:
        raise ValueError(
            f"{called(model)} was trained without noise, coloured, pairs or self_supervised: give sigma, the "
            "level of white noise, or train a model to restore"
        )
    if spec.restoration is not None and sigma is not None:
        raise ValueError(f"sigma must be left out, {called(model)} knows its noise, got {sigma}")
    sampling = _Sampling(diffusion, spec, seed, windows(spec, window, overlap), progress)

    def made(x: Tensor, noise: Noise = None) -> Tensor:
        if sigma is None:
            return sampling.restored(x, number, noise)
        return sampling.denoised(x, sigma, number, noise)

    number = restoration_steps(diffusion, steps) if sigma is None else steps or 20

    def one(path: Path, to: Path) -> tuple[str, ...]:
        long = sampling.long_file(path, to, number)
        if long is not None:
            to.parent.mkdir(parents=True, exist_ok=True)
            long.write(to, sampling.by_parts(long, made, number), overwrite)
            return long.lost
        loaded = load(path, spec.document(), mix=False)
        check_result(to, spec, loaded.source)
        x = made(loaded.x)
        to.parent.mkdir(parents=True, exist_ok=True)
        save(to, x, spec.document(), like=loaded.source, overwrite=overwrite)
        return loaded.lost

    return Results(Path(source), Path(out), "restored", overwrite, named, progress=progress).make(one)


def fill_gaps(
    model: Path | str | Diffusion,
    source: Path | str,
    out: Path | str,
    *,
    missing: str | None = None,
    mask: Path | str | None = None,
    steps: int = 20,
    resamplings: int = 4,
    window: Sizes = None,
    overlap: Sizes = None,
    seed: int = 0,
    device: str | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> Outcome:
    """Fill in what is missing in files, as ``dynunet inpaint`` does; all else stays as it is, to the bit.

    A jpg changes whole blocks of pixels when it is written, so that its result is a png. Results that are
    there are kept, so that the same call goes on where it was interrupted.

    Args:
        model, source, out, window, overlap, seed, device, overwrite, progress: as in :func:`restore`; the
            model must have been trained without noise and pairs.
        missing: the value of what is missing: ``"nan"``, or a number as it is in the file.
        mask: instead, a file of the same kind and size, not 0 (of images: bright) where something is to be
            filled in; for a folder one for all, or a folder with one at the relative path of each.
        steps: of the sampler: more are better and slower.
        resamplings: how often each step is taken, so that what is filled in fits what is around.

    Raises:
        FileNotFoundError, ValueError, TypeError, dynunet.writing.DiskFull, KeyboardInterrupt: as in
            :func:`restore`.
    """
    if (missing is None) == (mask is None):
        raise ValueError("one of missing and mask must say what is to be filled in")
    missing_value(missing)
    integer(steps, "steps")
    integer(resamplings, "resamplings")
    diffusion, spec = trained(model, device)
    if spec.restoration is not None:
        raise ValueError(f"{called(model)} was trained to restore; to fill gaps train without noise or pairs")
    spec, source = replace(spec, missing=missing or spec.missing), Path(source)
    sampling = _Sampling(diffusion, spec, seed, windows(spec, window, overlap), progress)
    masks = {} if mask is None else masks_of(Path(mask))

    def one(path: Path, to: Path) -> tuple[str, ...]:
        marks = masks.get("") or masks.get(stem(path, source if source.is_dir() else source.parent))
        if mask is not None and marks is None:
            raise ValueError(f"there is no mask of its name in {shown(mask)}")
        loaded, holes = load_gaps(path, spec, None if marks is None else marks_of(marks, spec))
        check_result(to, spec, loaded.source, exact=True)
        if not holes.any():
            raise NothingToDoError(f"nothing is missing in {shown(path)}, where {marks or missing} is")
        x = sampling.filled(loaded.x, loaded.mask, steps, resamplings)
        to.parent.mkdir(parents=True, exist_ok=True)
        write(to, x, spec, loaded.source, holes, overwrite)
        return ()

    beside = list(masks.values())
    return Results(source, Path(out), "filled in", overwrite, exactly_named, beside, progress).make(one)


@dataclass(frozen=True)
class _Sampling:
    """A model, and what all its samples have in common.

    The methods take what is read from a file, ``(C, *spatial)`` or ``(N, C, *spatial)``, and give as many
    axes back, on the CPU.
    """

    diffusion: Diffusion
    spec: DataSpec
    seed: int
    windows: dict[str, Any]
    progress: bool  # within a file: of the steps, and of the windows of each

    def restored(self, noisy: Tensor, steps: int, noise: Noise = None) -> Tensor:
        """Restored by a model that has learned it; from noise of the seed by default, on a bridge without."""

        def run(x: Tensor, options: dict[str, Any]) -> Tensor:
            shape = len(x), self.spec.channels, *x.shape[2:]
            options |= restoration_sampler(self.diffusion)
            return self.diffusion.sample(shape, steps, **options, **conditions(self.spec, shape, x))

        return self._run(run, noisy, noise)

    def denoised(self, noisy: Tensor, sigma: float, steps: int, noise: Noise = None) -> Tensor:
        """Without white noise of a level."""

        def run(x: Tensor, options: dict[str, Any]) -> Tensor:
            return self.diffusion.denoise(
                x, sigma, steps, **options, **conditions(self.spec, x.shape, device=x.device)
            )

        return self._run(run, noisy, noise)

    def filled(self, x: Tensor, known: Tensor | None, steps: int, resamplings: int) -> Tensor:
        """Made anew where it is not known."""
        there = torch.ones_like(x, dtype=torch.bool) if known is None else known

        def run(x: Tensor, options: dict[str, Any]) -> Tensor:
            options |= {"resamplings": resamplings, **conditions(self.spec, x.shape, device=x.device)}
            return self.diffusion.inpaint(x, moved(there.view_as(x), x.device), steps, **options)

        return self._run(run, x)

    def long_file(self, path: Path, to: Path, steps: int) -> LongFile | None:
        """A file that is far longer than a window, and than what a result in it depends on, if it is one."""
        return LongFile.of(path, self.spec, to, self._length(steps)) if self.windows else None

    def by_parts(
        self, file: LongFile, made: Callable[[Tensor, Noise], Tensor], steps: int
    ) -> Iterator[tuple[Part, Tensor]]:
        """What is made of each part of a long file, with what is around it.

        It is the same as of the whole at once: every part has the windows and the noise of its place.
        """
        (window,), (overlap,) = self.windows["window"], self.windows["overlap"]
        parts = file.parts(self._length(steps), steps * window, window, window - overlap)
        for part in Bar(parts, desc="parts", leave=False, delay=1, disable=not self.progress):
            yield part, made(file.read(part), PlacedNoise(self.seed, part.first))

    def _length(self, steps: int) -> int:
        """Of parts: an entry depends on those that are less than a window away, step by step."""
        return max(_PART, _LEAST * steps * max(self.windows["window"]))

    def _run(self, run: Callable[[Tensor, dict[str, Any]], Tensor], x: Tensor, noise: Noise = None) -> Tensor:
        several, device = x.ndim == self.spec.spatial_dims + 2, device_of(self.diffusion)
        chance = torch.Generator(device).manual_seed(self.seed) if noise is None else noise
        options = {**self.windows, "generator": chance, "progress": self.progress}
        y = run(moved(x if several else x.unsqueeze(0), device), options).cpu()
        return y if several else y[0]


def masks_of(mask: Path) -> dict[str, Path]:
    """The file of each mask, by the place of what it is for; one for all by none."""
    found = search(mask, "mask").files
    return {stem(path, mask): path for path in found} if mask.is_dir() else {"": found[0]}


def named(path: Path) -> str:
    """The name of a result: that of its file, with another suffix where such files are read alone."""
    own = of_path(path)
    return path.name if own is None or own.writable else path.stem + own.new


def exactly_named(path: Path) -> str:
    """The name of a result that keeps what is not filled in as it is: a jpg would change all around it."""
    suffix = path.suffix.lower()
    held_by = next((f.lossy[suffix] for f in FORMATS if suffix in f.lossy), None)
    return named(path) if held_by is None else path.stem + held_by
