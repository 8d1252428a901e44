"""In which precision products are computed: bf16 on CPUs that are faster by it, TF32 on GPUs.

bfloat16 has 8 bits of a factor, TF32 has 11, of the 24 of float32; both have its range. Sums are of float32.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import nn

from ..nn.network import network_within

_BF16 = ("avx512_bf16", "amx_bf16")  # instructions, by their names in torch
# Channels of the first level from which steps of a U-Net are 1.1 to 1.9 times quicker in bf16, by the number
# of axes, the more so the wider. On 8x8 pixels they take as long; with four axes none was quicker.
_LEAST_WIDTH: Mapping[int, int] = {1: 16, 2: 32, 3: 16}

_BACKENDS: Any = torch.backends
# Of matrix products, convolutions and recurrent layers.
_SETTINGS = (_BACKENDS.cuda.matmul, _BACKENDS.cudnn.conv, _BACKENDS.cudnn.rnn)


def has_tf32(device: torch.device) -> bool:
    """True if the chip can compute in TF32."""
    return device.type == "cuda" and torch.cuda.is_tf32_supported()


def usual_precision(model: nn.Module, device: torch.device) -> Literal["no", "bf16"]:
    """bf16 where steps of training take less time by it: see :data:`_LEAST_WIDTH`.

    Instance norm, group norm with groups of one channel and transposed convolution are slower in bf16 than in
    float32, and of rms norm torch warns that it mixes precisions.
    """
    network = network_within(model)
    if network is None or device.type != "cpu" or not _multiplies_bf16():
        return "no"
    spec = network.spec
    least = _LEAST_WIDTH.get(spec.spatial_dims)
    quick = spec.norm == "layer" or (spec.norm == "group" and spec.num_groups < spec.channels[0])
    quick = quick and "transpose" not in spec.upsample
    return "bf16" if quick and least is not None and spec.channels[0] >= least else "no"


def _multiplies_bf16() -> bool:
    capabilities: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(capabilities.get(name) for name in _BF16)


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
