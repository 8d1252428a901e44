"""Memory layouts of tensors."""

from collections.abc import Sequence

import torch
from torch import Tensor


def channels_last(x: Tensor) -> Tensor:
    """Copy ``(N, C, *spatial)`` to channels-last memory, if it is not there already."""
    return x.movedim(1, -1).contiguous().movedim(-1, 1)


def in_layout(x: Tensor, last: bool) -> Tensor:
    """``x`` in channels-last memory with ``last``, otherwise contiguous."""
    return channels_last(x) if last else x.contiguous()


def empty(x: Tensor, shape: Sequence[int], last: bool) -> Tensor:
    """An empty tensor ``(N, C, *spatial)``, in channels-last memory with ``last``, otherwise contiguous."""
    return x.new_empty(shape[0], *shape[2:], shape[1]).movedim(-1, 1) if last else x.new_empty(shape)


def channels_lie_last(x: Tensor) -> bool:
    """True for a channels-last tensor with one spatial axis, a layout that only 2-D kernels keep."""
    return x.ndim == 3 and x.device.type in ("cpu", "meta") and x.stride(1) == 1 < x.shape[1]


def usual_strides(x: Tensor) -> Tensor:
    """Give a contiguous tensor the usual strides along axes of size 1 too, where any stride is allowed.

    With one channel or a kernel of one tap, unusual strides look like channels-last; some of oneDNN's kernels
    then return values from outside their operands (torch 2.13).
    """
    if 1 not in x.shape[1:] or torch.compiler.is_compiling() or not x.is_contiguous():
        return x
    return x.squeeze().view(x.shape)
