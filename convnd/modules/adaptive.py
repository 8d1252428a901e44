"""Pooling to a given size, and unpooling."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from .. import functional as F
from .._fx import leaf_module
from ..arguments import PerAxis, integer, numbers, per_axis
from ..functional._adaptive import Sizes, sizes_or_none
from .pool import checked_windows


def _check_sizes(spatial_dims: int, output_size: Sizes) -> int:
    n = integer(spatial_dims, "spatial_dims")
    sizes_or_none(output_size, n)
    return n


@leaf_module
class AdaptiveAvgPoolNd(nn.Module):
    """Mean over nearly equal parts, ``torch.nn.AdaptiveAvgPool2d`` for any number of axes.

    Args:
        spatial_dims: number of spatial axes, at least 1.
        output_size: int, or one per axis; None keeps an axis.

    Shape:
        ``(N, C, *spatial)`` or ``(C, *spatial)`` to ``(N, C, *output_size)`` or ``(C, *output_size)``.

    Raises:
        ValueError, TypeError: naming the argument, the rule and the value received.

    >>> import torch
    >>> from convnd import AdaptiveAvgPoolNd
    >>> AdaptiveAvgPoolNd(4, 1)(torch.randn(1, 3, 5, 4, 3, 2)).shape
    torch.Size([1, 3, 1, 1, 1, 1])
    """

    def __init__(self, spatial_dims: int, output_size: Sizes) -> None:
        super().__init__()
        self.spatial_dims = _check_sizes(spatial_dims, output_size)
        self.output_size = output_size

    def extra_repr(self) -> str:
        return f"{self.spatial_dims}, output_size={self.output_size}"

    def forward(self, input: Tensor) -> Tensor:
        return F.adaptive_avg_pool(input, self.output_size, spatial_dims=self.spatial_dims)


@leaf_module
class AdaptiveMaxPoolNd(nn.Module):
    """Maximum over nearly equal parts, ``torch.nn.AdaptiveMaxPool2d`` for any number of axes.

    Args:
        spatial_dims: number of spatial axes, at least 1.
        output_size: int, or one per axis; None keeps an axis.
        return_indices: also return the flat position of each maximum.

    Shape:
        ``(N, C, *spatial)`` or ``(C, *spatial)`` to ``(N, C, *output_size)`` or ``(C, *output_size)``.

    Raises:
        ValueError, TypeError: naming the argument, the rule and the value received.

    >>> import torch
    >>> from convnd import AdaptiveMaxPoolNd
    >>> AdaptiveMaxPoolNd(4, (2, None, 1, 3))(torch.randn(1, 3, 5, 4, 3, 3)).shape
    torch.Size([1, 3, 2, 4, 1, 3])
    """

    def __init__(self, spatial_dims: int, output_size: Sizes, return_indices: bool = False) -> None:
        super().__init__()
        self.spatial_dims = _check_sizes(spatial_dims, output_size)
        self.output_size = output_size
        self.return_indices = return_indices

    def extra_repr(self) -> str:
        return f"{self.spatial_dims}, output_size={self.output_size}"

    def forward(self, input: Tensor) -> Any:
        return F.adaptive_max_pool(
            input, self.output_size, self.return_indices, spatial_dims=self.spatial_dims
        )


@leaf_module
class FractionalMaxPoolNd(nn.Module):
    """Maximum over random windows (Graham 2014), ``torch.nn.FractionalMaxPool2d`` for any number of axes.

    Args:
        spatial_dims: number of spatial axes, at least 1.
        kernel_size: int, or one per axis.
        output_size: int, or one per axis; or give ``output_ratio``.
        output_ratio: output over input size, between 0 and 1, a number or one per axis.
        return_indices: also return the flat position of each maximum.

    Shape:
        ``(N, C, *spatial)`` or ``(C, *spatial)``; see :func:`convnd.functional.fractional_max_pool`.

    Raises:
        ValueError, TypeError: naming the argument, the rule and the value received.

    >>> import torch
    >>> from convnd import FractionalMaxPoolNd
    >>> FractionalMaxPoolNd(4, 2, output_size=2)(torch.randn(1, 3, 5, 4, 3, 3)).shape
    torch.Size([1, 3, 2, 2, 2, 2])
    """

    def __init__(
        self,
        spatial_dims: int,
        kernel_size: PerAxis,
        output_size: PerAxis | None = None,
        output_ratio: float | Sequence[float] | None = None,
        return_indices: bool = False,
        _random_samples: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.spatial_dims = integer(spatial_dims, "spatial_dims")
        per_axis(kernel_size, spatial_dims, "kernel_size")
        if (output_size is None) == (output_ratio is None):
            raise ValueError(
                "exactly one of output_size and output_ratio must be given, "
                f"got {output_size!r} and {output_ratio!r}"
            )
        if output_size is not None:
            per_axis(output_size, spatial_dims, "output_size")
        else:
            numbers(output_ratio, spatial_dims, "output_ratio", 1)
        self.kernel_size = kernel_size
        self.output_size = output_size
        self.output_ratio = output_ratio
        self.return_indices = return_indices
        self.register_buffer("_random_samples", _random_samples)

    def extra_repr(self) -> str:
        return (
            f"{self.spatial_dims}, kernel_size={self.kernel_size}, output_size={self.output_size}, "
            f"output_ratio={self.output_ratio}"
        )

    def forward(self, input: Tensor) -> Any:
        return F.fractional_max_pool(
            input,
            self.kernel_size,
            self.output_size,
            self.output_ratio,
            self.return_indices,
            self._random_samples,  # type: ignore[arg-type]
            spatial_dims=self.spatial_dims,
        )


@leaf_module
class MaxUnpoolNd(nn.Module):
    """Puts maxima back in their places, ``torch.nn.MaxUnpool2d`` for any number of axes.

    Args:
        spatial_dims: number of spatial axes, at least 1.
        kernel_size, stride, padding: those of the pooling.

    Shape:
        ``(N, C, *spatial)`` or ``(C, *spatial)``; see :func:`convnd.functional.max_unpool`.

    Raises:
        ValueError, TypeError: naming the argument, the rule and the value received.

    >>> import torch
    >>> from convnd import MaxPoolNd, MaxUnpoolNd
    >>> x = torch.randn(1, 3, 5, 4, 4, 4)
    >>> values, indices = MaxPoolNd(4, 2, return_indices=True)(x)
    >>> MaxUnpoolNd(4, 2)(values, indices, output_size=x.shape).shape
    torch.Size([1, 3, 5, 4, 4, 4])
    """

    def __init__(
        self, spatial_dims: int, kernel_size: PerAxis, stride: PerAxis | None = None, padding: PerAxis = 0
    ) -> None:
        super().__init__()
        windows = checked_windows(spatial_dims, kernel_size, stride, padding, 1)
        self.kernel_size, self.stride, self.padding, _ = windows
        self.spatial_dims = spatial_dims

    def extra_repr(self) -> str:
        return (
            f"{self.spatial_dims}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"padding={self.padding}"
        )

    def forward(self, input: Tensor, indices: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        return F.max_unpool(
            input,
            indices,
            self.kernel_size,
            self.stride,
            self.padding,
            output_size,
            spatial_dims=self.spatial_dims,
        )
