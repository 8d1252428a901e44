"""Leading axes taken away from a convolution, so that native kernels serve the others."""

from torch import Tensor

from ..._spatial.pad import evens, surrounded
from ..problem import Geometry


def pad_leading(x: Tensor, g: Geometry, lead: int, last: bool = True) -> tuple[Tensor, Geometry]:
    """``(N, C, *spatial)`` with the padding of the leading axes done, and the geometry of the others.

    Where there is padding, this is the one copy of the input that padding takes anyway: with channels
    ``last`` in memory, or contiguous.
    """
    even = evens(g.pads[lead:])
    others = tuple((a - i, b - i) for (a, b), i in zip(g.pads[lead:], even, strict=True))
    pads = *g.pads[:lead], *others
    x = surrounded(x.movedim(1, -1), (*pads, (0, 0))).movedim(-1, 1) if last else surrounded(x, pads)
    return x, Geometry(g.stride[lead:], tuple((i, i) for i in even), g.dilation[lead:], g.groups)
