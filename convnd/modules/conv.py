"""ConvNd and ConvTransposeNd."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from .. import functional as F
from .._fx import leaf_module
from ..arguments import Padding, PerAxis, integer, padding_modes, padding_rule, per_axis
from ..functional._conv import transposed_same


def _initialise(
    module: _ConvNd,
    transposed: bool,
    spatial_dims: int,
    in_channels: int,
    out_channels: int,
    kernel_size: PerAxis,
    stride: PerAxis,
    padding: Padding,
    output_padding: PerAxis,
    dilation: PerAxis,
    groups: int,
    bias: bool,
    padding_mode: str | Sequence[str],
    device: Any,
    dtype: torch.dtype | None,
) -> None:
    """Check the arguments and set torch's attributes, its parameters and their initial values."""
    n = integer(spatial_dims, "spatial_dims")
    integer(groups, "groups")
    for name, channels in (("in_channels", in_channels), ("out_channels", out_channels)):
        if integer(channels, name, 0) % groups:
            raise ValueError(f"groups must divide {name} = {channels}, got {groups}")
    zeros = (0,) * n
    # torch's own __init__ accepts fewer paddings and modes: it gets neutral ones, ours are set afterwards.
    _ConvNd.__init__(
        module,
        in_channels,
        out_channels,
        per_axis(kernel_size, n, "kernel_size"),
        per_axis(stride, n, "stride"),
        zeros,
        per_axis(dilation, n, "dilation"),
        transposed,
        per_axis(output_padding, n, "output_padding", 0),
        groups,
        bias,
        "zeros",
        device=device,
        dtype=dtype,
    )
    del module._reversed_padding_repeated_twice
    module.spatial_dims = n  # type: ignore[assignment]
    rule = padding_rule(padding, n)
    if not isinstance(padding, str) and not isinstance(rule, str):
        alike = all(a == b for a, b in rule)
        padding = tuple(a for a, _ in rule) if alike else rule
    module.padding = padding  # type: ignore[assignment]
    modes = padding_modes(padding_mode, n)
    module.padding_mode = modes[0] if len(set(modes)) == 1 else modes  # type: ignore[assignment]


@leaf_module
class ConvNd(_ConvNd):
    """Convolution layer, ``torch.nn.Conv2d`` for any number of axes.

    State dicts are interchangeable with those of torch's layers, and the same seed gives the same weights.

    Args:
        spatial_dims: number of spatial axes, at least 1.
        in_channels, out_channels: channels of input and output, at least 0.
        kernel_size, stride, dilation: int, or one per axis.
        padding: int, one int per axis, one ``(before, after)`` pair per axis, ``"same"`` or ``"valid"``.
        groups: channels are split into this many independent convolutions.
        bias: whether to add a learned bias.
        padding_mode: ``"zeros"``, ``"reflect"``, ``"replicate"`` or ``"circular"``, or one per axis.
        device, dtype: of the parameters.

    Shape:
        ``(N, in_channels, *spatial)`` or ``(in_channels, *spatial)`` to ``(N, out_channels, *out)`` or
        ``(out_channels, *out)``; see :func:`convnd.functional.conv`.

    Raises:
        ValueError, TypeError: naming the argument, the rule and the value received.

    >>> import torch
    >>> from convnd import ConvNd
    >>> ConvNd(4, 3, 16, 3, padding=1)(torch.randn(2, 3, 6, 6, 6, 6)).shape
    torch.Size([2, 16, 6, 6, 6, 6])
    """

    spatial_dims: int

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
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
        _initialise(
            self,
            False,
            spatial_dims,
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            0,
            dilation,
            groups,
            bias,
            padding_mode,
            device,
            dtype,
        )

    def extra_repr(self) -> str:
        return f"{self.spatial_dims}, {super().extra_repr()}"

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.conv(
            input,
            weight,
            bias,
            self.stride,
            self.padding,
            self.dilation,
            self.groups,
            padding_mode=self.padding_mode,
        )

    def forward(self, input: Tensor) -> Tensor:
        return self._conv_forward(input, self.weight, self.bias)


@leaf_module
class ConvTransposeNd(nn.ConvTranspose1d):
    """Transposed convolution layer, ``torch.nn.ConvTranspose2d`` for any number of axes.

    It subclasses ``torch.nn.ConvTranspose1d`` for any number of axes, because torch's spectral normalisations
    recognise by torch's classes that the output channels are axis 1 of the weight.

    Args:
        spatial_dims: number of spatial axes, at least 1.
        in_channels, out_channels: channels of input and output, at least 0.
        kernel_size, stride, dilation: int, or one per axis.
        padding: that of the :class:`ConvNd` whose adjoint this is; ``"same"`` gives ``size * stride``.
        output_padding: entries added after each axis, less than stride or dilation.
        groups: channels are split into this many independent convolutions.
        bias: whether to add a learned bias.
        padding_mode: as in :class:`ConvNd`; the layer is the exact adjoint of the padded convolution.
        device, dtype: of the parameters.

    Shape:
        ``(N, in_channels, *spatial)`` or ``(in_channels, *spatial)`` to ``(N, out_channels, *out)`` or
        ``(out_channels, *out)``; see :func:`convnd.functional.conv_transpose`. ``forward`` takes an
        ``output_size``, which replaces ``output_padding``.

    Raises:
        ValueError, TypeError: naming the argument, the rule and the value received.

    >>> import torch
    >>> from convnd import ConvTransposeNd
    >>> ConvTransposeNd(4, 3, 2, 3, stride=2, padding=1)(torch.randn(3, 4, 4, 4, 4), [8, 7, 8, 7]).shape
    torch.Size([2, 8, 7, 8, 7])
    """

    spatial_dims: int

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
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
        _initialise(
            self,
            True,
            spatial_dims,
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            output_padding,
            dilation,
            groups,
            bias,
            padding_mode,
            device,
            dtype,
        )

    def extra_repr(self) -> str:
        return f"{self.spatial_dims}, {super().extra_repr()}"

    def forward(self, input: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        padding, extra = self.padding, self.output_padding
        if output_size is not None:
            padding, extra = self._geometry(input, output_size)
        return F.conv_transpose(
            input,
            self.weight,
            self.bias,
            self.stride,
            padding,
            extra,
            self.groups,
            self.dilation,
            padding_mode=self.padding_mode,
        )

    def _geometry(self, input: Tensor, output_size: Sequence[int]) -> tuple[Padding, tuple[int, ...]]:
        """The padding and output padding that give ``output_size``."""
        n = self.spatial_dims
        if len(output_size) == input.ndim:
            output_size = output_size[-n:]
        wanted = per_axis(tuple(output_size), n, "output_size")
        sizes = tuple(input.shape[-n:])
        rule = padding_rule(self.padding, n)
        if isinstance(rule, str):
            low = tuple((i - 1) * s + 1 for i, s in zip(sizes, self.stride, strict=True))
        else:
            low = tuple(
                (i - 1) * s - a - b + d * (k - 1) + 1
                for i, s, (a, b), d, k in zip(
                    sizes, self.stride, rule, self.dilation, self.kernel_size, strict=True
                )
            )
        high = tuple(a + s - 1 for a, s in zip(low, self.stride, strict=True))
        if not all(a <= w <= b for a, w, b in zip(low, wanted, high, strict=True)):
            raise ValueError(
                f"output_size must be between {low} and {high} for an input of size {sizes}, got {wanted}"
            )
        if isinstance(rule, str):
            return transposed_same(sizes, wanted, self.kernel_size, self.stride, self.dilation)
        return rule, tuple(w - a for w, a in zip(wanted, low, strict=True))
