"""Estimated time and scratch memory of each algorithm, and the choice of the best.

Costs are seconds on two threads of a current server; only their ratios matter. The rates are rounded from
the output of ``python -m tests.benchmarks.calibrate``. On a GPU a rule chooses instead.
"""

from functools import lru_cache
from math import prod

import torch

from .._torch.conv import MAX_AXES
from ..arguments import Ints
from .algorithm import ALGORITHMS, Algorithm
from .problem import Problem

RATE = 280e9  # operations per second of a matrix product; a multiply-add counts as two
COPY = 8e9  # bytes written per second by a strided copy
CACHED = 12e9  # bytes written per second by additions between convolutions, while they fit in cache
CALL = 1.5e-5  # seconds for the few operators around one native call
FFT_RATE = 16e9  # operations per second, 2.5 n log2 n of them for a real transform
DEPTHWISE_RATE = 150e9  # one channel per group, channels-last: bound by memory
GROUPED_RATE = 60e9  # native kernels with several but few channels per group
HALF_RATE_CHANNELS = 32  # without AVX-512, oneDNN's weight gradient has half its rate with so many
FEW_POSITIONS, FEW_FLOPS = 1 << 13, 1 << 25  # below both, torch's kernels are always used up to three axes
LANES = {"AVX512": 16, "AVX2": 8}  # float32 entries of a vector register
FEW_CHANNELS = 9  # up to this many, torch's backward kernels are slow and oneDNN's own layouts fast
CACHES = 4 << 20  # bytes that fit in cache


def lanes_of(dtype: torch.dtype) -> int:
    """How many entries fit in a vector register."""
    lanes = LANES.get(torch.backends.cpu.get_cpu_capability(), 4)
    return lanes if dtype.itemsize <= 4 else lanes // 2


def filled(channels: int, dtype: torch.dtype) -> float:
    """The fraction of the vector lanes that this many channels fill."""
    lanes = lanes_of(dtype)
    return channels / (-(-channels // lanes) * lanes)


def waste(p: Problem, tiles: Ints) -> float:
    """How many times more products tiles of output positions compute than the definition."""
    rows = zip(p.kernel, p.counts, tiles, strict=True)
    return prod((k + b - 1) / k * (-(-count // b) * b / count) for k, count, b in rows)


def native_seconds(p: Problem, tiles: Ints) -> float:
    """Seconds for the products in native calls, plus the overhead of one call."""
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
    return algorithm.workspace(p) if p.flops else 0  # empty sums are not computed


def seconds(p: Problem, algorithm: Algorithm) -> float:
    """Estimated time."""
    return algorithm.seconds(p) if p.flops else CALL


def copied_result(p: Problem, algorithm: Algorithm) -> int:
    """Bytes that cannot be cut into pieces: the result of a strided transposed convolution made of parts."""
    if p.op != "transpose" or not algorithm.copies_result or max(p.geometry.stride) == 1:
        return 0
    return p.dtype.itemsize * p.batch * p.inputs * prod(p.sizes)


def small(p: Problem) -> bool:
    """True for calls so short that torch's kernel finishes before another algorithm could start."""
    return p.batch * max(prod(p.sizes), prod(p.counts)) < FEW_POSITIONS and p.flops < FEW_FLOPS


def single_precision_on_cpu(p: Problem) -> bool:
    """True where other algorithms were measured to beat torch's kernels for two and three axes."""
    return p.device == "cpu" and p.dtype == torch.float32 and 1 < len(p.kernel) <= MAX_AXES


def _chosen_on_cuda(p: Problem) -> str:
    """The algorithm beyond three axes on a GPU, where the rates above do not hold.

    On an H200 in bfloat16, in the 12 problems of ``tests.gpu.speed_conv`` with several taps and channels to a
    group, im2col took at most 1.54 times as long as the fastest, forward and by both gradients. A single tap
    is one matrix product, 1.8 times as fast. cuDNN's depthwise convolution is fast in contiguous memory;
    shift_add in that memory was not measured.
    """
    if p.op == "conv" and prod(p.kernel) == 1:
        return "gemm"
    depthwise = p.geometry.groups > 1 and p.inputs == p.geometry.groups
    return "shift_add" if p.op == "conv" and depthwise else "im2col"


@lru_cache(maxsize=4096)
def estimates(p: Problem) -> dict[Algorithm, float]:
    """Estimated seconds of the algorithms worth considering; of equal minima the first is chosen."""
    algorithms = ALGORITHMS.values()
    considered = []
    if len(p.kernel) <= MAX_AXES:
        native = ALGORITHMS["native"]
        if small(p):
            return {native: seconds(p, native)}
        considered = [next((a for a in algorithms if a.beats_native(p)), native)]
    elif p.device == "cuda" and p.op != "transpose":  # whose convolutions inside come here as well
        chosen = ALGORITHMS[_chosen_on_cuda(p)]
        return {chosen: seconds(p, chosen)}
    considered += [a for a in algorithms if a.considered(p)]
    return {a: a.margin * seconds(p, a) for a in considered}


def estimated_best(p: Problem) -> Algorithm:
    """The algorithm chosen when none is forced and none was measured."""
    times = estimates(p)
    return min(times, key=times.__getitem__)
