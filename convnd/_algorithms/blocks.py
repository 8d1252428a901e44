r"""Few output channels: neighbouring output positions are made channels of one native convolution.

A vector register of the processor holds more channels than there are, and is mostly empty. Output
``q b + i`` of an axis, ``i < b``, reads the ``k`` taps from input ``q b + i - p`` on. So a kernel of
``k + b - 1`` taps with stride ``b`` that holds the same ``k`` taps at each of the ``b`` shifts gives all
``b`` of them, as ``b`` times the output channels. These are ``(k + b - 1) / k`` times the products in full
vectors, and the native kernel reads the windows itself: nothing is copied but the result, into place.

The weight gradient is the adjoint: that of the larger kernel, added up over the shifts. Its blocks must
divide the outputs, so that it adds products of the definition only. In the convolution an infinity or a NaN
reaches all outputs of its blocks. Where there are blocks, stride and dilation are one.

Up to three axes the stride is the native call's; along a leading axis of ``channels`` (:mod:`.conv`) it is
that of the fold, and of contiguous results the blocks lie in place.
"""

from collections.abc import Callable
from math import prod

from torch import Tensor

from ..arguments import Ints
from .conv import Convolution, native_conv
from .geometry import Geometry
from .weight import native_weight


def strided(g: Geometry, counts: Ints, blocks: Ints) -> Geometry:
    """Of the native convolution that gives ``counts`` outputs in blocks; the last may reach further."""
    rows = zip(g.pads, counts, blocks, strict=True)
    pads = tuple((low, high + -count % b) for (low, high), count, b in rows)
    return g._replace(stride=tuple(s * b for s, b in zip(g.stride, blocks, strict=True)), pads=pads)


def larger(kernel: Ints, blocks: Ints) -> Ints:
    return tuple(k + b - 1 for k, b in zip(kernel, blocks, strict=True))


def whole(counts: Ints, blocks: Ints) -> Ints:
    """The outputs of whole blocks."""
    return tuple(-(-count // b) * b for count, b in zip(counts, blocks, strict=True))


def _shifts(w: Tensor, kernel: Ints) -> Tensor:
    """``(*, *blocks, O, C, *larger)`` as ``(*, O, C, *kernel, *blocks)``: what each shift holds."""
    n = len(kernel)
    lead, blocks, stride = w.ndim - 2 * n - 2, w.shape[-2 * n - 2 : -n - 2], w.stride()
    diagonal = (a + b for a, b in zip(stride[lead : lead + n], stride[-n:], strict=True))
    size = *w.shape[:lead], *w.shape[-n - 2 : -n], *kernel, *blocks
    return w.as_strided(size, (*stride[:lead], *stride[lead + n :], *diagonal))


def at_shifts(w: Tensor, blocks: Ints, groups: int) -> Tensor:
    """``(*, O, C / groups, *kernel)`` to ``(*, prod(blocks) * O, C / groups, *larger)``."""
    n = len(blocks)
    if max(blocks) == 1:
        return w
    w = w.unflatten(-n - 2, (groups, -1))
    *lead, outputs, inputs = w.shape[:-n]
    kernel = tuple(w.shape[-n:])
    out = w.new_zeros(*lead, *blocks, outputs, inputs, *larger(kernel, blocks))
    _shifts(out, kernel).copy_(w.view(*w.shape, *(1,) * n))
    return out.flatten(len(lead) - 1, len(lead) + n)


def added_shifts(w: Tensor, kernel: Ints, blocks: Ints, groups: int) -> Tensor:
    """The adjoint of :func:`at_shifts`."""
    n = len(blocks)
    if max(blocks) == 1:
        return w
    w = _shifts(w.unflatten(-n - 2, (groups, *blocks, -1)), kernel)
    return w.sum(tuple(range(-n, 0))).flatten(-n - 3, -n - 2)


def at_every(bias: Tensor | None, blocks: Ints, groups: int) -> Tensor | None:
    """The bias of every shift."""
    if bias is None or max(blocks) == 1:
        return bias
    return bias.view(groups, 1, -1).expand(-1, prod(blocks), -1).flatten()


def apart(y: Tensor, blocks: Ints, groups: int) -> Tensor:
    """``(*, C, *counts)`` as native calls have it: ``(*, groups, *blocks, C / groups, *counts / blocks)``."""
    n = len(blocks)
    lead = y.ndim - n - 1
    channels, *counts = y.shape[lead:]
    pairs = (size for count, b in zip(counts, blocks, strict=True) for size in (count // b, b))
    y = y.view(*y.shape[:lead], groups, channels // groups, *pairs)
    last = lead + 2 + 2 * n
    return y.permute(*range(lead + 1), *range(lead + 3, last, 2), lead + 1, *range(lead + 2, last, 2))


def together(y: Tensor, blocks: Ints, groups: int, last: bool) -> Tensor:
    """What :func:`apart` takes apart, with channels ``last`` in memory or contiguous, where it has to move.

    Blocks along the axis before which channels lie are in place already.
    """
    n, batch = len(blocks), y.shape[0]
    counts = [count * b for count, b in zip(y.shape[2:], blocks, strict=True)]
    y = y.unflatten(1, (groups, *blocks, -1))
    positions = [axis for i in range(n) for axis in (3 + n + i, 2 + i)]
    if last:
        return y.permute(0, *positions, 1, 2 + n).reshape(batch, *counts, -1).movedim(-1, 1)
    return y.permute(0, 1, 2 + n, *positions).reshape(batch, -1, *counts)


def blocks_conv(
    x: Tensor,
    w: Tensor,
    bias: Tensor | None,
    g: Geometry,
    blocks: Ints,
    last: bool,
    convolve: Convolution = native_conv,
) -> Tensor:
    """``convolve`` computes the blocks; the result has channels ``last`` in memory, or is contiguous."""
    if max(blocks) == 1:
        return convolve(x, w, bias, g)
    counts = g.outputs(tuple(x.shape[2:]), tuple(w.shape[2:]))
    w, bias = at_shifts(w, blocks, g.groups), at_every(bias, blocks, g.groups)
    y = together(convolve(x, w, bias, strided(g, counts, blocks)), blocks, g.groups, last)
    return y[(slice(None), slice(None), *map(slice, counts))]


def apart_last(y: Tensor, blocks: Ints, groups: int) -> Tensor:
    """As :func:`apart`, with what are channels there last: ``(*, *counts / blocks, channels)``."""
    n = len(blocks)
    lead = y.ndim - n - 1
    y = apart(y, blocks, groups)
    y = y.permute(*range(lead), *range(y.ndim - n, y.ndim), *range(lead, y.ndim - n))
    return y.flatten(lead + n)


def blocks_weight(
    x: Tensor,
    y: Tensor,
    g: Geometry,
    kernel: Ints,
    blocks: Ints,
    weigh: Callable[..., Tensor] = native_weight,
) -> Tensor:
    """``weigh(x, y, geometry, kernel)`` computes the gradient of the larger kernel."""
    y = apart_last(y, blocks, g.groups).contiguous().movedim(-1, 1)
    w = weigh(x, y, strided(g, tuple(y.shape[2:]), blocks), larger(kernel, blocks))
    return added_shifts(w, kernel, blocks, g.groups)
