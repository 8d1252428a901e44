"""Convolutions that infer the number of input channels from the first input."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.conv import _LazyConvXdMixin
from torch.nn.parameter import UninitializedParameter

from .._fx import leaf_module
from ..arguments import Padding, PerAxis
from .conv import ConvNd, ConvTransposeNd


def _forget_inputs(module: Any, bias: bool, device: Any, dtype: torch.dtype | None) -> None:
    """Replace the parameters by uninitialised ones, to be made when the input channels are known."""
    module.in_channels = 0
    waiting: Any = UninitializedParameter
    module.weight = waiting(device=device, dtype=dtype)
    module.bias = waiting(device=device, dtype=dtype) if bias else None


class _Lazy(_LazyConvXdMixin):
    """Infers the input channels from the first input or from the weight of a state dict."""

    def initialize_parameters(self, input: Tensor, *args: Any, **kwargs: Any) -> None:  # type: ignore[override]
        super().initialize_parameters(input, *args, **kwargs)  # type: ignore[misc]
        rows, columns = self.weight.shape[:2]
        self.in_channels = rows if self.transposed else columns * self.groups

    def _get_num_spatial_dims(self) -> int:
        return self.spatial_dims  # type: ignore[attr-defined]


@leaf_module
class LazyConvNd(_Lazy, ConvNd):  # type: ignore[misc]
    """A :class:`ConvNd` that infers ``in_channels`` from its first input and then becomes a ``ConvNd``.

    Args:
        spatial_dims: number of spatial axes, at least 1.
        out_channels: channels of the output.
        kernel_size, stride, padding, dilation, groups, bias, padding_mode, device, dtype: as for
            :class:`ConvNd`.

    Shape:
        As :class:`ConvNd`.

    Raises:
        ValueError, TypeError: naming the argument, the rule and the value received.

    >>> import torch
    >>> from convnd import LazyConvNd
    >>> layer = LazyConvNd(4, 8, 3)
    >>> _ = layer(torch.randn(1, 5, 4, 4, 4, 4))
    >>> layer
    ConvNd(4, 5, 8, kernel_size=(3, 3, 3, 3), stride=(1, 1, 1, 1))
    """

    cls_to_become = ConvNd  # type: ignore[assignment]

    def __init__(
        self,
        spatial_dims: int,
        out_channels: int,
        kernel_size: PerAxis,
        stride: PerAxis = 1,
        padding: Padding = 0,
        dilation: PerAxis = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str | Sequence[str] = "zeros",
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(  # type: ignore[misc]
            spatial_dims,
            groups,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            False,
            padding_mode,
            device,
            dtype,
        )
        _forget_inputs(self, bias, device, dtype)


@leaf_module
class LazyConvTransposeNd(_Lazy, ConvTransposeNd):  # type: ignore[misc]
    """A lazy layer that infers ``in_channels`` from its first input, then becomes a :class:`ConvTransposeNd`.

    Args:
        spatial_dims: number of spatial axes, at least 1.
        out_channels: channels of the output.
        kernel_size, stride, padding, output_padding, groups, bias, dilation, padding_mode, device, dtype:
            as for :class:`ConvTransposeNd`.

    Shape:
        As :class:`ConvTransposeNd`.

    Raises:
        ValueError, TypeError: naming the argument, the rule and the value received.

    >>> import torch
    >>> from convnd import LazyConvTransposeNd
    >>> LazyConvTransposeNd(4, 8, 2, stride=2)(torch.randn(1, 5, 4, 4, 4, 4)).shape
    torch.Size([1, 8, 8, 8, 8, 8])
    """

    cls_to_become = ConvTransposeNd  # type: ignore[assignment]

    def __init__(
        self,
        spatial_dims: int,
        out_channels: int,
        kernel_size: PerAxis,
        stride: PerAxis = 1,
        padding: Padding = 0,
        output_padding: PerAxis = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: PerAxis = 1,
        padding_mode: str | Sequence[str] = "zeros",
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(  # type: ignore[misc]
            spatial_dims,
            groups,
            out_channels,
            kernel_size,
            stride,
            padding,
            output_padding,
            groups,
            False,
            dilation,
            padding_mode,
            device,
            dtype,
        )
        _forget_inputs(self, bias, device, dtype)
