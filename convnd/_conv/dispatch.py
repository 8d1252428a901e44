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
from .compiled import compiled, needs_one_operator
from .composed import composed
from .cost import estimated_best, small
from .problem import GRADIENTS, Arguments, Geometry, Op, Problem, problem_of

Operands = tuple[bool, bool]  # True for the input and for the weight, if a gradient by it is wanted
NOT_RECORDED: Operands = (False, False)


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
    if bias is None:
        of_bias, dtypes = None, (input.dtype, weight.dtype)
    else:
        of_bias, dtypes = bias.shape, (input.dtype, weight.dtype, bias.dtype)
    by = (input.requires_grad, weight.requires_grad) if torch.is_grad_enabled() else NOT_RECORDED
    call = _native_call(op, input.shape, weight.shape, of_bias, dtypes, input.device, by, arguments)
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
    by: Operands,
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
    p = problem_of(op, input, weight, g, sizes, dtypes[0], device.type)
    if kernels.needs_wider_type(dtypes[0], p.device, p.sizes, p.kernel, g.stride, g.dilation):
        return None
    return NativeCall(*_kernel_of(p), 1 in input[1:], 1 in weight[1:]) if _torch_is_best(p, by) else None


def _kernel_of(p: Problem) -> tuple[Callable[..., Tensor], tuple[Any, ...]]:
    """torch's kernel, and its arguments other than tensors."""
    g, n = p.geometry, len(p.kernel)
    if p.op == "transpose":
        padding, extra = transpose_arguments(p.counts, p.kernel, g, p.sizes)
        return kernels.CONV_TRANSPOSE[n], (g.stride, padding, extra, g.groups, g.dilation)
    dilation = kernels.dilation_between_taps(g.dilation, p.kernel)
    kernel = kernels.CONV[n] if n > 1 else kernels.conv_one_axis
    return kernel, (g.stride, tuple(a for a, _ in g.pads), dilation, g.groups)


def convolve(op: Op, input: Tensor, weight: Tensor, bias: Tensor | None, arguments: Arguments) -> Tensor:
    """Check the arguments and compute a convolution (``"conv"``) or transposed one (``"transpose"``)."""
    x, has_batch, g, sizes = prepared(op, input, weight, bias, arguments)
    x, w, bias = autocast(x, weight, bias)
    if not (eager(x, w) if bias is None else eager(x, w, bias)):
        whole = compiling() and needs_one_operator(tuple(x.shape[2:]))
        out = (compiled if whole else composed)(op, x, w, bias, g, sizes)
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
    p = problem_of(op, tuple(a.shape), tuple(b.shape), g, sizes, a.dtype, a.device.type)
    window = p.sizes, p.kernel, g.stride, g.dilation
    if p.device == "cpu" and kernels.needs_wider_type(a.dtype, p.device, *window):
        return False
    return _torch_is_best(p, (a.requires_grad, b.requires_grad) if torch.is_grad_enabled() else NOT_RECORDED)


def _torch_is_best(p: Problem, by: Operands) -> bool:
    """True if torch's kernels are the best in this dtype, also for the gradients by some operands."""
    if len(p.kernel) > kernels.MAX_AXES or 0 in (p.batch, p.inputs, p.outputs):
        return False
    if p.device != "cpu":
        kernels.check_addressable(p.device, p.sizes, p.counts)
        return True
    if small(p):
        return True
    if p.geometry.modes is not None:
        return False  # autograd would keep a padded copy
    ops = [p.op, *(GRADIENTS[p.op, i][0] for i, wanted in enumerate(by) if wanted)]
    return all(estimated_best(p._replace(op=op)) is NATIVE for op in ops)


def autocast(x: Tensor, w: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """The operands in autocast's dtype, if autocast is enabled."""
    device = x.device.type
    if not autocasting(device) or x.dtype not in (torch.float32, *LOW_PRECISION):
        return x, w, bias
    dtype = torch.get_autocast_dtype(device)
    return x.to(dtype), w.to(dtype), None if bias is None else bias.to(dtype)
