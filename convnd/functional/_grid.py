"""The public functions of grid sampling: argument checks and dispatch."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from .._fx import leaf_function
from .._spatial import grid as algorithms
from ..arguments import choice, integer, per_axis_names, require_floating
from ._interpolate import MODE_ALIASES


@leaf_function
def grid_sample(
    input: Tensor,
    grid: Tensor,
    mode: str = "bilinear",
    padding_mode: str | Sequence[str] = "zeros",
    align_corners: bool | None = None,
) -> Tensor:
    r"""Interpolate ``input`` at the points of ``grid``.

    Args:
        input: ``(N, C, *spatial)``, floating-point (any dtype for the mode nearest).
        grid: ``(N, *out, n)``, floating-point, with a coordinate for each of the n spatial axes, **the last
            axis first** as in torch. -1 and 1 are the two ends of an axis, see ``align_corners``.
            Coordinates should be finite.
        mode: ``"linear"`` (torch's ``"bilinear"`` means the same), ``"nearest"`` (halves to the even entry)
            or ``"cubic"`` (``"bicubic"``; Keys 1981 with a = -0.75).
        padding_mode: values outside: ``"zeros"``, ``"border"`` (the outermost entry), ``"reflection"``
            (about the ends) or, beyond torch, ``"circular"`` (entry ``i + size`` is entry ``i``); one name
            for all axes or one for each, the first axis first.
        align_corners: whether the ends are the centres of the outermost entries, or (by default) their edges.

    Returns:
        ``(N, C, *out)`` in the dtype of ``input``. Half precision is rounded once. Its grid may be float32,
        to have coordinates precise enough to tell entries apart.

    Raises:
        ValueError, TypeError: naming the argument, the rule and the value received.

    >>> import torch
    >>> import convnd.functional as F
    >>> x = torch.arange(4.0).view(1, 1, 4)
    >>> F.grid_sample(x, torch.tensor([-1.0, 0.0, 1.0]).view(1, 3, 1), align_corners=True)
    tensor([[[0.0000, 1.5000, 3.0000]]])
    """
    n = _places(input, grid)
    mode = choice(MODE_ALIASES.get(mode, mode), algorithms.MODES, "mode")
    padding = per_axis_names(padding_mode, n, "padding_mode", algorithms.PADDINGS)
    if mode != "nearest":
        require_floating(input)
    return algorithms.grid_sample(input, grid, mode, padding, bool(align_corners))


def _places(input: Any, grid: Any) -> int:
    """The number of spatial axes."""
    for name, value in (("input", input), ("grid", grid)):
        if not isinstance(value, Tensor):
            raise TypeError(f"{name} must be a torch.Tensor, got {type(value).__name__}")
    require_floating(grid, "grid")
    n = input.ndim - 2
    if n < 1 or min(input.shape[2:]) < 1:
        raise ValueError(
            f"input must be (N, C, *spatial) with no empty spatial axis, got shape {tuple(input.shape)}"
        )
    if grid.ndim < 2 or grid.shape[-1] != n or grid.shape[0] != input.shape[0]:
        raise ValueError(
            f"grid must be (N, *out, {n}), a coordinate for each spatial axis, with N = {input.shape[0]} as "
            f"in input, got shape {tuple(grid.shape)}"
        )
    return n


@leaf_function
def affine_grid(theta: Tensor, size: Sequence[int], align_corners: bool | None = None) -> Tensor:
    r"""Apply an affine map to the points of all entries, as a grid for :func:`grid_sample`.

    .. math:: grid[b, o] = \theta[b, :, :n] \, c(o) + \theta[b, :, n]

    Args:
        theta: ``(N, n, n + 1)``, floating-point: matrix and shift, on coordinates with the last axis first.
        size: ``(N, C, *spatial)``, the shape of the result of :func:`grid_sample`.
        align_corners: as in :func:`grid_sample`.

    Returns:
        ``(N, *spatial, n)``.

    Raises:
        ValueError, TypeError: naming the argument, the rule and the value received.

    >>> import torch
    >>> import convnd.functional as F
    >>> mirror = torch.tensor([[[-1.0, 0.0]]])
    >>> x = torch.arange(4.0).view(1, 1, 4)
    >>> F.grid_sample(x, F.affine_grid(mirror, x.shape))
    tensor([[[3., 2., 1., 0.]]])
    """
    if not isinstance(theta, Tensor):
        raise TypeError(f"theta must be a torch.Tensor, got {type(theta).__name__}")
    require_floating(theta, "theta")
    n = len(size) - 2
    if n < 1:
        raise ValueError(f"size must be (N, C, *spatial), got {tuple(size)}")
    sizes = tuple(integer(s, f"size[{i}]", 0 if i < 2 else 1) for i, s in enumerate(size))
    if theta.shape != (sizes[0], n, n + 1):
        raise ValueError(
            f"theta must be (N, n, n + 1) = {(sizes[0], n, n + 1)} for a size of {sizes}, "
            f"got shape {tuple(theta.shape)}"
        )
    return algorithms.affine_grid(theta, sizes[2:], bool(align_corners))
