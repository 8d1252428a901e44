"""The values of targets, counted: which labels there are and how often, or their moments."""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

__all__ = ["Census", "moments"]


@dataclass
class Census:
    """The values of a target: labels with how often they are there, and moments."""

    labels: Counter[int] | None = field(default_factory=Counter)  # None where they are no whole numbers
    number: float = 0
    total: float = 0
    squares: float = 0

    def add(self, values: np.ndarray) -> None:
        there = values[np.isfinite(values)] if values.dtype.kind == "f" else values.ravel()
        whole = there.size == values.size and (
            there.dtype.kind in "iub" or bool((there == there.round()).all())
        )
        if not whole:
            self.labels = None
        elif self.labels is not None:
            found, often = np.unique(there, return_counts=True)
            self.labels.update(dict(zip(map(int, found), map(int, often), strict=True)))
        self.number += there.size
        self.total += float(there.sum(dtype=np.float64))
        self.squares += float(np.square(there, dtype=np.float64).sum())

    def __add__(self, other: "Census") -> "Census":
        both = None if self.labels is None or other.labels is None else self.labels + other.labels
        sums = (self.number + other.number, self.total + other.total, self.squares + other.squares)
        return Census(both, *sums)


def moments(values: np.ndarray) -> Census:
    """Of some values, without labels."""
    result = Census(None)
    result.add(values)
    return result
