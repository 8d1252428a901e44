r"""``winograd``: three taps along the first axis with two thirds of the products.

Two neighbouring outputs read four inputs ``d``. Winograd's minimal filtering F(2, 3) (Lavin and Gray 2015,
eq. 6 and 7) needs four products for them instead of six:

.. math::
    m_0 = (d_0 - d_2) g_0, \quad m_1 = (d_1 + d_2) (g_0 + g_1 + g_2) / 2, \quad
    m_2 = (d_2 - d_1) (g_0 - g_1 + g_2) / 2, \quad m_3 = (d_3 - d_1) g_2

    y_0 = m_0 + m_1 + m_2, \quad y_1 = m_1 - m_2 + m_3

Here a product is a convolution over the other axes, by whichever algorithm is best for it; if that computes
tiles of output positions, the additions put them into place. The weight gradient is the adjoint of the same
identity with respect to ``g``. The factors are 1 and 1/2, which are exact, and fewer terms are rounded than
in the definition. An infinity or NaN spreads to both outputs of its pair.
Writes in place, so it cannot be traced.
"""

from collections.abc import Iterator
from functools import partial
from math import prod

import torch
from torch import Tensor

from ..._spatial.pad import zero_pad_unrecorded
from ..._torch.conv import MAX_AXES
from ..._torch.memory import empty
from ...arguments import Ints
from .. import pieces
from ..algorithm import Algorithm
from ..cost import CACHED, CACHES, CALL, COPY, estimated_best, native_seconds, seconds, workspace
from ..problem import Geometry, Problem
from .native import native_conv, native_weight
from .onednn import ALGORITHM as ONEDNN
from .tiles import ALGORITHM as TILES
from .tiles import (
    added_shifts,
    at_shifts,
    bias_at_shifts,
    kernel_at_shifts,
    prefers_channels_last,
    split_tiles,
    split_tiles_last,
    strided,
    tiles_of,
    whole_tiles,
)
from .transposed import ByConvolutions

DTYPES = (torch.float32, torch.float64)  # half precision would round the transformed inputs
TAPS = 3

# The two of the four inputs that each product reads, and the sign of the second.
_READS = ((0, 2, -1), (1, 2, 1), (2, 1, -1), (3, 1, -1))


def pairs(count: int) -> int:
    """The number of pairs of neighbouring outputs; the last may have one output only."""
    return (count + 1) // 2


def _reads(x: Tensor, g: Geometry, count: int, last: bool) -> Iterator[Tensor]:
    """The inputs of the four products, ``(N * pairs, C, *others)``, one after the other in one buffer."""
    size, tiles = x.shape[2], pairs(count)
    before = g.pads[0][0]
    amounts = (before, 2 * tiles + TAPS - 1 - before - size), *((0, 0),) * (x.ndim - 2)
    x = zero_pad_unrecorded(x.movedim(1, -1) if last else x.transpose(1, 2), amounts)
    d = [x[:, i : i + 2 * tiles - 1 : 2] for i in range(4)]
    buffer = torch.empty_like(d[0], memory_format=torch.contiguous_format)
    read = buffer.flatten(0, 1)
    read = read.movedim(-1, 1) if last else read
    for a, b, sign in _READS:
        torch.add(d[a], d[b], alpha=sign, out=buffer)
        yield read


def _kernels(w: Tensor) -> Tensor:
    """The kernels of the four products, stacked."""
    g0, g1, g2 = w.unbind(2)
    even, odd = (g0 + g2) / 2, g1 / 2
    return torch.stack((g0, even + odd, even - odd, g2))


def one_product(p: Problem) -> Problem:
    """The convolution over the other axes that is computed four times."""
    rest = {"sizes": p.sizes[1:], "counts": p.counts[1:], "kernel": p.kernel[1:]}
    return p._replace(batch=p.batch * pairs(p.counts[0]), geometry=p.geometry.others(1), **rest)


def _inner(inside: Problem) -> Algorithm:
    """The best algorithm for one product; its tensors already have the layout of tiles."""
    best = estimated_best(inside)
    return TILES if TILES.applies(inside) and best is not ONEDNN else best


def _inner_tiles(inside: Problem, best: Algorithm) -> Ints:
    """The tiles that the additions put into place."""
    return tiles_of(inside) if best is TILES else (1,) * len(inside.kernel)


def _added_seconds(size: float) -> float:
    """Seconds to add up results of this many bytes."""
    return size / CACHED + max(size - CACHES, 0) / 2 / COPY


class Winograd(ByConvolutions):
    """For at least two axes, with neither stride nor dilation along the first."""

    name = "winograd"
    spreads = True

    def applies(self, p: Problem) -> bool:
        g, alone = p.geometry, len(p.kernel) == 1 or p.kernel[0] != TAPS
        return not alone and g.stride[0] == g.dilation[0] == 1 and p.dtype in DTYPES

    def considered(self, p: Problem) -> bool:
        wanted = p.op != "transpose" and p.device == "cpu"
        return len(p.kernel) > MAX_AXES and wanted and self.applies(p)

    def workspace(self, p: Problem) -> int:
        if p.op == "transpose":
            return super().workspace(p)
        inside = one_product(p)
        read = p.dtype.itemsize * inside.batch * p.inputs * prod(inside.sizes)
        best = _inner(inside)
        return read + 3 * inside.result_bytes + (0 if best is TILES else workspace(inside, best))

    def seconds(self, p: Problem) -> float:
        if p.op == "transpose":
            return super().seconds(p)
        inside = one_product(p)
        entries = inside.batch * (p.inputs * prod(inside.sizes) + p.outputs * prod(inside.counts))
        best = _inner(inside)
        each = native_seconds(inside, tiles_of(inside)) if best is TILES else seconds(inside, best)
        # Each entry moved is the sum of two.
        return 8 * CALL + 4 * (3 * CALL + each + _added_seconds(1.5 * p.dtype.itemsize * entries))

    def conv(self, p: Problem, x: Tensor, w: Tensor, bias: Tensor | None) -> Tensor:
        g, (count, *sizes), inside = p.geometry, p.counts, one_product(p)
        best = _inner(inside)
        tiles, last, couples = _inner_tiles(inside, best), prefers_channels_last(inside), pairs(count)
        kernels, bias = at_shifts(_kernels(w), tiles, g.groups), bias_at_shifts(bias, tiles, g.groups)
        y = empty(x, (x.shape[0], w.shape[0], 2 * couples, *whole_tiles(tuple(sizes), tiles)), last)
        # (N, pairs, groups, *tiles, O / groups, *others)
        y0, y1 = split_tiles(y.unflatten(2, (couples, 2)).movedim(1, 3), tiles, g.groups).unbind(2)
        within = strided(inside.geometry, inside.counts, tiles)
        multiply = partial(native_conv, g=within) if best is TILES else partial(pieces.run, inside, best)
        reads = _reads(x, g, count, last)
        first = multiply(next(reads), kernels[0], None).view(y0.shape)
        second = multiply(next(reads), kernels[1], bias).view(y0.shape)  # part of both outputs
        first += second
        third = multiply(next(reads), kernels[2], None).view(y0.shape)
        torch.add(first, third, out=y0)
        second -= third
        torch.add(second, multiply(next(reads), kernels[3], None).view(y0.shape), out=y1)
        return y[(slice(None), slice(None), *map(slice, p.counts))]

    def weight(self, p: Problem, x: Tensor, y: Tensor) -> Tensor:
        g, inside = p.geometry, one_product(p)
        best = _inner(inside)
        tiles = _inner_tiles(inside, best)
        within = strided(inside.geometry, inside.counts, tiles)
        in_tiles = partial(native_weight, g=within, kernel=kernel_at_shifts(inside.kernel, tiles))
        weigh = in_tiles if best is TILES else partial(pieces.run, inside, best)
        y0, y1 = (split_tiles_last(y[:, :, i::2].transpose(1, 2), tiles, g.groups) for i in range(2))
        y0 = y0.contiguous()  # (N, pairs, *others, channels)
        if y1.shape != y0.shape:  # the last pair has one output only
            y1 = zero_pad_unrecorded(y1, ((0, 1), *((0, 0),) * (y1.ndim - 2)))
        y1, buffer = y1.contiguous(), torch.empty_like(y0)
        gradients = (  # of the four products
            lambda: y0,
            lambda: torch.add(y0, y1, out=buffer),
            lambda: torch.sub(y0, y1, out=buffer),
            lambda: y1,
        )
        found = [
            weigh(read, gradient().flatten(0, 1).movedim(-1, 1))
            for read, gradient in zip(_reads(x, g, p.counts[0], True), gradients, strict=True)
        ]
        first, second, third, fourth = added_shifts(torch.stack(found), p.kernel[1:], tiles, g.groups)
        even = (second + third) / 2
        return torch.stack((first + even, (second - third) / 2, fourth + even), 2)


ALGORITHM = Winograd()
