r"""``kn2row`` over the leading axes: their taps become output channels of one native call over the others.

The result of each tap is then added at its position. This works for a convolution whose leading axes have
stride one, and for a transposed one with any stride (:mod:`.im2col`). The input is read as it is, neither
padded nor unfolded, and with few channels the native kernel fills its vectors with taps. The work goes in
pieces whose results stay in cache until they are added. Writes in place, so it cannot be traced.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from itertools import product
from math import prod

import torch
from torch import Tensor

from ..._spatial.windows import every
from ..._torch.conv import MAX_AXES
from ..._torch.dtypes import LOW_PRECISION, wide
from ..._torch.memory import empty
from ...arguments import Ints
from .. import settings
from ..cost import CACHED, CALL, FEW_CHANNELS, lanes_of, native_seconds
from ..problem import Problem, leading
from .native import native_conv
from .tiles import TILES, at_shifts, gains_by_tiles, split_tiles, strided, tiles_of, whole_tiles
from .transposed import ByConvolutions

PIECE_BYTES = 10 << 20


@lru_cache(maxsize=4096)
def neighbours(p: Problem) -> int:
    """How many neighbouring inputs along the last leading axis become channels of one position.

    Together they reach more outputs, which fill the vectors better and share what is read.
    """
    axis, g = leading(len(p.kernel)) - 1, p.geometry
    alone = g.groups > 1 or g.dilation[axis] > 1 or not gains_by_tiles(p)
    most = 1 if alone else max(FEW_CHANNELS // p.inputs, 1)
    choices = [b for b in TILES if b <= most and p.sizes[axis] % b == 0]
    return min(choices, key=lambda b: _added_seconds(_native_problem(p, b), p.outputs))


@lru_cache(maxsize=4096)
def native_problem(p: Problem) -> Problem:
    """The convolution over the other axes, with the taps of the leading axes as output channels."""
    return _native_problem(p, neighbours(p))


def _native_problem(p: Problem, several: int) -> Problem:
    lead = leading(len(p.kernel))
    *taps, last = p.kernel[:lead]
    return p._replace(
        batch=p.batch * prod(p.sizes[:lead]) // several,
        inputs=p.inputs * several,
        outputs=p.outputs * prod(taps) * (last + several - 1),
        sizes=p.sizes[lead:],
        counts=p.counts[lead:],
        kernel=p.kernel[lead:],
        geometry=p.geometry.others(lead),
    )


def _added_seconds(p: Problem, outputs: int) -> float:
    """Seconds to compute products with taps as output channels and to add them up."""
    taps = p.outputs // outputs
    return native_seconds(p, tiles_of(p)) + (6 + taps) * CALL + _wide_bytes(p) / 2 / CACHED


def _wide_bytes(p: Problem) -> int:
    """Bytes of the result of a convolution, in at least single precision for adding up."""
    return max(p.dtype.itemsize, 4) * p.batch * p.outputs * prod(p.counts)


def prefers_channels_last(p: Problem) -> bool:
    """As :func:`.tiles.prefers_channels_last`, for pieces whose taps fill the vectors."""
    return p.inputs > FEW_CHANNELS or p.inputs >= lanes_of(p.dtype)


def piece_bytes(p: Problem) -> int:
    """Bytes computed at once before they are added, also for transposed convolution in :mod:`.im2col`."""
    lead = leading(len(p.kernel))
    if p.op == "conv":
        whole, first = _wide_bytes(native_problem(p)), p.sizes[0] // (neighbours(p) if lead == 1 else 1)
    else:
        outputs, counts = p.inputs * prod(p.kernel[:lead]), (*p.counts[:lead], *p.sizes[lead:])
        whole, first = _wide_bytes(p._replace(outputs=outputs, counts=counts)), p.counts[0]
    return min(whole, max(PIECE_BYTES, whole // max(p.batch * first, 1)))


def _neighbours_as_channels(x: Tensor, lead: int, several: int, last: bool) -> Tensor:
    """Rearrange ``(N, C, *sizes)`` to ``(N, *leading / several, several * C, *others)``."""
    x = x.unflatten(1 + lead, (-1, several)).movedim(1, 2 + lead)
    if not last:
        return x.contiguous().flatten(1 + lead, 2 + lead)
    x = x.movedim((1 + lead, 2 + lead), (-2, -1)).contiguous().flatten(-2)
    return x.movedim(-1, 1 + lead)


def _taps_as_outputs(w: Tensor, lead: int, several: int, groups: int) -> Tensor:
    """The kernel as ``(groups, *taps, O / groups, several * C / groups, *others)``.

    Along the last leading axis the first tap belongs to the last output that any of the inputs reaches.
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
    """Write into ``y`` the bias plus the results of ``call`` for ``x``, each tap at its position.

    Tap ``t`` of leading axis ``i`` maps entry ``q`` of ``x`` to ``q * stride[i] + offsets[i][t]``. ``call``
    works over the other axes. The result of a piece takes at most ``limit`` and ``PIECE_BYTES`` bytes, but a
    piece is never smaller than one entry of the first axis of one sample.

    Args:
        y: ``(N, *leading, groups, *tiles, O / groups, *others)``.
        x: ``(N, *leading, C, *others)``, whose leading axes can be flattened without a copy.
        call: maps ``(entries, C, *others)`` to ``(entries, groups * taps * tiles * O / groups, *others)``.
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
    """The entries of ``y`` to add to, and the entries of ``part`` to add; empty if there are none."""
    for axis, (o, s) in enumerate(zip(place, stride, strict=False), start=1):
        low, high = max(-(o // s), 0), min((y.shape[axis] - 1 - o) // s + 1, part.shape[axis])
        if low >= high:
            return ()
        part = part.narrow(axis, low, high - low)
        y = every(y, axis, o + low * s, s, high - low)
    return y, part


class Kn2row(ByConvolutions):
    """For the leading axes beyond the last three, at least one."""

    name = "kn2row"
    old_name = "outputs"

    def applies(self, p: Problem) -> bool:
        n = len(p.kernel)  # a transposed convolution is made of convolutions without stride
        ones = p.op == "transpose" or max(p.geometry.stride[: leading(n)]) == 1
        return n > 1 and p.op != "weight" and ones

    def considered(self, p: Problem) -> bool:
        wanted = p.op == "conv" and p.device == "cpu" and p.dtype not in LOW_PRECISION
        return len(p.kernel) > MAX_AXES and wanted and self.applies(p)

    def spreads_inputs(self, p: Problem) -> bool:
        return p.op == "conv" and max(neighbours(p), *tiles_of(native_problem(p))) > 1

    def workspace(self, p: Problem) -> int:
        if p.op == "transpose":
            return super().workspace(p)
        return piece_bytes(p) + (_wide_bytes(p) if p.dtype in LOW_PRECISION else 0)

    def seconds(self, p: Problem) -> float:
        if p.op == "transpose":
            return super().seconds(p)
        return _added_seconds(native_problem(p), p.outputs)

    def conv(self, p: Problem, x: Tensor, w: Tensor, bias: Tensor | None) -> Tensor:
        g, kernel, counts, lead = p.geometry, p.kernel, p.counts, leading(len(p.kernel))
        inside, several, dtype = native_problem(p), neighbours(p), x.dtype
        tiles, last = tiles_of(inside), prefers_channels_last(inside)
        x, w = wide(x), wide(w)
        y = empty(x, (p.batch, p.outputs, *counts[:lead], *whole_tiles(counts[lead:], tiles)), last)
        rows = zip(kernel[:lead], g.pads, g.dilation, strict=False)
        offsets = [tuple(before - t * d for t in range(k)) for k, (before, _), d in rows]
        offsets[-1] = tuple(range(offsets[-1][0] + several - 1, offsets[-1][-1] - 1, -g.dilation[lead - 1]))
        w = at_shifts(_taps_as_outputs(w, lead, several, g.groups), tiles, 1).flatten(0, 1 + lead)
        convolve = partial(native_conv, w=w, bias=None, g=strided(g.others(lead), counts[lead:], tiles))
        into = split_tiles(y.movedim(1, 1 + lead), tiles, g.groups)
        stride = *g.stride[: lead - 1], several
        x = _neighbours_as_channels(x, lead, several, last)
        add_taps(into, bias, x, stride, offsets, convolve, settings.workspace_limit)
        return y[(slice(None), slice(None), *map(slice, counts))].to(dtype)


ALGORITHM = Kn2row()
