"""Which algorithm serves which map: a model of their costs, and what the user asks for instead.

Costs are seconds on two threads of a present server; only their ratios matter. The rates were rounded from
what ``python -m tests.benchmarks.calibrate`` prints.
"""

from functools import lru_cache
from math import log2, prod

import torch

from ..arguments import Ints
from . import native, outputs
from .conv import leading
from .fft import lengths, spectra_bytes
from .problems import (
    BLOCKS,
    CACHES,
    FEW_CHANNELS,
    LANES,
    Problem,
    applies,
    as_conv,
    blocks_of,
    filled,
    folded,
    folded_blocks,
    folded_last,
    gains_by_blocks,
    lanes_of,
    one_product,
    waste,
)
from .transpose import shuffles
from .weight import TILE_BYTES, split

SPREADING = ("winograd", "fft")  # when forced, NaN and infinity reach further than they should

RATE = 280e9  # multiply-adds of a matrix product, counted twice, per second
COPY = 8e9  # bytes written per second by a strided copy
CACHED = 12e9  # bytes written per second by additions between convolutions, as far as caches hold them
CALL = 1.5e-5  # seconds for the handful of operators around one native call
FFT_RATE = 16e9  # 2.5 n log2 n operations of a real transform, per second
DEPTHWISE_RATE = 150e9  # one channel per group, channels-last: bound by memory
GROUPED_RATE = 60e9  # native kernels with several but few channels per group
FFT_MARGIN = 2.0  # its error is relative to the largest value: it has to be clearly faster
HALF_RATE_CHANNELS = 32  # with so many oneDNN's weight gradient has half its rate, without AVX-512
FEW_POSITIONS, FEW_FLOPS = 1 << 13, 1 << 25  # up to three axes, with fewer torch's kernels always serve


@lru_cache(maxsize=4096)
def workspace(p: Problem, algorithm: str) -> int:
    """Bytes of scratch memory beside one copy of the input, before the work is cut."""
    if not p.flops:  # sums of nothing are not run
        return 0
    g, size = p.geometry, p.dtype.itemsize
    if (p.op == "conv" and algorithm == "outputs") or adds_taps(p, algorithm):
        widened = p.op == "conv" and p.dtype in native.LOW_PRECISION
        return _piece_bytes(p) + (_written(p) if widened else 0)
    if p.op == "transpose" and algorithm not in ("native", "channels_last", "gemm"):
        return workspace(as_conv(p), "channels" if algorithm == "phases" else algorithm)
    if p.op == "transpose" and algorithm == "gemm" and not shuffles(p.kernel, g):
        return workspace(as_conv(p), "gemm")
    if algorithm == "channels":
        inside = folded(p)
        in_place = p.op == "conv" and (
            max(folded_blocks(p)) == 1 or (not folded_last(p) and p.geometry.groups == 1)
        )
        written = 0 if in_place else size * inside.batch * inside.outputs * prod(inside.counts)
        return size * inside.batch * inside.inputs * prod(inside.sizes) + written
    if algorithm == "blocks":
        moved = p.op == "weight" or max(blocks_of(p)) > 1
        return size * p.batch * p.outputs * prod(p.counts) if moved else 0
    if algorithm == "winograd":
        inside = one_product(p)
        read = size * inside.batch * p.inputs * prod(inside.sizes)
        written = size * inside.batch * p.outputs * prod(inside.counts)
        best = inner(inside)
        return read + 3 * written + (0 if best == "blocks" else workspace(inside, best))
    if algorithm == "taps":
        return 2 * size * p.batch * p.outputs * prod(p.counts)
    if p.op == "weight" and algorithm in ("channels_last", "gemm"):
        gradient = size * p.batch * p.outputs * prod(p.counts)
        return gradient + (min(2 * TILE_BYTES, _unfolded(p)) if algorithm == "gemm" else 0)
    if p.op == "conv" and algorithm == "gemm":
        return size * p.batch * p.inputs * prod(p.counts) * prod(p.kernel)
    if algorithm == "fft":
        length = lengths(p.sizes, p.counts, p.kernel, g)
        return spectra_bytes(p.batch, p.inputs, p.outputs, length, g.groups, p.dtype)
    return 0


def spreads(p: Problem, algorithm: str) -> bool:
    """Whether NaN and infinity may reach further than they should, as zeros in a kernel carry them."""
    return algorithm in SPREADING or spreads_inputs(p, algorithm)


def spreads_inputs(p: Problem, algorithm: str) -> bool:
    """Whether those of the input may, and no others."""
    if p.op != "conv":
        return False
    if algorithm == "channels":
        return max(folded_blocks(p)) > 1
    if algorithm == "outputs":
        return max(joined(p), *blocks_of(unadded(p))) > 1
    return algorithm == "blocks" and max(blocks_of(p)) > 1


def adds_taps(p: Problem, algorithm: str) -> bool:
    """Whether it is :func:`.channels_transpose` that is meant."""
    return p.op == "transpose" and algorithm == "channels" and max(p.geometry.stride) > 1


def _piece_bytes(p: Problem) -> int:
    """What ``outputs``, and ``channels`` of a transposed convolution, compute at once before they add it."""
    lead = leading(len(p.kernel))
    if p.op == "conv":
        whole, first = _written(unadded(p)), p.sizes[0] // (joined(p) if lead == 1 else 1)
    else:
        counts = *p.counts[:lead], *p.sizes[lead:]
        whole, first = (
            _written(p._replace(outputs=p.inputs * prod(p.kernel[:lead]), counts=counts)),
            p.counts[0],
        )
    return min(whole, max(outputs.PIECE_BYTES, whole // max(p.batch * first, 1)))


def interleaved(p: Problem, algorithm: str) -> int:
    """Bytes that are never cut: a transposed convolution with stride is put together from its phases."""
    if p.op != "transpose" or algorithm in ("native", "channels_last") or max(p.geometry.stride) == 1:
        return 0
    return p.dtype.itemsize * p.batch * p.inputs * prod(p.sizes)


def _unfolded(p: Problem) -> int:
    """Bytes that the weight gradient's matrix product unfolds, in tiles."""
    j = split(p.batch, p.inputs, p.outputs, p.sizes, p.counts, p.kernel, p.geometry)
    positions = p.batch * prod(p.sizes[:j]) * prod(p.counts[j:])
    channels = p.outputs * prod(p.kernel[:j]) + p.inputs * prod(p.kernel[j:])
    return p.dtype.itemsize * positions * channels


@lru_cache(maxsize=4096)
def joined(p: Problem) -> int:
    """How many neighbouring inputs along the last leading axis are channels of one for ``outputs``.

    The outputs that several reach fill more of the vectors than those of one, and share what they read.
    """
    axis, g = leading(len(p.kernel)) - 1, p.geometry
    alone = g.groups > 1 or g.dilation[axis] > 1 or not gains_by_blocks(p)
    most = 1 if alone else max(FEW_CHANNELS // p.inputs, 1)
    choices = [b for b in BLOCKS if b <= most and p.sizes[axis] % b == 0]
    return min(choices, key=lambda b: _added_outputs(_unadded(p, b), p.outputs))


@lru_cache(maxsize=4096)
def unadded(p: Problem) -> Problem:
    """What ``outputs`` leaves to do, with the taps of the leading axes as output channels."""
    return _unadded(p, joined(p))


def _unadded(p: Problem, several: int) -> Problem:
    lead = leading(len(p.kernel))
    *taps, last = p.kernel[:lead]
    return p._replace(
        batch=p.batch * prod(p.sizes[:lead]) // several,
        inputs=p.inputs * several,
        outputs=p.outputs * prod(taps) * (last + several - 1),
        sizes=p.sizes[lead:],
        counts=p.counts[lead:],
        kernel=p.kernel[lead:],
        geometry=p.geometry.others(lead),
    )


def _written(p: Problem) -> int:
    """Bytes of the result of a convolution that is added up in at least single precision."""
    return max(p.dtype.itemsize, 4) * p.batch * p.outputs * prod(p.counts)


def cost(p: Problem, algorithm: str) -> float:
    """Estimated seconds."""
    if not p.flops:
        return CALL
    g, size, taps = p.geometry, p.dtype.itemsize, prod(p.kernel)
    n, written = len(p.kernel), size * p.batch * p.outputs * prod(p.counts)
    moved = workspace(p, algorithm) / COPY
    if algorithm == "fft":
        points = prod(lengths(p.sizes, p.counts, p.kernel, g))
        transforms = p.batch * (p.inputs + p.outputs) + p.outputs * p.inputs // g.groups
        ops = transforms * 2.5 * points * log2(max(points, 2))
        products = 4 * p.flops / taps / prod(p.counts) * points
        return 10 * CALL * n + ops / FFT_RATE + products / RATE + moved
    if p.op == "transpose" and algorithm not in ("native", "channels_last"):
        put_together = interleaved(p, algorithm) / COPY
        if adds_taps(p, algorithm):
            rate = RATE * filled(p.inputs // g.groups * prod(p.kernel[: leading(n)]), p.dtype)
            return CALL * (2 + prod(p.kernel[: leading(n)])) + p.flops / rate + moved + put_together
        if algorithm == "gemm" and shuffles(p.kernel, g):
            return CALL + p.flops / RATE + 2 * put_together
        inside = as_conv(p)
        chosen = estimated_best(inside) if algorithm == "phases" else algorithm
        return prod(g.stride) * CALL + cost(inside, chosen) + put_together
    if algorithm == "winograd":
        inside = one_product(p)
        entries = inside.batch * (p.inputs * prod(inside.sizes) + p.outputs * prod(inside.counts))
        best = inner(inside)
        product = _native(inside, blocks_of(inside)) if best == "blocks" else cost(inside, best)
        # Each entry that is moved is the sum of two.
        return 8 * CALL + 4 * (3 * CALL + product + _added(1.5 * size * entries))
    if algorithm == "gemm":
        if p.op == "conv":
            return CALL + p.flops / RATE + moved
        j = split(p.batch, p.inputs, p.outputs, p.sizes, p.counts, p.kernel, g)
        narrow = min(p.outputs * prod(p.kernel[:j]), p.inputs * prod(p.kernel[j:])) // g.groups
        return 4 * CALL + p.flops / (RATE * narrow / (narrow + 24)) + _unfolded(p) / COPY
    if algorithm == "channels":
        inside = folded(p)
        return 8 * CALL + _native(inside, (1,) * len(inside.kernel)) + moved
    if algorithm == "outputs":
        return _added_outputs(unadded(p), p.outputs)
    if algorithm == "taps":
        terms = prod(p.kernel[: leading(n)])
        return 6 * CALL + _native(p, (1,) * n) + terms * (CALL + written / COPY)
    return _native(p, blocks_of(p) if algorithm == "blocks" else (1,) * n) + moved


def _native(p: Problem, blocks: Ints) -> float:
    """Seconds of the products by native calls, and of one call."""
    groups = p.geometry.groups
    inputs, outputs = p.inputs // groups, p.outputs // groups
    if groups > 1 and inputs == outputs == 1:
        rate = DEPTHWISE_RATE
    elif groups > 1 and min(inputs, outputs) < 8:
        rate = GROUPED_RATE
    else:
        rate = RATE * filled(prod(blocks) * outputs, p.dtype) * min(1.0, 1.25 * inputs / (inputs + 2))
        if p.op == "weight" and lanes_of(torch.float32) < max(LANES.values()):
            rate *= prod(blocks) * outputs / (prod(blocks) * outputs + HALF_RATE_CHANNELS)
    return CALL + p.flops * waste(p, blocks) / rate


def _added_outputs(p: Problem, outputs: int) -> float:
    """Seconds of products whose output channels are taps, and to add these up."""
    taps = p.outputs // outputs
    return _native(p, blocks_of(p)) + (6 + taps) * CALL + _written(p) / 2 / CACHED


def _added(size: float) -> float:
    """Seconds to add up to so many bytes."""
    return size / CACHED + max(size - CACHES, 0) / 2 / COPY


def small(p: Problem) -> bool:
    """Whether a call over up to three axes is over before another algorithm than torch's has begun."""
    return p.batch * max(prod(p.sizes), prod(p.counts)) < FEW_POSITIONS and p.flops < FEW_FLOPS


def rival(p: Problem) -> str | None:
    """What was measured to beat torch's kernel for two and three axes, in single precision on CPUs."""
    n, g = len(p.kernel), p.geometry
    if p.device != "cpu" or p.dtype != torch.float32 or not 1 < n <= native.MAX_AXES:
        return None
    if applies(p, "onednn"):
        return "onednn"
    alone = p.op == "transpose" and native.passes_by_onednn(p.batch, p.outputs, p.counts, p.dtype)
    if alone and max(g.stride) == 1:
        return "phases"
    if p.op == "conv":
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
        if small(p):
            return {"native": cost(p, "native")}
        names = (rival(p) or "native",)
    elif p.op == "conv":
        names = "channels", "taps", "gemm"
        if applies(p, "outputs") and p.device == "cpu" and p.dtype not in native.LOW_PRECISION:
            names = *names, "outputs"
    elif p.op == "weight":
        names = "channels", "gemm"
    else:
        # Phases are many small calls and one long shuffle; they round half precision but once.
        added = max(p.geometry.stride) > 1 and p.dtype not in native.LOW_PRECISION
        names = ("channels",) if added else ("phases",)
    times = {name: cost(p, name) for name in names}
    if n > native.MAX_AXES and p.op != "transpose" and p.device == "cpu" and applies(p, "winograd"):
        times["winograd"] = cost(p, "winograd")
    ones = p.op != "transpose" or max(p.geometry.stride) == 1
    if p.device == "cpu" and ones and applies(p, "fft"):
        times["fft"] = FFT_MARGIN * cost(p, "fft")
    return times


def estimated_best(p: Problem) -> str:
    times = estimates(p)
    return min(times, key=times.__getitem__)


def inner(p: Problem) -> str:
    """The best for what another algorithm leaves to do, whose tensors are channels-last already."""
    best = estimated_best(p)
    return "blocks" if applies(p, "blocks") and best != "onednn" else best
