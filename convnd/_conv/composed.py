"""The three maps composed of torch's differentiable operators, for traced, transformed or dual tensors.

The algorithm depends only on rank, kernel and channels, so one trace serves every size; compilers, transforms
and forward mode see through it.
"""

from torch import Tensor

from .._torch.conv import MAX_AXES
from ..arguments import Ints
from .algorithms.im2col import im2col_conv
from .algorithms.native import native_conv, native_transpose
from .algorithms.shift_add import shift_add_conv
from .algorithms.transposed import polyphase_transpose, weight_by_convolution
from .problem import Geometry, Op, after_padding, before_padding, map_of_nothing


def composed(op: Op, a: Tensor, b: Tensor, bias: Tensor | None, g: Geometry, sizes: Ints) -> Tensor:
    """The same as :func:`.execution.execute`."""
    if 0 in b.shape:  # a is not asked: its batch and sizes may vary
        return map_of_nothing(op, a, b, bias, g, sizes)
    a, inner_bias, zeros, inside = before_padding(op, a, bias, g, sizes)
    if op == "conv":
        out = _conv(a, b, inner_bias, zeros)
    elif op == "weight":
        out = weight_by_convolution(a, b, zeros, inside, _conv)
    elif len(inside) <= MAX_AXES:
        out = native_transpose(a, b, inner_bias, zeros, inside)
    else:
        out = polyphase_transpose(a, b, inner_bias, zeros, inside, _conv)
    return after_padding(op, out, bias, g)


def _conv(x: Tensor, w: Tensor, bias: Tensor | None, g: Geometry) -> Tensor:
    if len(g.stride) <= MAX_AXES:
        return native_conv(x, w, bias, g)
    if 1 < g.groups == x.shape[1] == w.shape[0]:
        return shift_add_conv(x, w, bias, g)
    return im2col_conv(x, w, bias, g)
