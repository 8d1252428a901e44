r"""Transposed convolution, and the weight gradient, as plain convolutions.

.. math:: x[n, c, q s + t d - p] \mathrel{+}= w[o, c, t] \, y[n, o, q]

For each residue of the position modulo the stride it is a plain convolution of stride 1 with every s-th tap,
reversed; residues with taps at the same offsets share one convolution. Traceable if the convolution is.
"""

from collections.abc import Callable
from functools import partial
from itertools import product
from math import gcd, prod
from typing import Any

import torch
from torch import Tensor

from ..._spatial.windows import spaced
from ...arguments import Ints
from ..algorithm import Algorithm
from ..cost import CALL, COPY, copied_result, seconds, workspace
from ..execution import convolution
from ..problem import Geometry, Problem

Convolution = Callable[[Tensor, Tensor, Tensor | None, Geometry], Tensor]


def reversed_weight(w: Tensor, groups: int) -> Tensor:
    """The kernel ``(O, C / groups, *kernel)`` as ``(C, O / groups, *kernel)`` of the reversed convolution."""
    w = w.unflatten(0, (groups, w.shape[0] // groups)).transpose(1, 2)
    return w.flatten(0, 1).flip(tuple(range(2, w.ndim - 1)))


def upsampled_transpose(
    y: Tensor, w: Tensor, bias: Tensor | None, g: Geometry, sizes: Ints, convolve: Convolution
) -> Tensor:
    """Insert zeros between the entries of ``y``, then convolve with the reversed kernel."""
    for axis, s in enumerate(g.stride, start=2):
        y = spaced(y, axis, s)
    extents = g.extents(tuple(w.shape[2:]))
    pads = tuple(
        (e - 1 - a, a + size - q)
        for e, (a, _), size, q in zip(extents, g.pads, sizes, y.shape[2:], strict=True)
    )
    ones = (1,) * len(g.stride)
    return convolve(y, reversed_weight(w, g.groups), bias, Geometry(ones, pads, g.dilation, g.groups))


def polyphase_transpose(
    y: Tensor, w: Tensor, bias: Tensor | None, g: Geometry, sizes: Ints, convolve: Convolution
) -> Tensor:
    """One convolution per residue of the position, interleaved.

    Position ``q * s + r`` of the uncropped result sums ``w[t] * y[q - (t * d - r) / s]`` over the taps
    with ``t * d = r (mod s)``, every ``s / gcd(s, d)``-th tap.
    """
    stride = g.stride
    if max(stride) == 1:
        return upsampled_transpose(y, w, bias, g, sizes, convolve)
    w = reversed_weight(w, g.groups)
    first = tuple(a // s for (a, _), s in zip(g.pads, stride, strict=True))
    # Results in excess of one per entry of y, which a trace knows even if it does not know the sizes.
    rows = zip(g.pads, sizes, stride, y.shape[2:], first, strict=True)
    more = tuple(-(-(a + int(size - q * s)) // s) - f for (a, _), size, s, q, f in rows)
    counts = tuple(q + m for q, m in zip(y.shape[2:], more, strict=True))
    ones = (1,) * len(stride)
    results = {
        tuple(windows): _side_by_side(
            y, w, bias, Geometry(ones, amounts, steps, g.groups), tuple(windows.values()), convolve
        )
        for (amounts, steps, _), windows in _alike(w.shape[2:], g, first, more).items()
    }
    out = _interleaved(_all_residues(results, prod(stride), bias), stride, counts)
    for axis, size in enumerate(sizes):
        out = out.narrow(2 + axis, g.pads[axis][0] - first[axis] * stride[axis], size)
    return out


def _alike(
    kernel: Ints, g: Geometry, first: Ints, more: Ints
) -> dict[tuple[Any, ...], dict[int, tuple[slice, ...]]]:
    """The taps of each residue, by their padding, dilation and number along every axis.

    Residues alike in these have taps at the same offsets and share one convolution: all do if the stride
    divides the kernel. Those without taps are left out.
    """
    axes = zip(kernel, g.stride, g.dilation, first, more, strict=True)
    residues = [[_residue(r, *axis) for r in range(axis[1])] for axis in axes]
    alike: dict[tuple[Any, ...], dict[int, tuple[slice, ...]]] = {}
    for i, chosen in enumerate(product(*residues)):
        parts = [part for part in chosen if part is not None]
        if len(parts) == len(chosen):
            window, *layout = zip(*parts, strict=True)
            alike.setdefault(tuple(layout), {})[i] = window
    return alike


def _all_residues(results: dict[tuple[int, ...], Tensor], number: int, bias: Tensor | None) -> Tensor:
    """``(number, N, C, *counts)`` from the results of some; those that no tap reaches get the bias."""
    out = next(iter(results.values()))  # residue 0 always has a tap
    if len(out) == number:
        return out
    fill = out.new_zeros(()) if bias is None else bias.to(out.dtype).view(-1, *(1,) * (out.ndim - 3))
    blocks = [fill.expand(out.shape[1:])] * number
    for members, result in results.items():
        for i, block in zip(members, result, strict=True):
            blocks[i] = block
    return torch.stack(blocks)


def _interleaved(out: Tensor, stride: Ints, counts: Ints) -> Tensor:
    """``(residues, N, C, *counts)`` as ``(N, C, count0 * stride0, ...)``."""
    n = len(stride)
    out = out.unflatten(0, stride)
    order = [n, n + 1]
    order += [a for axis in range(n) for a in (n + 2 + axis, axis)]
    sizes = (c * s for c, s in zip(counts, stride, strict=True))
    return out.permute(order).reshape(*out.shape[n : n + 2], *sizes)


def _side_by_side(
    y: Tensor,
    w: Tensor,
    bias: Tensor | None,
    g: Geometry,
    windows: tuple[tuple[slice, ...], ...],
    convolve: Convolution,
) -> Tensor:
    """``(len(windows), N, C, *spatial)``: convolutions with parts of one kernel, in a single call."""
    taps = [w[(slice(None), slice(None), *window)] for window in windows]
    kernels = torch.stack([t.unflatten(0, (g.groups, -1)) for t in taps], 1).flatten(0, 2)
    if bias is not None:
        bias = bias.view(g.groups, 1, -1).expand(-1, len(windows), -1).flatten()
    out = convolve(y, kernels, bias, g)
    return out.unflatten(1, (g.groups, len(windows), -1)).movedim(2, 0).flatten(2, 3)


def _residue(
    r: int, kernel: int, stride: int, dilation: int, first: int, more: int
) -> tuple[slice, tuple[int, int], int, int] | None:
    """Taps (of the reversed kernel), padding, dilation, number of taps for positions ``q * stride + r``."""
    taps = [t for t in range(kernel) if (t * dilation - r) % stride == 0]
    if not taps:
        return None
    common = gcd(stride, dilation)
    low, high = ((t * dilation - r) // stride for t in (taps[0], taps[-1]))
    window = slice(kernel - 1 - taps[-1], kernel - taps[0], stride // common)
    return window, (high - first, first + more - low), dilation // common, len(taps)


def weight_by_convolution(x: Tensor, y: Tensor, g: Geometry, kernel: Ints, convolve: Convolution) -> Tensor:
    """Convolve ``x`` with ``y``, with batch and channels, and stride and dilation, exchanged."""
    x = x.unflatten(1, (g.groups, -1)).transpose(0, 2).flatten(1, 2)  # (C / groups, groups * N, *sizes)
    w = convolve(x, y.transpose(0, 1), None, g._replace(stride=g.dilation, dilation=g.stride))
    for axis, k in enumerate(kernel, start=2):
        w = w.narrow(axis, 0, k)
    return w.transpose(0, 1)


def convolutions_of(p: Problem) -> Problem:
    """All convolutions that a transposed convolution is made of, as one problem."""
    g = p.geometry
    taps = tuple(max(-(-k // s), 1) for k, s in zip(p.kernel, g.stride, strict=True))
    ones = (1,) * len(taps)
    pads = tuple((d * (k - 1), 0) for k, d in zip(taps, g.dilation, strict=True))
    inside = Geometry(ones, pads, g.dilation, g.groups)
    outputs = p.inputs * prod(g.stride)
    return Problem("conv", p.batch, p.outputs, outputs, p.counts, p.counts, taps, inside, p.dtype, p.device)


class ByConvolutions(Algorithm):
    """An algorithm for convolutions that composes transposed convolutions of them."""

    def workspace(self, p: Problem) -> int:
        return workspace(convolutions_of(p), self)

    def seconds(self, p: Problem) -> float:
        each = prod(p.geometry.stride) * CALL
        return each + seconds(convolutions_of(p), self) + copied_result(p, self) / COPY

    def transpose(self, p: Problem, y: Tensor, w: Tensor, bias: Tensor | None) -> Tensor:
        convolve = partial(convolution, forced=self)
        return polyphase_transpose(y, w, bias, p.geometry, p.sizes, convolve)
