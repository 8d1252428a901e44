"""The public function of resampling: argument checks and dispatch."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .._fx import leaf_function
from .._spatial.interpolate import INTERPOLATING, MODES, resample
from ..arguments import Ints, PerAxis, choice, numbers, per_axis, rank, require_floating

MODE_ALIASES = {"bilinear": "linear", "trilinear": "linear", "bicubic": "cubic"}


@leaf_function
def interpolate(
    input: Tensor,
    size: PerAxis | None = None,
    scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
    *,
    spatial_dims: int | None = None,
) -> Tensor:
    """Resample to a size or by a factor.

    A factor is used as given, not replaced by the ratio of the rounded sizes, with torch's exceptions: if the
    size of an axis stays the same, linear resampling copies that axis, and so does nearest on two axes, which
    also repeats every entry once if the size of an axis doubles.

    Args:
        input: ``(N, C, *spatial)``, floating-point; any dtype for the nearest modes; also uint8 for linear
            and cubic, rounded after every axis, the last one first.
        size: output size, int or one per axis.
        scale_factor: output size over input size, a number or one per axis; the size is rounded down.
        mode: ``"nearest"``, ``"nearest-exact"``, ``"linear"``, ``"cubic"`` or ``"area"``; torch's
            names of the linear and cubic modes for two and three axes mean the same.
        align_corners: whether first and last entries coincide, for linear and cubic.
        recompute_scale_factor: use the ratio of the rounded sizes instead of ``scale_factor``.
        antialias: widen the kernel of the linear and cubic modes where they shrink an axis.
        spatial_dims: if given, the number of spatial axes ``input`` must have.

    Returns:
        ``(N, C, *size)``.

    Raises:
        ValueError, TypeError: naming the argument, the rule and the value received.

    >>> import torch
    >>> import convnd.functional as F
    >>> F.interpolate(torch.randn(1, 3, 4, 4, 4, 4), scale_factor=2, mode="linear").shape
    torch.Size([1, 3, 8, 8, 8, 8])
    """
    n = rank(spatial_dims, input, size, scale_factor)
    if n < 1 or input.ndim != n + 2:
        raise ValueError(
            f"input must be (N, C, *spatial) with {n} spatial axes, got shape {tuple(input.shape)}"
        )
    mode = choice(MODE_ALIASES.get(mode, mode), MODES, "mode")
    _check_options(input, mode, align_corners, antialias)
    if (size is None) == (scale_factor is None):
        raise ValueError(
            f"exactly one of size and scale_factor must be given, got {size!r} and {scale_factor!r}"
        )
    if min(input.shape[2:]) < 1:
        raise ValueError(f"input must not be empty along a spatial axis, got shape {tuple(input.shape)}")
    if size is None:
        outputs, scales = _scaled(input.shape[2:], scale_factor)
        if recompute_scale_factor or mode == "area":
            scales = (None,) * n
    elif recompute_scale_factor:
        raise ValueError("recompute_scale_factor must be left out when size is given, got True")
    else:
        outputs, scales = per_axis(size, n, "size"), (None,) * n
    return resample(input, outputs, scales, mode, bool(align_corners), antialias)


def _check_options(input: Tensor, mode: str, align_corners: bool | None, antialias: bool) -> None:
    """Refuse options and dtypes that a mode does not have."""
    interpolating = mode in INTERPOLATING
    if align_corners is not None and not interpolating:
        raise ValueError(f"align_corners must be left out with mode {mode!r}, got {align_corners!r}")
    if antialias and not interpolating:
        raise ValueError(f"antialias must be left out with mode {mode!r}, got True")
    if not mode.startswith("nearest") and not (interpolating and input.dtype == torch.uint8):
        require_floating(input)


def _scaled(sizes: Sequence[int], scale_factor: Any) -> tuple[Ints, tuple[float, ...]]:
    """The sizes times the factors, rounded down, and the factors."""
    n = len(sizes)
    # Whole numbers become ints, so that traced sizes are plain products.
    factors = [int(f) if f == int(f) else f for f in numbers(scale_factor, n, "scale_factor")]
    outputs = [torch.sym_int(s * f) for s, f in zip(sizes, factors, strict=True)]
    return per_axis(outputs, n, "size * scale_factor"), tuple(factors)
