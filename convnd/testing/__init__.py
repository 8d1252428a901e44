"""Property-testing kit for spatial operators: strategies, an independent reference and laws.

``strategies`` draws valid inputs together with their arguments on 1 to 5 axes; ``reference`` computes
the answers with plain NumPy loops and never calls convnd. It needs hypothesis and numpy:
``pip install 'dynunet[testing]'``.
"""

try:
    import hypothesis  # noqa: F401
except ImportError as error:
    raise ImportError(
        "convnd.testing needs hypothesis; install it with: pip install 'dynunet[testing]'"
    ) from error

from . import reference
from .strategies import (
    Case,
    conv_cases,
    conv_transpose_cases,
    interpolate_cases,
    pad_cases,
    pool_cases,
    spatial_shapes,
)

__all__ = [
    "Case",
    "conv_cases",
    "conv_transpose_cases",
    "interpolate_cases",
    "pad_cases",
    "pool_cases",
    "reference",
    "spatial_shapes",
]
