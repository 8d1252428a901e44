"""Inverse problems: files as measurements in the units of a model, and what made them of the data.

What is missing or marked by a mask is so on the grid of the file. What was averaged, blurred, clipped, or
measured as Fourier coefficients is of data on the model's grid.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .data.errors import shown
from .data.formats import Header, of_kind
from .data.formats.format import times
from .data.loading import Source, load_gaps, marks_of, read_whole
from .data.saving import check_result
from .data.spec import DataSpec
from .data.values import Scale
from .measured import Measured
from .operators import Blur, Clip, Compose, Downsample, Fourier, Mask, Operator
from .results import NothingToDoError

__all__ = ["InverseProblem", "of_coefficients", "of_file"]


@dataclass(frozen=True)
class InverseProblem:
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


def of_file(path: Path, to: Path, spec: DataSpec, measured: Measured, marks: Path | None) -> InverseProblem:
    """A file with gaps, or without any and averaged, blurred, clipped or noisy."""
    on_own_grid = measured.linear or measured.clip is not None
    reads = replace(spec, missing=measured.missing or spec.missing)
    if on_own_grid:
        reads = replace(spec, spacing=None, sample_rate=None, resize=False)
    loaded, holes = load_gaps(path, reads, None if marks is None else marks_of(marks, reads))
    source, mask = loaded.source, loaded.mask
    y, known = (_batch(value, reads) for value in (loaded.x, mask))
    check_result(to, reads, source, exact=not measured.noise_std and not on_own_grid)
    gains = torch.tensor([s.gain for s in source.scales], dtype=torch.float32)
    noise_std = (measured.noise_std / gains).repeat(len(y) // len(gains)).view(-1, *(1,) * (y.ndim - 1))
    if not on_own_grid:
        if known is None and not measured.noise_std:
            raise NothingToDoError(f"nothing is missing in {shown(path)}, and noise_std is 0")
        everything = torch.ones_like(y, dtype=torch.bool) if known is None else known
        kept = None if measured.noise_std else holes
        return InverseProblem(
            y, Mask(everything), noise_std, tuple(y.shape), reads, source, known, kept, loaded.lost
        )
    factors = _factors(measured, spec)
    header = _finer(source.header, factors, spec)
    operator = _operator(measured, source.scales, factors)
    shape = (*y.shape[:2], *header.shape)
    if operator.linear:
        y = y + _offsets(operator, source.scales, shape)
    like = replace(source, header=header, shape=(*source.shape[: -spec.spatial_dims], *header.shape))
    return InverseProblem(y, operator, noise_std, shape, replace(spec, missing=None), like, lost=loaded.lost)


def _finer(own: Header, factors: tuple[int, ...], spec: DataSpec) -> Header:
    """The result for a file of which each entry is the mean of some; it must be on the model's grid."""
    header = own.format.refined(own, factors)
    grid = spec.size if spec.resize and spec.size else own.format.grid(header, spec)
    if grid != header.shape:
        raise ValueError(
            f"the result of {shown(own.path)} would have {times(header.shape)} entries, and on the grid of "
            f"the model it has {times(grid)}: downsample must be the ratio of their "
            f"{own.format.step_name or 'sizes'}, got {times(factors)}"
        )
    return header


def of_coefficients(path: Path, spec: DataSpec, measured: Measured) -> InverseProblem:
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
    y = torch.from_numpy(scale.to_model(pairs)) + _offsets(operator, (scale,), shape)
    noise_std = torch.tensor(measured.noise_std / scale.gain)
    return InverseProblem(y, operator, noise_std, shape, replace(spec, missing=None), None)


def _operator(measured: Measured, scales: Sequence[Scale], factors: tuple[int, ...]) -> Operator:
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


def _offsets(operator: Operator, scales: Sequence[Scale], shape: tuple[int, ...]) -> Tensor:
    """What to add to a measurement that was brought to a scale, to have one of data that was.

    With values ``gain x + offset``, A x is ``(A(values) - offset A(1)) / gain``, and to the scale goes
    ``(A(values) - offset) / gain``: these are the same where A keeps a constant.
    """
    ratios = torch.tensor([(s.high + s.low) / (2 * s.gain) for s in scales], dtype=torch.float32)
    ratios = ratios.repeat(shape[0] // len(scales)).view(-1, *(1,) * (len(shape) - 1))
    return ratios * (1 - operator(torch.ones(shape)))


def _factors(measured: Measured, spec: DataSpec) -> tuple[int, ...]:
    given = measured.factors() or (1,)
    if len(given) not in (1, spec.spatial_dims):
        raise ValueError(
            f"downsample must be one number or one for each of {spec.spatial_dims} axes, got {given}"
        )
    return given if len(given) == spec.spatial_dims else given * spec.spatial_dims


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
