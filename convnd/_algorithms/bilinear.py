r"""The derivatives of the three bilinear maps are the three maps again.

With ``<y, conv(x, w)> = <x, transpose(y, w)> = <w, weight(x, y)>``, the gradient of each map by one of
its operands is another of them: every order of derivative exists, each pass has its own best algorithm,
and what a convolution keeps for its gradients is its input, once, and its weight.
"""

from typing import Any

import torch
from torch import Tensor

from ..arguments import Ints
from . import native, plan, problems, settings
from .compiled import compiled
from .eager import autocasting, compiling, eager
from .geometry import Geometry
from .problems import GRADIENTS, Op
from .run import bilinear, composed, problem, problem_of


class _Bilinear(torch.autograd.Function):
    """For eager tensors in reverse mode: all else sees the plain composition."""

    @staticmethod
    def forward(
        ctx: Any,
        a: Tensor,
        b: Tensor,
        bias: Tensor | None,
        op: Op,
        g: Geometry,
        sizes: Ints,
        forced: str | None,
    ) -> Tensor:
        ctx.op, ctx.g, ctx.forced = op, g, forced
        ctx.save_for_backward(a, b)
        return bilinear(op, a, b, bias, g, sizes, forced)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (grad,), operands, needed = grads, ctx.saved_tensors, ctx.needs_input_grad
        by_a, by_b = (_gradient(ctx, i, operands, grad) if needed[i] else None for i in range(2))
        by_bias = grad.sum((0, *range(2, grad.ndim))) if needed[2] else None
        return by_a, by_b, by_bias, None, None, None, None


def _gradient(ctx: Any, operand: int, operands: tuple[Tensor, Tensor], grad: Tensor) -> Tensor:
    op, first, second = GRADIENTS[ctx.op, operand]
    tensors = operands[0].conj(), operands[1].conj(), grad
    a, b, sizes = tensors[first], tensors[second], tuple(operands[operand].shape[2:])
    if not eager(a, b):  # the gradient may be traced or dual though the call was not
        return composed(op, a, b, None, ctx.g, sizes)
    return _differentiable(op, a, b, None, ctx.g, sizes, ctx.forced)


def _differentiable(
    op: Op, a: Tensor, b: Tensor, bias: Tensor | None, g: Geometry, sizes: Ints, forced: str | None
) -> Tensor:
    """One of the maps of eager tensors, with its derivatives."""
    tensors = (a, b) if bias is None else (a, b, bias)
    if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
        out: Tensor = _Bilinear.apply(a, b, bias, op, g, sizes, forced)
        return out
    return bilinear(op, a, b, bias, g, sizes, forced)


def served(op: Op, a: Tensor, b: Tensor, bias: Tensor | None, g: Geometry, sizes: Ints) -> Tensor:
    """``conv(x, w)`` or ``transpose(y, w)`` of batched tensors, whose result has spatial ``sizes``."""
    a, b, bias = autocast(a, b, bias)
    if not (eager(a, b) if bias is None else eager(a, b, bias)):
        whole = len(sizes) > native.MAX_AXES and compiling()
        return (compiled if whole else composed)(op, a, b, bias, g, sizes)
    forced = settings.forced.get()
    if not settings.asked() and _torch_serves(op, a, b, g, sizes):
        return composed(op, a, b, bias, g, sizes)
    if forced is not None and not problems.applies(problem(op, a, b, g, sizes), forced):
        kind = "convolution" if op == "conv" else "transposed convolution"
        raise ValueError(f"algorithm {forced!r} does not apply to this {kind} over {len(sizes)} axes")
    return _differentiable(op, a, b, bias, g, sizes, forced)


def _torch_serves(op: Op, a: Tensor, b: Tensor, g: Geometry, sizes: Ints) -> bool:
    recorded = torch.is_grad_enabled()
    shapes = tuple(a.shape), tuple(b.shape)
    by_a, by_b = recorded and a.requires_grad, recorded and b.requires_grad
    return torch_is_best(op, *shapes, g, sizes, a.dtype, a.device.type, by_a, by_b)


def torch_is_best(
    op: Op,
    a: Ints,
    b: Ints,
    g: Geometry,
    sizes: Ints,
    dtype: torch.dtype,
    device: str,
    by_a: bool,
    by_b: bool,
) -> bool:
    """Whether torch's kernels are the best, also for the gradients by ``a`` and ``b``."""
    if len(sizes) > native.MAX_AXES or 0 in a or 0 in b:
        return False
    if device != "cpu":
        return True
    moved_over = a[-len(sizes) :] if op == "conv" else sizes
    if native.widens(dtype, device, moved_over, b[2:], g.stride, g.dilation):
        return False
    p = problem_of(op, a, b, g, sizes, dtype, device)
    if plan.small(p):
        return True
    if g.modes is not None:
        return False  # autograd would keep a padded copy
    ops: list[Op] = [op]
    if by_a:
        ops.append("transpose" if op == "conv" else "conv")
    if by_b:
        ops.append("weight")
    return all(plan.estimated_best(p._replace(op=op)) == "native" for op in ops)


def autocast(x: Tensor, w: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """The operands in the dtype that autocast asks for."""
    device = x.device.type
    if not autocasting(device) or x.dtype not in (torch.float32, *native.LOW_PRECISION):
        return x, w, bias
    dtype = torch.get_autocast_dtype(device)
    return x.to(dtype), w.to(dtype), None if bias is None else bias.to(dtype)
