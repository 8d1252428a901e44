"""Unfold, fold and pixel shuffle layers."""

from torch import Tensor, nn

from .. import functional as F
from .._fx import leaf_module
from ..arguments import PerAxis, integer, per_axis
from .pool import checked_windows


@leaf_module
class UnfoldNd(nn.Module):
    """Extracts the entries of every window as a column, ``torch.nn.Unfold`` for any number of axes.

    Args:
        spatial_dims: number of spatial axes, at least 1.
        kernel_size, dilation, padding, stride: int, or one per axis.

    Shape:
        ``(N, C, *spatial)`` or ``(C, *spatial)`` to ``(N, C * prod(kernel_size), L)``, or without N.

    Raises:
        ValueError, TypeError: naming the argument, the rule and the value received.

    >>> import torch
    >>> from convnd import UnfoldNd
    >>> UnfoldNd(4, 2, stride=2)(torch.randn(1, 3, 4, 4, 4, 4)).shape
    torch.Size([1, 48, 16])
    """

    def __init__(
        self,
        spatial_dims: int,
        kernel_size: PerAxis,
        dilation: PerAxis = 1,
        padding: PerAxis = 0,
        stride: PerAxis = 1,
    ) -> None:
        super().__init__()
        windows = checked_windows(spatial_dims, kernel_size, stride, padding, dilation)
        self.kernel_size, self.stride, self.padding, self.dilation = windows
        self.spatial_dims = spatial_dims

    def extra_repr(self) -> str:
        return (
            f"{self.spatial_dims}, kernel_size={self.kernel_size}, dilation={self.dilation}, "
            f"padding={self.padding}, stride={self.stride}"
        )

    def forward(self, input: Tensor) -> Tensor:
        return F.unfold(
            input,
            self.kernel_size,
            self.dilation,
            self.padding,
            self.stride,
            spatial_dims=self.spatial_dims,
        )


@leaf_module
class FoldNd(UnfoldNd):
    """Sums columns into a tensor, ``torch.nn.Fold`` for any number of axes; the adjoint of UnfoldNd.

    Args:
        spatial_dims: number of spatial axes, at least 1.
        output_size: spatial size of the output, int or one per axis.
        kernel_size, dilation, padding, stride: int, or one per axis.

    Shape:
        ``(N, C * prod(kernel_size), L)`` to ``(N, C, *output_size)``, or both without N.

    Raises:
        ValueError, TypeError: naming the argument, the rule and the value received.

    >>> import torch
    >>> from convnd import FoldNd
    >>> FoldNd(4, 4, 2, stride=2)(torch.randn(1, 48, 16)).shape
    torch.Size([1, 3, 4, 4, 4, 4])
    """

    def __init__(
        self,
        spatial_dims: int,
        output_size: PerAxis,
        kernel_size: PerAxis,
        dilation: PerAxis = 1,
        padding: PerAxis = 0,
        stride: PerAxis = 1,
    ) -> None:
        super().__init__(spatial_dims, kernel_size, dilation, padding, stride)
        per_axis(output_size, spatial_dims, "output_size")
        self.output_size = output_size

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, output_size={self.output_size}"

    def forward(self, input: Tensor) -> Tensor:
        return F.fold(
            input,
            self.output_size,
            self.kernel_size,
            self.dilation,
            self.padding,
            self.stride,
            spatial_dims=self.spatial_dims,
        )


@leaf_module
class PixelShuffleNd(nn.Module):
    """Channels to resolution (Shi et al. 2016): ``torch.nn.PixelShuffle`` for any number of axes.

    Args:
        spatial_dims: number of spatial axes, at least 1.
        upscale_factor: int, or one per axis.

    Shape:
        ``(*, C * prod(upscale_factor), *spatial)`` to ``(*, C, *(spatial * upscale_factor))``.

    Raises:
        ValueError, TypeError: naming the argument, the rule and the value received.

    >>> import torch
    >>> from convnd import PixelShuffleNd
    >>> PixelShuffleNd(4, 2)(torch.randn(1, 32, 2, 2, 2, 2)).shape
    torch.Size([1, 2, 4, 4, 4, 4])
    """

    def __init__(self, spatial_dims: int, upscale_factor: PerAxis) -> None:
        super().__init__()
        self.spatial_dims = integer(spatial_dims, "spatial_dims")
        per_axis(upscale_factor, spatial_dims, "upscale_factor")
        self.upscale_factor = upscale_factor

    def extra_repr(self) -> str:
        return f"{self.spatial_dims}, upscale_factor={self.upscale_factor}"

    def forward(self, input: Tensor) -> Tensor:
        return F.pixel_shuffle(input, self.upscale_factor, spatial_dims=self.spatial_dims)


@leaf_module
class PixelUnshuffleNd(nn.Module):
    """Resolution to channels: ``torch.nn.PixelUnshuffle`` for any number of axes.

    Args:
        spatial_dims: number of spatial axes, at least 1.
        downscale_factor: int, or one per axis; it must divide the axes.

    Shape:
        ``(*, C, *(spatial * downscale_factor))`` to ``(*, C * prod(downscale_factor), *spatial)``.

    Raises:
        ValueError, TypeError: naming the argument, the rule and the value received.

    >>> import torch
    >>> from convnd import PixelUnshuffleNd
    >>> PixelUnshuffleNd(4, 2)(torch.randn(1, 2, 4, 4, 4, 4)).shape
    torch.Size([1, 32, 2, 2, 2, 2])
    """

    def __init__(self, spatial_dims: int, downscale_factor: PerAxis) -> None:
        super().__init__()
        self.spatial_dims = integer(spatial_dims, "spatial_dims")
        per_axis(downscale_factor, spatial_dims, "downscale_factor")
        self.downscale_factor = downscale_factor

    def extra_repr(self) -> str:
        return f"{self.spatial_dims}, downscale_factor={self.downscale_factor}"

    def forward(self, input: Tensor) -> Tensor:
        return F.pixel_unshuffle(input, self.downscale_factor, spatial_dims=self.spatial_dims)
