"""The parts of a network and what they cost, before anything is computed.

Counted for each part, from one run without values (:mod:`dynunet.summary.counting`):

- parameters, each once;
- FLOPs: multiplications and additions, as convolutions and matrix products are defined, whatever algorithm
  computes them. All else is small beside them;
- activations: bytes that autograd keeps for the backward pass, each once. An estimate: it leaves out masks of
  dropout and what algorithms and allocators take while they work.

A training step computes about three times the FLOPs of the forward pass. Its memory is that of the
activations, and with Adam four times that of the parameters (weights, gradients and two moments).
"""

from .diagram import drawing
from .table import Part, Summary, summarize

__all__ = ["Part", "Summary", "drawing", "summarize"]
