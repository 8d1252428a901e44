"""Operators that are not linear, or not always: projections, limited and rounded values."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor

from ..arguments import choice, positive, real
from .linear import spatial_axis
from .operator import Operator

_IN_BIN = 0.499  # of a step: how far an entry may be from the middle of its bin and still be rounded to it


@dataclass(frozen=True, repr=False)
class Project(Operator):
    """The mean or the maximum along a spatial axis, which keeps one entry.

    Args:
        axis: the spatial axis, from 0, or from -1 for the last one.
        mode: ``"mean"``, which is linear, or ``"max"``: a maximum intensity projection.
    """

    axis: int
    mode: str = "mean"

    def __post_init__(self) -> None:
        choice(self.mode, ("mean", "max"), "mode")

    @property
    def linear(self) -> bool:
        return self.mode == "mean"

    def measure(self, x: Tensor) -> Tensor:
        axis = 2 + spatial_axis(self.axis, x.ndim - 2, "axis")
        return x.mean(axis, keepdim=True) if self.linear else x.amax(axis, keepdim=True)

    def data_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        raise ValueError(f"shape must be given: the measurement of {self} does not tell that of the data")


@dataclass(frozen=True, repr=False)
class Clip(Operator):
    """Values limited to a range, as by a recording that is too loud.

    What is measured inside the range is exactly known, what is measured at a limit lies there or beyond.
    :meth:`residual` says so: it is the way from x to the nearest value that may have been measured as y, and
    its derivative is 0 where that is x itself.

    Args:
        low, high: the limits, low below high; one may be infinite.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        if not real(self.low, "low") < real(self.high, "high"):
            raise ValueError(f"low must be below high, got {self.low} and {self.high}")

    def measure(self, x: Tensor) -> Tensor:
        return x.clamp(self.low, self.high)

    def residual(self, x: Tensor, y: Tensor) -> Tensor:
        low, high = self._interval(y)
        return torch.where((x > low) & (x < high), x, x.detach().clamp(low, high)) - x

    def project(self, x: Tensor, y: Tensor, known: Tensor, tolerance: float) -> Tensor:
        """x, or where it would not be measured as y the nearest value that would, to the bit."""
        return torch.where(known, x.clamp(*self._interval(y)), x)

    def _interval(self, y: Tensor) -> tuple[Tensor, Tensor]:
        return torch.where(y > self.low, y, -inf), torch.where(y < self.high, y, inf)


@dataclass(frozen=True, repr=False)
class Quantise(Operator):
    """Values rounded to multiples of a step, half to even.

    Rounding has no useful derivative: passed on is that of x itself. To the methods, rounding is noise with
    the variance ``step^2 / 12`` of a uniform distribution.

    Args:
        step: positive.
    """

    step: float

    def __post_init__(self) -> None:
        positive(self.step, "step")

    @property
    def variance(self) -> float:
        return self.step**2 / 12

    def measure(self, x: Tensor) -> Tensor:
        return self.step * (x.detach() / self.step).round() + (x - x.detach())

    def residual(self, x: Tensor, y: Tensor) -> Tensor:
        return y - x

    def project(self, x: Tensor, y: Tensor, known: Tensor, tolerance: float) -> Tensor:
        """x, or where it would be rounded to another value the nearest one that would not."""
        half = _IN_BIN * self.step
        return torch.where(known, x.clamp(y - half, y + half), x)
