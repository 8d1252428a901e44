"""Scaling: what becomes -1 and 1, and which entries are missing."""

from dataclasses import dataclass

import numpy as np

from .sources import Info, Units

_SILENT = 1e-5  # -100 dB of full scale
_IMAGES = {"uint8": 255.0, "uint16": 65535.0}


@dataclass(frozen=True)
class Scale:
    """``low`` becomes -1 and ``high`` becomes 1; values beyond are not clipped."""

    low: float = -1.0
    high: float = 1.0

    def to_model(self, values: np.ndarray) -> np.ndarray:
        """Numbers of the file as the network sees them, float32."""
        gain = 2 / (self.high - self.low)
        shift = -(self.high + self.low) / (self.high - self.low)
        return (values.astype(np.float64) * gain + shift).astype(np.float32)

    def to_file(self, x: np.ndarray) -> np.ndarray:
        """And back, float64."""
        return (x.astype(np.float64) * (self.high - self.low) + (self.high + self.low)) / 2


def scale_of(info: Info | None, units: Units, own: tuple[float, float] | None = None) -> Scale:
    """The scale of a file, or of a new one.

    Args:
        info: of the file; None for a new one.
        units: of the data set.
        own: the percentiles of this file, where units ask for them.
    """
    if units.kind == "audio":
        return Scale()
    if units.kind == "images":
        return Scale(0.0, _IMAGES[(info.stored if info is not None else units.stored) or "uint8"])
    if units.percentiles is not None and own is not None:
        return Scale(*own)
    return Scale(*units.range) if units.range is not None else Scale()


def loudness(values: np.ndarray, level: float) -> Scale:
    """The scale that brings audio to a level, a root mean square; what is nearly silent stays so."""
    power = np.square(values, dtype=np.float64).mean() if values.size else 0.0
    high = max(float(np.sqrt(power)), _SILENT) / level
    return Scale(-high, high)


def present(values: np.ndarray, missing: float | None) -> np.ndarray:
    """Which entries are there: finite, and not the value that means missing."""
    there = np.isfinite(values) if values.dtype.kind == "f" else np.ones(values.shape, bool)
    if missing is not None and not np.isnan(missing):
        with np.errstate(over="ignore"):  # beyond float32: equal to nothing finite
            there &= values != missing
    return there


def with_nan(values: np.ndarray, missing: float | None) -> np.ndarray:
    """The values in floating point, NaN where missing."""
    there = present(values, missing)
    return values if there.all() else np.where(there, values, np.nan)


def limits(values: np.ndarray, percentiles: tuple[float, float] | None) -> tuple[float, float]:
    """The least and greatest of some values, or their percentiles where these differ."""
    if percentiles is not None:
        low, high = (float(p) for p in np.percentile(values, percentiles))
        if low < high:
            return low, high
    return float(values.min()), float(values.max())
