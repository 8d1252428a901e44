"""Files reconstructed from measurements, with how sure each entry is: mean, standard deviation and samples.

How a file was measured is told by :class:`dynunet.measured.Measured`. Where something is missing the grid of
a result is that of the file, and what was measured without noise stays as it is, to the bit; else the grid is
that of the model.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ._devices import moved
from .arguments import integer
from .data.errors import shown
from .data.files import stem
from .data.formats import of_kind, of_path
from .data.maps import write_array, write_map
from .data.saving import check_free, in_file_units, write
from .data.spec import DataSpec
from .data.values import Scale
from .diffusion import Diffusion
from .diffusion.noise import hashed
from .inverse_problems import InverseProblem, of_coefficients, of_file
from .measured import Measured
from .progress import Bar
from .restoration import exactly_named, masks_of, named
from .results import Outcome, Results
from .runs import Sizes, batch_size, called, conditions, device_of, trained, windows
from .writing import replacing

__all__ = ["reconstruct"]


def reconstruct(
    model: Path | str | Diffusion,
    source: Path | str,
    out: Path | str,
    measured: Measured,
    *,
    num: int = 32,
    steps: int = 20,
    method: str = "mmps",
    window: Sizes = None,
    overlap: Sizes = None,
    seed: int = 0,
    device: str | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> Outcome:
    """Find what files may have been measured of, as ``dynunet reconstruct`` does.

    For each file NAME it writes the mean of the samples, ``NAME``, their standard deviation, ``NAME-std``,
    and each of them, ``NAME-sample-01``. A file that cannot be reconstructed is named in the outcome, and the
    others are done. Results that are there are kept.

    Args:
        model: the folder of a run, or a model that was trained from files; it must have been trained without
            noise and pairs.
        source: a file, or a folder with all below it.
        out: a folder for the results; for one file also the file of the mean.
        measured: how the files were measured.
        num: number of samples of each file.
        steps: of the sampler: more are better and slower.
        method: ``"mmps"``, ``"pigdm"``, ``"dps"`` or ``"repaint"``, see
            :meth:`dynunet.Diffusion.reconstruct`.
        window: work in windows of this size, one number or one per axis; by default that of training.
        overlap: of the windows; by default a quarter.
        seed, device, overwrite, progress: as in :func:`dynunet.restoration.restore`.

    Raises:
        FileNotFoundError: there is no such source.
        ValueError, TypeError: naming the argument, the rule and the value received.
        dynunet.writing.DiskFull: at the first result that does not fit on the disk.
        KeyboardInterrupt: the message says what is done, which is kept.
    """
    integer(num, "num")
    integer(steps, "steps")
    diffusion, spec = trained(model, device)
    if spec.restoration is not None:
        raise ValueError(f"{called(model)} was trained to restore; reconstructing takes one of clean data")
    source = Path(source)
    how = {"steps": steps, "method": method, "progress": progress, **windows(spec, window, overlap)}
    masks = {} if measured.mask is None else masks_of(Path(measured.mask))

    def one(path: Path, to: Path) -> tuple[str, ...]:
        if measured.fourier is not None:
            problem = of_coefficients(path, spec, measured)
        else:
            marks = masks.get("") or masks.get(stem(path, source if source.is_dir() else source.parent))
            if masks and marks is None:
                raise ValueError(f"there is no mask of its name in {shown(str(measured.mask))}")
            problem = of_file(path, to, spec, measured, marks)
        outputs = _outputs(to, num, problem)
        taken = next((path for path in outputs if path in places), None)
        if taken is not None:
            raise ValueError(f"{shown(taken.name)}, beside its mean, would be the result for another file")
        to.parent.mkdir(parents=True, exist_ok=True)
        samples = _samples(diffusion, spec, problem, num, seed, how)
        _write_all(to, outputs, samples, problem, overwrite)
        return problem.lost

    def name(path: Path) -> str:
        if measured.fourier is not None:
            return path.stem + of_kind(spec.kind).new
        return named(path) if measured.linear or measured.clip is not None else exactly_named(path)

    beside = list(masks.values())
    results = Results(source, Path(out), "reconstructed", overwrite, name, beside, progress)
    places = {to for _, to in results.files}
    return results.make(one)


def _samples(
    diffusion: Diffusion, spec: DataSpec, problem: InverseProblem, num: int, seed: int, how: dict[str, Any]
) -> Iterator[Tensor]:
    """Samples ``(N, C, *spatial)`` on the CPU; each has a seed of its own."""
    device, n = device_of(diffusion), len(problem.y)
    y, noise_std = moved(problem.y, device), moved(problem.noise_std, device)
    known = None if problem.known is None else moved(problem.known, device)
    size = max(1, batch_size(problem.shape[1:]) // n)
    cond = conditions(spec, problem.shape, device=device)
    firsts = range(0, num, size)
    for first in Bar(firsts, desc="samples", leave=False, delay=1, disable=not how["progress"]):
        numbers = range(first, min(first + size, num))
        chance = [
            torch.Generator(device).manual_seed(hashed(seed, number, i))
            for number in numbers
            for i in range(n)
        ]
        yield from diffusion.reconstruct(
            y, problem.operator, noise_std, len(numbers), known=known, shape=problem.shape, generator=chance,
            **how, **cond,
        ).cpu()  # fmt: skip


def _outputs(to: Path, num: int, problem: InverseProblem) -> list[Path]:
    """The files beside a mean: of each sample, and of the standard deviation of several."""
    paths = [_beside(to, f"-sample-{number:0{len(str(num))}d}") for number in range(1, num + 1)]
    as_volume = problem.like is not None and problem.like.header.kind == "volumes"
    return [*paths, _beside(to, "-std", None if as_volume else ".npy")] if num > 1 else paths


def _write_all(
    to: Path, outputs: Sequence[Path], samples: Iterator[Tensor], problem: InverseProblem, overwrite: bool
) -> None:
    """Write samples, their deviation and their mean, which appear together.

    Mean and variance are summed by Welford's method, in double precision.
    """
    for path in outputs:
        check_free(path, overwrite)
    mean = total = torch.zeros(())
    with replacing(*outputs, to) as parts:
        for number, x in enumerate(samples, start=1):
            _write(parts[number - 1], x, problem)
            before, x = mean, x.double()
            mean = before + (x - before) / number
            total = total + (x - before) * (x - mean)
        if len(outputs) > 1:
            _write_std(parts[-2], (total / (len(outputs) - 2)).sqrt().float(), problem)
        _write(parts[-1], mean.float(), problem)
        check_free(to, overwrite)
    if overwrite:
        _remove_others(to, outputs)


def _remove_others(to: Path, outputs: Sequence[Path]) -> None:
    """Remove the samples of a run that made more of them."""
    start, end = _beside(to, "-sample-", "").name, _beside(to, "").name[len(_beside(to, "", "").name) :]
    for path in to.parent.iterdir():
        number = path.name.removeprefix(start).removesuffix(end)
        if path.name == f"{start}{number}{end}" and number.isdecimal() and path not in outputs:
            path.unlink()


def _write(to: Path, x: Tensor, problem: InverseProblem) -> None:
    like = problem.like
    if like is None:
        return write(to, x[0], problem.spec, None, None, overwrite=True)
    return write(to, x.view(like.shape), problem.spec, like, problem.holes, overwrite=True)


def _write_std(to: Path, std: Tensor, problem: InverseProblem) -> None:
    """Write deviations in the units of the file, float32: as a volume, or as an array (npy)."""
    spec, like = problem.spec, problem.like
    if like is None:
        return np.save(to, std[0].numpy() * np.float32(of_kind(spec.kind).scale(spec).gain))
    scales = tuple(Scale(-s.gain, s.gain) for s in like.scales)
    values = in_file_units(std.view(like.shape), spec, replace(like, scales=scales))
    if to.suffix != ".npy":
        return write_map(to, values, "float32", spec, like.header, overwrite=True)
    maps = values if like.header.series else values[0]
    maps = maps if maps.shape[-1 - spec.spatial_dims] > 1 else maps.squeeze(-1 - spec.spatial_dims)
    return write_array(to, maps, like.header, overwrite=True)


def _beside(path: Path, ending: str, suffix: str | None = None) -> Path:
    """``NAME-std.nii.gz`` beside ``NAME.nii.gz``, or with another suffix."""
    own = of_path(path)
    ends = next((s for s in own.suffixes if path.name.lower().endswith(s)), "") if own else path.suffix
    stem = path.name[: len(path.name) - len(ends)]
    return path.with_name(stem + ending + (path.name[len(stem) :] if suffix is None else suffix))
