"""Property-testing kit for implementations of convolution and pooling.

An implementation is any function of NumPy arrays or of tensors that takes torch's arguments. The
shortest possible test draws a hundred cases, compares each with plain loops, checks the laws, and fails
with the smallest case that is wrong, printed as code:

>>> import torch
>>> from convnd.testing import check_conv
>>> check_conv(torch.conv1d, array="torch", max_dims=1, max_examples=20)

- :func:`check_conv`, :func:`check_conv_transpose`, :func:`check_pool`: whole checks. Keywords say what
  the implementation does not support: ``dims=(2,)``, ``groups=False``, ``padding="none"`` and so on.
- :mod:`~convnd.testing.laws`: properties that hold for all values (adjointness, translation, linearity,
  permuted axes, ...), one function each; they need no reference implementation. ``laws.LAWS`` lists those
  of each operator.
- ``conv_cases, conv_transpose_cases, pool_cases, pad_cases, interpolate_cases, spatial_shapes``:
  Hypothesis strategies that draw a :class:`Case`, a valid input with its arguments, on 1 to 6 axes.
  ``invalid_conv_cases, invalid_pool_cases`` draw calls that must be refused, with the reason.
- :func:`layouts`: memory layouts to apply to the operands; no result may depend on them.
- :mod:`~convnd.testing.reference`: the operators as plain NumPy loops that never call convnd.

A test of your own, using the strategies::

    @given(conv_cases(dims=(2,), padding_modes=False))
    def test_my_conv(case):
        np.testing.assert_array_equal(call(my_conv, case), reference.evaluate(case))

Requires hypothesis and numpy: ``pip install 'dynunet[testing]'``.
"""

try:
    import hypothesis  # noqa: F401
except ImportError as error:
    raise ImportError(
        "convnd.testing needs hypothesis; install it with: pip install 'dynunet[testing]'"
    ) from error

from . import laws, reference
from .cases import Case, Counterexample, array_code, call, torch_on_arrays
from .checks import check_conv, check_conv_transpose, check_pool
from .invalid import invalid_conv_cases, invalid_pool_cases
from .layouts import Layout, layouts
from .strategies import (
    conv_cases,
    conv_transpose_cases,
    interpolate_cases,
    pad_cases,
    pool_cases,
    spatial_shapes,
)

__all__ = [
    "Case",
    "Counterexample",
    "Layout",
    "array_code",
    "call",
    "check_conv",
    "check_conv_transpose",
    "check_pool",
    "conv_cases",
    "conv_transpose_cases",
    "interpolate_cases",
    "invalid_conv_cases",
    "invalid_pool_cases",
    "laws",
    "layouts",
    "pad_cases",
    "pool_cases",
    "reference",
    "spatial_shapes",
    "torch_on_arrays",
]
