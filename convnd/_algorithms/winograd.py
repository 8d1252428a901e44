r"""Convolution with three taps along the first axis in two thirds of the products.

Two neighbouring outputs read four inputs ``d``. Winograd's minimal filtering F(2, 3) (Lavin and Gray 2015,
eq. 6 and 7) takes four products for them instead of six:

.. math::
    m_0 = (d_0 - d_2) g_0, \quad m_1 = (d_1 + d_2) (g_0 + g_1 + g_2) / 2, \quad
    m_2 = (d_2 - d_1) (g_0 - g_1 + g_2) / 2, \quad m_3 = (d_3 - d_1) g_2

    y_0 = m_0 + m_1 + m_2, \quad y_1 = m_1 - m_2 + m_3

Here a product is a convolution over the other axes, by whatever algorithm is best for it. The weight
gradient is the adjoint of the same identity by ``g``. Its factors are 1 and 1/2, so that nothing is lost:
fewer terms are rounded than by the definition. An infinity or a NaN reaches both outputs of its pair.
Writes in place: for tensors that are not traced.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from ..arguments import Ints
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


def others(g: Geometry) -> Geometry:
    """Without the first axis."""
    return g._replace(stride=g.stride[1:], pads=g.pads[1:], dilation=g.dilation[1:])


def _read(x: Tensor, g: Geometry, count: int) -> Iterator[Tensor]:
    """What the four products read, ``(N * pairs, C, *others)``, one after the other in one buffer."""
    size, tiles = x.shape[2], pairs(count)
    before = g.pads[0][0]
    amounts = (before, 2 * tiles + TAPS - 1 - before - size), *((0, 0),) * (x.ndim - 2)
    x = bordered(x.movedim(1, -1), amounts)  # channels-last, as the native kernels want it
    d = [x[:, i : i + 2 * tiles - 1 : 2] for i in range(4)]
    buffer = torch.empty_like(d[0], memory_format=torch.contiguous_format)
    for a, b, sign in _READS:
        yield torch.add(d[a], d[b], alpha=sign, out=buffer).flatten(0, 1).movedim(-1, 1)


def winograd_conv(
    x: Tensor, w: Tensor, bias: Tensor | None, g: Geometry, convolve: Callable[..., Tensor]
) -> Tensor:
    """``convolve(x, w, bias)`` works over the other axes."""
    batch, outputs, (count, *sizes) = (
        x.shape[0],
        w.shape[0],
        g.outputs(tuple(x.shape[2:]), tuple(w.shape[2:])),
    )
    g0, g1, g2 = w.unbind(2)
    even, odd = (g0 + g2) / 2, g1 / 2
    reads = _read(x, g, count)

    def product(taps: Tensor, bias: Tensor | None = None) -> Tensor:
        m = convolve(next(reads), taps, bias=bias)
        return m.unflatten(0, (batch, -1)).movedim(2, -1)

    y = x.new_empty(batch, count, *sizes, outputs)
    first = product(g0)
    second = product(even + odd, bias)  # which both outputs hold
    first += second
    third = product(even - odd)
    torch.add(first, third, out=y[:, 0::2])
    second -= third
    if count > 1:
        alone = pairs(count) - count // 2
        fourth = product(g2)
        torch.add(second[:, : count // 2], fourth[:, : fourth.shape[1] - alone], out=y[:, 1::2])
    return y.movedim(-1, 1)


def winograd_weight(x: Tensor, y: Tensor, g: Geometry, weigh: Callable[..., Tensor]) -> Tensor:
    """``weigh(x, y)`` works over the other axes."""
    count = y.shape[2]
    y = bordered(y.movedim(1, -1), ((0, count % 2), *((0, 0),) * (y.ndim - 2)))
    y0, y1 = y[:, 0::2], y[:, 1::2]
    buffer = torch.empty_like(y0, memory_format=torch.contiguous_format)
    gradients = (  # of the four products
        lambda: buffer.copy_(y0),
        lambda: torch.add(y0, y1, out=buffer),
        lambda: torch.sub(y0, y1, out=buffer),
        lambda: buffer.copy_(y1),
    )
    first, second, third, fourth = (
        weigh(read, gradient().flatten(0, 1).movedim(-1, 1))
        for read, gradient in zip(_read(x, g, count), gradients, strict=True)
    )
    even = (second + third) / 2
    return torch.stack((first + even, (second - third) / 2, fourth + even), 2)
