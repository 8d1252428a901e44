"""Pooling over any number of spatial axes.

A maximum or a mean over a box is the maximum or mean over some axes of the one over the others, so
pooling runs over a few axes at a time, last axes first. Positions compose: the flat index of
the winner along the outer axes picks the flat index along the inner ones. The first of equal maxima
in row-major order wins and a NaN wins over everything, as in torch, since each step keeps that rule.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from .._arguments import Ints
from . import native

LOW_PRECISION = (torch.float16, torch.bfloat16)


class Windows(NamedTuple):
    """The windows of a pooling operator, one entry per axis in each field."""

    kernel: Ints
    stride: Ints
    padding: Ints
    dilation: Ints

    def along(self, group: slice) -> "Windows":
        return Windows(*(values[group] for values in self))


def output_size(size: int, kernel: int, stride: int, padding: int, dilation: int, ceil_mode: bool) -> int:
    """torch's rule; with ``ceil_mode`` the last window must start inside the input or its left pad."""
    span = size + 2 * padding - dilation * (kernel - 1) - 1
    count = (span + (stride - 1 if ceil_mode else 0)) // stride + 1
    if ceil_mode and (count - 1) * stride >= size + padding:
        count -= 1
    return count


def _axis_groups(n: int, most: int) -> Iterator[slice]:
    """The spatial axes, last first, in groups of at most so many."""
    for stop in range(n, 0, -most):
        yield slice(max(stop - most, 0), stop)


def _along(group: slice, op: Callable[..., tuple[Tensor, ...]], *tensors: Tensor) -> tuple[Tensor, ...]:
    """Apply ``op`` on ``(1, batch, *axes)`` to some spatial axes; all other axes are batch."""
    axes = tuple(range(2 + group.start, 2 + group.stop))
    last = tuple(range(-len(axes), 0))
    moved = [t.movedim(axes, last) for t in tensors]
    lead = moved[0].shape[: -len(axes)]
    results = op(*(m.reshape(1, lead.numel(), *m.shape[-len(axes) :]) for m in moved))
    return tuple(r.reshape(*lead, *r.shape[2:]).movedim(last, axes) for r in results)


def max_pool(x: Tensor, windows: Windows, ceil_mode: bool, indices: bool) -> tuple[Tensor, ...]:
    """``(values,)`` or ``(values, indices)`` with indices flat over the spatial axes."""
    n = len(windows.kernel)

    def some_axes(x: Tensor, group: slice) -> tuple[Tensor, ...]:
        out = native.max_pool(x, *windows.along(group), ceil_mode, indices)
        return out if indices else (out,)

    if n <= native.MAX_AXES:
        return some_axes(x, slice(0, n))
    sizes = x.shape[2:]
    values, position = x, None
    for group in _axis_groups(n, native.MAX_AXES):
        values, *found = _along(group, lambda v, group=group: some_axes(v, group), values)
        if not found:
            continue
        winner = found[0]  # flat over the axes of this group
        if position is not None:
            (inner,) = _along(group, _pick, position, winner)
            winner = winner * sizes[group.stop :].numel() + inner
        position = winner
    return (values,) if position is None else (values, position)


def _pick(source: Tensor, index: Tensor) -> tuple[Tensor]:
    """The entries of ``source`` at flat positions ``index`` over the axes after the second."""
    return (source.flatten(2).gather(2, index.flatten(2)).view(index.shape),)


def avg_pool(
    x: Tensor, windows: Windows, ceil_mode: bool, count_include_pad: bool, divisor_override: int | None
) -> Tensor:
    """Mean over windows; the count of a window is the product of its counts along the axes."""
    n = len(windows.kernel)
    dtype = x.dtype

    def some_axes(x: Tensor, group: slice) -> tuple[Tensor]:
        # With an override all groups but the last one done only sum.
        divisor = 1 if divisor_override is not None and group.start else divisor_override
        kernel, stride, padding, _ = windows.along(group)
        return (native.avg_pool(x, kernel, stride, padding, ceil_mode, count_include_pad, divisor),)

    if n <= native.MAX_AVG_POOL_AXES:
        return some_axes(x, slice(0, n))[0]
    if dtype in LOW_PRECISION:
        x = x.float()  # round once, at the end
    for group in _axis_groups(n, native.MAX_AVG_POOL_AXES):
        (x,) = _along(group, lambda v, group=group: some_axes(v, group), x)
    return x.to(dtype)
