"""Splits the leading axes off a convolution, so that native kernels can handle the others."""

from torch import Tensor

from ..._spatial.pad import evens, zero_pad_fast
from ..problem import Geometry


def pad_leading(x: Tensor, g: Geometry, lead: int, last: bool = True) -> tuple[Tensor, Geometry]:
    """Pad the leading axes of ``(N, C, *spatial)``; returns the result and the geometry of the other axes.

    If there is padding, the copy that it takes anyway is made in channels-last memory with ``last``,
    otherwise contiguous.
    """
    even = evens(g.pads[lead:])
    others = tuple((a - i, b - i) for (a, b), i in zip(g.pads[lead:], even, strict=True))
    pads = *g.pads[:lead], *others
    x = zero_pad_fast(x.movedim(1, -1), (*pads, (0, 0))).movedim(-1, 1) if last else zero_pad_fast(x, pads)
    return x, Geometry(g.stride[lead:], tuple((i, i) for i in even), g.dilation[lead:], g.groups)
