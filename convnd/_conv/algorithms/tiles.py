r"""``tiles``: neighbouring output positions become output channels, if there are few channels.

With few channels the processor's vector registers are mostly empty. Output ``q b + i`` of an axis, ``i < b``,
reads ``k`` taps starting at input ``q b + i - p``. So a kernel of ``k + b - 1`` taps with stride ``b`` that
holds the same ``k`` taps at each of ``b`` shifts computes all ``b`` outputs, as ``b`` times the output
channels. This takes ``(k + b - 1) / k`` times the products, but in full vectors; the native kernel reads the
windows itself, and only the result is copied into place.

The weight gradient is the adjoint: that of the larger kernel, summed over the shifts. Its tiles must divide
the outputs, so that only products of the definition are added. In the convolution an infinity or NaN spreads
to all outputs of its tiles. Tiled axes have stride and dilation one.

Up to three axes the tile size is the stride of the native call; along a leading axis of :mod:`.im2col` it is
the stride of the unfolding, and the tiles of a contiguous result need no copy.
"""

from collections.abc import Sequence
from functools import lru_cache
from itertools import product
from math import prod

import torch
from torch import Tensor

from ..._torch.conv import MAX_AXES
from ..._torch.dtypes import LOW_PRECISION
from ..._torch.memory import channels_last, in_layout
from ...arguments import Ints
from ..algorithm import Algorithm
from ..cost import CACHES, COPY, FEW_CHANNELS, LANES, filled, lanes_of, native_seconds, waste, workspace
from ..problem import Geometry, Problem
from .native import native_conv, native_weight

TILES = (1, 2, 4, 8, 16)  # possible sizes of a tile, along one axis and in total
TILE_FLOPS = 1 << 21  # below this, overhead dominates a call


@lru_cache(maxsize=4096)
def tiles_of(p: Problem) -> Ints:
    """How many neighbouring output positions along each axis become output channels.

    Tiles make the native call strided, which is no gain in half precision
    (:func:`convnd._torch.conv.misread`) and is slow along the last of several axes.
    """
    return best_tiles(p, () if p.dtype in LOW_PRECISION else range(max(len(p.kernel) - 1, 1)))


def gains_by_tiles(p: Problem) -> bool:
    """True for calls whose time is more than overhead."""
    return p.flops >= TILE_FLOPS and p.device == "cpu"


def best_tiles(p: Problem, axes: Sequence[int]) -> Ints:
    """The tiles along the given axes with the best trade-off of full vectors and few extra products.

    A tile of ``b`` positions computes ``(b + k - 1) / k`` times the products. In the weight gradient tiles
    divide the positions, so that no zeros are multiplied.
    """
    n, groups = len(p.kernel), p.geometry.groups
    if p.op == "transpose" or not gains_by_tiles(p):
        return (1,) * n
    choices = [_tiles_along(p, i) if i in axes else [1] for i in range(n)]
    several = [tiles for tiles in product(*choices) if prod(tiles) <= TILES[-1]]
    several.sort(reverse=True)  # prefer the first axes, whose positions are far apart in memory
    return min(several, key=lambda b: waste(p, b) / filled(prod(b) * p.outputs // groups, p.dtype))


def _tiles_along(p: Problem, axis: int) -> list[int]:
    """The sizes that tiles may have along an axis."""
    count = p.counts[axis]
    if p.geometry.stride[axis] != 1 or p.geometry.dilation[axis] != 1:
        return [1]
    return [b for b in TILES if b <= count and not (p.op == "weight" and count % b)]


def prefers_channels_last(p: Problem) -> bool:
    """True if native kernels are fastest in channels-last memory.

    With few channels in long vectors oneDNN's own layouts are faster, as long as the result copied from them
    fits in cache.
    """
    tiles = prod(tiles_of(p))
    moved = p.result_bytes if tiles > 1 else 0
    return not few_in_long_vectors(p.inputs, tiles * p.outputs, p.dtype) or moved > CACHES


def few_in_long_vectors(inputs: int, outputs: int, dtype: torch.dtype) -> bool:
    """True if there are few inputs and one vector, of the longest kind, holds all outputs."""
    return inputs <= FEW_CHANNELS and outputs <= lanes_of(dtype) == max(LANES.values())


def strided(g: Geometry, counts: Ints, tiles: Ints) -> Geometry:
    """Geometry of the native convolution of ``counts`` outputs in tiles; the last tile may reach beyond."""
    rows = zip(g.pads, counts, tiles, strict=True)
    pads = tuple((low, high + -count % b) for (low, high), count, b in rows)
    return g._replace(stride=tuple(s * b for s, b in zip(g.stride, tiles, strict=True)), pads=pads)


def kernel_at_shifts(kernel: Ints, tiles: Ints) -> Ints:
    """Sizes of the larger kernel that holds the taps at every shift."""
    return tuple(k + b - 1 for k, b in zip(kernel, tiles, strict=True))


def whole_tiles(counts: Ints, tiles: Ints) -> Ints:
    """The numbers of outputs, rounded up to whole tiles."""
    return tuple(-(-count // b) * b for count, b in zip(counts, tiles, strict=True))


def _shifts(w: Tensor, kernel: Ints) -> Tensor:
    """View ``(*, *tiles, O, C, *larger)`` as ``(*, O, C, *kernel, *tiles)``, the taps at each shift."""
    n = len(kernel)
    lead, tiles, stride = w.ndim - 2 * n - 2, w.shape[-2 * n - 2 : -n - 2], w.stride()
    diagonal = (a + b for a, b in zip(stride[lead : lead + n], stride[-n:], strict=True))
    size = *w.shape[:lead], *w.shape[-n - 2 : -n], *kernel, *tiles
    return w.as_strided(size, (*stride[:lead], *stride[lead + n :], *diagonal))


def at_shifts(w: Tensor, tiles: Ints, groups: int) -> Tensor:
    """The larger kernel: ``(*, O, C / groups, *kernel)`` to ``(*, prod(tiles) * O, C / groups, *larger)``."""
    n = len(tiles)
    if max(tiles) == 1:
        return w
    w = w.unflatten(-n - 2, (groups, -1))
    *lead, outputs, inputs = w.shape[:-n]
    kernel = tuple(w.shape[-n:])
    out = w.new_zeros(*lead, *tiles, outputs, inputs, *kernel_at_shifts(kernel, tiles))
    _shifts(out, kernel).copy_(w.view(*w.shape, *(1,) * n))
    return out.flatten(len(lead) - 1, len(lead) + n)


def added_shifts(w: Tensor, kernel: Ints, tiles: Ints, groups: int) -> Tensor:
    """The adjoint of :func:`at_shifts`."""
    n = len(tiles)
    if max(tiles) == 1:
        return w
    w = _shifts(w.unflatten(-n - 2, (groups, *tiles, -1)), kernel)
    return w.sum(tuple(range(-n, 0))).flatten(-n - 3, -n - 2)


def bias_at_shifts(bias: Tensor | None, tiles: Ints, groups: int) -> Tensor | None:
    """The bias, repeated for every shift."""
    if bias is None or max(tiles) == 1:
        return bias
    return bias.view(groups, 1, -1).expand(-1, prod(tiles), -1).flatten()


def split_tiles(y: Tensor, tiles: Ints, groups: int) -> Tensor:
    """View ``(*, C, *counts)`` as native calls do: ``(*, groups, *tiles, C / groups, *counts / tiles)``."""
    n = len(tiles)
    lead = y.ndim - n - 1
    channels, *counts = y.shape[lead:]
    pairs = (size for count, b in zip(counts, tiles, strict=True) for size in (count // b, b))
    y = y.view(*y.shape[:lead], groups, channels // groups, *pairs)
    last = lead + 2 + 2 * n
    return y.permute(*range(lead + 1), *range(lead + 3, last, 2), lead + 1, *range(lead + 2, last, 2))


def join_tiles(y: Tensor, tiles: Ints, groups: int, counts: Ints, last: bool) -> Tensor:
    """The inverse of :func:`split_tiles` for ``counts`` outputs, in channels-last memory or contiguous.

    Tiles along the axis next to the channels in memory are in place already.
    """
    if max(tiles) == 1:
        return y
    n, batch = len(tiles), y.shape[0]
    whole = [count * b for count, b in zip(y.shape[2:], tiles, strict=True)]
    y = y.unflatten(1, (groups, *tiles, -1))
    positions = [axis for i in range(n) for axis in (3 + n + i, 2 + i)]
    if last:
        y = y.permute(0, *positions, 1, 2 + n).reshape(batch, *whole, -1).movedim(-1, 1)
    else:
        y = y.permute(0, 1, 2 + n, *positions).reshape(batch, -1, *whole)
    return y[(slice(None), slice(None), *map(slice, counts))]


def split_tiles_last(y: Tensor, tiles: Ints, groups: int) -> Tensor:
    """As :func:`split_tiles`, with all its channels last: ``(*, *counts / tiles, channels)``."""
    n = len(tiles)
    lead = y.ndim - n - 1
    y = split_tiles(y, tiles, groups)
    y = y.permute(*range(lead), *range(y.ndim - n, y.ndim), *range(lead, y.ndim - n))
    return y.flatten(lead + n)


class Tiles(Algorithm):
    """With the tiles of :func:`best_tiles`."""

    name = "tiles"
    old_name = "blocks"

    def applies(self, p: Problem) -> bool:
        return len(p.kernel) <= MAX_AXES and p.op != "transpose"

    def spreads_inputs(self, p: Problem) -> bool:
        return p.op == "conv" and max(tiles_of(p)) > 1

    def workspace(self, p: Problem) -> int:
        return p.result_bytes if p.op == "weight" or max(tiles_of(p)) > 1 else 0

    def seconds(self, p: Problem) -> float:
        return native_seconds(p, tiles_of(p)) + workspace(p, self) / COPY

    def conv(self, p: Problem, x: Tensor, w: Tensor, bias: Tensor | None) -> Tensor:
        g, tiles, last = p.geometry, tiles_of(p), prefers_channels_last(p)
        w, bias = at_shifts(w, tiles, g.groups), bias_at_shifts(bias, tiles, g.groups)
        y = native_conv(in_layout(x, last), w, bias, strided(g, p.counts, tiles))
        return join_tiles(y, tiles, g.groups, p.counts, last)

    def weight(self, p: Problem, x: Tensor, y: Tensor) -> Tensor:
        g, tiles = p.geometry, tiles_of(p)
        y = split_tiles_last(y, tiles, g.groups).contiguous().movedim(-1, 1)
        within, kernel = strided(g, tuple(y.shape[2:]), tiles), kernel_at_shifts(p.kernel, tiles)
        w = native_weight(channels_last(x), y, within, kernel)
        return added_shifts(w, p.kernel, tiles, g.groups)


ALGORITHM = Tiles()
