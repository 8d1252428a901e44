"""convnd: the spatial layers of ``torch.nn`` for any number of spatial axes.

Modules take ``spatial_dims`` first and torch's arguments after it; functions are in
:mod:`convnd.functional`. Weights, results and errors are torch's wherever torch has the operator.
"""

from . import functional
from ._conv.report import plan
from ._conv.settings import algorithm, benchmark, set_workspace_limit
from ._inflate import inflate
from .modules import (
    AdaptiveAvgPoolNd,
    AdaptiveMaxPoolNd,
    AvgPoolNd,
    BatchNormNd,
    ConvNd,
    ConvTransposeNd,
    DropoutNd,
    FoldNd,
    FractionalMaxPoolNd,
    InstanceNormNd,
    InterpolateNd,
    LazyBatchNormNd,
    LazyConvNd,
    LazyConvTransposeNd,
    LPPoolNd,
    MaxPoolNd,
    MaxUnpoolNd,
    PadNd,
    PixelShuffleNd,
    PixelUnshuffleNd,
    UnfoldNd,
)

__all__ = [
    "AdaptiveAvgPoolNd",
    "AdaptiveMaxPoolNd",
    "AvgPoolNd",
    "BatchNormNd",
    "ConvNd",
    "ConvTransposeNd",
    "DropoutNd",
    "FoldNd",
    "FractionalMaxPoolNd",
    "InstanceNormNd",
    "InterpolateNd",
    "LPPoolNd",
    "LazyBatchNormNd",
    "LazyConvNd",
    "LazyConvTransposeNd",
    "MaxPoolNd",
    "MaxUnpoolNd",
    "PadNd",
    "PixelShuffleNd",
    "PixelUnshuffleNd",
    "UnfoldNd",
    "algorithm",
    "benchmark",
    "functional",
    "inflate",
    "plan",
    "set_workspace_limit",
]


def __dir__() -> list[str]:
    return [*__all__]
