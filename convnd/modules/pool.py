"""MaxPoolNd, AvgPoolNd and LPPoolNd."""

from typing import Any

from torch import Tensor, nn
from torch.nn.modules.pooling import _AvgPoolNd, _MaxPoolNd

from .. import functional as F
from .._fx import leaf_module
from ..arguments import PerAxis, integer, per_axis
from ..functional._pool import exponent


@leaf_module
class MaxPoolNd(_MaxPoolNd):
    """Largest entry of each window, ``torch.nn.MaxPool2d`` for any number of axes.

    Args:
        spatial_dims: number of spatial axes, at least 1.
        kernel_size, stride, padding, dilation: int, or one per axis; stride is kernel_size by default.
        return_indices: also return the flat position of each maximum.
        ceil_mode: also windows that reach past the end.

    Shape:
        ``(N, C, *spatial)`` or ``(C, *spatial)``; see :func:`convnd.functional.max_pool`.

    Raises:
        ValueError, TypeError: naming the argument, the rule and the value received.

    >>> import torch
    >>> from convnd import MaxPoolNd
    >>> MaxPoolNd(4, 2)(torch.randn(1, 3, 8, 8, 8, 8)).shape
    torch.Size([1, 3, 4, 4, 4, 4])
    """

    def __init__(
        self,
        spatial_dims: int,
        kernel_size: PerAxis,
        stride: PerAxis | None = None,
        padding: PerAxis = 0,
        dilation: PerAxis = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
    ) -> None:
        windows: tuple[Any, Any, Any, Any] = checked_windows(
            spatial_dims, kernel_size, stride, padding, dilation
        )
        super().__init__(*windows, return_indices=return_indices, ceil_mode=ceil_mode)
        self.spatial_dims = spatial_dims

    def extra_repr(self) -> str:
        return f"{self.spatial_dims}, {super().extra_repr()}"

    def forward(self, input: Tensor) -> Any:
        return F.max_pool(
            input,
            self.kernel_size,
            self.stride,
            self.padding,
            self.dilation,
            ceil_mode=self.ceil_mode,
            return_indices=self.return_indices,
            spatial_dims=self.spatial_dims,
        )


@leaf_module
class AvgPoolNd(_AvgPoolNd):
    """Mean of each window, ``torch.nn.AvgPool2d`` for any number of axes.

    Args:
        spatial_dims: number of spatial axes, at least 1.
        kernel_size, stride, padding: int, or one per axis; stride is kernel_size by default.
        ceil_mode: also windows that reach past the end.
        count_include_pad: whether padding counts as entries of value zero.
        divisor_override: divide by this instead of the number of entries.
        dilation: int, or one per axis: distance between the entries of a window.

    Shape:
        ``(N, C, *spatial)`` or ``(C, *spatial)``; see :func:`convnd.functional.avg_pool`.

    Raises:
        ValueError, TypeError: naming the argument, the rule and the value received.

    >>> import torch
    >>> from convnd import AvgPoolNd
    >>> AvgPoolNd(4, 2)(torch.randn(1, 3, 8, 8, 8, 8)).shape
    torch.Size([1, 3, 4, 4, 4, 4])
    """

    def __init__(
        self,
        spatial_dims: int,
        kernel_size: PerAxis,
        stride: PerAxis | None = None,
        padding: PerAxis = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
        *,
        dilation: PerAxis = 1,
    ) -> None:
        super().__init__()
        windows = checked_windows(spatial_dims, kernel_size, stride, padding, dilation)
        self.kernel_size, self.stride, self.padding, self.dilation = windows
        self.spatial_dims = spatial_dims
        self.ceil_mode = ceil_mode
        self.count_include_pad = count_include_pad
        if divisor_override is not None and integer(divisor_override, "divisor_override", None) == 0:
            raise ValueError("divisor_override must not be zero, got 0")
        self.divisor_override = divisor_override

    def extra_repr(self) -> str:
        return f"{self.spatial_dims}, {super().extra_repr()}"

    def forward(self, input: Tensor) -> Tensor:
        return F.avg_pool(
            input,
            self.kernel_size,
            self.stride,
            self.padding,
            self.ceil_mode,
            self.count_include_pad,
            self.divisor_override,
            dilation=self.dilation,
            spatial_dims=self.spatial_dims,
        )


@leaf_module
class LPPoolNd(nn.Module):
    """Root of the sum of powers of each window, ``torch.nn.LPPool2d`` for any number of axes.

    Args:
        spatial_dims: number of spatial axes, at least 1.
        norm_type: the exponent, not zero; plus or minus infinity for the largest or smallest magnitude.
        kernel_size, stride, padding, dilation: int, or one per axis; stride is kernel_size by default.
        ceil_mode: also windows that reach past the end.

    Shape:
        ``(N, C, *spatial)`` or ``(C, *spatial)``; see :func:`convnd.functional.lp_pool`.

    Raises:
        ValueError, TypeError: naming the argument, the rule and the value received.

    >>> import torch
    >>> from convnd import LPPoolNd
    >>> LPPoolNd(4, 2, 3, stride=1, padding=1)(torch.randn(1, 3, 4, 4, 4, 4)).shape
    torch.Size([1, 3, 4, 4, 4, 4])
    """

    def __init__(
        self,
        spatial_dims: int,
        norm_type: float,
        kernel_size: PerAxis,
        stride: PerAxis | None = None,
        ceil_mode: bool = False,
        *,
        padding: PerAxis = 0,
        dilation: PerAxis = 1,
    ) -> None:
        super().__init__()
        windows = checked_windows(spatial_dims, kernel_size, stride, padding, dilation)
        self.kernel_size, self.stride, self.padding, self.dilation = windows
        self.spatial_dims = spatial_dims
        self.norm_type = exponent(norm_type)
        self.ceil_mode = ceil_mode

    def extra_repr(self) -> str:
        return (
            f"{self.spatial_dims}, norm_type={self.norm_type}, kernel_size={self.kernel_size}, "
            f"stride={self.stride}, padding={self.padding}, dilation={self.dilation}, "
            f"ceil_mode={self.ceil_mode}"
        )

    def forward(self, input: Tensor) -> Tensor:
        return F.lp_pool(
            input,
            self.norm_type,
            self.kernel_size,
            self.stride,
            self.ceil_mode,
            padding=self.padding,
            dilation=self.dilation,
            spatial_dims=self.spatial_dims,
        )


def checked_windows(
    spatial_dims: int, kernel_size: PerAxis, stride: PerAxis | None, padding: PerAxis, dilation: PerAxis
) -> tuple[PerAxis, PerAxis, PerAxis, PerAxis]:
    """Check the arguments at construction and return them unchanged, as torch's layers keep them."""
    n = integer(spatial_dims, "spatial_dims")
    stride = kernel_size if stride is None else stride
    per_axis(kernel_size, n, "kernel_size")
    per_axis(stride, n, "stride")
    per_axis(padding, n, "padding", 0)
    per_axis(dilation, n, "dilation")
    return kernel_size, stride, padding, dilation
