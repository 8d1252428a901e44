"""Files reconstructed from measurements, with how sure each entry is: mean, standard deviation and samples.

Where something is missing the grid is that of the file, and what was measured without noise stays as it is,
to the bit. What was averaged, blurred, clipped, or measured as Fourier coefficients has the model's grid.
"""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .arguments import integer
from .data.errors import shown
from .data.files import stem
from .data.formats import of_kind, of_path
from .data.formats.format import times
from .data.loading import Source, load_gaps, marks_of, read_whole
from .data.maps import write_array, write_map
from .data.saving import check_result, in_file_units, write, write_bytes
from .data.spec import DataSpec
from .data.values import Scale
from .diffusion import Diffusion
from .diffusion.noise import hashed
from .measured import Measured
from .operators import Blur, Clip, Compose, Downsample, Fourier, Mask, Operator
from .progress import Bar
from .restoration import exactly_named, masks_of, named
from .results import NothingToDoError, Outcome, Results
from .runs import Sizes, batch_size, called, conditions, device_of, trained, windows

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
            problem = _of_coefficients(path, spec, measured)
        else:
            marks = masks.get("") or masks.get(stem(path, source if source.is_dir() else source.parent))
            if masks and marks is None:
                raise ValueError(f"there is no mask of its name in {shown(str(measured.mask))}")
            problem = _of_file(path, to, spec, measured, marks)
        samples = _samples(diffusion, spec, problem, num, seed, how)
        to.parent.mkdir(parents=True, exist_ok=True)
        _write_all(to, samples, num, problem, overwrite)
        return problem.lost

    def name(path: Path) -> str:
        if measured.fourier is not None:
            return path.stem + of_kind(spec.kind).new
        return named(path) if measured.linear or measured.clip is not None else exactly_named(path)

    beside = list(masks.values())
    return Results(source, Path(out), "reconstructed", overwrite, name, beside, progress).make(one)


@dataclass(frozen=True)
class _Problem:
    """A measurement in the units of the model, and where its results go.

    Attributes:
        y: ``(N, C, *spatial)``.
        operator: what made it of the data.
        noise_std: of its noise, a tensor that broadcasts against y.
        shape: of the data, ``(N, C, *spatial)``.
        spec: of the results.
        like: the source of a file; None for coefficients, whose results are new files.
        known: where y is given; None for everywhere.
        holes: on the grid of the file, what its results have of their own; None for all.
        lost: what the results lack, in words.
    """

    y: Tensor
    operator: Operator
    noise_std: Tensor
    shape: tuple[int, ...]
    spec: DataSpec
    like: Source | None
    known: Tensor | None = None
    holes: np.ndarray | None = None
    lost: tuple[str, ...] = ()


def _of_file(path: Path, to: Path, spec: DataSpec, measured: Measured, marks: Path | None) -> _Problem:
    """A file with gaps, or without any and averaged, blurred, clipped or noisy."""
    on_own_grid = measured.linear or measured.clip is not None
    reads = replace(spec, missing=measured.missing or spec.missing)
    if on_own_grid:
        reads = replace(spec, spacing=None, sample_rate=None, resize=False)
    loaded, holes = load_gaps(path, reads, None if marks is None else marks_of(marks, reads))
    source, mask = loaded.source, loaded.mask
    y, known = (_batch(value, reads) for value in (loaded.x, mask))
    check_result(to, reads, source, exact=not measured.noise_std and not on_own_grid)
    gains = torch.tensor([_gain(s) for s in source.scales], dtype=torch.float32)
    noise_std = (measured.noise_std / gains).repeat(len(y) // len(gains)).view(-1, *(1,) * (y.ndim - 1))
    if not on_own_grid:
        if known is None and not measured.noise_std:
            raise NothingToDoError(f"nothing is missing in {shown(path)}, and noise_std is 0")
        everything = torch.ones_like(y, dtype=torch.bool) if known is None else known
        kept = None if measured.noise_std else holes
        return _Problem(
            y, Mask(everything), noise_std, tuple(y.shape), reads, source, known, kept, loaded.lost
        )
    factors = _factors(measured, spec)
    header = source.header.format.refined(source.header, factors)
    grid = header.format.grid(header, spec)
    if grid != header.shape or (spec.resize and spec.size != grid):
        wanted = spec.size if spec.resize and spec.size else grid
        raise ValueError(
            f"the result of {shown(path)} would have {times(header.shape)} entries, and on the grid of the "
            f"model it has {times(wanted)}: downsample must be the ratio of their {_step(spec)}, got "
            f"{measured.downsample}"
        )
    operator = _operator(measured, spec, source.scales, factors)
    shape = (*y.shape[:2], *grid)
    if operator.linear:
        y = y + _offsets(operator, source.scales, shape, 1.0)
    like = replace(source, header=header, shape=(*source.shape[: -len(grid)], *grid))
    return _Problem(y, operator, noise_std, shape, replace(spec, missing=None), like, lost=loaded.lost)


def _of_coefficients(path: Path, spec: DataSpec, measured: Measured) -> _Problem:
    """A complex array of Fourier coefficients, ``(*spatial)`` or ``(C, *spatial)``."""
    values, mask = (_with_channels(_array(Path(str(p))), spec, p) for p in (path, measured.fourier))
    if len(values) != spec.channels or (spec.resize and spec.size != values.shape[1:]):
        size = times(spec.size) if spec.resize and spec.size else "any size"
        raise ValueError(
            f"{shown(path)} must have the {spec.channels} channels of the model, of {size}, got "
            f"{times(values.shape)}"
        )
    if mask.shape[1:] != values.shape[1:] or len(mask) not in (1, len(values)):
        raise ValueError(
            f"fourier must have the size of {shown(path)}, {times(values.shape)}, got {times(mask.shape)}"
        )
    scale, shape = of_kind(spec.kind).scale(spec), (1, *values.shape)
    operator = Fourier(torch.from_numpy(mask != 0)[None])
    values = np.where(mask != 0, values, 0)
    pairs = np.stack([np.real(values), np.imag(values)], 1).reshape(1, -1, *values.shape[1:])
    y = torch.from_numpy(pairs / _gain(scale)).float() + _offsets(operator, (scale,), shape, 0.0)
    noise_std = torch.tensor(measured.noise_std / _gain(scale))
    return _Problem(y, operator, noise_std, shape, replace(spec, missing=None), None)


def _operator(
    measured: Measured, spec: DataSpec, scales: Sequence[Scale], factors: tuple[int, ...]
) -> Operator:
    """What made a file of its result, both in the units of the model."""
    limits = measured.limits()
    if limits is not None:
        if len(set(scales)) > 1:
            raise ValueError("clip needs one scale for all channels, and each of this file has its own")
        low, high = (float(v) for v in scales[0].to_model(np.array(limits)))
        return Clip(low, high)
    parts: list[Operator] = []
    if measured.blur is not None:
        kernel = torch.from_numpy(_array(Path(measured.blur)).astype(np.float32))
        parts.append(Blur(kernel, measured.padding))
    if measured.downsample is not None:
        parts.append(Downsample(factors))
    return parts[0] if len(parts) == 1 else Compose(*parts)


def _offsets(operator: Operator, scales: Sequence[Scale], shape: tuple[int, ...], there: float) -> Tensor:
    """What to add to a measurement ``A (gain x + offset)``, divided by the gain, to have A x.

    Args:
        there: how many offsets have been taken off already.
    """
    ratios = torch.tensor([(s.high + s.low) / (s.high - s.low) for s in scales], dtype=torch.float32)
    ratios = ratios.repeat(shape[0] // len(scales)).view(-1, *(1,) * (len(shape) - 1))
    return ratios * (there - operator(torch.ones(shape)))


def _factors(measured: Measured, spec: DataSpec) -> tuple[int, ...]:
    given = measured.factors() or (1,)
    if len(given) not in (1, spec.spatial_dims):
        raise ValueError(
            f"downsample must be one number or one for each of {spec.spatial_dims} axes, got {given}"
        )
    return given if len(given) == spec.spatial_dims else given * spec.spatial_dims


def _gain(scale: Scale) -> float:
    return (scale.high - scale.low) / 2


def _array(path: Path) -> np.ndarray:
    """An array of numbers (npy)."""
    if path.suffix.lower() != ".npy":
        raise ValueError(f"{shown(path)} must be an array (npy)")
    values = read_whole(path, lambda: np.load(path))
    if values.dtype.kind not in "bifuc" or not np.isfinite(values).all():
        raise ValueError(f"{shown(path)} must have finite numbers, got {values.dtype}")
    return values


def _with_channels(values: np.ndarray, spec: DataSpec, path: Any) -> np.ndarray:
    values = values[None] if values.ndim == spec.spatial_dims else values
    if values.ndim != spec.spatial_dims + 1:
        raise ValueError(
            f"{shown(path)} must have {spec.spatial_dims} spatial axes, and before them channels or none, "
            f"got {times(values.shape)}"
        )
    return values


def _batch(x: Tensor | None, spec: DataSpec) -> Any:
    """With an axis that counts examples, whether the file has one or not."""
    return x if x is None or x.ndim == spec.spatial_dims + 2 else x[None]


def _samples(
    diffusion: Diffusion, spec: DataSpec, problem: _Problem, num: int, seed: int, how: dict[str, Any]
) -> Iterator[Tensor]:
    """Samples ``(N, C, *spatial)`` on the CPU; each has a seed of its own."""
    device, n = device_of(diffusion), len(problem.y)
    y, noise_std = problem.y.to(device), problem.noise_std.to(device)
    known = None if problem.known is None else problem.known.to(device)
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


def _write_all(to: Path, samples: Iterator[Tensor], num: int, problem: _Problem, overwrite: bool) -> None:
    """Write each sample as it comes, then their deviation, and last their mean, which says that all is there.

    Mean and variance are summed by Welford's method, in double precision.
    """
    start, end = _beside(to, "-sample-", "").name, _beside(to, "").name[len(_beside(to, "", "").name) :]
    for path in to.parent.iterdir():  # of a run with other numbers, or one that was interrupted
        if path.name.startswith(start) and path.name.removeprefix(start).removesuffix(end).isdecimal():
            path.unlink()
    mean = total = torch.zeros(())
    for number, x in enumerate(samples, start=1):
        _write(_beside(to, f"-sample-{number:0{len(str(num))}d}"), x, problem, True)
        before, x = mean, x.double()
        mean = before + (x - before) / number
        total = total + (x - before) * (x - mean)
    if num > 1:
        _write_std(to, (total / (num - 1)).sqrt().float(), problem)
    _write(to, mean.float(), problem, overwrite)


def _write(to: Path, x: Tensor, problem: _Problem, overwrite: bool) -> None:
    like = problem.like
    if like is None:
        return write(to, x[0], problem.spec, None, None, overwrite)
    return write(to, x.view(like.shape), problem.spec, like, problem.holes, overwrite)


def _write_std(to: Path, std: Tensor, problem: _Problem) -> None:
    """Write ``NAME-std``, in the units of the file, float32: as a volume, or as an array (npy)."""
    spec, like = problem.spec, problem.like
    if like is None:
        file = io.BytesIO()
        np.save(file, std[0].numpy() * np.float32(_gain(of_kind(spec.kind).scale(spec))))
        return write_bytes(_beside(to, "-std", ".npy"), file.getbuffer(), True)
    scales = tuple(Scale(-_gain(s), _gain(s)) for s in like.scales)
    values = in_file_units(std.view(like.shape), spec, replace(like, scales=scales))
    if like.header.kind == "volumes":
        return write_map(_beside(to, "-std"), values, "float32", spec, like.header, True)
    maps = values if like.header.series else values[0]
    maps = maps if maps.shape[-1 - spec.spatial_dims] > 1 else maps.squeeze(-1 - spec.spatial_dims)
    return write_array(_beside(to, "-std", ".npy"), maps, like.header, True)


def _beside(path: Path, ending: str, suffix: str | None = None) -> Path:
    """``NAME-std.nii.gz`` beside ``NAME.nii.gz``, or with another suffix."""
    own = of_path(path)
    ends = next((s for s in own.suffixes if path.name.lower().endswith(s)), "") if own else path.suffix
    stem = path.name[: len(path.name) - len(ends)]
    return path.with_name(stem + ending + (path.name[len(stem) :] if suffix is None else suffix))


def _step(spec: DataSpec) -> str:
    """What the distance of entries is called in files of a kind."""
    return of_kind(spec.kind).step_name or "sizes"
