r"""Maxima and sums over boxes on the CPU: axis by axis, in place, without padding in memory.

Maximum and sum are associative and commutative, so that the reduction of a box of ``prod(k)`` entries is
one of ``k`` entries along each axis in turn. Tap ``t`` of an axis is a strided slice of it,

    out[o] = op_t x[o s + t d - p],     for those o with 0 <= o s + t d - p < size,

and is combined into the narrow part of ``out`` that it covers. One tap that covers all of ``out`` begins.

The *place* of a maximum is no reduction of values, but one of pairs (value, place), ordered by falling
value and then by rising flat place: its minimum over a box is the first of the equal maxima, whatever the
order of the axes. A pair is one 64-bit key with the place in its low half.
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

PIECE = 1 << 20  # bytes of the planes whose means are taken at a time
MAX_PLACES = 1 << 32  # in the low half of a key


def _first_inside(padding: int, dilation: int) -> int:
    """The first tap that does not reach into the left pad of at most ``k / 2``; none covers more outputs."""
    return -(-padding // dilation)


def applies(sizes: Ints, windows: Windows, outputs: Ints) -> bool:
    """True where along each axis some tap covers all outputs, and anything is left to combine with it."""
    several = False
    for n, count, k, s, p, d in zip(sizes, outputs, *windows, strict=True):
        first = _first_inside(p, d)
        if (count - 1) * s + first * d - p >= n:
            return False
        several = several or len(_taps(n, count, k, s, p, d)) > 1
    return several


@lru_cache(maxsize=4096)
def _taps(n: int, count: int, k: int, s: int, p: int, d: int) -> tuple[tuple[int, int, int], ...]:
    """``(first, last + 1, start)`` of each tap: the outputs it covers, and where it starts to read."""
    taps = []
    for offset in range(-p, k * d - p, d):
        low, high = max(-(offset // s), 0), min((n - 1 - offset) // s + 1, count)
        if low < high:
            taps.append((low, high, offset + low * s))
    return tuple(taps)


def _reduce_axis(
    op: Callable[..., Any], x: Tensor, axis: int, count: int, *window: int, room: Tensor | None = None
) -> Tensor:
    """In ``room``, where there is one and anything to combine."""
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
            if axis == x.ndim - 1 and high - low < count:  # a column alone costs as much as all
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
    """First axes first, so that strides have thinned the entries out when the costly last one comes."""
    for axis, (count, *window) in enumerate(zip(outputs, *windows, strict=True), start=2):
        x = _reduce_axis(op, x, axis, count, *window, room=room if axis == x.ndim - 1 else None)
    return x


def maxima(x: Tensor, windows: Windows, outputs: Ints) -> Tensor:
    """The largest entry of each window; any NaN wins, and either of two zeros."""
    return _reduce(torch.maximum, x, windows, outputs)


def winners(x: Tensor, windows: Windows, outputs: Ints) -> Tensor | None:
    """The flat place of the first largest entry of each window; None where there is a NaN."""
    if x.is_floating_point():
        if x.amax().isnan():
            return None
        falling = torch.rsub(x.float(), 0.0).view(torch.int32)  # -x, and one zero for both
        # The bits of a float order as an integer does, but in reverse below zero.
        falling ^= (falling >> 31).bitwise_and_(0x7FFFFFFF)
    else:
        falling = x.bitwise_not()  # -x - 1, or 255 - x: without overflow
    sizes = x.shape[2:]
    keys = falling.to(torch.int64).bitwise_left_shift_(32)
    keys += torch.arange(prod(sizes)).view(sizes)
    return _reduce(torch.minimum, keys, windows, outputs).bitwise_and_(MAX_PLACES - 1)


class _Linear(torch.autograd.Function):
    """A linear map and its adjoint, each the derivative of the other: derivatives of all orders."""

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
    if is_legacy_batchedtensor(a):  # of is_grads_batched, which has no out=
        return out.copy_(a + b)
    return torch.add(a, b, out=out)


def _in_pieces(apply: Callable[..., Tensor], x: Tensor, sizes: Ints) -> Tensor:
    """``apply(x)`` for some planes at a time, which the caches hold from one axis to the next.

    ``apply`` takes a keyword ``room``, where its result may be, and gives its result.
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

    if max(windows.stride) > 1:  # which thins the entries out after the first axis
        return _Linear.apply(x, apply, adjoint)
    return _Linear.apply(
        x, partial(_in_pieces, apply, sizes=outputs), partial(_in_pieces, adjoint, sizes=sizes)
    )


def _spread(y: Tensor, windows: Windows, sizes: Ints, room: Tensor | None) -> Tensor:
    """The adjoint of the sums: every tap adds back where it was read."""
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
