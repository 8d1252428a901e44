"""Convolutions that are arithmetic, such as of a measurement, and keep the digits that networks may lose.

On a GPU cuDNN takes 10 bits of each factor's 23 (TF32) unless ``torch.backends.cudnn.allow_tf32`` is off, and
autocast rounds to half precision. Both are settings of the whole process or thread, which derivatives are
taken under as well; neither is of products of float64. Apple's GPUs have none: there autocast is turned off.
"""

from typing import Any

import torch
from torch import Tensor

import convnd.functional as F

__all__ = ["exact_conv"]

_WITHOUT_FLOAT64 = ("mps",)


def exact_conv(x: Tensor, weight: Tensor, **options: Any) -> Tensor:
    """:func:`convnd.functional.conv`, and its derivatives, computed in float64 where products are rounded."""
    if not _rounds(x):
        return F.conv(x, weight, **options)
    if x.device.type in _WITHOUT_FLOAT64:
        with torch.autocast(x.device.type, enabled=False):
            return F.conv(x, weight, **options)
    return F.conv(x.double(), weight.double(), **options).to(x.dtype)


def _rounds(x: Tensor) -> bool:
    device = x.device.type
    return device == "cuda" or (not x.is_meta and torch.is_autocast_enabled(device))
