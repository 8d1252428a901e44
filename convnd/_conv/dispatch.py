"""Decides from the arguments of a call how to compute it.

Python between kernels runs with cold caches and costs several times what a microbenchmark shows, so short
calls of torch's kernels are decided by a single look-up, keyed by everything the decision depends on.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._torch import conv as kernels
from .._torch.dtypes import LOW_PRECISION, is_numeric
from .._torch.eager import autocasting, compiling, eager
from .._torch.memory import usual_strides
from ..arguments import Ints, all_exact
from . import settings
from .algorithm import Algorithm
from .algorithms.native import ALGORITHM as NATIVE
from .algorithms.native import transpose_arguments
from .autograd import map_of
from .checks import Shape, geometry_of, prepared
from .compiled import compiled
from .composed import composed
from .cost import estimated_best, small
from .problem import Arguments, Geometry, Op, problem_of


class NativeCall(NamedTuple):
    """A call of one of torch's kernels, and which of its operands have axes of size 1."""

    kernel: Callable[..., Tensor]
    arguments: tuple[Any, ...]
    unit_axis_in_input: bool
    unit_axis_in_weight: bool


def torch_result(
    op: Op, input: Tensor, weight: Tensor, bias: Tensor | None, arguments: Arguments
) -> Tensor | None:
    """The result of torch's kernel with the least possible overhead; None if another way is needed."""
    if not eager(input, weight) or settings.benchmarking or settings.forced.get() is not None:
        return None
    if not all_exact(arguments):
        return None
    if torch._C._is_any_autocast_enabled():
        input, weight, bias = autocast(input, weight, bias)
    recorded = torch.is_grad_enabled()
    call = _native_call(
        op,
        input.shape,
        weight.shape,
        None if bias is None else bias.shape,
        (input.dtype, weight.dtype) if bias is None else (input.dtype, weight.dtype, bias.dtype),
        input.device,
        recorded and input.requires_grad,
        recorded and weight.requires_grad,
        arguments,
    )
    if call is None:
        return None
    kernel, values, unit_axis_in_input, unit_axis_in_weight = call
    weight = weight.contiguous()  # as in usual_weight
    if unit_axis_in_input:
        input = usual_strides(input)
    if unit_axis_in_weight:
        weight = usual_strides(weight)
    return kernel(input, weight, bias, *values)


@lru_cache(maxsize=4096)
def _native_call(
    op: Op,
    input: Shape,
    weight: Shape,
    bias: Shape | None,
    dtypes: tuple[torch.dtype, ...],
    device: torch.device,
    by_input: bool,
    by_weight: bool,
    arguments: Arguments,
) -> NativeCall | None:
    """The call of torch's kernel if it is the best choice, also for the gradients; otherwise None."""
    n = len(weight) - 2
    if not 1 <= n <= kernels.MAX_AXES or len(input) not in (n + 1, n + 2) or len(set(dtypes)) > 1:
        return None
    if not is_numeric(dtypes[0]):
        return None
    input = input if len(input) == n + 2 else (1, *input)
    g, sizes = geometry_of(op, input, weight, bias, arguments)
    if g.modes is not None or any(a != b for a, b in g.pads):
        return None
    moved_over, kernel = input[2:] if op == "conv" else sizes, weight[2:]
    if kernels.needs_wider_type(dtypes[0], device.type, moved_over, kernel, g.stride, g.dilation):
        return None
    if not _torch_is_best(op, input, weight, g, sizes, dtypes[0], device.type, by_input, by_weight):
        return None
    unit_axes = 1 in input[1:], 1 in weight[1:]
    if op == "transpose":
        padding, extra = transpose_arguments(input[2:], kernel, g, sizes)
        values = g.stride, padding, extra, g.groups, g.dilation
        return NativeCall(kernels.CONV_TRANSPOSE[n], values, *unit_axes)
    dilation = kernels.dilation_between_taps(g.dilation, kernel)
    values = g.stride, tuple(a for a, _ in g.pads), dilation, g.groups
    return NativeCall(kernels.CONV[n] if n > 1 else kernels.conv_one_axis, values, *unit_axes)


def convolve(op: Op, input: Tensor, weight: Tensor, bias: Tensor | None, arguments: Arguments) -> Tensor:
    """Check the arguments and compute a convolution (``"conv"``) or transposed one (``"transpose"``)."""
    x, has_batch, g, sizes = prepared(op, input, weight, bias, arguments)
    x, w, bias = autocast(x, weight, bias)
    if not (eager(x, w) if bias is None else eager(x, w, bias)):
        beyond = len(sizes) > kernels.MAX_AXES and compiling()
        out = (compiled if beyond else composed)(op, x, w, bias, g, sizes)
    else:
        forced = settings.forced.get()
        if forced is None and not settings.benchmarking and _torch_serves(op, x, w, g, sizes):
            out = composed(op, x, w, bias, g, sizes)
        else:
            _check_applies(forced, op, x, w, g, sizes)
            out = map_of(x, w, bias)(op, x, w, bias, g, sizes, forced)
    return out if has_batch else out.squeeze(0)


def _check_applies(forced: Algorithm | None, op: Op, a: Tensor, b: Tensor, g: Geometry, sizes: Ints) -> None:
    if forced is None:
        return
    p = problem_of(op, tuple(a.shape), tuple(b.shape), g, sizes, a.dtype, a.device.type)
    if not forced.applies(p):
        kind = "convolution" if op == "conv" else "transposed convolution"
        raise ValueError(f"algorithm {forced.name!r} does not apply to this {kind} over {len(sizes)} axes")


def _torch_serves(op: Op, a: Tensor, b: Tensor, g: Geometry, sizes: Ints) -> bool:
    recorded = torch.is_grad_enabled()
    shapes = tuple(a.shape), tuple(b.shape)
    by_a, by_b = recorded and a.requires_grad, recorded and b.requires_grad
    return _torch_is_best(op, *shapes, g, sizes, a.dtype, a.device.type, by_a, by_b)


def _torch_is_best(
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
    """True if torch's kernels are the best, also for the gradients of ``a`` and ``b``."""
    if len(sizes) > kernels.MAX_AXES or 0 in a or 0 in b:
        return False
    if device != "cpu":
        kernels.check_addressable(device, a[-len(sizes) :], sizes)
        return True
    moved_over = a[-len(sizes) :] if op == "conv" else sizes
    if kernels.needs_wider_type(dtype, device, moved_over, b[2:], g.stride, g.dilation):
        return False
    p = problem_of(op, a, b, g, sizes, dtype, device)
    if small(p):
        return True
    if g.modes is not None:
        return False  # autograd would keep a padded copy
    ops: list[Op] = [op]
    if by_a:
        ops.append("transpose" if op == "conv" else "conv")
    if by_b:
        ops.append("weight")
    return all(estimated_best(p._replace(op=op)) is NATIVE for op in ops)


def autocast(x: Tensor, w: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """The operands in autocast's dtype, if autocast is enabled."""
    device = x.device.type
    if not autocasting(device) or x.dtype not in (torch.float32, *LOW_PRECISION):
        return x, w, bias
    dtype = torch.get_autocast_dtype(device)
    return x.to(dtype), w.to(dtype), None if bias is None else bias.to(dtype)
