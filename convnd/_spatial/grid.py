"""Sampling at given points, and affine grids of points, for any number of axes.

A point has one coordinate per axis, from -1 to 1, the last axis first. Along an axis of ``n`` entries
coordinate c is at the (fractional) entry number

    i(c) = (c + 1) (n - 1) / 2          with align_corners: -1 and 1 are the centres of the outermost entries
    i(c) = ((c + 1) n - 1) / 2          without: they are the outer edges of these

and every mode is a short list of entries around it with their weights, which multiply over several axes.
The padding of each axis defines the values outside: ``zeros``; ``border``, the outermost entry;
``reflection``, about -1 and 1; ``circular``, where entry ``i + n`` is entry ``i``.
"""

from collections.abc import Sequence
from functools import partial
from itertools import product
from math import prod
from typing import Any

import torch
from torch import Tensor

from .._torch import resample as kernels
from .._torch.dtypes import wide
from .._torch.eager import eager
from ..arguments import Ints
from .interpolate import keys

MODES = ("linear", "nearest", "cubic")
PADDINGS = ("zeros", "border", "reflection", "circular")


def affine_grid(theta: Tensor, sizes: Ints, align_corners: bool) -> Tensor:
    """Apply ``theta (N, n, n + 1)`` to the points of all entries: ``(N, *sizes, n)``.

    Not by a product of matrices: settings for networks would round coordinates to 10 bits (TF32) or to 8.
    """
    n, dtype, theta = len(sizes), theta.dtype, wide(theta)  # rounded once, at the end
    *columns, grid = theta.view(theta.shape[0], *(1,) * n, n, n + 1).unbind(-1)
    for axis, size in enumerate(sizes):
        places = _places(theta, size, align_corners).view(-1, *(1,) * (n - axis))
        grid = grid + columns[n - 1 - axis] * places
    return grid.to(dtype)


def _places(like: Tensor, size: int, align_corners: bool) -> Tensor:
    """Coordinates of the entries of one axis."""
    if size == 1:
        return like.new_zeros(1)
    reach = 1.0 if align_corners else (size - 1) / size
    return torch.linspace(-reach, reach, size, dtype=like.dtype, device=like.device)


def grid_sample(x: Tensor, grid: Tensor, mode: str, padding: Sequence[str], align_corners: bool) -> Tensor:
    """Sample ``(N, C, *sizes)`` at the points ``grid (N, *out, n)``: ``(N, C, *out)``."""
    dtype = x.dtype
    if x.is_floating_point():
        real = torch.promote_types(wide(x).dtype, wide(grid).dtype)
        x, grid = x.to(real), grid.to(real)  # rounded once, at the end
    else:
        grid = wide(grid)
    out, n = grid.shape[1:-1], grid.shape[-1]
    grid = grid.reshape(grid.shape[0], prod(out), n)
    kernel = partial(_composed, mode=mode, padding=tuple(padding), align_corners=align_corners)
    if kernels.samples_grids(mode, padding) and x.is_floating_point() and eager(x, grid):
        y: Tensor = _Native.apply(x, grid, mode, padding[0], align_corners, kernel)
    else:
        y = kernel(x, grid)
    return y.to(dtype).view(*x.shape[:2], *out)


class _Native(torch.autograd.Function):
    """torch's kernel; its gradient is not differentiable, so second derivatives use the composition."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, grid: Tensor, mode: str, padding: str, align_corners: bool, composed: Any
    ) -> Tensor:
        ctx.options, ctx.composed = (mode, padding, align_corners), composed
        ctx.save_for_backward(x, grid)
        return kernels.grid_sample(x, grid, *ctx.options)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (y,), (x, grid), needed = grads, ctx.saved_tensors, tuple(ctx.needs_input_grad[:2])
        if not torch.is_grad_enabled():
            found = kernels.grid_sample_gradients(y, x, grid, *ctx.options, by=needed)
        else:
            out = ctx.composed(x, grid)
            by = zip((x, grid), needed, strict=True)
            found = tuple(_gradient(out, t, y) if wanted else None for t, wanted in by)
        return *found, None, None, None, None


def _gradient(out: Tensor, by: Tensor, y: Tensor) -> Tensor:
    """The gradient of ``<y, out>``, itself differentiable."""
    if not out.requires_grad:  # nearest mode is locally constant in the grid
        return torch.zeros_like(by)
    options = {"create_graph": True, "retain_graph": True, "materialize_grads": True}
    return torch.autograd.grad(out, by, y, **options)[0]


def _composed(x: Tensor, grid: Tensor, mode: str, padding: Sequence[str], align_corners: bool) -> Tensor:
    """Sample ``x (N, C, *sizes)`` at points ``(N, K, n)`` by differentiable operators: ``(N, C, K)``."""
    sizes = tuple(x.shape[2:])
    strides = [prod(sizes[i + 1 :]) for i in range(len(sizes))]
    axes = zip(sizes, strides, padding, grid.flip(-1).unbind(-1), strict=True)
    taps = [
        _taps(_entry(c, size, align_corners), size, stride, mode, pad, align_corners)
        for size, stride, pad, c in axes
    ]
    # One more entry, zero, stands for everything outside.
    entries, outside = torch.nn.functional.pad(x.flatten(2), (0, 1)), prod(sizes)
    total = None
    for combination in product(*taps):
        at, inside, weight = combination[0]
        for a, i, w in combination[1:]:
            at, inside, weight = at + a, inside & i, None if w is None or weight is None else weight * w
        at = torch.where(inside, at, outside).unsqueeze(1).expand(-1, x.shape[1], -1)
        value = entries.gather(2, at)
        value = value if weight is None else value * weight.unsqueeze(1)
        total = value if total is None else total + value
    assert total is not None
    return total


def _entry(c: Tensor, size: int, align_corners: bool) -> Tensor:
    return (c + 1) / 2 * (size - 1) if align_corners else ((c + 1) * size - 1) / 2


def _taps(
    at: Tensor, size: int, stride: int, mode: str, padding: str, align_corners: bool
) -> list[tuple[Tensor, Tensor, Tensor | None]]:
    """For each tap along one axis: flat positions, a mask of those inside, and weights."""
    if mode != "cubic":
        at = _inside(at, size, padding, align_corners)
    left = at.floor()
    if mode == "nearest":
        taps: list[tuple[Tensor, Tensor | None]] = [(at.round(), None)]
    elif mode == "linear":
        taps = [(left, 1 - (at - left)), (left + 1, at - left)]
    else:
        taps = [(_inside(left + k, size, padding, align_corners), keys(at - left - k)) for k in (-1, 0, 1, 2)]
    return [_found(i, size, stride, padding, weight) for i, weight in taps]


def _found(
    i: Tensor, size: int, stride: int, padding: str, weight: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    i = i.detach()
    if padding == "circular":
        i = i.remainder(size)
    inside = (i >= 0) & (i < size)  # False where a coordinate is NaN
    return torch.where(inside, i, 0).long() * stride, inside, weight


def _inside(at: Tensor, size: int, padding: str, align_corners: bool) -> Tensor:
    """Map positions to where the axis is read; as in torch, no gradient from the outermost entries on."""
    if padding == "reflection":
        at = _reflected(at, size, align_corners)
    if padding in ("border", "reflection"):
        at = torch.where(at <= 0, 0, torch.where(at >= size - 1, size - 1, at))
    return at


def _reflected(at: Tensor, size: int, align_corners: bool) -> Tensor:
    low, span = (0, size - 1) if align_corners else (-0.5, size)
    if span == 0:
        return torch.zeros_like(at)
    away = torch.where(at < low, low - at, at - low)
    odd = (away / span).floor().remainder(2) == 1
    rest = away.fmod(span)
    return torch.where(odd, span - rest, rest) + low
