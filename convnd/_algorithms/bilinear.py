r"""The derivatives of the three bilinear maps are the three maps again.

With ``<y, conv(x, w)> = <x, transpose(y, w)> = <w, weight(x, y)>``, the gradient of each map by one of
its operands is another of them: every order of derivative exists, each pass has its own best algorithm,
and what a convolution keeps for its gradients is its input, once, and its weight.
"""

from typing import Any

import torch
from torch import Tensor

from ..arguments import Ints
from . import native, plan, settings
from .eager import eager
from .geometry import Geometry
from .plan import Op
from .run import bilinear, composed, problem


class _Bilinear(torch.autograd.Function):
    """For eager tensors in reverse mode: all else sees the plain composition."""

    @staticmethod
    def forward(
        ctx: Any,
        op: Op,
        g: Geometry,
        sizes: Ints,
        forced: str | None,
        strict: bool,
        a: Tensor,
        b: Tensor,
        bias: Tensor | None,
    ) -> Tensor:
        ctx.op, ctx.g, ctx.sizes, ctx.forced = op, g, sizes, forced
        ctx.save_for_backward(a, b)
        return bilinear(op, a, b, bias, g, sizes, forced, strict)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (grad,), (a, b) = grads, ctx.saved_tensors
        need_a, need_b, need_bias = ctx.needs_input_grad[5:]
        grad_a = _gradient(ctx, 0, a, b, grad) if need_a else None
        grad_b = _gradient(ctx, 1, a, b, grad) if need_b else None
        grad_bias = grad.sum((0, *range(2, grad.ndim))) if need_bias else None
        return None, None, None, None, None, grad_a, grad_b, grad_bias


# For each map and operand: the map that gives its gradient, and that map's operands.
_GRADIENTS: dict[tuple[Op, int], tuple[Op, tuple[str, str]]] = {
    ("conv", 0): ("transpose", ("grad", "b")),
    ("conv", 1): ("weight", ("a", "grad")),
    ("transpose", 0): ("conv", ("grad", "b")),
    ("transpose", 1): ("weight", ("grad", "a")),
    ("weight", 0): ("transpose", ("b", "grad")),
    ("weight", 1): ("conv", ("a", "grad")),
}


def _gradient(ctx: Any, operand: int, a: Tensor, b: Tensor, grad: Tensor) -> Tensor:
    op, names = _GRADIENTS[ctx.op, operand]
    tensors = {"a": a.conj(), "b": b.conj(), "grad": grad}
    sizes = tuple((a, b)[operand].shape[2:])
    return mapped(op, ctx.g, sizes, ctx.forced, tensors[names[0]], tensors[names[1]])


def mapped(
    op: Op,
    g: Geometry,
    sizes: Ints,
    forced: str | None,
    a: Tensor,
    b: Tensor,
    bias: Tensor | None = None,
    strict: bool = False,
) -> Tensor:
    """One of the maps, with its derivatives; a plain composition where these are left to autograd."""
    tensors = (a, b) if bias is None else (a, b, bias)
    if not eager(*tensors):
        return composed(op, g, sizes, a, b, bias)
    if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
        return _Bilinear.apply(op, g, sizes, forced, strict, a, b, bias)  # type: ignore[no-any-return]
    return bilinear(op, a, b, bias, g, sizes, forced, strict)


def convolve(x: Tensor, w: Tensor, bias: Tensor | None, g: Geometry, sizes: Ints) -> Tensor:
    """Convolution of batched tensors, whose result has spatial ``sizes``."""
    return _served("conv", x, w, bias, g, sizes)


def convolve_transposed(y: Tensor, w: Tensor, bias: Tensor | None, g: Geometry, sizes: Ints) -> Tensor:
    """Transposed convolution of batched tensors: the entries of the adjoint at ``sizes`` positions."""
    return _served("transpose", y, w, bias, g, sizes)


def _served(op: Op, a: Tensor, b: Tensor, bias: Tensor | None, g: Geometry, sizes: Ints) -> Tensor:
    few_axes = len(sizes) <= native.MAX_AXES
    if not eager(a, b, *(() if bias is None else (bias,))):
        if not few_axes:
            a, b, bias = _autocast(a, b, bias)
        return composed(op, g, sizes, a, b, bias)
    forced = settings.forced.get()
    if few_axes and forced is None and not settings.benchmarking and _torch_serves(op, a, b, g, sizes):
        return composed(op, g, sizes, a, b, bias)
    a, b, bias = _autocast(a, b, bias)
    return mapped(op, g, sizes, forced, a, b, bias, True)


def _torch_serves(op: Op, a: Tensor, b: Tensor, g: Geometry, sizes: Ints) -> bool:
    """Whether torch's kernels are the best for up to three axes, forward and backward."""
    if a.device.type != "cpu" or a.numel() < plan.FEW_POSITIONS:
        return True
    if g.modes is not None:
        return False  # autograd would keep a padded copy
    p = problem(op, a, b, g, sizes)
    ops: list[Op] = [op]
    if torch.is_grad_enabled():
        if a.requires_grad:
            ops.append("transpose" if op == "conv" else "conv")
        if b.requires_grad:
            ops.append("weight")
    return all(plan.estimated_best(p._replace(op=op)) == "native" for op in ops)


def _autocast(x: Tensor, w: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """The operands in the dtype that autocast asks for."""
    device = x.device.type
    if not (torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)):
        return x, w, bias
    dtype = torch.get_autocast_dtype(device)
    if x.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        return x, w, bias
    return x.to(dtype), w.to(dtype), None if bias is None else bias.to(dtype)
