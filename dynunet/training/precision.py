"""TF32: products of float32 that a GPU's tensor cores compute from 10 bits of each factor's 23."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

_BACKENDS: Any = torch.backends
# Of matrix products, convolutions and recurrent layers.
_SETTINGS = (_BACKENDS.cuda.matmul, _BACKENDS.cudnn.conv, _BACKENDS.cudnn.rnn)


def has_tf32(device: torch.device) -> bool:
    """True if the chip can compute in TF32."""
    return device.type == "cuda" and torch.cuda.is_tf32_supported()


@contextmanager
def float32_products(tf32: bool, device: torch.device) -> Iterator[None]:
    """Whether products of float32 on a GPU are computed in TF32, for a while; then as before.

    torch has an older and a newer name of each setting. To set the newer alone makes every question by the
    older an error, and compilers ask by both: so the older is set, which sets both.
    """
    if device.type != "cuda":
        yield
        return
    before = [setting.fp32_precision for setting in _SETTINGS]
    _allow(tf32, tf32)
    try:
        yield
    finally:
        _allow(*(precision == "tf32" for precision in before[:2]))
        for setting, precision in zip(_SETTINGS, before, strict=True):
            if setting.fp32_precision != precision:
                setting.fp32_precision = precision


def _allow(matmul: bool, cudnn: bool) -> None:
    _BACKENDS.cuda.matmul.allow_tf32, _BACKENDS.cudnn.allow_tf32 = matmul, cudnn
