"""How the entries of a tensor lie in memory."""

from collections.abc import Sequence

import torch
from torch import Tensor


def channels_last(x: Tensor) -> Tensor:
    """``(N, C, *spatial)`` with the channels next to each other in memory."""
    return x.movedim(1, -1).contiguous().movedim(-1, 1)


def in_layout(x: Tensor, last: bool) -> Tensor:
    """With channels ``last`` in memory, or contiguous."""
    return channels_last(x) if last else x.contiguous()


def empty(x: Tensor, shape: Sequence[int], last: bool) -> Tensor:
    """Room for a result ``(N, C, *spatial)`` with channels ``last`` in memory, or contiguous."""
    return x.new_empty(shape[0], *shape[2:], shape[1]).movedim(-1, 1) if last else x.new_empty(shape)


def channels_lie_last(x: Tensor) -> bool:
    """True where one axis has its channels next to each other, which only kernels for two axes keep."""
    return x.ndim == 3 and x.device.type == "cpu" and x.stride(1) == 1 < x.shape[1]


def usual_strides(x: Tensor) -> Tensor:
    """The strides of a contiguous tensor where it is one, also along axes of one entry, which may have any.

    Those of one channel, or of a kernel of one tap, read channels-last; then some of oneDNN's kernels return
    what lies outside their operands (torch 2.13).
    """
    if 1 not in x.shape[1:] or torch.compiler.is_compiling() or not x.is_contiguous():
        return x
    return x.squeeze().view(x.shape)
