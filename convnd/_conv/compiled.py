"""The three bilinear maps beyond three axes, each as one operator of a compiled graph.

If the compiler saw the composition of torch's operators, it would have to work out how products of a dozen
varying sizes divide each other (minutes, or an error: torch 2.13). Instead it sees one operator, which like
an eager call chooses its algorithm at run time and saves the same tensors for the gradients.
"""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from .._torch.memory import empty, in_layout
from ..arguments import Ints
from .execution import execute
from .problem import GRADIENTS, Geometry, Op, after_padding, before_padding, rows_and_columns


@torch.library.custom_op("convnd::bilinear", mutates_args=())
def _operator(
    op: str,
    a: Tensor,
    b: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    before: Sequence[int],
    after: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    sizes: Sequence[int],
) -> Tensor:
    pads = tuple(zip(before, after, strict=True))
    g = Geometry(tuple(stride), pads, tuple(dilation), groups)
    out = execute(cast(Op, op), a, b, bias, g, tuple(sizes))
    return in_layout(out, op != "weight")  # the strides that are declared below


@_operator.register_fake
def _(
    op: Op,
    a: Tensor,
    b: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    before: Sequence[int],
    after: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    sizes: Sequence[int],
) -> Tensor:
    return empty(a, (*rows_and_columns(op, a, b, groups), *sizes), op != "weight")


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    op, a, b, _, *arguments = inputs
    ctx.op, ctx.arguments = op, arguments
    ctx.save_for_backward(a, b)


def _backward(ctx: Any, grad: Tensor) -> Any:
    operands, needed = ctx.saved_tensors, ctx.needs_input_grad[1:4]
    by = [_gradient(ctx, i, operands, grad) if needed[i] else None for i in range(2)]
    by_bias = grad.sum((0, *range(2, grad.ndim))) if needed[2] else None
    return None, *by, by_bias, *(None for _ in ctx.arguments)


def _gradient(ctx: Any, operand: int, operands: tuple[Tensor, Tensor], grad: Tensor) -> Tensor:
    op, first, second = GRADIENTS[ctx.op, operand]
    tensors = operands[0].conj(), operands[1].conj(), grad
    *arguments, _ = ctx.arguments
    result: Tensor = _operator(
        op, tensors[first], tensors[second], None, *arguments, operands[operand].shape[2:]
    )
    return result


_operator.register_autograd(_backward, setup_context=_setup)


def compiled(op: Op, a: Tensor, b: Tensor, bias: Tensor | None, g: Geometry, sizes: Ints) -> Tensor:
    """The same as :func:`.execution.execute`, in a graph that is being compiled."""
    a, inner_bias, zeros, inside = before_padding(op, a, bias, g, sizes)
    before, after = zip(*zeros.pads, strict=True)
    out: Tensor = _operator(
        op, a, b, inner_bias, zeros.stride, before, after, zeros.dilation, zeros.groups, inside
    )
    return after_padding(op, out, bias, g)
