r"""Taps of the leading axes as output channels of one native call over the other axes.

What each tap gives is then added where it belongs, for a convolution whose leading axes have stride one, and
for a transposed one with any. So the input is read as it is, neither padded nor unfolded, and where channels
are few the native kernel fills its vectors with taps. It goes in pieces, whose results stay in cache until
they are added. Writes in place: for tensors that are not traced.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from math import prod

import torch
from torch import Tensor

from ..arguments import Ints
from . import native
from .blocks import apart, at_shifts, strided, whole
from .conv import leading, native_conv
from .geometry import Geometry
from .views import every

PIECE_BYTES = 10 << 20


def outputs_conv(
    x: Tensor,
    w: Tensor,
    bias: Tensor | None,
    g: Geometry,
    several: int,
    blocks: Ints,
    last: bool,
    limit: int,
) -> Tensor:
    """With ``several`` neighbours of the last leading axis as channels, and in ``blocks`` (:mod:`.blocks`) of
    output positions along the other axes; channels ``last`` in memory, or contiguous.
    """
    kernel, lead = tuple(w.shape[2:]), leading(w.ndim - 2)
    counts, dtype, outputs = g.outputs(tuple(x.shape[2:]), kernel), x.dtype, w.shape[0]
    x, w = native.wide(x), native.wide(w)
    y = native.empty(x, (x.shape[0], outputs, *counts[:lead], *whole(counts[lead:], blocks)), last)
    rows = zip(kernel[:lead], g.pads, g.dilation, strict=False)
    offsets = [tuple(before - t * d for t in range(k)) for k, (before, _), d in rows]
    offsets[-1] = tuple(range(offsets[-1][0] + several - 1, offsets[-1][-1] - 1, -g.dilation[lead - 1]))
    w = at_shifts(_taps(w, lead, several, g.groups), blocks, 1).flatten(0, 1 + lead)
    convolve = partial(native_conv, w=w, bias=None, g=strided(g.others(lead), counts[lead:], blocks))
    into = apart(y.movedim(1, 1 + lead), blocks, g.groups)
    stride = *g.stride[: lead - 1], several
    add_taps(into, bias, _joined(x, lead, several, last), stride, offsets, convolve, limit)
    return y[(slice(None), slice(None), *map(slice, counts))].to(dtype)


def _joined(x: Tensor, lead: int, several: int, last: bool) -> Tensor:
    """``(N, C, *sizes)`` as ``(N, *leading / several, several * C, *others)``."""
    x = x.unflatten(1 + lead, (-1, several)).movedim(1, 2 + lead)
    if not last:
        return x.contiguous().flatten(1 + lead, 2 + lead)
    x = x.movedim((1 + lead, 2 + lead), (-2, -1)).contiguous().flatten(-2)
    return x.movedim(-1, 1 + lead)


def _taps(w: Tensor, lead: int, several: int, groups: int) -> Tensor:
    """The kernel as ``(groups, *taps, O / groups, several * C / groups, *others)``.

    Along the last leading axis the first tap is of the last output that any of several inputs reaches.
    """
    shifts = *(1,) * (lead - 1), several, *(1,) * (w.ndim - 2 - lead)
    w = at_shifts(w, shifts, 1).unflatten(0, (several, groups, -1))
    w = w.flip(0) if several > 1 else w
    taps, others = range(4, 4 + lead), range(4 + lead, w.ndim)
    return w.permute(1, *taps, 2, 0, 3, *others).flatten(lead + 2, lead + 3)


def add_taps(
    y: Tensor,
    bias: Tensor | None,
    x: Tensor,
    stride: Ints,
    offsets: Sequence[Ints],
    call: Callable[[Tensor], Tensor],
    limit: int,
) -> None:
    """Write into ``y`` the sum of the bias and of what ``call`` gives for ``x``.

    Tap ``t`` of leading axis ``i`` takes entry ``q`` of ``x`` to ``q * stride[i] + offsets[i][t]``. ``call``
    works over the other axes. A piece takes at most ``limit`` bytes, and ``PIECE_BYTES``, until it is added;
    it is at least one entry of the first axis of a sample.

    Args:
        y: ``(N, *leading, groups, *blocks, O / groups, *others)``.
        x: ``(N, *leading, C, *others)``, whose leading axes can be flattened without a copy.
        call: ``(entries, C, *others)`` to ``(entries, groups * taps * blocks * O / groups, *others)``.
    """
    lead, places = len(offsets), list(product(*offsets))
    (batch, count), (groups, *channels) = x.shape[:2], y.shape[1 + lead :]
    entry = y.element_size() * len(places) * prod(x.shape[2 : 1 + lead]) * prod(y.shape[1 + lead :])
    most = max(min(limit, PIECE_BYTES) // entry, 1)
    samples, rows = max(most // count, 1), -(-count // -(-count // most))
    ones = (1,) * (len(channels) // 2)
    start = y.new_zeros(()) if bias is None else bias.to(y.dtype).view(groups, *ones, -1, *ones)
    alone = range(len(places)) if rows == count else ()
    first = next((i for i in alone if _reaches_all(y, x, stride, places[i])), None)
    if first is None:
        y.copy_(start)
    order = sorted(range(len(places)), key=lambda i: i != first)
    for n, q in product(range(0, batch, samples), range(0, count, rows)):
        part = x[n : n + samples, q : q + rows]
        found = call(part.flatten(0, lead)).unflatten(0, part.shape[: 1 + lead])
        found = found.unflatten(1 + lead, (groups, len(places), *channels[: len(ones) + 1])).unbind(2 + lead)
        for i in order:
            at, *others = places[i]
            pair = _overlap(y[n : n + samples], found[i], stride, (at + q * stride[0], *others))
            if i == first:  # written instead of added
                torch.add(pair[1], start, out=pair[0])
            elif pair:
                pair[0].add_(pair[1])


def _reaches_all(y: Tensor, x: Tensor, stride: Ints, place: Ints) -> bool:
    axes = zip(y.shape[1:], x.shape[1:], stride, place, strict=False)
    return all(s == 1 and o <= 0 and size <= count + o for size, count, s, o in axes)


def _overlap(y: Tensor, part: Tensor, stride: Ints, place: Ints) -> tuple[Tensor, ...]:
    """The entries of ``y`` that entries of ``part`` go to, and these; nothing where there are none."""
    for axis, (o, s) in enumerate(zip(place, stride, strict=False), start=1):
        low, high = max(-(o // s), 0), min((y.shape[axis] - 1 - o) // s + 1, part.shape[axis])
        if low >= high:
            return ()
        part = part.narrow(axis, low, high - low)
        y = every(y, axis, o + low * s, s, high - low)
    return y, part
