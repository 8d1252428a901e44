"""Public convolution and transposed convolution: arguments checked, then the algorithm."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from .._algorithms import native, settings
from .._algorithms.bilinear import autocast, served, torch_is_best
from .._algorithms.eager import autocasting, eager
from .._algorithms.geometry import Geometry
from .._algorithms.pad import check_fits
from .._algorithms.transpose import native_arguments
from .._fx import leaf_function
from ..arguments import (
    Ints,
    Padding,
    Pairs,
    PerAxis,
    batched,
    exact,
    integer,
    padding_modes,
    padding_rule,
    per_axis,
    same_padding,
)

Shape = tuple[int, ...]


def _check_dtypes(input: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    dtype = input.dtype
    if not (dtype.is_floating_point or dtype.is_complex or dtype in native.INTEGERS):
        raise TypeError(f"input must be a floating-point, complex or integer tensor, got dtype {dtype}")
    if weight.dtype is dtype and (bias is None or bias.dtype is dtype):
        return
    for name, other in (("weight", weight), ("bias", bias)):
        if other is not None and other.dtype != dtype and not autocasting(input.device.type):
            raise TypeError(f"{name} must have the dtype of input, {dtype}, got {other.dtype}")


def _check_shapes(input: Shape, weight: Shape, bias: Shape | None, transposed: bool, groups: int) -> None:
    """Channels and groups; ``input`` is batched."""
    integer(groups, "groups")
    if min(weight[2:]) < 1:
        raise ValueError(f"weight must have at least one entry on every spatial axis, got shape {weight}")
    if weight[0] % groups:
        which = "in_channels" if transposed else "out_channels"
        raise ValueError(f"groups must divide {which} = weight.shape[0] = {weight[0]}, got {groups}")
    channels = weight[0] if transposed else weight[1] * groups
    if input[1] != channels:
        raise ValueError(
            f"input must have {channels} channels for weight of shape {weight} and "
            f"groups={groups}, got {input[1]} in shape {input}"
        )
    outputs = weight[1] * groups if transposed else weight[0]
    if bias is not None and bias != (outputs,):
        raise ValueError(f"bias must have shape ({outputs},), got {bias}")


def prepared(
    transposed: bool, input: Tensor, weight: Tensor, bias: Tensor | None, *arguments: Any
) -> tuple[Tensor, bool, Geometry, Ints]:
    """The batched input, whether it was batched, the geometry, and the spatial sizes of the result."""
    if not isinstance(weight, Tensor):
        raise TypeError(f"weight must be a torch.Tensor, got {type(weight).__name__}")
    if weight.ndim < 3:
        raise ValueError(f"weight must have at least one spatial axis, got shape {tuple(weight.shape)}")
    x, has_batch = batched(input, weight.ndim - 2)
    _check_dtypes(x, weight, bias)
    shapes = x.shape, weight.shape, None if bias is None else bias.shape
    check = _known_call if eager(x, weight) and all(map(exact, arguments)) else _call
    return x, has_batch, *check(transposed, *shapes, *arguments)


def _call(
    transposed: bool,
    input: Shape,
    weight: Shape,
    bias: Shape | None,
    stride: PerAxis,
    padding: Padding,
    dilation: PerAxis,
    groups: int,
    output_padding: PerAxis,
    padding_mode: str | Sequence[str],
) -> tuple[Geometry, Ints]:
    input, weight = tuple(input), tuple(weight)
    kernel = weight[2:]
    n = len(kernel)
    strides, dilations = per_axis(stride, n, "stride"), per_axis(dilation, n, "dilation")
    extra = per_axis(output_padding, n, "output_padding", 0)
    _check_shapes(input, weight, None if bias is None else tuple(bias), transposed, groups)
    pads, modes = padding_rule(padding, n), padding_modes(padding_mode, n)
    if transposed:
        pads, sizes = _transposed_sizes(input[2:], kernel, strides, pads, dilations, extra)
        padded = sizes
    else:
        pads, sizes = _conv_sizes(input[2:], kernel, strides, pads, dilations)
        padded = input[2:]
    if all(m == "zeros" or not any(p) for m, p in zip(modes, pads, strict=True)):
        return Geometry(strides, pads, dilations, groups), sizes
    check_fits(padded, pads, modes, "padding")
    return Geometry(strides, pads, dilations, groups, modes), sizes


_known_call = lru_cache(maxsize=4096, typed=True)(_call)


def _conv_sizes(
    sizes: Ints, kernel: Ints, stride: Ints, pads: str | Pairs, dilation: Ints
) -> tuple[Pairs, Ints]:
    same = isinstance(pads, str)
    if isinstance(pads, str):
        pads = tuple(map(same_padding, sizes, kernel, stride, dilation))
    for axis, (size, k, d, (a, b)) in enumerate(zip(sizes, kernel, dilation, pads, strict=True)):
        if size < 1 or (not same and d * (k - 1) + 1 > size + a + b):
            raise ValueError(
                f"input must be at least as long as the dilated kernel on every axis: spatial axis {axis} "
                f"of size {size} padded by {(a, b)} is shorter than kernel {k} with dilation {d}"
            )
    return pads, Geometry(stride, pads, dilation, 1).outputs(sizes, kernel)


def _transposed_sizes(
    counts: Ints, kernel: Ints, stride: Ints, pads: str | Pairs, dilation: Ints, extra: Ints
) -> tuple[Pairs, Ints]:
    for axis, (e, s, d) in enumerate(zip(extra, stride, dilation, strict=True)):
        if e >= max(s, d):
            raise ValueError(
                f"output_padding must be less than stride or dilation, got {e} on spatial axis {axis} "
                f"with stride {s} and dilation {d}"
            )
    if isinstance(pads, str):
        pads = tuple(map(same_padding, (0,) * len(stride), kernel, stride, dilation))  # of any multiple
        sizes = tuple(i * s for i, s in zip(counts, stride, strict=True))
    else:
        rows = zip(counts, stride, pads, dilation, kernel, extra, strict=True)
        sizes = tuple((i - 1) * s - sum(p) + d * (k - 1) + e + 1 for i, s, p, d, k, e in rows)
    if min(counts) < 1 or min(sizes) < 1:
        raise ValueError(
            f"padding must leave at least one entry on every axis: input of size {counts} with "
            f"kernel {kernel} and padding {pads} would give {sizes}"
        )
    return pads, sizes


@lru_cache(maxsize=4096, typed=True)
def _straight(
    transposed: bool,
    input: Shape,
    weight: Shape,
    bias: Shape | None,
    dtype: torch.dtype,
    device: str,
    by_input: bool,
    by_weight: bool,
    *arguments: Any,
) -> tuple[Any, ...] | None:
    """What torch's kernel is called with where it is the best, for the gradients as well, or None."""
    n = len(weight) - 2
    if not 1 <= n <= native.MAX_AXES or len(input) not in (n + 1, n + 2):
        return None
    input = input if len(input) == n + 2 else (1, *input)
    g, sizes = _call(transposed, input, weight, bias, *arguments)
    op = "transpose" if transposed else "conv"
    alike = g.modes is None and all(a == b for a, b in g.pads)
    if not alike or not torch_is_best(op, input, weight, g, sizes, dtype, device, by_input, by_weight):
        return None
    if transposed:
        return g.stride, *native_arguments(input[2:], weight[2:], g, sizes), g.groups, g.dilation
    return g.stride, tuple(a for a, _ in g.pads), g.dilation, g.groups


def _served(transposed: bool, input: Tensor, weight: Tensor, bias: Tensor | None, *arguments: Any) -> Tensor:
    # Python that runs beside kernels, in cold caches, costs several times what it seems to: short calls to
    # torch's kernels are decided by one look-up.
    if eager(input, weight) and not settings.asked() and all(map(exact, arguments)):
        _check_dtypes(input, weight, bias)
        input, weight, bias = autocast(input, weight, bias)
        recorded = torch.is_grad_enabled()
        flags = recorded and input.requires_grad, recorded and weight.requires_grad
        shapes = input.shape, weight.shape, None if bias is None else bias.shape
        direct = _straight(transposed, *shapes, input.dtype, input.device.type, *flags, *arguments)
        if direct is not None:
            kernel = native.conv_transpose if transposed else native.conv
            return kernel(input, weight, bias, *direct)
    x, has_batch, g, sizes = prepared(transposed, input, weight, bias, *arguments)
    out = served("transpose" if transposed else "conv", x, weight, bias, g, sizes)
    return out if has_batch else out.squeeze(0)


@leaf_function
def conv(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: PerAxis = 1,
    padding: Padding = 0,
    dilation: PerAxis = 1,
    groups: int = 1,
    *,
    padding_mode: str | Sequence[str] = "zeros",
) -> Tensor:
    r"""Convolution (cross-correlation) over as many axes as the weight has.

    .. math:: out[n, c, o] = bias[c] + \sum_{c', t} weight[c, c', t] \, input[n, c', o s + t d - p]

    Args:
        input: ``(N, C, *spatial)`` or ``(C, *spatial)``, floating-point, complex or integer; integers wrap
            around on overflow. Batch and channels may be empty: a sum over no channels is the bias.
        weight: ``(O, C / groups, *kernel)``; its number of axes is that of the convolution.
        bias: ``(O,)`` or None.
        stride, dilation: int, or one per axis.
        padding: int, one int per axis, one ``(before, after)`` pair per axis, ``"valid"`` (none) or
            ``"same"`` (output size ``ceil(size / stride)``, the odd one after).
        groups: channels are split into this many independent convolutions.
        padding_mode: ``"zeros"``, ``"reflect"``, ``"replicate"`` or ``"circular"``, or one per axis.

    Returns:
        ``(N, O, *out)`` with ``out = (size + before + after - dilation * (kernel - 1) - 1) // stride + 1``.

    Raises:
        ValueError, TypeError: naming the argument, the rule and the value received.

    >>> import torch
    >>> import convnd.functional as F
    >>> F.conv(torch.randn(1, 3, 8, 8, 8, 8), torch.randn(16, 3, 3, 3, 3, 3), padding="same").shape
    torch.Size([1, 16, 8, 8, 8, 8])
    """
    return _served(False, input, weight, bias, stride, padding, dilation, groups, 0, padding_mode)


@leaf_function
def conv_transpose(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: PerAxis = 1,
    padding: Padding = 0,
    output_padding: PerAxis = 0,
    groups: int = 1,
    dilation: PerAxis = 1,
    *,
    padding_mode: str | Sequence[str] = "zeros",
) -> Tensor:
    r"""Transposed convolution: the adjoint of :func:`conv` with the same weight and arguments.

    .. math:: out[n, c, i s + t d - p] \mathrel{+}= weight[c', c, t] \, input[n, c', i]

    Args:
        input: ``(N, C, *spatial)`` or ``(C, *spatial)``, as in :func:`conv`.
        weight: ``(C, O / groups, *kernel)``.
        bias: ``(O,)`` or None.
        stride, dilation: int, or one per axis.
        padding: as in :func:`conv`, whose adjoint this is; ``"same"`` gives ``size * stride``.
        output_padding: entries added after each axis, less than stride or dilation.
        groups: channels are split into this many independent convolutions.
        padding_mode: as in :func:`conv`; what the padded convolution read twice is added up.

    Returns:
        ``(N, O, *out)`` with ``out = (size - 1) * stride - before - after + dilation * (kernel - 1)
        + output_padding + 1``.

    Raises:
        ValueError, TypeError: naming the argument, the rule and the value received.

    >>> import torch
    >>> import convnd.functional as F
    >>> F.conv_transpose(torch.randn(1, 16, 4, 4, 4, 4), torch.randn(16, 3, 2, 2, 2, 2), stride=2).shape
    torch.Size([1, 3, 8, 8, 8, 8])
    """
    return _served(True, input, weight, bias, stride, padding, dilation, groups, output_padding, padding_mode)


def transposed_same(
    inputs: Sequence[int],
    outputs: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
) -> tuple[tuple[tuple[int, int], ...], tuple[int, ...]]:
    """Padding and output padding that make ``"same"`` the adjoint of a "same" convolution."""
    pads = tuple(map(same_padding, outputs, kernel, stride, dilation))
    reach = (
        (i - 1) * s + d * (k - 1) + 1 for i, k, s, d in zip(inputs, kernel, stride, dilation, strict=True)
    )
    return pads, tuple(o + sum(p) - r for o, p, r in zip(outputs, pads, reach, strict=True))
