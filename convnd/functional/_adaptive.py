"""The public functions of adaptive and fractional pooling, and unpooling: argument checks and dispatch."""

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from .._fx import leaf_function
from .._spatial import pool
from ..arguments import Ints, PerAxis, batched, numbers, per_axis, rank, require_floating, tensor

Sizes = int | Sequence[int | None] | None


def sizes_or_none(output_size: Sizes, n: int) -> tuple[int | None, ...]:
    """One size per axis; None where the axis keeps its size."""
    if output_size is None or (isinstance(output_size, Sequence) and None in output_size):
        given = (None,) * n if output_size is None else tuple(output_size)
        given = given * n if len(given) == 1 else given
        known = per_axis([0 if size is None else size for size in given], n, "output_size", 0)
        return tuple(None if g is None else k for g, k in zip(given, known, strict=True))
    return per_axis(output_size, n, "output_size", 0)


def _output_sizes(input: Tensor, output_size: Sizes, spatial_dims: int | None) -> tuple[Tensor, bool, Ints]:
    n = rank(spatial_dims, input, output_size)
    x, has_batch = batched(input, n)
    if min(x.shape[2:]) < 1:
        raise ValueError(f"input must not be empty along a spatial axis, got shape {tuple(input.shape)}")
    given = sizes_or_none(output_size, n)
    return x, has_batch, tuple(i if o is None else o for i, o in zip(x.shape[2:], given, strict=True))


@leaf_function
def adaptive_avg_pool(input: Tensor, output_size: Sizes, *, spatial_dims: int | None = None) -> Tensor:
    r"""Mean over windows that divide each axis into ``output_size`` nearly equal parts.

    .. math:: out[o] = mean(input[\lfloor o n / size \rfloor : \lceil (o + 1) n / size \rceil])

    Args:
        input: ``(N, C, *spatial)`` or ``(C, *spatial)``, floating-point.
        output_size: int, or one per axis; None keeps an axis.
        spatial_dims: number of axes, where no argument tells; ``input.ndim - 2`` by default.

    Returns:
        ``(N, C, *output_size)``.

    Raises:
        ValueError, TypeError: naming the argument, the rule and the value received.

    >>> import torch
    >>> import convnd.functional as F
    >>> F.adaptive_avg_pool(torch.randn(1, 3, 7, 5, 6, 4), 2).shape
    torch.Size([1, 3, 2, 2, 2, 2])
    """
    x, has_batch, sizes = _output_sizes(input, output_size, spatial_dims)
    require_floating(x)
    out = pool.adaptive_avg_pool(x, sizes)
    return out if has_batch else out.squeeze(0)


@leaf_function
def adaptive_max_pool(
    input: Tensor, output_size: Sizes, return_indices: bool = False, *, spatial_dims: int | None = None
) -> Any:
    r"""Maximum over windows that divide each axis into ``output_size`` nearly equal parts.

    .. math:: out[o] = max(input[\lfloor o n / size \rfloor : \lceil (o + 1) n / size \rceil])

    Args:
        input: ``(N, C, *spatial)`` or ``(C, *spatial)``, floating-point.
        output_size: int, or one per axis; None keeps an axis.
        return_indices: also the position of each maximum, flat over the spatial axes.
        spatial_dims: number of axes, where no argument tells; ``input.ndim - 2`` by default.

    Returns:
        ``(N, C, *output_size)``, or a pair of it and its int64 indices.

    Raises:
        ValueError, TypeError: naming the argument, the rule and the value received.

    >>> import torch
    >>> import convnd.functional as F
    >>> F.adaptive_max_pool(torch.randn(1, 3, 7, 5, 6, 4), (1, None, 2, 3)).shape
    torch.Size([1, 3, 1, 5, 2, 3])
    """
    x, has_batch, sizes = _output_sizes(input, output_size, spatial_dims)
    require_floating(x)
    out = pool.adaptive_max_pool(x, sizes, return_indices)
    out = out if has_batch else tuple(o.squeeze(0) for o in out)
    return out if return_indices else out[0]


@leaf_function
def fractional_max_pool(
    input: Tensor,
    kernel_size: PerAxis,
    output_size: PerAxis | None = None,
    output_ratio: float | Sequence[float] | None = None,
    return_indices: bool = False,
    _random_samples: Tensor | None = None,
    *,
    spatial_dims: int | None = None,
) -> Any:
    """Maximum over windows that start at random, increasing positions (Graham 2014).

    Args:
        input: ``(N, C, *spatial)`` or ``(C, *spatial)``, floating-point.
        kernel_size: int, or one per axis.
        output_size: int, or one per axis; or give ``output_ratio``.
        output_ratio: output over input size, between 0 and 1, a number or one per axis.
        return_indices: also the position of each maximum, flat over the spatial axes.
        _random_samples: ``(N, C, axes)`` in [0, 1), used instead of drawing; in the order of the axes, except
            that with two axes the last one comes first, as in torch.
        spatial_dims: number of axes, where no argument tells; ``input.ndim - 2`` by default.

    Returns:
        ``(N, C, *output_size)``, or a pair of it and its int64 indices.

    Raises:
        ValueError, TypeError: naming the argument, the rule and the value received.

    >>> import torch
    >>> import convnd.functional as F
    >>> F.fractional_max_pool(torch.randn(1, 3, 7, 5, 6, 4), 2, output_ratio=0.5).shape
    torch.Size([1, 3, 3, 2, 3, 2])
    """
    n = rank(spatial_dims, input, kernel_size, output_size, output_ratio)
    x, has_batch = batched(input, n)
    require_floating(x)
    kernel = per_axis(kernel_size, n, "kernel_size")
    if (output_size is None) == (output_ratio is None):
        raise ValueError(
            "exactly one of output_size and output_ratio must be given, "
            f"got {output_size!r} and {output_ratio!r}"
        )
    if output_ratio is not None:
        output_size = _sizes_by_ratio(x, output_ratio)
    sizes = per_axis(output_size, n, "output_size")
    for axis, (size, k, o) in enumerate(zip(x.shape[2:], kernel, sizes, strict=True)):
        if k + o - 1 > size:
            raise ValueError(
                f"kernel_size + output_size - 1 must be at most the size of the input, got {k} and {o} on "
                f"spatial axis {axis} of size {size}"
            )
    samples = _samples(x, _random_samples)
    out = pool.fractional_max_pool(x, kernel, sizes, samples.flip(-1) if n == 2 else samples)
    out = out if has_batch else tuple(o.squeeze(0) for o in out)
    return out if return_indices else out[0]


def _sizes_by_ratio(x: Tensor, output_ratio: float | Sequence[float]) -> list[int]:
    """The parts of the sizes that a ratio leaves, rounded down."""
    ratios = numbers(output_ratio, x.ndim - 2, "output_ratio", 1)
    kept: Any = [torch.sym_int(size * r) for size, r in zip(x.shape[2:], ratios, strict=True)]
    if min(kept) < 1:
        raise ValueError(
            f"output_ratio must leave an entry on each of the {x.ndim - 2} spatial axes, "
            f"got {output_ratio!r} for axes of {tuple(x.shape[2:])}"
        )
    return kept


def _samples(x: Tensor, given: Tensor | None) -> Tensor:
    """Where the windows of each plane start, ``(N, C, axes)`` in [0, 1): as given, otherwise drawn."""
    n = x.ndim - 2
    if given is None:
        return torch.rand(*x.shape[:2], n, dtype=x.dtype, device=x.device)
    fits = tensor(given, "_random_samples").ndim == 3 and given.shape[1:] == (x.shape[1], n)
    if not fits or given.dtype != x.dtype or given.shape[0] < x.shape[0]:
        raise ValueError(
            f"_random_samples must have shape {(*x.shape[:2], n)} and dtype {x.dtype}, "
            f"got {tuple(given.shape)} and {given.dtype}"
        )
    return given[: x.shape[0]]  # torch also accepts more than it needs


@leaf_function
def max_unpool(
    input: Tensor,
    indices: Tensor,
    kernel_size: PerAxis,
    stride: PerAxis | None = None,
    padding: PerAxis = 0,
    output_size: Sequence[int] | None = None,
    *,
    spatial_dims: int | None = None,
) -> Tensor:
    """Put maxima back where :func:`max_pool` found them; zero elsewhere.

    If several entries have the same index, the last one is kept and only it has a gradient.

    Args:
        input: ``(N, C, *spatial)`` or ``(C, *spatial)``.
        indices: positions from ``max_pool(..., return_indices=True)``, of the shape of ``input``.
        kernel_size, stride, padding: those of the pooling.
        output_size: spatial size of the output, within ``stride`` of the default, or its full shape.
        spatial_dims: number of axes, where no argument tells; ``input.ndim - 2`` by default.

    Returns:
        ``(N, C, *out)`` with ``out = (size - 1) * stride + kernel_size - 2 * padding`` by default.

    Raises:
        ValueError, TypeError: naming the argument, the rule and the value received.

    >>> import torch
    >>> import convnd.functional as F
    >>> values, indices = F.max_pool(torch.randn(1, 3, 4, 4, 4, 4), 2, return_indices=True)
    >>> F.max_unpool(values, indices, 2).shape
    torch.Size([1, 3, 4, 4, 4, 4])
    """
    n = rank(spatial_dims, input, kernel_size, stride, padding)
    x, has_batch = batched(input, n)
    kernel = per_axis(kernel_size, n, "kernel_size")
    strides = kernel if stride is None else per_axis(stride, n, "stride")
    pads = per_axis(padding, n, "padding", 0)
    if tensor(indices, "indices").dtype != torch.int64:
        raise TypeError(f"indices must be int64, got dtype {indices.dtype}")
    if indices.shape != input.shape:
        raise ValueError(
            f"indices must have the shape of input, {tuple(input.shape)}, got {tuple(indices.shape)}"
        )
    if min(x.shape[2:]) < 1:
        raise ValueError(f"input must not be empty along a spatial axis, got shape {tuple(input.shape)}")
    sizes = tuple(
        (i - 1) * s + k - 2 * p for i, s, k, p in zip(x.shape[2:], strides, kernel, pads, strict=True)
    )
    if output_size is not None:
        sizes = _wanted_sizes(output_size, sizes, strides)
    if min(sizes) < 1:
        raise ValueError(f"padding must leave at least one entry on every axis, got an output of {sizes}")
    _check_range(indices, sizes)
    out = pool.max_unpool(x, indices if has_batch else indices.unsqueeze(0), sizes)
    return out if has_batch else out.squeeze(0)


def _wanted_sizes(output_size: Any, sizes: Ints, strides: Ints) -> Ints:
    """The sizes that are asked for, from which the pooling gives the same sizes as from ``sizes``."""
    n = len(sizes)
    if not isinstance(output_size, Sequence) or isinstance(output_size, str):
        raise TypeError(f"output_size must be a sequence of {n} ints, got {output_size!r}")
    wanted = tuple(output_size)[-n:] if len(output_size) in (n + 1, n + 2) else tuple(output_size)
    if len(wanted) != n or not all(a - s < w < a + s for a, s, w in zip(sizes, strides, wanted, strict=True)):
        raise ValueError(
            f"output_size must differ by less than the stride {strides} from {sizes}, "
            f"got {tuple(output_size)}"
        )
    return wanted


def _check_range(indices: Tensor, sizes: Ints) -> None:
    """Refuse indices beyond an output; only where reading them is free."""
    if indices.device.type != "cpu" or torch.compiler.is_compiling() or not indices.numel():
        return
    count, low, high = prod(sizes), int(indices.min()), int(indices.max())
    if low < 0 or high >= count:
        raise ValueError(
            f"indices must be from 0 to {count - 1} for an output of {sizes}, got values from {low} to {high}"
        )
