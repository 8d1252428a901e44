"""Views of one axis: strided slices, windows, and entries with zeros between them."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..arguments import Ints
from .pad import zero_pad


class Windows(NamedTuple):
    """The windows of a pooling operator, one entry per axis in each field."""

    kernel: Ints
    stride: Ints
    padding: Ints
    dilation: Ints

    def along(self, group: slice) -> "Windows":
        return Windows(*(values[group] for values in self))

    def outputs(self, sizes: Ints, ceil_mode: bool) -> Ints:
        axes = zip(sizes, *self, strict=True)
        return tuple(output_size(n, k, s, p, d, ceil_mode) for n, k, s, p, d in axes)


def output_size(size: int, kernel: int, stride: int, padding: int, dilation: int, ceil_mode: bool) -> int:
    """torch's output size; in ``ceil_mode`` the last window must start in the input or its left pad."""
    span = size + 2 * padding - dilation * (kernel - 1) - 1
    if not ceil_mode:
        return (span + stride) // stride
    # Dynamo can trace min of dynamic sizes, but in torch 2.11 cannot call sym_min.
    least: Any = min if torch.compiler.is_dynamo_compiling() else torch.sym_min
    count: int = least((span + 2 * stride - 1) // stride, (size + padding + stride - 1) // stride)
    return count


def every(x: Tensor, axis: int, start: int, step: int, count: int) -> Tensor:
    """``count`` entries of an axis, ``step`` apart."""
    if step == 1:
        return x.narrow(axis, start, count)
    return torch.ops.aten.slice(x, axis, start, start + (count - 1) * step + 1, step)


def windows(x: Tensor, axis: int, kernel: int, stride: int, dilation: int) -> Tensor:
    """Replace an axis by its windows; their entries are a new last axis."""
    return x.unfold(axis, dilation * (kernel - 1) + 1, stride)[..., ::dilation]


def open_windows(x: Tensor, axis: int, kernel: int, stride: int, dilation: int) -> Tensor:
    """As :func:`windows`, but copied under export, which would guard on whether a view is dense."""
    if not torch.compiler.is_exporting():
        return windows(x, axis, kernel, stride, dilation)
    count = (x.shape[axis] - dilation * (kernel - 1) - 1) // stride + 1
    return torch.stack([every(x, axis, t * dilation, stride, count) for t in range(kernel)], -1)


def last_axes(x: Tensor, n: int) -> Tensor:
    """``(N, C, *spatial)`` with all but the last ``n`` spatial axes merged into the channels."""
    return x if x.ndim == n + 2 else x.flatten(1, x.ndim - n - 1)


def spaced(x: Tensor, axis: int, step: int) -> Tensor:
    """Spread the entries of an axis ``step`` apart, with zeros between them."""
    if step == 1:
        return x
    size = (x.shape[axis] - 1) * step + 1
    x = zero_pad(x.unsqueeze(axis + 1), ((0, step - 1), *((0, 0),) * (x.ndim - 1 - axis)))
    return x.flatten(axis, axis + 1).narrow(axis, 0, size)
