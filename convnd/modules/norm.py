"""Batch and instance normalisation, and dropout of whole channels."""

from collections.abc import Callable
from functools import partial
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _LazyNormBase
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.parameter import UninitializedParameter

from .._fx import leaf_function, leaf_module
from .._torch.conv import MAX_AXES
from ..arguments import batched, integer, tensor


class _OptionalShift:
    """Option of an affine layer without a shift, which torch's norm layers have only in later versions."""

    spatial_dims: int

    def _leave_out_shift(self: Any, affine: bool, bias: bool) -> None:
        if affine and not bias:
            self.bias = None

    def reset_parameters(self: Any) -> None:
        self.reset_running_stats()
        if self.affine:
            nn.init.ones_(self.weight)
            if self.bias is not None:
                nn.init.zeros_(self.bias)

    def extra_repr(self: Any) -> str:
        return (
            f"{self.spatial_dims}, {self.num_features}, eps={self.eps}, momentum={self.momentum}, "
            f"affine={self.affine}, bias={self.bias is not None}, "
            f"track_running_stats={self.track_running_stats}"
        )


def _check_axes(input: Tensor, n: int) -> None:
    """Check the number of axes; a single spatial axis may be left out, as in torch."""
    if tensor(input).ndim != n + 2 and (n, input.ndim) != (1, 2):
        raise ValueError(
            f"input must be (N, C, *spatial) with {n} spatial axes, got shape {tuple(input.shape)}"
        )


def _check_channels(module: Any, channels: int, input: Tensor) -> None:
    if channels != module.num_features:
        raise ValueError(
            f"input must have num_features = {module.num_features} channels, got {channels} "
            f"in shape {tuple(input.shape)}"
        )


def _over_few_axes(x: Tensor, n: int, norm: Callable[[Tensor], Tensor]) -> Tensor:
    """``norm(x)`` with the n axes merged into as few as torch's kernels take, since positions are all alike.

    Over three axes torch's kernels keep channels-last memory.
    """
    if n <= MAX_AXES:
        return norm(x)
    first = x.shape[2 : n + 3 - MAX_AXES]
    return norm(x.flatten(2, n + 2 - MAX_AXES)).unflatten(2, first)


@leaf_module
class BatchNormNd(_OptionalShift, _BatchNorm):
    """Batch normalisation, ``torch.nn.BatchNorm2d`` for any number of axes.

    .. math:: y = \\gamma (x - E[x]) / \\sqrt{Var[x] + \\epsilon} + \\beta

    with mean and variance over the batch and all spatial axes (Ioffe and Szegedy 2015).

    Args:
        spatial_dims: number of spatial axes, at least 1.
        num_features: channels of the input.
        eps: added to the variance.
        momentum: weight of a new batch in the running statistics; None for a plain average.
        affine: whether to learn a scale and a shift for each channel.
        track_running_stats: whether to keep running statistics for evaluation.
        device, dtype: of the parameters.
        bias: whether an affine layer has a shift.

    Shape:
        ``(N, C, *spatial)`` to the same; for one axis also ``(N, C)``, as in torch.

    Raises:
        ValueError, TypeError: naming the argument, the rule and the value received.

    >>> import torch
    >>> from convnd import BatchNormNd
    >>> BatchNormNd(4, 3)(torch.randn(2, 3, 4, 4, 4, 4)).shape
    torch.Size([2, 3, 4, 4, 4, 4])
    """

    def __init__(
        self,
        spatial_dims: int,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: Any = None,
        dtype: torch.dtype | None = None,
        *,
        bias: bool = True,
    ) -> None:
        integer(spatial_dims, "spatial_dims")
        integer(num_features, "num_features")
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype)
        self._leave_out_shift(affine, bias)
        self.spatial_dims = spatial_dims

    def _check_input_dim(self, input: Tensor) -> None:
        """Does nothing: torch calls this with the flattened input, which ``forward`` has checked before."""

    def forward(self, input: Tensor) -> Tensor:
        n = self.spatial_dims
        _check_axes(input, n)
        _check_channels(self, input.shape[1], input)
        if (self.training or self.running_mean is None) and input.shape[0] * prod(input.shape[2:]) == 1:
            raise ValueError(
                f"input must have more than one value per channel in training, got shape {tuple(input.shape)}"
            )
        return _over_few_axes(input, n, partial(_BatchNorm.forward, self))


@leaf_module
class LazyBatchNormNd(_LazyNormBase, _OptionalShift, _BatchNorm):
    """A :class:`BatchNormNd` that infers ``num_features`` from its first input.

    Args:
        spatial_dims: number of spatial axes, at least 1.
        eps, momentum, affine, track_running_stats, device, dtype, bias: as for :class:`BatchNormNd`.

    Shape:
        ``(N, C, *spatial)`` to the same.

    Raises:
        ValueError, TypeError: naming the argument, the rule and the value received.

    >>> import torch
    >>> from convnd import LazyBatchNormNd
    >>> layer = LazyBatchNormNd(4)
    >>> _ = layer(torch.randn(2, 3, 4, 4, 4, 4))
    >>> layer
    BatchNormNd(4, 3, eps=1e-05, momentum=0.1, affine=True, bias=True, track_running_stats=True)
    """

    cls_to_become = BatchNormNd  # type: ignore[assignment]

    def __init__(
        self,
        spatial_dims: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: Any = None,
        dtype: torch.dtype | None = None,
        *,
        bias: bool = True,
    ) -> None:
        integer(spatial_dims, "spatial_dims")
        super().__init__(eps, momentum, affine, track_running_stats, device, dtype)  # type: ignore
        self._leave_out_shift(affine, bias)
        self.spatial_dims = spatial_dims

    def initialize_parameters(self: Any, input: Tensor) -> None:
        _check_axes(input, self.spatial_dims)
        without = self.affine and self.bias is None and self.has_uninitialized_params()
        if without:  # torch versions without that option expect one
            made: Any = UninitializedParameter
            self.bias = made(device=self.weight.device, dtype=self.weight.dtype)
        super().initialize_parameters(input)
        if without:
            self.bias = None
        if self.num_features == 0:  # parameters and statistics were loaded, or there are none
            known = [t for t in (self.weight, self.running_mean) if t is not None]
            self.num_features = known[0].shape[0] if known else input.shape[1]

    _check_input_dim = BatchNormNd._check_input_dim  # type: ignore[assignment]
    forward = BatchNormNd.forward  # type: ignore[assignment]


@leaf_module
class InstanceNormNd(_OptionalShift, _InstanceNorm):
    """Instance normalisation (Ulyanov et al. 2016), ``torch.nn.InstanceNorm2d`` for any number of axes.

    .. math:: y = \\gamma (x - E[x]) / \\sqrt{Var[x] + \\epsilon} + \\beta

    with mean and variance over the spatial axes of each channel of each sample.

    Args:
        spatial_dims: number of spatial axes, at least 1.
        num_features: channels of the input.
        eps: added to the variance.
        momentum: weight of a new batch in the running statistics.
        affine: whether to learn a scale and a shift for each channel.
        track_running_stats: whether to keep running statistics for evaluation.
        device, dtype: of the parameters.
        bias: whether an affine layer has a shift.

    Shape:
        ``(N, C, *spatial)`` or ``(C, *spatial)`` to the same.

    Raises:
        ValueError, TypeError: naming the argument, the rule and the value received.

    >>> import torch
    >>> from convnd import InstanceNormNd
    >>> InstanceNormNd(4, 3)(torch.randn(2, 3, 4, 4, 4, 4)).shape
    torch.Size([2, 3, 4, 4, 4, 4])
    """

    def __init__(
        self,
        spatial_dims: int,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
        device: Any = None,
        dtype: torch.dtype | None = None,
        *,
        bias: bool = True,
    ) -> None:
        integer(spatial_dims, "spatial_dims")
        integer(num_features, "num_features")
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype)
        self._leave_out_shift(affine, bias)
        self.spatial_dims = spatial_dims

    def _get_no_batch_dim(self) -> int:
        return min(self.spatial_dims, MAX_AXES) + 1

    def _check_input_dim(self, input: Tensor) -> None:
        """Does nothing: torch calls this with the flattened input, which ``forward`` has checked before."""

    def forward(self, input: Tensor) -> Tensor:
        x, has_batch = batched(input, self.spatial_dims)
        if self.affine or self.track_running_stats:  # otherwise num_features is unused, and torch only warns
            _check_channels(self, x.shape[1], input)
        if (self.training or not self.track_running_stats) and prod(x.shape[2:]) == 1:
            raise ValueError(
                f"input must have more than one spatial entry in training, got shape {tuple(input.shape)}"
            )
        if x.shape[0] == 0 and self.running_mean is not None:  # torch's kernel fails on this
            args = self.running_mean, self.running_var, self.weight, self.bias
            return nn.functional.batch_norm(x, *args, eps=self.eps)
        out = _over_few_axes(x, self.spatial_dims, super().forward)
        return out if has_batch else out.squeeze(0)


@leaf_function
def _dropped(input: Tensor, n: int, p: float, training: bool, inplace: bool) -> Tensor:
    x, has_batch = batched(input, n)
    out = (torch.feature_dropout_ if inplace else torch.feature_dropout)(x, p, training)
    return out if has_batch else out.squeeze(0)


@leaf_module
class DropoutNd(nn.modules.dropout._DropoutNd):
    """Dropout of whole channels (Tompson et al. 2015), ``torch.nn.Dropout2d`` for any number of axes.

    Args:
        spatial_dims: number of spatial axes, at least 1.
        p: probability that a channel becomes zero; the others are scaled by ``1 / (1 - p)``.
        inplace: whether to modify the input.

    Shape:
        ``(N, C, *spatial)`` or ``(C, *spatial)`` to the same.

    Raises:
        ValueError, TypeError: naming the argument, the rule and the value received.

    >>> import torch
    >>> from convnd import DropoutNd
    >>> sorted(DropoutNd(4, 0.5)(torch.ones(1, 99, 2, 2, 2, 2)).unique().tolist())
    [0.0, 2.0]
    """

    def __init__(self, spatial_dims: int, p: float = 0.5, inplace: bool = False) -> None:
        super().__init__(p, inplace)
        self.spatial_dims = integer(spatial_dims, "spatial_dims")

    def extra_repr(self) -> str:
        return f"{self.spatial_dims}, {super().extra_repr()}"

    def forward(self, input: Tensor) -> Tensor:
        return _dropped(input, self.spatial_dims, self.p, self.training, self.inplace)
