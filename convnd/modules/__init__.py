"""The spatial layers of ``torch.nn`` for any number of axes; ``spatial_dims`` comes first."""

from .conv import ConvNd, ConvTransposeNd
from .norm import BatchNormNd
from .pool import AvgPoolNd, MaxPoolNd
from .resize import InterpolateNd, PadNd

__all__ = [
    "AvgPoolNd",
    "BatchNormNd",
    "ConvNd",
    "ConvTransposeNd",
    "InterpolateNd",
    "MaxPoolNd",
    "PadNd",
]
