"""torch's convolutions by number of axes, and what has to be done for them to be right, and fast.

They are called by :mod:`convnd._conv.algorithms.native`, which does it.
"""

from collections.abc import Callable, Iterable, Sequence
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..arguments import Ints
from .dtypes import LOW_PRECISION, SMALL_INTEGERS, emulated, wide
from .eager import known
from .memory import channels_lie_last, usual_strides

MAX_AXES = 3
CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
CONV_TRANSPOSE = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


def misread(
    dtype: torch.dtype, device: str, sizes: Iterable[int], kernel: Sequence[int], stride: Ints, dilation: Ints
) -> bool:
    """True where oneDNN's kernels may read or write outside their operands (torch 2.13, processors with AMX).

    ``sizes`` are those of the side of a convolution that its kernel moves over. Seen in half precision alone:
    with stride or dilation, in the convolution and both gradients; with neither, in the gradient by the
    weight, where an axis is shorter than the kernel. Such calls are made in single precision and rounded
    once.
    """
    if device != "cpu" or dtype not in LOW_PRECISION:
        return False
    short = any(known(size < k) for size, k in zip(sizes, kernel, strict=True))
    return short or max(*stride, *dilation) > 1


def needs_wider_type(
    dtype: torch.dtype, device: str, sizes: Iterable[int], kernel: Sequence[int], stride: Ints, dilation: Ints
) -> bool:
    """True for calls made in a wider type: for speed, because the kernel errs, or for want of a kernel."""
    if dtype in SMALL_INTEGERS or emulated(dtype, device):
        return True
    return misread(dtype, device, sizes, kernel, stride, dilation)


def in_wider_type(kernel: Callable[..., Tensor], *args: Any) -> Tensor:
    """The kernel on tensors in a precision to add in, its result rounded to the type of the first one."""
    with torch.autocast("cpu", enabled=False):
        wider = [wide(a) if isinstance(a, Tensor) else a for a in args]
        return kernel(*wider).to(args[0].dtype)


def usual_weight(weight: Tensor) -> Tensor:
    """Contiguous: by the strides of others some kernels convolve wrongly, refuse or crash (torch 2.13).

    One takes a weight for channels-last which the next does not, and groups are cut from it in the wrong
    places. Which layout a kernel works in, it is to take from the input.
    """
    return usual_strides(weight.contiguous())


def dilation_between_taps(dilation: Ints, kernel: Sequence[int]) -> Ints:
    """A single tap has no dilation: oneDNN reads outside short axes by it (torch 2.13)."""
    if max(dilation) == 1:
        return dilation
    return tuple(1 if k == 1 else d for d, k in zip(dilation, kernel, strict=True))


def conv_one_axis(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Ints,
    padding: Ints,
    dilation: Ints,
    groups: int,
) -> Tensor:
    """By the kernel for two axes where channels lie last in memory, which only that one keeps."""
    if not channels_lie_last(input):
        return CONV[1](input, weight, bias, stride, padding, dilation, groups)
    window = (1, *stride), (0, *padding), (1, *dilation)
    return CONV[2](input.unsqueeze(2), weight.unsqueeze(2), bias, *window, groups).squeeze(2)


def onednn_skipped(batch: int, channels: int, sizes: Ints, dtype: torch.dtype) -> bool:
    """True where torch convolves one small sample by a slow kernel though it has oneDNN (torch 2.13)."""
    few = batch == 1 and channels * prod(sizes[:2]) <= 20480
    return few and dtype == torch.float32 and len(sizes) > 1 and torch.backends.mkldnn.is_available()
