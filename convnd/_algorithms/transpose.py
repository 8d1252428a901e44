r"""Transposed convolution: the adjoint of convolution with the same weight and geometry.

.. math:: x[n, c, q s + t d - p] \mathrel{+}= w[o, c, t] \, y[n, o, q]

``native``   torch's kernel, up to three axes; ``channels_last`` hands it a channels-last copy.
``channels`` taps of the leading axes become output channels of one native transposed convolution over the
             other axes, and are added where they belong. With stride 1 it is the reversed convolution.
``phases``   for each residue of the position modulo the stride, a plain convolution of stride 1 with
             every s-th tap, reversed. Residues whose taps lie alike share one convolution.
``gemm``     where the kernel equals the stride no two taps meet: one matrix product and a shuffle.
``fft``      zeros between the entries and one convolution in the frequency domain.
"""

from functools import partial
from itertools import product
from math import gcd, prod
from typing import Any

import torch
from torch import Tensor

from ..arguments import Ints
from . import native
from .blocks import apart
from .conv import Convolution, leading
from .geometry import Geometry
from .outputs import add_taps
from .pad import zero_pad
from .views import spaced


def native_arguments(counts: Ints, kernel: Ints, g: Geometry, sizes: Ints) -> tuple[Ints, Ints]:
    """Padding and output padding of torch's kernel, whose result begins no later and ends no earlier."""
    both = tuple(max(min(pair), 0) for pair in g.pads)
    extra = []
    for q, s, p, e, size, (a, _) in zip(
        counts, g.stride, both, g.extents(kernel), sizes, g.pads, strict=True
    ):
        reach = (q - 1) * s + e - 2 * p
        # What the crop on the left leaves is to be at least as long as what is wanted.
        extra.append(max(a - p + size - reach, 0))
    return both, tuple(extra)


def native_transpose(y: Tensor, w: Tensor, bias: Tensor | None, g: Geometry, sizes: Ints) -> Tensor:
    both, extra = native_arguments(tuple(y.shape[2:]), tuple(w.shape[2:]), g, sizes)
    x = native.conv_transpose(y, w, bias, g.stride, both, extra, g.groups, g.dilation)
    for axis, (size, p, (before, _)) in enumerate(zip(sizes, both, g.pads, strict=True), start=2):
        if x.shape[axis] != size:
            x = x.narrow(axis, before - p, size)
    return x


def channels_last_transpose(y: Tensor, w: Tensor, bias: Tensor | None, g: Geometry, sizes: Ints) -> Tensor:
    return native_transpose(native.channels_last(y), w, bias, g, sizes)


def channels_transpose(
    y: Tensor, w: Tensor, bias: Tensor | None, g: Geometry, sizes: Ints, limit: int
) -> Tensor:
    """In pieces that take at most about ``limit`` bytes before they are added. Writes in place."""
    lead, dtype = leading(len(sizes)), y.dtype
    y, w = native.channels_last(native.wide(y)), native.wide(w)
    x = native.empty(y, (y.shape[0], w.shape[1] * g.groups, *sizes), True)
    rows = zip(w.shape[2:], g.pads[:lead], g.dilation, strict=False)
    offsets = [tuple(t * d - before for t in range(k)) for k, (before, _), d in rows]
    w = w.movedim(1, 1 + lead).flatten(1, 1 + lead)  # (C, taps * O / groups, *others)
    transpose = partial(native_transpose, w=w, bias=None, g=g.others(lead), sizes=sizes[lead:])
    into = apart(x.movedim(1, 1 + lead), (1,) * (len(sizes) - lead), g.groups)
    add_taps(into, bias, y.movedim(1, 1 + lead), g.stride, offsets, transpose, limit)
    return x.to(dtype)


def shuffles(kernel: Ints, g: Geometry) -> bool:
    """Whether no two taps meet, so that ``gemm`` applies."""
    ones = all(d == 1 or k == 1 for d, k in zip(g.dilation, kernel, strict=True))
    return ones and kernel == g.stride


def gemm_transpose(y: Tensor, w: Tensor, bias: Tensor | None, g: Geometry, sizes: Ints) -> Tensor:
    n, groups, kernel = len(g.stride), g.groups, tuple(w.shape[2:])
    batch, counts = y.shape[0], tuple(y.shape[2:])
    taps = w.reshape(groups, w.shape[0] // groups, -1).transpose(1, 2)
    x = torch.matmul(taps, y.reshape(batch, groups, -1, prod(counts)))
    x = x.reshape(batch, groups * w.shape[1], *kernel, *counts)
    order = [a for axis in range(n) for a in (2 + n + axis, 2 + axis)]
    whole = tuple(q * s for q, s in zip(counts, g.stride, strict=True))
    x = x.permute(0, 1, *order).reshape(batch, -1, *whole)
    crop = ((-a, a + size - q) for (a, _), size, q in zip(g.pads, sizes, whole, strict=True))
    x = zero_pad(x, tuple(crop))
    return x if bias is None else x + bias.view(-1, *(1,) * n)


def reversed_weight(w: Tensor, groups: int) -> Tensor:
    """``(O, C / groups, *kernel)`` as the ``(C, O / groups, *kernel)`` of the reversed convolution."""
    w = w.unflatten(0, (groups, w.shape[0] // groups)).transpose(1, 2)
    return w.flatten(0, 1).flip(tuple(range(2, w.ndim - 1)))


def upsampled_transpose(
    y: Tensor, w: Tensor, bias: Tensor | None, g: Geometry, sizes: Ints, convolve: Convolution
) -> Tensor:
    """Zeros between the entries of ``y``, then one convolution with the reversed kernel."""
    for axis, s in enumerate(g.stride, start=2):
        y = spaced(y, axis, s)
    extents = g.extents(tuple(w.shape[2:]))
    pads = tuple(
        (e - 1 - a, a + size - q)
        for e, (a, _), size, q in zip(extents, g.pads, sizes, y.shape[2:], strict=True)
    )
    ones = (1,) * len(g.stride)
    return convolve(y, reversed_weight(w, g.groups), bias, Geometry(ones, pads, g.dilation, g.groups))


def phases_transpose(
    y: Tensor, w: Tensor, bias: Tensor | None, g: Geometry, sizes: Ints, convolve: Convolution
) -> Tensor:
    """One convolution per residue of the position, interleaved.

    Position ``q * s + r`` of the uncropped result sums ``w[t] * y[q - (t * d - r) / s]`` over the taps
    with ``t * d = r (mod s)``; these are every ``s / gcd(s, d)``-th one.
    """
    stride, n_axes = g.stride, len(g.stride)
    if max(stride) == 1:
        return upsampled_transpose(y, w, bias, g, sizes, convolve)
    w = reversed_weight(w, g.groups)
    first = tuple(a // s for (a, _), s in zip(g.pads, stride, strict=True))
    # Results beyond one for each entry of y, which a trace knows though it does not know the sizes.
    rows = zip(g.pads, sizes, stride, y.shape[2:], first, strict=True)
    more = tuple(-(-(a + int(size - q * s)) // s) - f for (a, _), size, s, q, f in rows)
    counts = tuple(q + m for q, m in zip(y.shape[2:], more, strict=True))
    axes = zip(w.shape[2:], stride, g.dilation, first, more, strict=True)
    residues = [[_residue(r, *axis) for r in range(axis[1])] for axis in axes]
    # Residues whose taps lie alike share one convolution: all of them when the stride divides the kernel.
    alike: dict[tuple[Any, ...], dict[int, tuple[slice, ...]]] = {}
    for i, chosen in enumerate(product(*residues)):
        parts = [part for part in chosen if part is not None]
        if len(parts) == n_axes:
            window, *layout = zip(*parts, strict=True)
            alike.setdefault(tuple(layout), {})[i] = window
    results = {
        tuple(windows): _side_by_side(
            y, w, bias, Geometry((1,) * n_axes, amounts, steps, g.groups), tuple(windows.values()), convolve
        )
        for (amounts, steps, _), windows in alike.items()
    }
    out = next(iter(results.values()))  # residue 0 always has a tap
    if len(out) < prod(stride):
        # Where no tap reaches, the result is the bias.
        fill = out.new_zeros(()) if bias is None else bias.to(out.dtype).view(-1, *(1,) * n_axes)
        blocks = [fill.expand(out.shape[1:])] * prod(stride)
        for members, result in results.items():
            for i, block in zip(members, result, strict=True):
                blocks[i] = block
        out = torch.stack(blocks)
    # (residues, N, C, *counts) -> (N, C, count0 * stride0, ...), then crop to the wanted positions.
    out = out.unflatten(0, stride)
    order = [n_axes, n_axes + 1]
    order += [a for axis in range(n_axes) for a in (n_axes + 2 + axis, axis)]
    out = out.permute(order).reshape(
        *out.shape[n_axes : n_axes + 2], *(c * s for c, s in zip(counts, stride, strict=True))
    )
    for axis, size in enumerate(sizes):
        out = out.narrow(2 + axis, g.pads[axis][0] - first[axis] * stride[axis], size)
    return out


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
