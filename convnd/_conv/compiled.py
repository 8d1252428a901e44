"""The three bilinear maps, each as one operator of a compiled graph, where compilers fail on the composition.

Beyond three axes they would have to work out how products of a dozen varying sizes divide each other
(minutes, or an error: torch 2.13). Instead they see one operator, which like an eager call chooses its
algorithm at run time and saves the same tensors for the gradients.
"""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from .._torch.conv import MAX_AXES
from .._torch.eager import varying
from .._torch.memory import empty, in_layout
from ..arguments import Ints
from .execution import execute
from .problem import GRADIENTS, Geometry, Op, after_padding, before_padding, rows_and_columns


def _channels_last(op: str, a: Tensor) -> bool:
    """The layout of the result: up to three axes that of torch's kernels, beyond as in eager calls."""
    return op != "weight" and a.ndim - 2 > MAX_AXES


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
    return in_layout(out, _channels_last(op, a))  # the strides that are declared below


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
    return empty(a, (*rows_and_columns(op, a, b, groups), *sizes), _channels_last(op, a))


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


def needs_one_operator(sizes: Ints) -> bool:
    """True if a compiler may fail on the convolution over axes of these sizes as torch writes it.

    Where axes vary the sizes of torch's result may be sums, such as ``(size - 1) // 2 + 1``. To put strides
    in order inductor compares their products, over two such axes and more, which fails (torch 2.13, on
    torch's own layers too: pytorch/pytorch#188422). The result of one operator has the sizes that it is
    given, and those of :meth:`.problem.Geometry.outputs` are no sums.
    """
    return len(sizes) > MAX_AXES or varying(sizes) > 1


def compiled(op: Op, a: Tensor, b: Tensor, bias: Tensor | None, g: Geometry, sizes: Ints) -> Tensor:
    """The same as :func:`.execution.execute`, in a graph that is being compiled."""
    a, inner_bias, zeros, inside = before_padding(op, a, bias, g, sizes)
    before, after = zip(*zeros.pads, strict=True)
    out: Tensor = _operator(
        op, a, b, inner_bias, zeros.stride, before, after, zeros.dilation, zeros.groups, inside
    )
    return after_padding(op, out, bias, g)
