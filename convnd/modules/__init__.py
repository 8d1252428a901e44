"""The spatial layers of ``torch.nn`` for any number of axes; ``spatial_dims`` comes first."""

from .adaptive import AdaptiveAvgPoolNd, AdaptiveMaxPoolNd, FractionalMaxPoolNd, MaxUnpoolNd
from .conv import ConvNd, ConvTransposeNd
from .fold import FoldNd, PixelShuffleNd, PixelUnshuffleNd, UnfoldNd
from .lazy import LazyConvNd, LazyConvTransposeNd
from .norm import BatchNormNd, DropoutNd, InstanceNormNd, LazyBatchNormNd
from .pool import AvgPoolNd, LPPoolNd, MaxPoolNd
from .resize import InterpolateNd, PadNd

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
]
