"""convnd: the spatial layers of ``torch.nn`` for any number of spatial axes.

Modules take ``spatial_dims`` first and torch's arguments after it; functions are in
:mod:`convnd.functional`. Weights, results and errors are torch's wherever torch has the operator.
"""

from . import functional
from .modules import AvgPoolNd, BatchNormNd, ConvNd, ConvTransposeNd, InterpolateNd, MaxPoolNd, PadNd

__all__ = [
    "AvgPoolNd",
    "BatchNormNd",
    "ConvNd",
    "ConvTransposeNd",
    "InterpolateNd",
    "MaxPoolNd",
    "PadNd",
    "functional",
]
