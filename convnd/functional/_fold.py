"""The public functions of unfold, fold and pixel shuffles: argument checks and dispatch."""

from collections.abc import Sequence
from math import prod
from typing import Any

from torch import Tensor

from .._fx import leaf_function
from .._spatial import fold as algorithm
from .._spatial.windows import Windows
from .._spatial.windows import output_size as window_count
from ..arguments import PerAxis, batched, per_axis, rank, tensor


def _windows(n: int, kernel_size: Any, dilation: Any, padding: Any, stride: Any) -> Windows:
    return Windows(
        per_axis(kernel_size, n, "kernel_size"),
        per_axis(stride, n, "stride"),
        per_axis(padding, n, "padding", 0),
        per_axis(dilation, n, "dilation"),
    )


def _counts(sizes: Sequence[int], windows: Windows) -> tuple[int, ...]:
    counts = tuple(
        window_count(size, k, s, p, d, False) for size, k, s, p, d in zip(sizes, *windows, strict=True)
    )
    if min(counts) < 1:
        raise ValueError(
            f"kernel_size must fit into the padded input on every axis: size {tuple(sizes)} with padding "
            f"{windows.padding} is shorter than kernel_size {windows.kernel} with dilation {windows.dilation}"
        )
    return counts


@leaf_function
def unfold(
    input: Tensor,
    kernel_size: PerAxis,
    dilation: PerAxis = 1,
    padding: PerAxis = 0,
    stride: PerAxis = 1,
    *,
    spatial_dims: int | None = None,
) -> Tensor:
    """Extract the entries of every window as a column (im2col).

    Args:
        input: ``(N, C, *spatial)`` or ``(C, *spatial)``; padding is with zeros.
        kernel_size, dilation, padding, stride: int, or one per axis.
        spatial_dims: number of axes, where no argument tells; ``input.ndim - 2`` by default.

    Returns:
        ``(N, C * prod(kernel_size), L)``: L windows in row-major order.

    Raises:
        ValueError, TypeError: naming the argument, the rule and the value received.

    >>> import torch
    >>> import convnd.functional as F
    >>> F.unfold(torch.randn(1, 3, 4, 4, 4, 4), 2, stride=2).shape
    torch.Size([1, 48, 16])
    """
    n = rank(spatial_dims, input, kernel_size, dilation, padding, stride)
    x, has_batch = batched(input, n)
    windows = _windows(n, kernel_size, dilation, padding, stride)
    if min(x.shape[2:]) < 1:
        raise ValueError(f"input must not be empty along a spatial axis, got shape {tuple(input.shape)}")
    _counts(x.shape[2:], windows)
    out = algorithm.unfold(x, windows)
    return out if has_batch else out.squeeze(0)


@leaf_function
def fold(
    input: Tensor,
    output_size: PerAxis,
    kernel_size: PerAxis,
    dilation: PerAxis = 1,
    padding: PerAxis = 0,
    stride: PerAxis = 1,
    *,
    spatial_dims: int | None = None,
) -> Tensor:
    """Sum columns into a tensor (col2im): the adjoint of :func:`unfold`.

    Args:
        input: ``(N, C * prod(kernel_size), L)`` or without N.
        output_size: spatial size of the output, one int per axis. As in torch, one int for all axes is
            allowed; their number is then ``spatial_dims``, or that of an argument given per axis, or two.
        kernel_size, dilation, padding, stride: those of the unfolding.
        spatial_dims: number of axes, where no argument tells.

    Returns:
        ``(N, C, *output_size)``.

    Raises:
        ValueError, TypeError: naming the argument, the rule and the value received.

    >>> import torch
    >>> import convnd.functional as F
    >>> columns = F.unfold(torch.ones(1, 3, 4, 4, 4, 4), 2, stride=2)
    >>> bool((F.fold(columns, (4, 4, 4, 4), 2, stride=2) == 1).all())
    True
    """
    lengths = (output_size, kernel_size, dilation, padding, stride)
    told = spatial_dims is not None or any(isinstance(a, Sequence) and len(a) > 1 for a in lengths)
    n = rank(spatial_dims, input, *lengths) if told else 2
    if tensor(input).ndim not in (2, 3):
        raise ValueError(f"input must be (N, C * taps, L) or (C * taps, L), got shape {tuple(input.shape)}")
    x, has_batch = (input, True) if input.ndim == 3 else (input.unsqueeze(0), False)
    sizes = per_axis(output_size, n, "output_size")
    windows = _windows(n, kernel_size, dilation, padding, stride)
    counts = _counts(sizes, windows)
    if x.shape[1] % prod(windows.kernel) or x.shape[2] != prod(counts):
        raise ValueError(
            f"input must be (N, C * {prod(windows.kernel)}, {prod(counts)}) for output_size {sizes} and "
            f"kernel_size {windows.kernel}, got shape {tuple(input.shape)}"
        )
    out = algorithm.fold(x, sizes, counts, windows)
    return out if has_batch else out.squeeze(0)


@leaf_function
def pixel_shuffle(input: Tensor, upscale_factor: PerAxis, *, spatial_dims: int | None = None) -> Tensor:
    """Rearrange channels into resolution (Shi et al. 2016).

    Args:
        input: ``(N, C * prod(upscale_factor), *spatial)``; with ``spatial_dims`` any leading axes.
        upscale_factor: int, or one per axis.
        spatial_dims: number of axes, where no argument tells; ``input.ndim - 2`` by default.

    Returns:
        ``(N, C, *(spatial * upscale_factor))``.

    Raises:
        ValueError, TypeError: naming the argument, the rule and the value received.

    >>> import torch
    >>> import convnd.functional as F
    >>> F.pixel_shuffle(torch.randn(1, 16, 2, 2, 2, 2), 2).shape
    torch.Size([1, 1, 4, 4, 4, 4])
    """
    n = rank(spatial_dims, input, upscale_factor)
    factors = per_axis(upscale_factor, n, "upscale_factor")
    if n < 1 or input.ndim < n + 1:
        raise ValueError(
            f"input must be (*, C, *spatial) with {n} spatial axes, got shape {tuple(input.shape)}"
        )
    if input.shape[-n - 1] % prod(factors):
        raise ValueError(
            f"input must have channels divisible by {prod(factors)} = prod(upscale_factor), "
            f"got {input.shape[-n - 1]} in shape {tuple(input.shape)}"
        )
    return algorithm.pixel_shuffle(input, factors)


@leaf_function
def pixel_unshuffle(input: Tensor, downscale_factor: PerAxis, *, spatial_dims: int | None = None) -> Tensor:
    """Rearrange resolution into channels: the inverse of :func:`pixel_shuffle`.

    Args:
        input: ``(N, C, *(spatial * downscale_factor))``; with ``spatial_dims`` any leading axes.
        downscale_factor: int, or one per axis; it must divide the axes.
        spatial_dims: number of axes, where no argument tells; ``input.ndim - 2`` by default.

    Returns:
        ``(N, C * prod(downscale_factor), *spatial)``.

    Raises:
        ValueError, TypeError: naming the argument, the rule and the value received.

    >>> import torch
    >>> import convnd.functional as F
    >>> F.pixel_unshuffle(torch.randn(1, 1, 4, 4, 4, 4), 2).shape
    torch.Size([1, 16, 2, 2, 2, 2])
    """
    n = rank(spatial_dims, input, downscale_factor)
    factors = per_axis(downscale_factor, n, "downscale_factor")
    if n < 1 or input.ndim < n + 1:
        raise ValueError(
            f"input must be (*, C, *spatial) with {n} spatial axes, got shape {tuple(input.shape)}"
        )
    if any(size % f for size, f in zip(input.shape[-n:], factors, strict=True)):
        raise ValueError(
            f"downscale_factor must divide every spatial axis, got {factors} for shape {tuple(input.shape)}"
        )
    return algorithm.pixel_unshuffle(input, factors)
