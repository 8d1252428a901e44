"""The spatial operators of ``torch.nn.functional`` for any number of spatial axes.

Argument names, order and defaults are torch's. Tensors are ``(N, C, *spatial)`` or unbatched
``(C, *spatial)``. An argument given "per axis" is one value for all axes or one value for each.
"""

from ._adaptive import adaptive_avg_pool, adaptive_max_pool, fractional_max_pool, max_unpool
from ._conv import conv, conv_transpose
from ._fold import fold, pixel_shuffle, pixel_unshuffle, unfold
from ._grid import affine_grid, grid_sample
from ._interpolate import interpolate
from ._pad import pad
from ._pool import avg_pool, lp_pool, max_pool

__all__ = [
    "adaptive_avg_pool",
    "adaptive_max_pool",
    "affine_grid",
    "avg_pool",
    "conv",
    "conv_transpose",
    "fold",
    "fractional_max_pool",
    "grid_sample",
    "interpolate",
    "lp_pool",
    "max_pool",
    "max_unpool",
    "pad",
    "pixel_shuffle",
    "pixel_unshuffle",
    "unfold",
]
