r"""Convolution of ``(N, C, *spatial)`` with ``(O, C / groups, *kernel)``, by several algorithms.

.. math:: y[n, o, q] = \sum_{c, t} w[o, c, t] \, x[n, c, q s + t d - p]

``native``         torch's kernel, up to three axes; ``channels_last`` hands it a channels-last copy.
``onednn``         oneDNN's kernel where torch would not take it: for a single small sample.
``channels``       taps of the leading axes become input channels and their output positions batch
                   entries: one native convolution over the other axes does all the arithmetic.
``blocks``         neighbouring output positions become output channels where these are few (:mod:`.blocks`),
                   also along a leading axis of ``channels``.
``outputs``        taps of the leading axes become output channels, and are added up (:mod:`.outputs`).
``taps``           a sum of native convolutions, one for each tap of the leading axes.
``gemm``           one matrix product with all taps unfolded.
``fft``            in the frequency domain (:mod:`.fft`).

Those in this file are plain compositions of differentiable operators that never write in place, so that they
can be traced and transformed. Sums are rounded once.
"""

from collections.abc import Callable
from itertools import product
from math import prod

import torch
from torch import Tensor

from ..arguments import Ints
from . import native, views
from .geometry import Geometry
from .pad import evens, surrounded, zero_pad

Convolution = Callable[[Tensor, Tensor, Tensor | None, Geometry], Tensor]


def leading(n: int) -> int:
    """How many leading axes ``channels`` and ``taps`` take away: what native kernels lack, at least one."""
    return max(n - native.MAX_AXES, 1)


def native_conv(x: Tensor, w: Tensor, bias: Tensor | None, g: Geometry) -> Tensor:
    x, g = g.even(x)
    return native.conv(x, w, bias, g.stride, tuple([a for a, _ in g.pads]), g.dilation, g.groups)


def channels_last_conv(x: Tensor, w: Tensor, bias: Tensor | None, g: Geometry) -> Tensor:
    return native_conv(native.channels_last(x), w, bias, g)


def onednn_conv(x: Tensor, w: Tensor, bias: Tensor | None, g: Geometry) -> Tensor:
    x, g = g.even(x)
    return native.onednn_conv(x, w, bias, g.stride, tuple(a for a, _ in g.pads), g.dilation, g.groups)


def _led(x: Tensor, g: Geometry, lead: int, last: bool = True) -> tuple[Tensor, Geometry]:
    """``(N, C, *spatial)`` with the padding of the leading axes done, and the geometry of the others.

    Where there is padding, this is the one copy of the input that padding takes anyway: with channels
    ``last`` in memory, or contiguous.
    """
    even = evens(g.pads[lead:])
    others = tuple((a - i, b - i) for (a, b), i in zip(g.pads[lead:], even, strict=True))
    pads = *g.pads[:lead], *others
    x = surrounded(x.movedim(1, -1), (*pads, (0, 0))).movedim(-1, 1) if last else surrounded(x, pads)
    return x, Geometry(g.stride[lead:], tuple((i, i) for i in even), g.dilation[lead:], g.groups)


def taps_as_channels(
    x: Tensor, kernel: Ints, g: Geometry, last: bool = True
) -> tuple[Tensor, Ints, Geometry]:
    """``(N * positions, groups * taps * C / groups, *others)``, the positions, and the geometry that is left.

    Taps and positions are those of the leading axes. With channels ``last`` in memory, so that the copy
    moves whole runs of channels and the native kernel finds its layout, or contiguous.
    """
    n = len(g.stride)
    lead = leading(n)
    x, rest = _led(x, g, lead, last)
    for axis in range(lead):
        x = views.windows(x, 2 + axis, kernel[axis], g.stride[axis], g.dilation[axis])
    x = x.unflatten(1, (g.groups, -1))  # (N, groups, C / groups, *positions, *others, *taps)
    batch, positions, others = x.shape[0], tuple(x.shape[3 : 3 + lead]), tuple(x.shape[3 + lead : 3 + n])
    outer, inner = range(3, 3 + lead), range(3 + lead, 3 + n)
    channels = 1, *range(3 + n, x.ndim), 2
    folded = batch * prod(positions), prod([x.shape[axis] for axis in channels])  # a list: for Dynamo
    if not last:
        return x.permute(0, *outer, *channels, *inner).reshape(*folded, *others), positions, rest
    x = x.permute(0, *outer, *inner, *channels).reshape(folded[0], *others, folded[1])
    return x.movedim(-1, 1), positions, rest


def channels_conv(x: Tensor, w: Tensor, bias: Tensor | None, g: Geometry, last: bool = True) -> Tensor:
    batch, kernel = x.shape[0], tuple(w.shape[2:])
    lead = leading(len(kernel))
    x, positions, rest = taps_as_channels(x, kernel, g, last)
    y = native_conv(native.laid(x, last), w.movedim(1, 1 + lead).flatten(1, 1 + lead), bias, rest)
    # (N * positions, O, *others) -> (N, O, *outputs)
    return y.unflatten(0, (batch, *positions)).movedim(1 + lead, 1)


def taps_conv(x: Tensor, w: Tensor, bias: Tensor | None, g: Geometry) -> Tensor:
    n, kernel, dtype = len(g.stride), tuple(w.shape[2:]), x.dtype
    lead = leading(n)
    positions = g.outputs(tuple(x.shape[2:]), kernel)[:lead]
    x, rest = _led(native.wide(x), g, lead)
    x = x.movedim(1, -1)
    w, bias = native.wide(w), None if bias is None else native.wide(bias)
    total, batch = None, (x.shape[0], *positions)
    for t in product(*map(range, kernel[:lead])):
        part, taps = x, w
        for axis, i in enumerate(t):
            start = i * g.dilation[axis]
            part = views.every(part, 1 + axis, start, g.stride[axis], positions[axis])
            taps = taps.select(2, i)
        part = part.reshape(prod(batch), *part.shape[1 + lead :]).movedim(-1, 1)
        term = native_conv(part, taps, bias if total is None else None, rest)
        total = term if total is None else total + term
    assert total is not None
    return total.reshape(*batch, *total.shape[1:]).movedim(1 + lead, 1).to(dtype)


def gemm_conv(x: Tensor, w: Tensor, bias: Tensor | None, g: Geometry) -> Tensor:
    n, batch, outputs = len(g.stride), x.shape[0], w.shape[0]
    x = zero_pad(x, g.pads)
    for axis in range(n):
        x = views.windows(x, 2 + axis, w.shape[2 + axis], g.stride[axis], g.dilation[axis])
    positions = tuple(x.shape[2 : 2 + n])
    x = x.movedim(tuple(range(2, 2 + n)), tuple(range(-n, 0)))
    columns = x.reshape(batch, g.groups, w[0].numel(), prod(positions))
    y = torch.matmul(w.reshape(g.groups, outputs // g.groups, -1), columns)
    y = y.reshape(batch, outputs, *positions)
    return y if bias is None else y + bias.view(-1, *(1,) * n)
