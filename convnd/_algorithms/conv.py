r"""Convolution of ``(N, C, *spatial)`` with ``(O, C / groups, *kernel)``, by several algorithms.

.. math:: y[n, o, q] = \sum_{c, t} w[o, c, t] \, x[n, c, q s + t d - p]

``native``         torch's kernel, up to three axes; ``channels_last`` hands it a channels-last copy.
``channels``       taps of the leading axes become input channels and their output positions batch
                   entries: one native convolution over the other axes does all the arithmetic. Few
                   output channels leave the lanes of a vector unit empty, so that several neighbouring
                   output positions of the first axis are made output channels as well.
``taps``           a sum of native convolutions, one for each tap of the leading axes.
``gemm``           one matrix product with all taps unfolded.
``fft``            in the frequency domain (:mod:`.fft`).

All are plain compositions of differentiable operators that never write in place, so that they can be
traced and transformed. Sums are rounded once.
"""

from itertools import product
from math import prod

import torch
from torch import Tensor

from ..arguments import Ints
from . import native
from .geometry import Geometry
from .pad import zero_pad

LOW_PRECISION = (torch.float16, torch.bfloat16)


def leading(n: int) -> int:
    """How many leading axes ``channels`` and ``taps`` take away: what native kernels lack, at least one."""
    return max(n - native.MAX_AXES, 1)


def native_conv(x: Tensor, w: Tensor, bias: Tensor | None, g: Geometry) -> Tensor:
    # The native kernels pad both sides alike; the rest is padded here.
    inside = tuple([a if a == b >= 0 else max(min(a, b), 0) for a, b in g.pads])
    if all(a == b >= 0 for a, b in g.pads):
        return native.conv(x, w, bias, g.stride, inside, g.dilation, g.groups)
    x = zero_pad(x, tuple((a - i, b - i) for (a, b), i in zip(g.pads, inside, strict=True)))
    return native.conv(x, w, bias, g.stride, inside, g.dilation, g.groups)


def channels_last_conv(x: Tensor, w: Tensor, bias: Tensor | None, g: Geometry) -> Tensor:
    return native_conv(native.channels_last(x), w, bias, g)


def _last_channels(x: Tensor, g: Geometry, lead: int) -> tuple[Tensor, Geometry]:
    """``(N, *spatial, C)`` with the padding of the leading axes done, and the geometry of the others.

    Where there is padding, this is the one copy of the input that padding takes anyway.
    """
    both = [max(min(pair), 0) for pair in g.pads[lead:]]
    outside = tuple((a - i, b - i) for (a, b), i in zip(g.pads[lead:], both, strict=True))
    x = zero_pad(x.movedim(1, -1), (*g.pads[:lead], *outside, (0, 0)))
    return x, Geometry(g.stride[lead:], tuple((i, i) for i in both), g.dilation[lead:], g.groups)


def channels_conv(x: Tensor, w: Tensor, bias: Tensor | None, g: Geometry, block: int = 1) -> Tensor:
    """``block`` neighbouring output positions of the first axis share a window (stride and dilation 1)."""
    n, groups, kernel = len(g.stride), g.groups, tuple(w.shape[2:])
    lead = leading(n)
    outputs = g.outputs(tuple(x.shape[2:]), kernel)
    blocks = -(-outputs[0] // block)
    spare = blocks * block - outputs[0]
    (before, after), *pads = g.pads
    x, rest = _last_channels(x, g._replace(pads=((before, after + spare), *pads)), lead)
    for axis in range(lead):
        extent = g.dilation[axis] * (kernel[axis] - 1) + 1
        step = g.stride[axis]
        if axis == 0:
            extent, step = extent + block - 1, step * block
        x = x.unfold(1 + axis, extent, step)[..., :: g.dilation[axis]]
    # (N, *positions, *rest, C, *taps) -> (N * positions, *rest, groups * taps * C / groups): the copy moves
    # whole runs of channels, and the kernel finds its layout.
    batch, positions, others = x.shape[0], tuple(x.shape[1 : 1 + lead]), tuple(x.shape[1 + lead : 1 + n])
    x = x.unflatten(1 + n, (groups, -1)).movedim(2 + n, -1)
    x = x.reshape(batch * prod(positions), *others, prod(x.shape[1 + n :])).movedim(-1, 1)
    w = _blocked(w, block).unflatten(0, (block, groups, -1)).movedim(1, 0).flatten(0, 2)
    w = w.movedim(1, 1 + lead).flatten(1, 1 + lead)
    if bias is not None:
        bias = bias.view(groups, 1, -1).expand(-1, block, -1).flatten()
    y = native_conv(x, w, bias, rest)
    # (N * positions, groups * block * O / groups, *others) -> (N, O, *outputs)
    y = y.reshape(batch, *positions, groups, block, w.shape[0] // groups // block, *y.shape[2:])
    y = y.movedim((1 + lead, 3 + lead), (1, 2))  # (N, groups, O / groups, *positions, block, *others)
    if block == 1:
        return y.squeeze(3 + lead).flatten(1, 2)
    y = y.movedim(3 + lead, 4).movedim((1, 2), (-2, -1))
    y = y.reshape(batch, blocks * block, *y.shape[3:-2], groups * y.shape[-1]).movedim(-1, 1)
    return y.narrow(2, 0, outputs[0])


def _blocked(w: Tensor, block: int) -> Tensor:
    """``(block * O, C, K + block - 1, ...)``: the kernel at each shift along the first axis."""
    if block == 1:
        return w
    others = ((0, 0),) * (w.ndim - 3)
    return torch.cat([zero_pad(w, ((u, block - 1 - u), *others)) for u in range(block)])


def taps_conv(x: Tensor, w: Tensor, bias: Tensor | None, g: Geometry) -> Tensor:
    n, kernel, dtype = len(g.stride), tuple(w.shape[2:]), x.dtype
    lead = leading(n)
    outputs = g.outputs(tuple(x.shape[2:]), kernel)
    if dtype in LOW_PRECISION:
        x, w, bias = x.float(), w.float(), None if bias is None else bias.float()
    x, rest = _last_channels(x, g, lead)
    total, batch = None, (x.shape[0], *outputs[:lead])
    for t in product(*map(range, kernel[:lead])):
        part, taps = x, w
        for axis, (i, s, d, size) in enumerate(zip(t, g.stride, g.dilation, outputs, strict=False), start=1):
            part = part.narrow(axis, i * d, (size - 1) * s + 1)
            part = part[(slice(None),) * axis + (slice(None, None, s),)]
            taps = taps.select(2, i)
        part = part.reshape(prod(batch), *part.shape[1 + lead :]).movedim(-1, 1)
        term = native_conv(part, taps, bias if total is None else None, rest)
        total = term if total is None else total + term
    assert total is not None
    return total.reshape(*batch, *total.shape[1:]).movedim(1 + lead, 1).to(dtype)


def gemm_conv(x: Tensor, w: Tensor, bias: Tensor | None, g: Geometry) -> Tensor:
    kernel = tuple(w.shape[2:])
    columns, outputs = unfolded(x, kernel, g)
    y = torch.matmul(w.reshape(g.groups, w.shape[0] // g.groups, -1), columns)
    y = y.reshape(x.shape[0], w.shape[0], *outputs)
    return y if bias is None else y + bias.view(-1, *(1,) * len(kernel))


def unfolded(x: Tensor, kernel: Ints, g: Geometry) -> tuple[Tensor, Ints]:
    """``(N, groups, C / groups * taps, positions)`` and the sizes whose product is positions."""
    n = len(kernel)
    x = zero_pad(x, g.pads)
    for axis, extent in enumerate(g.extents(kernel)):
        x = x.unfold(2 + axis, extent, g.stride[axis])[..., :: g.dilation[axis]]
    outputs = tuple(x.shape[2 : 2 + n])
    x = x.movedim(tuple(range(2, 2 + n)), tuple(range(-n, 0)))
    return x.reshape(x.shape[0], g.groups, -1, prod(outputs)), outputs
