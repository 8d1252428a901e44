r"""The derivatives of the three bilinear maps are the three maps again.

Since ``<y, conv(x, w)> = <x, transpose(y, w)> = <w, weight(x, y)>``, the gradient of each map with respect to
an operand is another of the three maps: derivatives of every order exist, each pass has its own best
algorithm, and a convolution saves only its input (once) and its weight for the backward pass.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .._torch.eager import eager
from ..arguments import Ints
from .algorithm import Algorithm
from .composed import composed
from .execution import execute
from .problem import GRADIENTS, Geometry, Op


class _Bilinear(torch.autograd.Function):
    """Used for eager tensors in reverse mode; everything else sees the composition of torch's operators."""

    @staticmethod
    def forward(
        ctx: Any,
        op: Op,
        a: Tensor,
        b: Tensor,
        bias: Tensor | None,
        g: Geometry,
        sizes: Ints,
        forced: Algorithm | None,
    ) -> Tensor:
        ctx.op, ctx.g, ctx.forced = op, g, forced
        ctx.save_for_backward(a, b)
        return execute(op, a, b, bias, g, sizes, forced)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (grad,), operands, needed = grads, ctx.saved_tensors, ctx.needs_input_grad[1:4]
        by_a, by_b = (_gradient(ctx, i, operands, grad) if needed[i] else None for i in range(2))
        by_bias = grad.sum((0, *range(2, grad.ndim))) if needed[2] else None
        return None, by_a, by_b, by_bias, None, None, None


def _gradient(ctx: Any, operand: int, operands: tuple[Tensor, Tensor], grad: Tensor) -> Tensor:
    op, first, second = GRADIENTS[ctx.op, operand]
    tensors = operands[0].conj(), operands[1].conj(), grad
    a, b, sizes = tensors[first], tensors[second], tuple(operands[operand].shape[2:])
    if not eager(a, b):  # the gradient may be traced or dual though the call was not
        return composed(op, a, b, None, ctx.g, sizes)
    return map_of(a, b, None)(op, a, b, None, ctx.g, sizes, ctx.forced)


def map_of(a: Tensor, b: Tensor, bias: Tensor | None) -> Callable[..., Tensor]:
    """:func:`.execution.execute` for these eager tensors, with derivatives where they are needed."""
    tensors = (a, b) if bias is None else (a, b, bias)
    wanted = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
    return _Bilinear.apply if wanted else execute
