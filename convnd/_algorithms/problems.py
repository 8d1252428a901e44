"""One bilinear map as data: what applies to it, how native calls are laid out, and what they leave to do."""

from collections.abc import Sequence
from functools import lru_cache
from itertools import product
from math import prod
from typing import Literal, NamedTuple

import torch

from ..arguments import Ints
from . import native, winograd
from .conv import leading
from .geometry import Geometry

Op = Literal["conv", "transpose", "weight"]
# For each map and operand: the map that gives its gradient, and that map's operands, where 2 is the
# gradient of the result.
GRADIENTS: dict[tuple[Op, int], tuple[Op, int, int]] = {
    ("conv", 0): ("transpose", 2, 1),
    ("conv", 1): ("weight", 0, 2),
    ("transpose", 0): ("conv", 2, 1),
    ("transpose", 1): ("weight", 2, 0),
    ("weight", 0): ("transpose", 1, 2),
    ("weight", 1): ("conv", 0, 2),
}
ALGORITHMS = (
    "native",
    "onednn",
    "channels_last",
    "blocks",
    "channels",
    "outputs",
    "taps",
    "winograd",
    "gemm",
    "phases",
    "fft",
)

LANES = {"AVX512": 16, "AVX2": 8}  # float32 entries of a vector register
BLOCKS = (1, 2, 4, 8, 16)  # of neighbouring positions, along an axis and in all
BLOCK_FLOPS = 1 << 21  # below this a call is all overhead
FEW_CHANNELS = 9  # with no more, torch's backward kernels are slow, and oneDNN's own layouts fast
CACHES = 4 << 20  # bytes that caches hold


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
    if algorithm == "onednn":
        few = native.passes_by_onednn(p.batch, p.inputs, p.sizes, p.dtype)
        return n <= native.MAX_AXES and p.device == "cpu" and p.op != "transpose" and few
    if algorithm == "channels_last":
        return 1 < n <= native.MAX_AXES
    if algorithm == "blocks":
        return n <= native.MAX_AXES and p.op != "transpose"
    if algorithm == "channels":
        return n > 1
    if algorithm == "taps":
        return n > 1 and p.op != "weight"
    if algorithm == "outputs":  # a transposed convolution is made of some without stride
        ones = p.op == "transpose" or max(p.geometry.stride[: leading(n)]) == 1
        return n > 1 and p.op != "weight" and ones
    if algorithm == "winograd":
        return winograd.applies(p.kernel, p.geometry, p.dtype)
    if algorithm == "fft":
        return p.dtype not in native.INTEGERS
    return algorithm != "phases" or p.op == "transpose"


def lanes_of(dtype: torch.dtype) -> int:
    """Entries of a vector register."""
    lanes = LANES.get(torch.backends.cpu.get_cpu_capability(), 4)
    return lanes if dtype.itemsize <= 4 else lanes // 2


def filled(channels: int, dtype: torch.dtype) -> float:
    """Which part of the vectors that hold so many channels is used."""
    lanes = lanes_of(dtype)
    return channels / (-(-channels // lanes) * lanes)


@lru_cache(maxsize=4096)
def blocks_of(p: Problem) -> Ints:
    """Neighbouring output positions along each axis to make output channels, for :mod:`.blocks`.

    Blocks are strides of a native call, which half precision does not gain by (:func:`.native.errs`), and
    along the last of several axes slow it down.
    """
    n = len(p.kernel)
    return _blocks(p, () if p.dtype in native.LOW_PRECISION else range(max(n - 1, 1)))


@lru_cache(maxsize=4096)
def folded_blocks(p: Problem) -> Ints:
    """The same for ``channels``: along the last axis that it takes away, where they are no strides."""
    return _blocks(p, (leading(len(p.kernel)) - 1,))


def gains_by_blocks(p: Problem) -> bool:
    return p.flops >= BLOCK_FLOPS and p.device == "cpu"


def _blocks(p: Problem, axes: Sequence[int]) -> Ints:
    """Those along some axes that leave the least of the vectors empty, for the fewest products.

    A block of ``b`` positions computes ``(b + k - 1) / k`` times the products. In the weight gradient blocks
    divide the positions, so that no zeros are multiplied.
    """
    n, g = len(p.kernel), p.geometry
    if p.op == "transpose" or not gains_by_blocks(p):
        return (1,) * n
    choices = [
        [b for b in BLOCKS if b <= p.counts[i] and not (p.op == "weight" and p.counts[i] % b)]
        if i in axes and g.stride[i] == g.dilation[i] == 1
        else [1]
        for i in range(n)
    ]
    several = [blocks for blocks in product(*choices) if prod(blocks) <= BLOCKS[-1]]
    several.sort(reverse=True)  # rather along the first axes, whose positions lie far from each other
    return min(several, key=lambda b: waste(p, b) / filled(prod(b) * p.outputs // g.groups, p.dtype))


def waste(p: Problem, blocks: Ints) -> float:
    """How many times the products of the definition blocks compute."""
    rows = zip(p.kernel, p.counts, blocks, strict=True)
    return prod((k + b - 1) / k * (-(-count // b) * b / count) for k, count, b in rows)


def channels_last(p: Problem) -> bool:
    """Whether native kernels are the fastest with the channels of a convolution next to each other.

    With few channels in long vectors oneDNN's own layouts are, as long as caches hold what is copied from
    them into place.
    """
    blocks = prod(blocks_of(p))
    moved = p.dtype.itemsize * p.batch * p.outputs * prod(p.counts) if blocks > 1 else 0
    return not _few(p.inputs, blocks * p.outputs, p.dtype) or moved > CACHES


def folded_last(p: Problem) -> bool:
    """The same for ``channels``, whose blocks are in place."""
    inside = folded(p)
    return not _few(inside.inputs, inside.outputs, p.dtype)


def _few(inputs: int, outputs: int, dtype: torch.dtype) -> bool:
    return inputs <= FEW_CHANNELS and outputs <= lanes_of(dtype) == max(LANES.values())


def unadded_last(p: Problem) -> bool:
    """The same of what ``outputs`` computes before it adds: several taps fill the vectors, in pieces."""
    return p.inputs > FEW_CHANNELS or p.inputs >= lanes_of(p.dtype)


def one_product(p: Problem) -> Problem:
    """What :mod:`.winograd` leaves to do, four times."""
    batch = p.batch * winograd.pairs(p.counts[0])
    rest = {"sizes": p.sizes[1:], "counts": p.counts[1:], "kernel": p.kernel[1:]}
    return p._replace(batch=batch, geometry=p.geometry.others(1), **rest)


@lru_cache(maxsize=4096)
def folded(p: Problem) -> Problem:
    """What ``channels`` leaves to do, with the taps of the leading axes as channels, and their blocks."""
    lead, blocks = leading(len(p.kernel)), folded_blocks(p)
    return p._replace(
        batch=p.batch * prod(-(-count // b) for count, b in zip(p.counts[:lead], blocks, strict=False)),
        inputs=p.inputs * prod(k + b - 1 for k, b in zip(p.kernel[:lead], blocks, strict=False)),
        outputs=p.outputs * prod(blocks),
        sizes=p.sizes[lead:],
        counts=p.counts[lead:],
        kernel=p.kernel[lead:],
        geometry=p.geometry.others(lead),
    )


def as_conv(p: Problem) -> Problem:
    """The convolutions that the phases of a transposed convolution are, taken together."""
    g = p.geometry
    taps = tuple(max(-(-k // s), 1) for k, s in zip(p.kernel, g.stride, strict=True))
    ones = (1,) * len(taps)
    pads = tuple((d * (k - 1), 0) for k, d in zip(taps, g.dilation, strict=True))
    inside = Geometry(ones, pads, g.dilation, g.groups)
    outputs = p.inputs * prod(g.stride)
    return Problem("conv", p.batch, p.outputs, outputs, p.counts, p.counts, taps, inside, p.dtype, p.device)
