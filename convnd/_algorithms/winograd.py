r"""Convolution with three taps along the first axis in two thirds of the products.

Two neighbouring outputs read four inputs ``d``. Winograd's minimal filtering F(2, 3) (Lavin and Gray 2015,
eq. 6 and 7) takes four products for them instead of six:

.. math::
    m_0 = (d_0 - d_2) g_0, \quad m_1 = (d_1 + d_2) (g_0 + g_1 + g_2) / 2, \quad
    m_2 = (d_2 - d_1) (g_0 - g_1 + g_2) / 2, \quad m_3 = (d_3 - d_1) g_2

    y_0 = m_0 + m_1 + m_2, \quad y_1 = m_1 - m_2 + m_3

Here a product is a convolution over the other axes, by whatever algorithm is best for it; where that
computes blocks of output positions, the additions put them into place. The weight gradient is the adjoint
of the same identity by ``g``. Its factors are 1 and 1/2, so that nothing is lost: fewer terms are rounded
than by the definition. An infinity or a NaN reaches both outputs of its pair.
Writes in place: for tensors that are not traced.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from ..arguments import Ints
from . import native
from .blocks import added_shifts, apart, apart_last, at_every, at_shifts, whole
from .geometry import Geometry
from .pad import bordered

DTYPES = (torch.float32, torch.float64)  # half precision would round what is transformed
TAPS = 3

# Which of the four inputs, plus or minus which other, each product reads.
_READS = ((0, 2, -1), (1, 2, 1), (2, 1, -1), (3, 1, -1))


def applies(kernel: Ints, g: Geometry, dtype: torch.dtype) -> bool:
    alone = len(kernel) == 1 or kernel[0] != TAPS
    return not alone and g.stride[0] == g.dilation[0] == 1 and dtype in DTYPES


def pairs(count: int) -> int:
    """Of neighbouring outputs; the last one may stand alone."""
    return (count + 1) // 2


def _reads(x: Tensor, g: Geometry, count: int, last: bool) -> Iterator[Tensor]:
    """What the four products read, ``(N * pairs, C, *others)``, one after the other in one buffer."""
    size, tiles = x.shape[2], pairs(count)
    before = g.pads[0][0]
    amounts = (before, 2 * tiles + TAPS - 1 - before - size), *((0, 0),) * (x.ndim - 2)
    x = bordered(x.movedim(1, -1) if last else x.transpose(1, 2), amounts)
    d = [x[:, i : i + 2 * tiles - 1 : 2] for i in range(4)]
    buffer = torch.empty_like(d[0], memory_format=torch.contiguous_format)
    read = buffer.flatten(0, 1)
    read = read.movedim(-1, 1) if last else read
    for a, b, sign in _READS:
        torch.add(d[a], d[b], alpha=sign, out=buffer)
        yield read


def _kernels(w: Tensor) -> Tensor:
    """Those of the four products, stacked."""
    g0, g1, g2 = w.unbind(2)
    even, odd = (g0 + g2) / 2, g1 / 2
    return torch.stack((g0, even + odd, even - odd, g2))


def winograd_conv(
    x: Tensor,
    w: Tensor,
    bias: Tensor | None,
    g: Geometry,
    blocks: Ints,
    last: bool,
    convolve: Callable[..., Tensor],
) -> Tensor:
    """``convolve(x, w, bias)`` works over the other axes, in blocks of output positions (:mod:`.blocks`).

    With channels ``last`` in memory, or contiguous.
    """
    count, *sizes = g.outputs(tuple(x.shape[2:]), tuple(w.shape[2:]))
    tiles = pairs(count)
    kernels, bias = at_shifts(_kernels(w), blocks, g.groups), at_every(bias, blocks, g.groups)
    reads = _reads(x, g, count, last)
    y = native.empty(x, (x.shape[0], w.shape[0], 2 * tiles, *whole(tuple(sizes), blocks)), last)
    # (N, pairs, groups, *blocks, O / groups, *others)
    y0, y1 = apart(y.unflatten(2, (tiles, 2)).movedim(1, 3), blocks, g.groups).unbind(2)

    def product(i: int, bias: Tensor | None = None) -> Tensor:
        return convolve(next(reads), kernels[i], bias).view(y0.shape)

    first = product(0)
    second = product(1, bias)  # which both outputs hold
    first += second
    third = product(2)
    torch.add(first, third, out=y0)
    second -= third
    torch.add(second, product(3), out=y1)
    return y[(slice(None), slice(None), *map(slice, (count, *sizes)))]


def winograd_weight(
    x: Tensor, y: Tensor, g: Geometry, kernel: Ints, blocks: Ints, weigh: Callable[..., Tensor]
) -> Tensor:
    """``weigh(x, y)`` works over the other axes, in blocks of positions of ``y``."""
    count = y.shape[2]
    y0, y1 = (apart_last(y[:, :, i::2].transpose(1, 2), blocks, g.groups) for i in range(2))
    y0 = y0.contiguous()  # (N, pairs, *others, channels)
    if y1.shape != y0.shape:  # the last output stands alone
        y1 = bordered(y1, ((0, 1), *((0, 0),) * (y1.ndim - 2)))
    y1, buffer = y1.contiguous(), torch.empty_like(y0)
    gradients = (  # of the four products
        lambda: y0,
        lambda: torch.add(y0, y1, out=buffer),
        lambda: torch.sub(y0, y1, out=buffer),
        lambda: y1,
    )
    found = [
        weigh(read, gradient().flatten(0, 1).movedim(-1, 1))
        for read, gradient in zip(_reads(x, g, count, True), gradients, strict=True)
    ]
    first, second, third, fourth = added_shifts(torch.stack(found), kernel[1:], blocks, g.groups)
    even = (second + third) / 2
    return torch.stack((first + even, (second - third) / 2, fourth + even), 2)
