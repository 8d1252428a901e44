"""The rates of the planner's cost model (``convnd/_conv/cost.py``), measured here.

Each is a single call of the kind that the constant stands for, large enough to be all work. With
``--device cuda`` they are those of a GPU, for which a rule chooses and no constants do: products, copies,
additions, Fourier transforms and calls, as ``python -m tests.gpu`` measures them.
"""

import argparse
import sys
import warnings
from math import log2

import torch
import torch.nn.functional as F

from convnd._conv import cost
from convnd._conv.algorithm import named
from convnd._conv.problem import Geometry, problem_of
from convnd._torch.memory import channels_last

from ..gpu.rates import rates
from ..gpu.rows import Setting
from .harness import THREADS, Settings, median_time, roof


def _convolution(settings: Settings, inputs: int, outputs: int, groups: int) -> float:
    """FLOP/s of a channels-last native convolution of a batch of small volumes."""
    x = channels_last(torch.randn(16, inputs, 16, 16, 16))
    w = torch.randn(outputs, inputs // groups, 3, 3, 3)
    flops = 2 * 16 * 16**3 * w.numel()
    return flops / median_time(lambda: F.conv3d(x, w, None, 1, 1, 1, groups), settings)


def _copy(settings: Settings) -> float:
    """Bytes per second of the copy that lays three taps out as channels."""
    x = torch.randn(16, 18, 12, 12, 12).unfold(1, 3, 1).permute(1, 2, 3, 4, 5, 0)
    return x.numel() * x.element_size() / median_time(x.contiguous, settings)


def _additions(settings: Settings) -> float:
    """Bytes per second of what Winograd's filtering adds around its four products, beside their own time."""
    ones, channels = (1, 1, 1, 1), 16  # which fill every vector, so that there are no tiles
    x, w = channels_last(torch.randn(1, channels, *(16,) * 4)), torch.randn(channels, channels, 3, 3, 3, 3)
    inside = channels_last(torch.randn(8, channels, 16, 16, 16))
    g = Geometry(ones, ((1, 1),) * 4, ones, 1)
    p = problem_of("conv", tuple(x.shape), tuple(w.shape), g, (16,) * 4, x.dtype, "cpu")
    whole = median_time(lambda: named("winograd").conv(p, x, w, None), settings)
    products = 4 * median_time(lambda: F.conv3d(inside, w[:, :, 0], padding=1), settings)
    return 4 * 1.5 * 2 * inside.numel() * inside.element_size() / (whole - products)


def _call(settings: Settings) -> float:
    x, w = torch.randn(1, 1, 2, 2, 2), torch.randn(1, 1, 1, 1, 1)
    return median_time(lambda: F.conv3d(x.movedim(1, -1).movedim(-1, 1).reshape(x.shape), w), settings)


def _fft(settings: Settings) -> float:
    x = torch.randn(4, 30, 30, 30, 30)
    ops = 2.5 * x.numel() * log2(x[0].numel())
    return ops / median_time(lambda: torch.fft.rfftn(x, dim=(1, 2, 3, 4)), settings)


def _on_gpu(device: str) -> int:
    for row in rates(Setting(device, quick=False)):
        figures = ", ".join(f"{value:8.3g} {name}" for name, value in row.run().items())
        print(f"{row.name:32} {figures}", flush=True)
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.calibrate", description=__doc__)
    parser.add_argument("--device", default="cpu", help="cpu, or a GPU such as cuda")
    device = parser.parse_args().device
    if device != "cpu":
        return _on_gpu(device)
    warnings.simplefilter("ignore")
    torch.set_num_threads(THREADS)
    settings = Settings()
    measured = {
        "RATE": roof(settings),
        "COPY": _copy(settings),
        "CACHED": _additions(settings),
        "CALL": _call(settings),
        "FFT_RATE": _fft(settings),
        "DEPTHWISE_RATE": _convolution(settings, 16, 16, 16),
        "GROUPED_RATE": _convolution(settings, 48, 16, 4),  # three leading taps are channels
    }
    for name, value in measured.items():
        print(f"{name:15} {value:8.2g}   planned with {getattr(cost, name):.2g}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
