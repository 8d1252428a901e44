"""``shift_add``: a sum of native convolutions of shifted inputs, one for each tap of the leading axes.

The sum is rounded once.
"""

from itertools import product
from math import prod

from torch import Tensor

from ..._spatial.windows import every
from ..._torch.conv import MAX_AXES
from ..._torch.dtypes import wide
from ..cost import CALL, COPY, native_seconds
from ..problem import Geometry, Problem, leading
from .leading import pad_leading
from .native import native_conv
from .transposed import ByConvolutions


def shift_add_conv(x: Tensor, w: Tensor, bias: Tensor | None, g: Geometry) -> Tensor:
    """The convolution; traceable."""
    n, kernel, dtype = len(g.stride), tuple(w.shape[2:]), x.dtype
    lead = leading(n)
    # cuDNN's grouped kernels are slow in channels-last memory.
    last = x.device.type != "cuda" or g.groups == 1
    positions = g.outputs(tuple(x.shape[2:]), kernel)[:lead]
    x, rest = pad_leading(wide(x), g, lead, last)
    x = x.movedim(1, -1 if last else 1 + lead)
    w, bias = wide(w), None if bias is None else wide(bias)
    total, batch = None, (x.shape[0], *positions)
    for t in product(*map(range, kernel[:lead])):
        part, taps = x, w
        for axis, i in enumerate(t):
            start = i * g.dilation[axis]
            part = every(part, 1 + axis, start, g.stride[axis], positions[axis])
            taps = taps.select(2, i)
        part = part.reshape(prod(batch), *part.shape[1 + lead :])
        part = part.movedim(-1, 1) if last else part
        term = native_conv(part, taps, bias if total is None else None, rest)
        total = term if total is None else total + term
    assert total is not None
    return total.reshape(*batch, *total.shape[1:]).movedim(1 + lead, 1).to(dtype)


class ShiftAdd(ByConvolutions):
    """For the leading axes beyond the last three, at least one."""

    name = "shift_add"
    old_name = "taps"

    def applies(self, p: Problem) -> bool:
        return len(p.kernel) > 1 and p.op != "weight"

    def considered(self, p: Problem) -> bool:
        return len(p.kernel) > MAX_AXES and p.op == "conv"

    def workspace(self, p: Problem) -> int:
        return super().workspace(p) if p.op == "transpose" else 2 * p.result_bytes

    def seconds(self, p: Problem) -> float:
        if p.op == "transpose":
            return super().seconds(p)
        n = len(p.kernel)
        each = CALL + p.result_bytes / COPY
        return 6 * CALL + native_seconds(p, (1,) * n) + prod(p.kernel[: leading(n)]) * each

    def conv(self, p: Problem, x: Tensor, w: Tensor, bias: Tensor | None) -> Tensor:
        return shift_add_conv(x, w, bias, p.geometry)


ALGORITHM = ShiftAdd()
