"""Which algorithm serves which map: a model of their costs, and what the user asks for instead.

Costs are seconds on two threads of a present server; only their ratios matter. The constants were set from
the timings that ``python -m tests.benchmarks.conv`` prints for each algorithm.
"""

from functools import lru_cache
from math import log2, prod
from typing import Literal, NamedTuple

import torch

from ..arguments import Ints
from . import native
from .conv import leading
from .fft import lengths, spectra_bytes
from .geometry import Geometry
from .transpose import shuffles
from .weight import TILE_BYTES, split

Op = Literal["conv", "transpose", "weight"]
ALGORITHMS = ("native", "channels_last", "channels", "taps", "gemm", "phases", "fft")

RATE = 200e9  # multiply-adds of a matrix product, counted twice, per second
COPY = 5e9  # bytes written per second by a strided copy
CALL = 2e-5  # seconds for the handful of operators around one native call
FFT_RATE = 6e9  # 2.5 n log2 n operations of a real transform, per second
DEPTHWISE_RATE = 40e9  # one channel per group, channels-last: bound by memory
GROUPED_RATE = 6e9  # native kernels with several but few channels per group
FFT_MARGIN = 2.0  # its error is relative to the largest value: it has to be clearly faster
LANES = {"AVX512": 16, "AVX2": 8}  # float32 entries of a vector register
MAX_BLOCK = 16
BLOCK_FLOPS = 1 << 21  # below this a call is all overhead
FEW_CHANNELS = 8  # torch's backward kernels for up to three axes are slow with no more than these ...
FEW_POSITIONS = 1 << 13  # ... on tensors of at least so many positions


class Problem(NamedTuple):
    """One bilinear map: ``x`` (N, inputs, sizes), ``y`` (N, outputs, counts), ``w``; zero padding only."""

    op: Op
    batch: int
    inputs: int
    outputs: int
    sizes: Ints
    counts: Ints
    kernel: Ints
    geometry: Geometry
    dtype: torch.dtype
    device: str

    @property
    def flops(self) -> int:
        """Multiplications and additions of the definition; a complex product counts as four."""
        pairs = self.inputs // self.geometry.groups * self.outputs
        each = 8 if self.dtype.is_complex else 2
        return each * self.batch * pairs * prod(self.counts) * prod(self.kernel)


def applies(p: Problem, algorithm: str) -> bool:
    n = len(p.kernel)
    if algorithm == "native":
        return n <= native.MAX_AXES
    if algorithm == "channels_last":
        return 1 < n <= native.MAX_AXES
    if algorithm in ("channels", "taps"):
        return n > 1
    return algorithm != "phases" or p.op == "transpose"


@lru_cache(maxsize=1)
def _lanes() -> int:
    return LANES.get(torch.backends.cpu.get_cpu_capability(), 4)


def block_size(
    outputs: int, kernel: Ints, g: Geometry, dtype: torch.dtype, device: str, count: int = MAX_BLOCK
) -> int:
    """Neighbouring output positions to make output channels, so that these fill whole vectors.

    A block of ``b`` positions computes ``(b + k - 1) / k`` times the products, of which vectors of
    ``lanes`` waste those of their entries that no channel fills. ``count``: how many positions there are.
    """
    if device != "cpu" or g.stride[0] > 1 or g.dilation[0] > 1:
        return 1
    lanes = _lanes() if dtype.itemsize <= 4 else _lanes() // 2
    channels, k = outputs // g.groups, kernel[0]

    def cost(b: int) -> float:
        return (b + k - 1) / b * (-(-b * channels // lanes) * lanes)

    return min((b for b in (1, 2, 4, 8, MAX_BLOCK) if b <= count), key=cost)


def _filled(channels: int, dtype: torch.dtype) -> float:
    lanes = _lanes() if dtype.itemsize <= 4 else _lanes() // 2
    return channels / (-(-channels // lanes) * lanes)


def block_of(p: Problem) -> int:
    if p.op != "conv" or p.flops < BLOCK_FLOPS:
        return 1
    return block_size(p.outputs, p.kernel, p.geometry, p.dtype, p.device, p.counts[0])


def workspace(p: Problem, algorithm: str) -> int:
    """Bytes of scratch memory beside one copy of the input."""
    n, g, size = len(p.kernel), p.geometry, p.dtype.itemsize
    if p.op == "transpose" and algorithm not in ("native", "channels_last"):
        if algorithm == "gemm" and shuffles(p.kernel, g):
            return p.batch * p.inputs * prod(p.counts) * prod(p.kernel) * size
        return workspace(as_conv(p), "channels" if algorithm == "phases" else algorithm)
    if algorithm == "channels_last":
        return size * p.batch * p.inputs * prod(p.sizes)
    if algorithm == "channels":
        lead = leading(n)
        block = block_of(p)
        window = (p.kernel[0] + block - 1) / block * prod(p.kernel[1:lead])
        return int(size * p.batch * p.inputs * prod(p.counts[:lead]) * prod(p.sizes[lead:]) * window)
    if algorithm == "taps" and p.op == "conv":
        return 2 * size * p.batch * p.outputs * prod(p.counts)
    if algorithm == "gemm":
        if p.op == "weight":
            return 2 * TILE_BYTES
        return size * p.batch * p.inputs * prod(p.counts) * prod(p.kernel)
    if algorithm == "fft":
        length = lengths(p.sizes, p.counts, p.kernel, g)
        return spectra_bytes(p.batch, p.inputs, p.outputs, length, g.groups, p.dtype)
    return 0


def as_conv(p: Problem) -> Problem:
    """The convolutions that the phases of a transposed convolution are, taken together."""
    g = p.geometry
    taps = tuple(max(-(-k // s), 1) for k, s in zip(p.kernel, g.stride, strict=True))
    ones = (1,) * len(taps)
    pads = tuple((d * (k - 1), 0) for k, d in zip(taps, g.dilation, strict=True))
    inside = Geometry(ones, pads, g.dilation, g.groups)
    outputs = p.inputs * prod(g.stride)
    return Problem("conv", p.batch, p.outputs, outputs, p.counts, p.counts, taps, inside, p.dtype, p.device)


def cost(p: Problem, algorithm: str) -> float:
    """Estimated seconds."""
    g, size, taps = p.geometry, p.dtype.itemsize, prod(p.kernel)
    n, per_group = len(p.kernel), min(p.inputs, p.outputs) // p.geometry.groups
    moved = workspace(p, algorithm) / COPY
    if algorithm == "fft":
        length = lengths(p.sizes, p.counts, p.kernel, g)
        points = prod(length)
        transforms = p.batch * (p.inputs + p.outputs) + p.outputs * p.inputs // g.groups
        ops = transforms * 2.5 * points * log2(max(points, 2))
        return 10 * CALL * n + ops / FFT_RATE + moved + 4 * p.flops / taps / prod(p.counts) * points / RATE
    if p.op == "transpose" and algorithm not in ("native", "channels_last"):
        if algorithm == "gemm" and shuffles(p.kernel, g):
            return CALL + p.flops / RATE + 2 * moved
        written = size * p.batch * p.inputs * prod(p.sizes) * (max(g.stride) > 1)
        inside = as_conv(p)
        inner = estimated_best(inside) if algorithm == "phases" else algorithm
        return prod(g.stride) * CALL + cost(inside, inner) + written / COPY
    if algorithm == "gemm":
        if p.op == "conv":
            return CALL + p.flops / RATE + moved
        j = split(p.batch, p.inputs, p.outputs, p.sizes, p.counts, p.kernel, g)
        positions = p.batch * prod(p.sizes[:j]) * prod(p.counts[j:])
        copied = p.outputs * prod(p.kernel[:j]) + p.inputs * prod(p.kernel[j:])
        narrow = min(p.outputs * prod(p.kernel[:j]), p.inputs * prod(p.kernel[j:])) // g.groups
        return CALL * 4 + p.flops / (RATE * narrow / (narrow + 24)) + size * positions * copied / COPY
    if g.groups > 1 and per_group == 1:
        rate = DEPTHWISE_RATE if algorithm != "channels" else GROUPED_RATE
    elif g.groups > 1 and per_group < 8:
        rate = GROUPED_RATE
    else:
        rate = RATE * _filled(p.outputs // g.groups, p.dtype)
    if algorithm == "taps":
        if p.op == "weight":
            return taps * CALL + p.flops / RATE + size * taps * p.batch * p.inputs * prod(p.counts) / COPY
        lead = prod(p.kernel[: leading(n)])
        added = lead * size * p.batch * p.outputs * prod(p.counts)
        return lead * CALL + p.flops / rate + added / COPY
    if algorithm == "channels" and p.op == "conv":
        block = block_of(p)
        waste = (p.kernel[0] + block - 1) / p.kernel[0]
        if not (g.groups > 1 and per_group < 8):
            rate = RATE * _filled(block * p.outputs // g.groups, p.dtype)
        moved += (block > 1) * size * p.batch * p.outputs * prod(p.counts) / COPY
        return CALL + p.flops * block * waste / block / rate + moved
    return CALL + p.flops / rate + moved


def rival(p: Problem) -> str | None:
    """What was measured to beat torch's kernel for two and three axes, in single precision on CPUs."""
    n, g = len(p.kernel), p.geometry
    if p.device != "cpu" or p.dtype != torch.float32 or not 1 < n <= native.MAX_AXES:
        return None
    if p.op == "conv" or p.batch * prod(p.counts) < FEW_POSITIONS:
        return None
    few = g.groups == 1 and max(p.inputs, p.outputs) <= FEW_CHANNELS
    if p.op == "weight":
        return "channels_last" if few and p.inputs > 1 else None
    if max(g.stride) > 1:
        return "channels_last"
    return "phases" if few or (g.groups == 1 and p.outputs <= 2) else None


@lru_cache(maxsize=4096)
def estimates(p: Problem) -> dict[str, float]:
    """Estimated seconds of the algorithms worth considering; the first of the least is chosen."""
    n = len(p.kernel)
    if n <= native.MAX_AXES:
        best = rival(p) or "native"
        times = {best: cost(p, best)}
    elif p.op != "transpose":
        times = {name: cost(p, name) for name in ("channels", "taps", "gemm")}
    else:
        names = ("phases", "gemm") if shuffles(p.kernel, p.geometry) else ("phases",)
        times = {name: cost(p, name) for name in names}
    if p.device == "cpu" and (p.op != "transpose" or max(p.geometry.stride) == 1):
        times["fft"] = FFT_MARGIN * cost(p, "fft")
    return times


def estimated_best(p: Problem) -> str:
    times = estimates(p)
    return min(times, key=times.__getitem__)
