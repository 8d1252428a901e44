"""Parts of one axis: every so many entries, windows, and entries spaced out."""

import torch
from torch import Tensor

from .pad import zero_pad


def every(x: Tensor, axis: int, start: int, step: int, count: int) -> Tensor:
    """``count`` entries of an axis, ``step`` apart."""
    if step == 1:
        return x.narrow(axis, start, count)
    return torch.ops.aten.slice(x, axis, start, start + (count - 1) * step + 1, step)


def windows(x: Tensor, axis: int, kernel: int, stride: int, dilation: int) -> Tensor:
    """The axis becomes the windows; their entries are a new last axis."""
    return x.unfold(axis, dilation * (kernel - 1) + 1, stride)[..., ::dilation]


def open_windows(x: Tensor, axis: int, kernel: int, stride: int, dilation: int) -> Tensor:
    """As :func:`windows`, but copied for export, which would ask of open sizes whether a view is dense."""
    if not torch.compiler.is_exporting():
        return windows(x, axis, kernel, stride, dilation)
    count = (x.shape[axis] - dilation * (kernel - 1) - 1) // stride + 1
    return torch.stack([every(x, axis, t * dilation, stride, count) for t in range(kernel)], -1)


def last_axes(x: Tensor, n: int) -> Tensor:
    """``(N, C, *spatial)`` with all but the last ``n`` axes among the channels."""
    return x if x.ndim == n + 2 else x.flatten(1, x.ndim - n - 1)


def spaced(x: Tensor, axis: int, step: int) -> Tensor:
    """The entries of an axis ``step`` apart, with zeros between them."""
    if step == 1:
        return x
    size = (x.shape[axis] - 1) * step + 1
    x = zero_pad(x.unsqueeze(axis + 1), ((0, step - 1), *((0, 0),) * (x.ndim - 1 - axis)))
    return x.flatten(axis, axis + 1).narrow(axis, 0, size)
