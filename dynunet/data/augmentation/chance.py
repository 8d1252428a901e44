"""Whether a change happens, and how strong it is: of torch's global generator."""

from math import exp, log

import torch

from .options import Augment

__all__ = ["between", "happens", "log_between"]


def happens(options: Augment, name: str) -> bool:
    """True with the probability of a change, if it is of any strength."""
    return options.has(name) and float(torch.rand(())) < options.chance(name)


def between(low: float, high: float) -> float:
    """A number, uniform between others."""
    return low + (high - low) * float(torch.rand((), dtype=torch.float64))


def log_between(bounds: tuple[float, float] | None) -> float:
    """A factor, whose logarithm is uniform."""
    low, high = bounds or (1.0, 1.0)
    return exp(between(log(low), log(high)))
