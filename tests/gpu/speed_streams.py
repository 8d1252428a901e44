"""How soon a part of live sound is restored: pushes into networks of examples/denoise_audio_1d.py."""

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from torch import nn

from dynunet import SpectralMask, Stream, UNet

from .rows import Row, Setting
from .timing import BF16, FLOAT32, dtype_of, precision

RATE = 8000  # of the example, in Hz
PARTS = (10, 20)  # milliseconds


def masks() -> nn.Module:
    """``--patch-size 0 0 --channels 256 256 256 --causal True --norm layer``."""
    options: dict[str, Any] = {"causal": True, "norm": "layer", "skips": "level", "mid_blocks": 0}
    return SpectralMask(UNet(1, 129, channels=(256, 256, 256), num_blocks=1, **options), 256, 64)


def waveform() -> nn.Module:
    """The one of dynunet/README.md, with ``--n-fft 0 --causal True --norm layer``."""
    options: dict[str, Any] = {"causal": True, "norm": "layer", "strides": 4, "kernel_size": 7}
    options |= {"upsample": "transpose", "cond_channels": 1, "time_embedding": True}
    return UNet(1, 1, channels=(16, 32, 64, 128), **options)


def pushes(setting: Setting) -> list[Row]:
    """Milliseconds from a part on the host to its result there, median and worst, and of real time."""

    def run(make: Callable[[], nn.Module], kind: str, part: int) -> dict[str, Any]:
        torch.manual_seed(0)
        network: Any = make().eval().to(setting.device, dtype_of(kind))
        samples = RATE * part // 1000
        timed = isinstance(network, UNet)
        t = torch.ones(1, device=setting.device)
        stream, count = Stream(network), 6 if setting.quick else 120
        sound = torch.randn(1, 1, samples)
        taken: list[float] = []
        with precision(kind):
            for _ in range(count):
                start = time.perf_counter()
                x = sound.to(setting.device, dtype_of(kind))
                stream(x, **({"t": t, "cond": x} if timed else {})).float().cpu()
                taken.append(1000 * (time.perf_counter() - start))
        later = sorted(taken[count // 6 :])
        return {
            "weights": sum(p.numel() for p in network.parameters()),
            "ms": median(later),
            "ms, worst": later[-1],
            "of real time": median(later) / part,
            "look-ahead ms": 1000 * stream.lookahead / RATE,
        }

    return [
        Row(f"{make.__name__}, parts of {part} ms {kind}", lambda m=make, k=kind, p=part: run(m, k, p))
        for make in (masks, waveform)
        for part in PARTS
        for kind in ((FLOAT32, BF16) if setting.gpu else (FLOAT32,))
    ]
