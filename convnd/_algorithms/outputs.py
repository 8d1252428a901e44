r"""Taps of the leading axes as output channels of one native call over the other axes.

What each tap gives is then added where it belongs, for a convolution whose leading axes have stride one, and
for a transposed one with any. So the input is read as it is, neither padded nor unfolded, and where channels
are few the native kernel fills its vectors with taps. It goes in pieces, whose results stay in cache until
they are added. Writes in place: for tensors that are not traced.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import product
from math import prod

from torch import Tensor

from ..arguments import Ints
from . import native
from .blocks import apart, at_shifts, strided, whole
from .conv import leading, native_conv
from .geometry import Geometry
from .views import every

PIECE_BYTES = 10 << 20


def outputs_conv(
    x: Tensor, w: Tensor, bias: Tensor | None, g: Geometry, blocks: Ints, last: bool, limit: int
) -> Tensor:
    """In blocks of output positions of the other axes (:mod:`.blocks`); channels ``last``, or contiguous."""
    kernel, lead = tuple(w.shape[2:]), leading(w.ndim - 2)
    counts, others = g.outputs(tuple(x.shape[2:]), kernel), g.others(lead)
    rows = zip(kernel[:lead], g.pads, g.dilation, strict=False)
    offsets = [tuple(before - t * d for t in range(k)) for k, (before, _), d in rows]
    y = filled(
        native.wide(x), bias, (x.shape[0], w.shape[0], *counts[:lead], *whole(counts[lead:], blocks)), last
    )
    # (groups, *taps, O / groups, C / groups, *others)
    w = (
        native.wide(w)
        .unflatten(0, (g.groups, -1))
        .movedim(tuple(range(3, 3 + lead)), tuple(range(1, 1 + lead)))
    )
    w = at_shifts(w, blocks, 1).flatten(0, 1 + lead)
    convolve = partial(native_conv, w=w, bias=None, g=strided(others, counts[lead:], blocks))
    add_pieces(y, native.wide(x), g, offsets, blocks, last, limit, convolve)
    return y[(slice(None), slice(None), *map(slice, counts))].to(x.dtype)


def filled(x: Tensor, bias: Tensor | None, shape: Sequence[int], last: bool) -> Tensor:
    """What a result of this ``shape`` is before anything is added."""
    y = native.empty(x, shape, last)
    return y.zero_() if bias is None else y.copy_(bias.view(-1, *(1,) * (y.ndim - 2)))


def add_pieces(
    y: Tensor,
    x: Tensor,
    g: Geometry,
    offsets: Sequence[Ints],
    blocks: Ints,
    last: bool,
    limit: int,
    call: Callable[[Tensor], Tensor],
) -> None:
    """Add to ``y`` what ``call`` gives for ``x``, both ``(N, C, *leading, *others)``.

    Tap ``t`` of leading axis ``i`` takes entry ``q`` to ``q * g.stride[i] + offsets[i][t]``. ``call`` works
    over the other axes, and its channels are ``(groups, *taps, *blocks, -1)``. A piece takes about ``limit``
    bytes before it is added, at most ``PIECE_BYTES``.
    """
    lead, taps, limit = len(offsets), prod(map(len, offsets)), min(limit, PIECE_BYTES)
    x = native.channels_last(x).movedim(1, 1 + lead) if last else x.movedim(1, 1 + lead).contiguous()
    y = apart(y.movedim(1, 1 + lead), blocks, g.groups)
    row = y.element_size() * taps * prod(x.shape[2 : 1 + lead]) * prod(y.shape[1 + lead :])
    samples, rows = max(limit // (row * x.shape[1]), 1), min(max(limit // row, 1), x.shape[1])
    for n in range(0, x.shape[0], samples):
        for start in range(0, x.shape[1], rows):
            part = x[n : n + samples, start : start + rows]
            found = call(part.flatten(0, lead)).unflatten(0, part.shape[: 1 + lead])
            found = found.unflatten(1 + lead, (g.groups, taps, *y.shape[2 + lead : -len(blocks)]))
            first = tuple(o + start * g.stride[0] for o in offsets[0])
            _add_taps(y[n : n + samples], found.unbind(2 + lead), g.stride, (first, *offsets[1:]))


def _add_taps(y: Tensor, parts: Iterable[Tensor], stride: Ints, offsets: Sequence[Ints]) -> None:
    for at, part in zip(product(*offsets), parts, strict=True):
        into = y
        for axis, (o, s) in enumerate(zip(at, stride, strict=False), start=1):
            low, high = max(-(o // s), 0), min((y.shape[axis] - 1 - o) // s + 1, part.shape[axis])
            if low >= high:
                break
            part = part.narrow(axis, low, high - low)
            into = every(into, axis, o + low * s, s, high - low)
        else:
            into.add_(part)
