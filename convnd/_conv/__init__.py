"""Convolution, transposed convolution and the weight gradient, over any number of axes.

:mod:`.dispatch` checks the arguments of a call. If torch's kernel is the best, it is called directly.
Otherwise the call goes through :mod:`.autograd` (derivatives) to :mod:`.execution`, which chooses the
algorithm, and :mod:`.pieces`, which runs it on pieces that fit the workspace limit.
"""

from .algorithms import registry

__all__ = ["registry"]
