r"""The gradient of convolution by its weight.

.. math:: w[o, c, t] = \sum_{n, q} y[n, o, q] \, x[n, c, q s + t d - p]

``native``         torch's kernel, up to three axes; ``channels_last`` hands it channels-last copies.
``onednn``         that kernel on two halves of a single small sample, which torch takes to oneDNN.
``channels``       that kernel on an input whose leading taps are channels, as in the convolution.
``blocks``         neighbouring positions become channels of ``y`` where these are few (:mod:`.blocks`), also
                   along a leading axis of ``channels``.
``gemm``           one matrix product with the taps of some axes unfolded on the side of ``y`` and those of
                   the others on the side of ``x``: with K taps per axis each side is copied about
                   ``K^(n/2)`` times instead of one side ``K^n`` times. Unfolded in tiles that stay in cache.
``fft``            in the frequency domain (:mod:`.fft`).

Autograd sees through none of these; :func:`exchanged` is the composition for where it has to.
"""

from collections.abc import Iterator
from itertools import product
from math import prod

import torch
from torch import Tensor

from ..arguments import Ints
from . import native, views
from .conv import Convolution, taps_as_channels
from .geometry import Geometry
from .pad import surrounded

TILE_BYTES = 1 << 22


def native_weight(x: Tensor, y: Tensor, g: Geometry, kernel: Ints) -> Tensor:
    x, g = g.even(x)
    shape = y.shape[1], x.shape[1] // g.groups, *kernel
    pads = tuple(a for a, _ in g.pads)
    return native.conv_weight_gradient(x, y, shape, g.stride, pads, g.dilation, g.groups)


def channels_last_weight(x: Tensor, y: Tensor, g: Geometry, kernel: Ints) -> Tensor:
    return native_weight(native.channels_last(x), native.channels_last(y), g, kernel)


def onednn_weight(x: Tensor, y: Tensor, g: Geometry, kernel: Ints) -> Tensor:
    """One sample as a batch of two: the halves of the longest axis of ``y``, and what they read."""
    counts = tuple(y.shape[2:])
    axis = max(range(len(counts)), key=counts.__getitem__)
    half, s, e = (counts[axis] + 1) // 2, g.stride[axis], g.extents(kernel)[axis]
    before, size = g.pads[axis][0], x.shape[2 + axis]
    around = [(0, 0)] * len(kernel)

    def halves(t: Tensor, pair: tuple[int, int], length: int, step: int) -> Tensor:
        t = surrounded(t, (*around[:axis], pair, *around[axis + 1 :]))
        return torch.cat([t.narrow(2 + axis, start, length) for start in (0, step)])

    x = halves(x, (before, (2 * half - 1) * s + e - before - size), (half - 1) * s + e, half * s)
    y = halves(y, (0, 2 * half - counts[axis]), half, half)
    pads = tuple((0, 0) if i == axis else pair for i, pair in enumerate(g.pads))
    return native_weight(x, y, g._replace(pads=pads), kernel)


def channels_weight(x: Tensor, y: Tensor, g: Geometry, kernel: Ints) -> Tensor:
    x, positions, rest = taps_as_channels(x, kernel, g)
    lead = len(positions)
    y = y.movedim(1, 1 + lead).flatten(0, lead)
    w = channels_last_weight(x, y, rest, kernel[lead:])
    return w.unflatten(1, (*kernel[:lead], -1)).movedim(1 + lead, 1)


def exchanged(x: Tensor, y: Tensor, g: Geometry, kernel: Ints, convolve: Convolution) -> Tensor:
    """``x`` convolved with ``y``: batch and channels, stride and dilation exchanged."""
    x = x.unflatten(1, (g.groups, -1)).transpose(0, 2).flatten(1, 2)  # (C / groups, groups * N, *sizes)
    w = convolve(x, y.transpose(0, 1), None, g._replace(stride=g.dilation, dilation=g.stride))
    for axis, k in enumerate(kernel, start=2):
        w = w.narrow(axis, 0, k)
    return w.transpose(0, 1)


def split(batch: int, inputs: int, outputs: int, sizes: Ints, counts: Ints, kernel: Ints, g: Geometry) -> int:
    """How many leading axes to unfold on the side of ``y`` so that the least is copied.

    Only where the stride is one: there the sum runs over the input positions, elsewhere over the outputs.
    """
    best, least = 0, None
    for j in range(len(kernel) + 1):
        if any(s > 1 for s in g.stride[:j]):
            break
        positions = batch * prod(sizes[:j]) * prod(counts[j:])
        copied = positions * (outputs * prod(kernel[:j]) + inputs * prod(kernel[j:]))
        if least is None or copied < least:
            best, least = j, copied
    return best


def gemm_weight(x: Tensor, y: Tensor, g: Geometry, kernel: Ints) -> Tensor:
    n, groups, (batch, inputs), outputs = len(kernel), g.groups, x.shape[:2], y.shape[1]
    sizes, counts, extents = tuple(x.shape[2:]), tuple(y.shape[2:]), g.extents(kernel)
    j = split(batch, inputs, outputs, sizes, counts, kernel, g)
    # Position i of x meets tap t at position i + p - t d of y: the window of y runs backwards.
    y_pads = [(e - 1 - a, i + a - q) for e, (a, _), i, q in zip(extents, g.pads, sizes, counts, strict=True)]
    x_pads = [
        (a, (q - 1) * s + e - i - a)
        for e, (a, _), i, q, s in zip(extents, g.pads, sizes, counts, g.stride, strict=True)
    ]
    none = [(0, 0)] * n
    y = surrounded(y, (*y_pads[:j], *none[j:]))
    x = surrounded(x, (*none[:j], *x_pads[j:]))
    for axis in range(j):
        y = views.windows(y, 2 + axis, kernel[axis], 1, g.dilation[axis])
    for axis in range(j, n):
        x = views.windows(x, 2 + axis, kernel[axis], g.stride[axis], g.dilation[axis])
    # (groups, channels, *taps, N, *positions)
    y, x = (t.unflatten(1, (groups, -1)) for t in (y, x))
    y = y.permute(1, 2, *range(3 + n, y.ndim), 0, *range(3, 3 + n))
    x = x.permute(1, 2, *range(3 + n, x.ndim), 0, *range(3, 3 + n))
    rows, columns = prod(y.shape[1 : 2 + j]), prod(x.shape[1 : 2 + n - j])
    w = native.wide(x.new_zeros(groups, rows, columns))
    for ys, xs in _tiles(y, x, 2 + j, 2 + n - j, w.dtype):
        w.baddbmm_(ys.view(groups, rows, -1), xs.view(groups, columns, -1).mT)
    w = w.view(*y.shape[: 2 + j], *x.shape[1 : 2 + n - j]).movedim(2 + j, 2)
    return w.flip(tuple(range(3, 3 + j))).flatten(0, 1).to(x.dtype)


def _tiles(
    y: Tensor, x: Tensor, y_lead: int, x_lead: int, dtype: torch.dtype
) -> Iterator[tuple[Tensor, Tensor]]:
    """Contiguous pieces of both, cut along the positions they share, in two buffers."""
    most = TILE_BYTES // dtype.itemsize
    positions = y.shape[y_lead:]
    widest = max(prod(y.shape[:y_lead]), prod(x.shape[:x_lead]))
    depth, tail = 0, prod(positions)  # positions before depth are walked one by one, that at depth in steps
    while depth < len(positions) - 1 and tail // positions[depth] * widest >= most:
        tail //= positions[depth]
        depth += 1
    inner = tail // positions[depth]
    step = min(max(most // (widest * inner), 1), positions[depth])
    sides = [
        (t, lead, t.new_empty(prod(t.shape[:lead]) * step * inner, dtype=dtype))
        for t, lead in ((y, y_lead), (x, x_lead))
    ]
    for index in product(*map(range, positions[:depth])):
        for start in range(0, positions[depth], step):
            pieces = []
            for t, lead, buffer in sides:
                piece = t[(slice(None),) * lead + index]
                piece = piece.narrow(lead, start, min(step, positions[depth] - start))
                pieces.append(buffer[: piece.numel()].view(piece.shape).copy_(piece))
            yield pieces[0], pieces[1]
