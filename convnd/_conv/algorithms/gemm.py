r"""``gemm``: one matrix product.

A convolution unfolds all taps of the input. A transposed convolution whose kernel equals the stride, where no
two taps overlap, is a matrix product and a shuffle of its result.

The weight gradient unfolds the taps of some axes in ``y`` and those of the others in ``x``: with K taps per
axis each is copied about ``K^(n/2)`` times, instead of ``x`` alone ``K^n`` times. It unfolds pieces that stay
in cache; autograd cannot differentiate it.
"""

from collections.abc import Iterator
from itertools import product
from math import prod

import torch
from torch import Tensor

from ..._spatial.pad import zero_pad, zero_pad_fast
from ..._spatial.windows import windows
from ..._torch.conv import MAX_AXES
from ..._torch.dtypes import wide
from ...arguments import Ints
from ..cost import CALL, COPY, RATE, copied_result, workspace
from ..problem import Geometry, Problem
from .transposed import ByConvolutions

PIECE_BYTES = 1 << 22


def gemm_conv(x: Tensor, w: Tensor, bias: Tensor | None, g: Geometry) -> Tensor:
    n, batch, outputs = len(g.stride), x.shape[0], w.shape[0]
    x = zero_pad(x, g.pads)
    for axis in range(n):
        x = windows(x, 2 + axis, w.shape[2 + axis], g.stride[axis], g.dilation[axis])
    positions = tuple(x.shape[2 : 2 + n])
    x = x.movedim(tuple(range(2, 2 + n)), tuple(range(-n, 0)))
    columns = x.reshape(batch, g.groups, w[0].numel(), prod(positions))
    y = torch.matmul(w.reshape(g.groups, outputs // g.groups, -1), columns)
    y = y.reshape(batch, outputs, *positions)
    return y if bias is None else y + bias.view(-1, *(1,) * n)


def no_taps_meet(kernel: Ints, g: Geometry) -> bool:
    """True if the taps of a transposed convolution do not overlap: the kernel is as long as the stride."""
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


def axes_unfolded_in_y(p: Problem) -> int:
    """How many leading axes to unfold in ``y`` so that the least is copied.

    Only axes of stride one: along them the sum runs over input positions, along the others over outputs.
    """
    best, least = 0, None
    for j in range(len(p.kernel) + 1):
        if any(s > 1 for s in p.geometry.stride[:j]):
            break
        copied = _unfolded_entries(p, j)
        if least is None or copied < least:
            best, least = j, copied
    return best


def _unfolded_entries(p: Problem, j: int) -> int:
    """Entries to copy if ``j`` axes are unfolded in ``y``."""
    positions = p.batch * prod(p.sizes[:j]) * prod(p.counts[j:])
    return positions * (p.outputs * prod(p.kernel[:j]) + p.inputs * prod(p.kernel[j:]))


def _unfolded_bytes(p: Problem) -> int:
    """Bytes that the weight gradient unfolds in all, piece by piece."""
    return p.dtype.itemsize * _unfolded_entries(p, axes_unfolded_in_y(p))


def gemm_weight(p: Problem, x: Tensor, y: Tensor) -> Tensor:
    """The weight gradient; ``p`` describes ``x`` and ``y``."""
    g, kernel, sizes, counts = p.geometry, p.kernel, p.sizes, p.counts
    n, groups, extents, j = len(kernel), g.groups, g.extents(kernel), axes_unfolded_in_y(p)
    # Position i of x and tap t belong to position i + p - t d of y: the window of y runs backwards.
    y_pads = [(e - 1 - a, i + a - q) for e, (a, _), i, q in zip(extents, g.pads, sizes, counts, strict=True)]
    x_pads = [
        (a, (q - 1) * s + e - i - a)
        for e, (a, _), i, q, s in zip(extents, g.pads, sizes, counts, g.stride, strict=True)
    ]
    none = [(0, 0)] * n
    y = zero_pad_fast(y, (*y_pads[:j], *none[j:]))
    x = zero_pad_fast(x, (*none[:j], *x_pads[j:]))
    for axis in range(j):
        y = windows(y, 2 + axis, kernel[axis], 1, g.dilation[axis])
    for axis in range(j, n):
        x = windows(x, 2 + axis, kernel[axis], g.stride[axis], g.dilation[axis])
    # (groups, channels, *taps, N, *positions)
    y, x = (t.unflatten(1, (groups, -1)) for t in (y, x))
    y = y.permute(1, 2, *range(3 + n, y.ndim), 0, *range(3, 3 + n))
    x = x.permute(1, 2, *range(3 + n, x.ndim), 0, *range(3, 3 + n))
    rows, columns = prod(y.shape[1 : 2 + j]), prod(x.shape[1 : 2 + n - j])
    w = wide(x.new_zeros(groups, rows, columns))
    for ys, xs in _pieces(y, x, 2 + j, 2 + n - j, w.dtype):
        w.baddbmm_(ys.view(groups, rows, -1), xs.view(groups, columns, -1).mT)
    w = w.view(*y.shape[: 2 + j], *x.shape[1 : 2 + n - j]).movedim(2 + j, 2)
    return w.flip(tuple(range(3, 3 + j))).flatten(0, 1).to(x.dtype)


def _pieces(
    y: Tensor, x: Tensor, y_lead: int, x_lead: int, dtype: torch.dtype
) -> Iterator[tuple[Tensor, Tensor]]:
    """Contiguous pieces of ``y`` and ``x``, cut along their common positions, in two reused buffers."""
    most = PIECE_BYTES // dtype.itemsize
    positions = y.shape[y_lead:]
    widest = max(prod(y.shape[:y_lead]), prod(x.shape[:x_lead]))
    depth, tail = 0, prod(positions)  # axes before depth go position by position, the axis at depth in steps
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


class Gemm(ByConvolutions):
    """For any map; a transposed convolution whose taps overlap is made of convolutions."""

    name = "gemm"

    def applies(self, p: Problem) -> bool:
        return True

    def considered(self, p: Problem) -> bool:
        return len(p.kernel) > MAX_AXES and p.op != "transpose"

    def workspace(self, p: Problem) -> int:
        if p.op == "conv":
            return p.dtype.itemsize * p.batch * p.inputs * prod(p.counts) * prod(p.kernel)
        if p.op == "weight":
            return p.result_bytes + min(2 * PIECE_BYTES, _unfolded_bytes(p))
        return 0 if no_taps_meet(p.kernel, p.geometry) else super().workspace(p)

    def seconds(self, p: Problem) -> float:
        if p.op == "conv":
            return CALL + p.flops / RATE + workspace(p, self) / COPY
        if p.op == "weight":
            j = axes_unfolded_in_y(p)
            rows, columns = p.outputs * prod(p.kernel[:j]), p.inputs * prod(p.kernel[j:])
            narrow = min(rows, columns) // p.geometry.groups
            return 4 * CALL + p.flops / (RATE * narrow / (narrow + 24)) + _unfolded_bytes(p) / COPY
        if no_taps_meet(p.kernel, p.geometry):
            return CALL + p.flops / RATE + 2 * (copied_result(p, self) / COPY)
        return super().seconds(p)

    def conv(self, p: Problem, x: Tensor, w: Tensor, bias: Tensor | None) -> Tensor:
        return gemm_conv(x, w, bias, p.geometry)

    def transpose(self, p: Problem, y: Tensor, w: Tensor, bias: Tensor | None) -> Tensor:
        if no_taps_meet(p.kernel, p.geometry):
            return gemm_transpose(y, w, bias, p.geometry, p.sizes)
        return super().transpose(p, y, w, bias)

    def weight(self, p: Problem, x: Tensor, y: Tensor) -> Tensor:
        return gemm_weight(p, x, y)


ALGORITHM = Gemm()
