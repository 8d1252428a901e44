"""Estimated times and scratch memory of the algorithms, and the best of them.

Costs are seconds on two threads of a present server; only their ratios matter. The rates were rounded from
what ``python -m tests.benchmarks.calibrate`` prints.
"""

from functools import lru_cache
from math import prod

import torch

from .._torch.conv import MAX_AXES
from ..arguments import Ints
from .algorithm import ALGORITHMS, Algorithm
from .problem import Problem

RATE = 280e9  # multiply-adds of a matrix product, counted twice, per second
COPY = 8e9  # bytes written per second by a strided copy
CACHED = 12e9  # bytes written per second by additions between convolutions, as far as caches hold them
CALL = 1.5e-5  # seconds for the handful of operators around one native call
FFT_RATE = 16e9  # 2.5 n log2 n operations of a real transform, per second
DEPTHWISE_RATE = 150e9  # one channel per group, channels-last: bound by memory
GROUPED_RATE = 60e9  # native kernels with several but few channels per group
HALF_RATE_CHANNELS = 32  # with so many oneDNN's weight gradient has half its rate, without AVX-512
FEW_POSITIONS, FEW_FLOPS = 1 << 13, 1 << 25  # up to three axes, with fewer torch's kernels always serve
LANES = {"AVX512": 16, "AVX2": 8}  # float32 entries of a vector register
FEW_CHANNELS = 9  # with no more, torch's backward kernels are slow, and oneDNN's own layouts fast
CACHES = 4 << 20  # bytes that caches hold


def lanes_of(dtype: torch.dtype) -> int:
    """Entries of a vector register."""
    lanes = LANES.get(torch.backends.cpu.get_cpu_capability(), 4)
    return lanes if dtype.itemsize <= 4 else lanes // 2


def filled(channels: int, dtype: torch.dtype) -> float:
    """Which part of the vectors that hold so many channels is used."""
    lanes = lanes_of(dtype)
    return channels / (-(-channels // lanes) * lanes)


def waste(p: Problem, tiles: Ints) -> float:
    """How many times the products of the definition tiles of output positions compute."""
    rows = zip(p.kernel, p.counts, tiles, strict=True)
    return prod((k + b - 1) / k * (-(-count // b) * b / count) for k, count, b in rows)


def native_seconds(p: Problem, tiles: Ints) -> float:
    """Seconds of the products by native calls, and of one call."""
    groups = p.geometry.groups
    inputs, outputs = p.inputs // groups, p.outputs // groups
    if groups > 1 and inputs == outputs == 1:
        rate = DEPTHWISE_RATE
    elif groups > 1 and min(inputs, outputs) < 8:
        rate = GROUPED_RATE
    else:
        rate = RATE * filled(prod(tiles) * outputs, p.dtype) * min(1.0, 1.25 * inputs / (inputs + 2))
        if p.op == "weight" and lanes_of(torch.float32) < max(LANES.values()):
            rate *= prod(tiles) * outputs / (prod(tiles) * outputs + HALF_RATE_CHANNELS)
    return CALL + p.flops * waste(p, tiles) / rate


@lru_cache(maxsize=4096)
def workspace(p: Problem, algorithm: Algorithm) -> int:
    """Bytes of scratch memory beside one copy of the input, before the work is cut."""
    return algorithm.workspace(p) if p.flops else 0  # sums of nothing are not run


def seconds(p: Problem, algorithm: Algorithm) -> float:
    """Estimated."""
    return algorithm.seconds(p) if p.flops else CALL


def copied_result(p: Problem, algorithm: Algorithm) -> int:
    """Bytes that are never cut: a transposed convolution with stride is put together from parts."""
    if p.op != "transpose" or not algorithm.copies_result or max(p.geometry.stride) == 1:
        return 0
    return p.dtype.itemsize * p.batch * p.inputs * prod(p.sizes)


def small(p: Problem) -> bool:
    """True of calls over up to three axes that are over before another algorithm than torch's has begun."""
    return p.batch * max(prod(p.sizes), prod(p.counts)) < FEW_POSITIONS and p.flops < FEW_FLOPS


def single_precision_on_cpu(p: Problem) -> bool:
    """Where others were measured to beat torch's kernels for two and three axes."""
    return p.device == "cpu" and p.dtype == torch.float32 and 1 < len(p.kernel) <= MAX_AXES


@lru_cache(maxsize=4096)
def estimates(p: Problem) -> dict[Algorithm, float]:
    """Estimated seconds of the algorithms worth considering; the first of the least is chosen."""
    algorithms = ALGORITHMS.values()
    considered = []
    if len(p.kernel) <= MAX_AXES:
        native = ALGORITHMS["native"]
        if small(p):
            return {native: seconds(p, native)}
        considered = [next((a for a in algorithms if a.beats_native(p)), native)]
    considered += [a for a in algorithms if a.considered(p)]
    return {a: a.margin * seconds(p, a) for a in considered}


def estimated_best(p: Problem) -> Algorithm:
    """The algorithm that is chosen where none is forced and none measured."""
    times = estimates(p)
    return min(times, key=times.__getitem__)
