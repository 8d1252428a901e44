"""The spatial operators of ``torch.nn.functional`` for any number of spatial axes.

Argument names, order and defaults are torch's. Tensors are ``(N, C, *spatial)`` or unbatched
``(C, *spatial)``. An argument given "per axis" is one value for all axes or one value for each.
"""

from ._conv import conv, conv_transpose
from ._interpolate import interpolate
from ._pad import pad
from ._pool import avg_pool, max_pool

__all__ = ["avg_pool", "conv", "conv_transpose", "interpolate", "max_pool", "pad"]
