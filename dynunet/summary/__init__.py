"""The parts of a network and what they cost, before anything is computed.

For each part, one run on the ``meta`` device (:mod:`dynunet.summary.counting`) counts

- parameters, each once;
- FLOPs: multiplications and additions of convolutions and matrix products by definition, whatever algorithm
  computes them. All other operations are small in comparison;
- activations: bytes that autograd keeps for the backward pass, each once. This is an estimate without dropout
  masks, scratch memory and the allocator's overhead.

A training step takes about three times the FLOPs of the forward pass, and the memory that
:func:`dynunet.planning.training_memory` estimates.
"""

from .diagram import drawing
from .table import Part, Summary, summarize

__all__ = ["Part", "Summary", "drawing", "summarize"]
