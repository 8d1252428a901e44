"""Adaptive projected guidance: large scales of guidance without the saturation that they cause.

With the stronger estimate D of the data and its difference d from the weaker one (Sadat et al. 2024,
algorithm 1, where D is the conditional one), each step of guidance is replaced by

    m <- d + beta m                     momentum, negative: away from where the steps before led
    m' = m min(1, r / |m|)              of at most a norm r
    m'' = orthogonal(m', D) + eta parallel(m', D)
    guided = D + (scale - 1) m''

The part parallel to D, which eta leaves out, makes the estimate larger rather than better. Norms and
projections are over all entries of a sample, in any number of dimensions.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor

from ..arguments import number, positive


@dataclass(frozen=True)
class APG:
    """Options of adaptive projected guidance, see the module. ``APG(1, None, 0)`` is plain guidance.

    Args:
        eta: how much of the part parallel to the estimate is kept; 1 for all.
        max_norm: r, of the difference of a whole sample; None for no limit. It grows with the number of
            entries: the paper has 2.5 to 15 for 4 to 16 thousand of them.
        momentum: beta; 0 for none, below 0 as in the paper.
    """

    eta: float = 0.0
    max_norm: float | None = None
    momentum: float = -0.5

    def __post_init__(self) -> None:
        number(self.eta, "eta", -inf, inf)
        if self.max_norm is not None:
            positive(self.max_norm, "max_norm")
        if not -1 < number(self.momentum, "momentum", -1, 1) < 1:
            raise ValueError(f"momentum must be above -1 and below 1, got {self.momentum}")

    def begun(self) -> Callable[[Tensor, Tensor], Tensor]:
        """A function ``(D, d) -> m''`` for one run of a sampler, whose steps it remembers."""
        before: Tensor | None = None

        def changed(estimate: Tensor, difference: Tensor) -> Tensor:
            nonlocal before
            if before is not None:
                difference = difference + self.momentum * before
            before = difference.detach() if self.momentum else None
            if self.max_norm is not None:
                difference = difference * (self.max_norm / _norm(difference)).clamp(max=1)
            return _without_parallel(difference, estimate, 1 - self.eta)

        return changed


def _without_parallel(x: Tensor, along: Tensor, share: float) -> Tensor:
    """x less a share of its part parallel to another sample, computed in float64 where there is that."""
    wide = torch.float32 if x.device.type == "mps" else torch.float64
    unit = along.to(wide) / _norm(along.to(wide)).clamp(min=torch.finfo(wide).tiny)
    axes = tuple(range(1, x.ndim))
    return (x - share * (x.to(wide) * unit).sum(axes, keepdim=True) * unit).to(x.dtype)


def _norm(x: Tensor) -> Tensor:
    """Of each sample, ``(N, 1, ...)``."""
    return x.square().sum(tuple(range(1, x.ndim)), keepdim=True).sqrt()
