"""Dtypes: those that torch's kernels lack, and those they are slow in."""

import torch
from torch import Tensor

LOW_PRECISION = (torch.float16, torch.bfloat16)
SMALL_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32)
INTEGERS = (*SMALL_INTEGERS, torch.int64)


def _slow() -> tuple[torch.dtype, ...]:
    if not torch.backends.mkldnn.is_available():
        return LOW_PRECISION
    fast = torch.ops.mkldnn._is_mkldnn_fp16_supported(), torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return tuple(dtype for dtype, known in zip(LOW_PRECISION, fast, strict=True) if not known)


# The dtypes that this processor has no instructions for: torch's convolutions take some thirty times as long
# as in single precision (torch 2.13, AVX2).
SLOW = _slow()


def wide(x: Tensor) -> Tensor:
    """``x`` in a dtype wide enough for sums, to be rounded (integers: wrapped) once, at the end."""
    if x.dtype in LOW_PRECISION:
        return x.float()
    return x.long() if x.dtype in SMALL_INTEGERS else x


def is_numeric(dtype: torch.dtype) -> bool:
    """True for floating-point, complex and integer types."""
    return dtype.is_floating_point or dtype.is_complex or dtype in INTEGERS


def emulated(dtype: torch.dtype, device: str) -> bool:
    """True if single precision is so much faster that calls use it and round once.

    The ``meta`` device stands for the CPU.
    """
    return device in ("cpu", "meta") and dtype in SLOW
