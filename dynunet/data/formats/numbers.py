"""Numbers as a file stores them, so that what is read and written again is the same to the bit."""

from dataclasses import dataclass

import numpy as np

from ..memory import by_parts

__all__ = ["FLOATS", "Numbers"]


@dataclass(frozen=True)
class Numbers:
    """A value is ``stored * slope + inter``, with ``stored`` of a type (of some of its bits)."""

    dtype: str
    slope: float = 1.0
    inter: float = 0.0
    bits: int | None = None

    def values(self, stored: np.ndarray) -> np.ndarray:
        """Stored numbers as values, in float64 unless they are the same."""
        if self.slope == 1 and self.inter == 0:
            return stored
        return by_parts(stored, np.float64, lambda part: part.astype(np.float64) * self.slope + self.inter)

    def stored(self, values: np.ndarray) -> np.ndarray:
        """Values as they are stored; whole numbers are rounded and limited to their range, NaN becomes 0."""
        return by_parts(values, self.dtype, self._stored)

    def _stored(self, values: np.ndarray) -> np.ndarray:
        dtype = np.dtype(self.dtype)
        numbers = (values.astype(np.float64) - self.inter) / self.slope
        if dtype.kind == "b":
            return numbers > 0.5
        if dtype.kind not in "iu":
            with np.errstate(over="ignore"):  # beyond the range of a short float: infinite
                return numbers.astype(dtype)
        limits = np.iinfo(dtype)
        low, high = float(limits.min), float(limits.max)
        if self.bits is not None:
            low, high = -(2.0 ** (self.bits - 1)), 2.0 ** (self.bits - 1) - 1
        if high >= 2.0**63 - 1:  # the greatest float64 that is still in 64 bits
            high = float(np.nextafter(high, 0))
        return np.nan_to_num(numbers, nan=0).round().clip(low, high).astype(dtype)


FLOATS = Numbers("float32")
