"""BatchNormNd."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from .._arguments import integer


class BatchNormNd(_BatchNorm):
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
    ) -> None:
        integer(spatial_dims, "spatial_dims")
        integer(num_features, "num_features")
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device=device, dtype=dtype)
        self.spatial_dims = spatial_dims

    def extra_repr(self) -> str:
        return f"{self.spatial_dims}, {super().extra_repr()}"

    def _check_input_dim(self, input: Tensor) -> None:
        plain = self.spatial_dims == 1 and input.ndim == 2
        if not plain and input.ndim != self.spatial_dims + 2:
            raise ValueError(
                f"input must be (N, C, *spatial) with {self.spatial_dims} spatial axes, "
                f"got shape {tuple(input.shape)}"
            )
        if input.shape[1] != self.num_features:
            raise ValueError(
                f"input must have num_features = {self.num_features} channels, got {input.shape[1]} "
                f"in shape {tuple(input.shape)}"
            )
