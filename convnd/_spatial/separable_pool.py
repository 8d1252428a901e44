r"""Maxima and sums over boxes on the CPU: axis by axis, in place, without padding in memory.

Maximum and sum are associative and commutative, so a box of ``prod(k)`` entries can be reduced along one axis
after the other, ``k`` entries at a time. Tap ``t`` of an axis is a strided slice of it,

    out[o] = op_t x[o s + t d - p],     for those o with 0 <= o s + t d - p < size,

and is combined into the part of ``out`` that it covers. A tap that covers all of ``out`` comes first.

The *index* of a maximum is a reduction of pairs (value, flat index), ordered by falling value and then by
rising index: the minimum over a box is the first of the equal maxima, whatever the order of the axes. A pair
is one 64-bit key with the index in its low half.
"""

from collections.abc import Callable
from functools import lru_cache, partial
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import is_legacy_batchedtensor

from ..arguments import Ints
from .windows import Windows, every

KEYED = (torch.float32, torch.float16, torch.bfloat16, torch.int32, torch.int16, torch.int8, torch.uint8)
REDUCED = (*KEYED, torch.float64, torch.int64)

PIECE = 1 << 20  # bytes of the planes averaged at a time
MAX_PLACES = 1 << 32  # in the low half of a key


def _first_inside(padding: int, dilation: int) -> int:
    """The first tap that never reads the left pad (at most ``k / 2``); no tap covers more outputs."""
    return -(-padding // dilation)


def applies(sizes: Ints, windows: Windows, outputs: Ints) -> bool:
    """True if on each axis some tap covers all outputs, and there is something to combine with it."""
    several = False
    for n, count, k, s, p, d in zip(sizes, outputs, *windows, strict=True):
        first = _first_inside(p, d)
        if (count - 1) * s + first * d - p >= n:
            return False
        several = several or len(_taps(n, count, k, s, p, d)) > 1
    return several


@lru_cache(maxsize=4096)
def _taps(n: int, count: int, k: int, s: int, p: int, d: int) -> tuple[tuple[int, int, int], ...]:
    """``(first, last + 1, start)`` of each tap: the outputs it covers, and the first input it reads."""
    taps = []
    for offset in range(-p, k * d - p, d):
        low, high = max(-(offset // s), 0), min((n - 1 - offset) // s + 1, count)
        if low < high:
            taps.append((low, high, offset + low * s))
    return tuple(taps)


def _reduce_axis(
    op: Callable[..., Any], x: Tensor, axis: int, count: int, *window: int, room: Tensor | None = None
) -> Tensor:
    """Reduce one axis, into ``room`` if it is given and there is anything to combine."""
    _, s, p, d = window
    first = _first_inside(p, d) * d - p
    whole = every(x, axis, first, s, count)
    out = None
    for low, high, start in _taps(x.shape[axis], count, *window):
        if (low, start) == (0, first):
            continue
        tap = every(x, axis, start, s, high - low)
        part = whole.narrow(axis, low, high - low)
        if out is None:
            out = torch.empty_like(whole) if room is None else room
            if axis == x.ndim - 1 and high - low < count:  # one column costs as much as all
                part = out.copy_(whole).narrow(axis, low, high - low)
            for a, b in ((0, low), (high, count)):
                if a < b and axis < x.ndim - 1:
                    out.narrow(axis, a, b - a).copy_(whole.narrow(axis, a, b - a))
            op(part, tap, out=out.narrow(axis, low, high - low))
        else:
            part = out.narrow(axis, low, high - low)
            op(part, tap, out=part)
    return whole if out is None else out


def _reduce(
    op: Callable[..., Any], x: Tensor, windows: Windows, outputs: Ints, room: Tensor | None = None
) -> Tensor:
    """Reduce the first axes first, so that strides leave fewer entries for the costly last axis."""
    for axis, (count, *window) in enumerate(zip(outputs, *windows, strict=True), start=2):
        x = _reduce_axis(op, x, axis, count, *window, room=room if axis == x.ndim - 1 else None)
    return x


def maxima(x: Tensor, windows: Windows, outputs: Ints) -> Tensor:
    """The largest entry of each window; NaN wins, and of 0 and -0 either may be returned."""
    return _reduce(torch.maximum, x, windows, outputs)


def winners(x: Tensor, windows: Windows, outputs: Ints) -> Tensor | None:
    """The flat index of the first largest entry of each window; None if there is any NaN."""
    if x.is_floating_point():
        if not x.is_meta and x.amax().isnan():
            return None
        falling = torch.rsub(x.float(), 0.0).view(torch.int32)  # -x, with a single zero
        # The bits of floats are ordered like integers, but reversed below zero.
        falling ^= (falling >> 31).bitwise_and_(0x7FFFFFFF)
    else:
        falling = x.bitwise_not()  # -x - 1, or 255 - x for bytes: no overflow
    sizes = x.shape[2:]
    keys = falling.to(torch.int64).bitwise_left_shift_(32)
    keys += torch.arange(prod(sizes), device=x.device).view(sizes)
    return _reduce(torch.minimum, keys, windows, outputs).bitwise_and_(MAX_PLACES - 1)


class _Linear(torch.autograd.Function):
    """A linear map and its adjoint, each the other's gradient, so derivatives of all orders exist."""

    @staticmethod
    def forward(x: Tensor, apply: Callable[[Tensor], Tensor], adjoint: Callable[[Tensor], Tensor]) -> Tensor:
        return apply(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.maps = inputs[1:]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return _Linear.apply(gradients[0], *ctx.maps[::-1]), None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        return _Linear.apply(tangents[0], *ctx.maps)

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: Tensor, *maps: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        x = x.movedim(in_dims[0], 0)
        return _Linear.apply(x.flatten(0, 1), *maps).unflatten(0, x.shape[:2]), 0


def _add(a: Tensor, b: Tensor, out: Tensor) -> Tensor:
    if is_legacy_batchedtensor(a):  # from is_grads_batched, which does not support out=
        return out.copy_(a + b)
    return torch.add(a, b, out=out)


def _in_pieces(apply: Callable[..., Tensor], x: Tensor, sizes: Ints) -> Tensor:
    """``apply(x)`` for a few planes at a time, which stay in cache from one axis to the next.

    ``apply`` takes a keyword ``room``, memory that its result may use, and returns its result.
    """
    if is_legacy_batchedtensor(x) or not x.is_contiguous() or x.nbytes <= 2 * PIECE:
        return apply(x)
    out = x.new_empty(*x.shape[:2], *sizes)
    planes = max(PIECE * x.shape[0] * x.shape[1] // x.nbytes, 1)
    pieces = (t.view(1, -1, *t.shape[2:]).split(planes, 1) for t in (x, out))
    for part, room in zip(*pieces, strict=True):
        result = apply(part, room=room)
        if result is not room:
            room.copy_(result)
    return out


def means(x: Tensor, windows: Windows, outputs: Ints, counts: Tensor | int) -> Tensor:
    """The sum of each window divided by ``counts``."""
    sizes = tuple(x.shape[2:])

    def apply(x: Tensor, room: Tensor | None = None) -> Tensor:
        return torch.div(_reduce(_add, x, windows, outputs, room), counts, out=room)

    def adjoint(y: Tensor, room: Tensor | None = None) -> Tensor:
        return _spread(y / counts, windows, sizes, room)

    if max(windows.stride) > 1:  # fewer entries remain after the first axis
        return _Linear.apply(x, apply, adjoint)
    return _Linear.apply(
        x, partial(_in_pieces, apply, sizes=outputs), partial(_in_pieces, adjoint, sizes=sizes)
    )


def _spread(y: Tensor, windows: Windows, sizes: Ints, room: Tensor | None) -> Tensor:
    """The adjoint of the sums: every tap adds back to where it was read."""
    for axis in range(y.ndim - 1, 1, -1):
        n, window = sizes[axis - 2], windows.along(slice(axis - 2, axis - 1))
        (k,), (s,), (p,), (d,) = window
        if k == s == 1:
            continue
        if room is None or axis > 2:
            x = y.new_zeros([*y.shape[:axis], n, *y.shape[axis + 1 :]])
        else:
            x = room.zero_()
        for low, high, start in _taps(n, y.shape[axis], k, s, p, d):
            every(x, axis, start, s, high - low).add_(y.narrow(axis, low, high - low))
        y = x
    return y
