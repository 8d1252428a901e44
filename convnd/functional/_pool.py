"""The public functions of pooling: argument checks and dispatch."""

from functools import lru_cache
from math import prod
from typing import Any

import torch
from torch import Tensor

from .._fx import leaf_function
from .._spatial import pool
from .._spatial.windows import Windows, output_size
from ..arguments import Ints, PerAxis, all_exact, batched, integer, per_axis, rank, require_floating


def _empty(stride: Any) -> bool:
    return isinstance(stride, (list, tuple)) and not stride  # in torch another way to leave it out


def _pool_arguments(
    input: Tensor,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    ceil_mode: bool,
    spatial_dims: Any,
) -> tuple[Tensor, bool, Windows]:
    n = rank(spatial_dims, input, kernel_size, stride, padding, dilation)
    x, has_batch = batched(input, n)
    arguments = tuple(x.shape[2:]), kernel_size, stride, padding, dilation
    if not torch.compiler.is_compiling() and all_exact(arguments):
        return x, has_batch, _known_windows(*arguments, bool(ceil_mode))
    return x, has_batch, _windows(*arguments, ceil_mode)


def _windows(
    sizes: Ints, kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool
) -> Windows:
    n = len(sizes)
    kernel = per_axis(kernel_size, n, "kernel_size")
    strides = kernel if stride is None or _empty(stride) else per_axis(stride, n, "stride")
    pads, dilations = per_axis(padding, n, "padding", 0), per_axis(dilation, n, "dilation")
    for axis, (size, k, s, p, d) in enumerate(zip(sizes, kernel, strides, pads, dilations, strict=True)):
        if 2 * p > k:
            raise ValueError(
                f"padding must be at most half of kernel_size, got {p} on spatial axis {axis} "
                f"with kernel_size {k}"
            )
        if size < 1 or output_size(size, k, s, p, d, ceil_mode) < 1:
            raise ValueError(
                f"kernel_size must fit into the padded input: spatial axis {axis} of size {size} with "
                f"padding {p} is shorter than kernel_size {k} with dilation {d}"
            )
    return Windows(kernel, strides, pads, dilations)


_known_windows = lru_cache(maxsize=4096)(_windows)


@leaf_function
def max_pool(
    input: Tensor,
    kernel_size: PerAxis,
    stride: PerAxis | None = None,
    padding: PerAxis = 0,
    dilation: PerAxis = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
    *,
    spatial_dims: int | None = None,
) -> Any:
    r"""Largest entry of each window.

    .. math:: out[n, c, o] = \max_t input[n, c, o s + t d - p]

    Args:
        input: ``(N, C, *spatial)`` or ``(C, *spatial)``; padding counts as minus infinity.
        kernel_size, stride, padding, dilation: int, or one per axis; stride is kernel_size by default.
        ceil_mode: also windows that reach past the end, if they start inside the input or its left pad.
        return_indices: also the position of each maximum, flat over the spatial axes.
        spatial_dims: number of axes, where no argument tells; ``input.ndim - 2`` by default.

    Returns:
        ``(N, C, *out)``, or a pair of it and its int64 indices, with
        ``out = (size + 2 * padding - dilation * (kernel_size - 1) - 1) // stride + 1``.

    Raises:
        ValueError, TypeError: naming the argument, the rule and the value received.

    >>> import torch
    >>> import convnd.functional as F
    >>> F.max_pool(torch.randn(1, 3, 8, 8, 8, 8), 2).shape
    torch.Size([1, 3, 4, 4, 4, 4])
    """
    x, has_batch, windows = _pool_arguments(
        input, kernel_size, stride, padding, dilation, ceil_mode, spatial_dims
    )
    if x.is_complex() or x.dtype == torch.bool:
        raise TypeError(f"input must be a real tensor, got dtype {x.dtype}")
    out = pool.max_pool(x, windows, ceil_mode, return_indices)
    out = out if has_batch else tuple(o.squeeze(0) for o in out)
    return out if return_indices else out[0]


@leaf_function
def avg_pool(
    input: Tensor,
    kernel_size: PerAxis,
    stride: PerAxis | None = None,
    padding: PerAxis = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    *,
    dilation: PerAxis = 1,
    spatial_dims: int | None = None,
) -> Tensor:
    r"""Mean of each window.

    .. math:: out[n, c, o] = \frac{1}{count} \sum_t input[n, c, o s + t d - p]

    Args:
        input: ``(N, C, *spatial)`` or ``(C, *spatial)``, floating-point, or int64, whose means are rounded
            towards zero.
        kernel_size, stride, padding: int, or one per axis; stride is kernel_size by default.
        ceil_mode: also windows that reach past the end, if they start inside the input or its left pad.
        count_include_pad: whether padding counts as entries of value zero.
        divisor_override: divide by this instead of the number of entries.
        dilation: int, or one per axis: distance between the entries of a window.
        spatial_dims: number of axes, where no argument tells; ``input.ndim - 2`` by default.

    Returns:
        ``(N, C, *out)`` with
        ``out = (size + 2 * padding - dilation * (kernel_size - 1) - 1) // stride + 1``.

    Raises:
        ValueError, TypeError: naming the argument, the rule and the value received.

    >>> import torch
    >>> import convnd.functional as F
    >>> F.avg_pool(torch.ones(1, 3, 8, 8, 8, 8), 3, stride=2, padding=1).shape
    torch.Size([1, 3, 4, 4, 4, 4])
    """
    x, has_batch, windows = _pool_arguments(
        input, kernel_size, stride, padding, dilation, ceil_mode, spatial_dims
    )
    if x.dtype != torch.int64:
        require_floating(x)
    if divisor_override is not None and integer(divisor_override, "divisor_override", None) == 0:
        raise ValueError("divisor_override must not be zero, got 0")
    out = pool.avg_pool(x, windows, ceil_mode, count_include_pad, divisor_override)
    return out if has_batch else out.squeeze(0)


def exponent(norm_type: Any) -> float:
    """Check the exponent of a power mean."""
    if not isinstance(norm_type, (int, float)):
        raise TypeError(f"norm_type must be a number, got {norm_type!r}")
    if norm_type == 0:
        raise ValueError("norm_type must not be zero, got 0")
    return norm_type


@leaf_function
def lp_pool(
    input: Tensor,
    norm_type: float,
    kernel_size: PerAxis,
    stride: PerAxis | None = None,
    ceil_mode: bool = False,
    *,
    padding: PerAxis = 0,
    dilation: PerAxis = 1,
    spatial_dims: int | None = None,
) -> Tensor:
    r"""Root of the sum of powers of each window.

    .. math:: out[n, c, o] = (\sum_t input[n, c, o s + t d - p]^{norm})^{1 / norm}

    As in torch, the powers are those of the entries, not of their magnitudes (except for infinite exponents).
    With an odd or fractional exponent, pass ``input.abs()`` to get the norm of each window. A root of a
    negative sum, or a fractional power of a negative entry, is NaN. Windows cut off by ``ceil_mode`` are
    scaled up to full ones.

    Args:
        input: ``(N, C, *spatial)`` or ``(C, *spatial)``, floating-point.
        norm_type: the exponent, not zero; infinity for the largest magnitude, -infinity for the smallest.
        kernel_size, stride, padding, dilation: int, or one per axis; stride is kernel_size by default.
        ceil_mode: also windows that reach past the end, if they start inside the input or its left pad.
        spatial_dims: number of axes, where no argument tells; ``input.ndim - 2`` by default.

    Returns:
        ``(N, C, *out)``, sizes as in :func:`avg_pool`.

    Raises:
        ValueError, TypeError: naming the argument, the rule and the value received.

    >>> import torch
    >>> import convnd.functional as F
    >>> F.lp_pool(torch.ones(1, 1, 2, 2, 2, 2), 2, 2).item()
    4.0
    """
    x, has_batch, windows = _pool_arguments(
        input, kernel_size, stride, padding, dilation, ceil_mode, spatial_dims
    )
    require_floating(x)
    exponent(norm_type)
    if abs(norm_type) == float("inf"):
        sign = 1 if norm_type > 0 else -1
        out = sign * pool.max_pool(sign * x.abs(), windows, ceil_mode, False)[0]
    else:
        mean = pool.avg_pool(x.pow(norm_type), windows, ceil_mode, True, None)
        total = (torch.sign(mean) * torch.relu(mean.abs())).mul(prod(windows.kernel))
        out = total.pow(1.0 / norm_type)
    return out if has_batch else out.squeeze(0)
