"""torch's convolutions by number of axes, and what has to be done to get correct and fast results from them.

:mod:`convnd._conv.algorithms.native` calls them with these precautions.
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
    """True if oneDNN's kernels may read or write outside their operands (torch 2.13, processors with AMX).

    ``sizes`` are those of the tensor that the kernel slides over. Seen only in half precision: with stride or
    dilation in the convolution and both gradients; without them in the weight gradient, if an axis is shorter
    than the kernel. Such calls are computed in single precision and rounded once.
    """
    if device != "cpu" or dtype not in LOW_PRECISION:
        return False
    short = any(known(size < k) for size, k in zip(sizes, kernel, strict=True))
    return short or max(*stride, *dilation) > 1


def needs_wider_type(
    dtype: torch.dtype, device: str, sizes: Iterable[int], kernel: Sequence[int], stride: Ints, dilation: Ints
) -> bool:
    """True if a call needs a wider dtype: for speed, or because the kernel is wrong or missing."""
    if dtype in SMALL_INTEGERS or emulated(dtype, device):
        return True
    return misread(dtype, device, sizes, kernel, stride, dilation)


def in_wider_type(kernel: Callable[..., Tensor], *args: Any) -> Tensor:
    """Call a kernel with its tensors in the dtype of :func:`.wide`; the result gets the first one's dtype."""
    with torch.autocast("cpu", enabled=False):
        wider = [wide(a) if isinstance(a, Tensor) else a for a in args]
        return kernel(*wider).to(args[0].dtype)


def check_addressable(device: str, *shapes: Ints) -> None:
    """Refuse axes for which cuDNN gives wrong values without a word (torch 2.11, 1-D, 2^31 entries)."""
    longest = max(map(max, shapes))
    if device == "cuda" and longest > torch.iinfo(torch.int32).max:
        raise ValueError(f"an axis of a convolution on a GPU must have less than 2^31 entries, got {longest}")


def usual_weight(weight: Tensor) -> Tensor:
    """The weight made contiguous: with other strides some kernels give wrong results, refuse or crash (2.13).

    Kernels disagree on whether a weight is channels-last, and then slice its groups in the wrong places. The
    layout of the computation should be decided by the input alone.
    """
    return usual_strides(weight.contiguous())


def dilation_between_taps(dilation: Ints, kernel: Sequence[int]) -> Ints:
    """Set the dilation of single taps to 1: oneDNN uses it to read outside short axes (torch 2.13)."""
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
    """1-D convolution; channels-last inputs use the 2-D kernel, the only one that keeps that layout."""
    if not channels_lie_last(input):
        return CONV[1](input, weight, bias, stride, padding, dilation, groups)
    window = (1, *stride), (0, *padding), (1, *dilation)
    return CONV[2](input.unsqueeze(2), weight.unsqueeze(2), bias, *window, groups).squeeze(2)


def onednn_skipped(batch: int, channels: int, sizes: Ints, dtype: torch.dtype) -> bool:
    """True if torch uses a slow kernel for one small sample although oneDNN is available (torch 2.13)."""
    few = batch == 1 and channels * prod(sizes[:2]) <= 20480
    return few and dtype == torch.float32 and len(sizes) > 1 and torch.backends.mkldnn.is_available()
