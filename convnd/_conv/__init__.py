"""Convolution, transposed convolution and the weight gradient, over any number of axes.

A call goes from :mod:`.dispatch`, which checks its arguments, straight to torch's kernel where that is the
best, or through :mod:`.autograd` (the derivatives) to :mod:`.execution`, which chooses the algorithm, and
:mod:`.pieces`, which cuts the work to the workspace limit and lets the algorithm do it.
"""

from .algorithms import registry

__all__ = ["registry"]
