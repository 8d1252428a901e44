"""The range of a file's values, found once before training, in parts that fit in memory."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import numpy as np

from .cache import Cache
from .files import READERS
from .options import missing_value
from .scaling import limits, present
from .sources import Info, Region, Units, UnreadableError

_PART = 2**24  # values read at once


@dataclass(frozen=True)
class Measure:
    """What the values of a file are.

    ``low`` and ``high`` have one entry per example, NaN for one that cannot be used: it has nothing but
    missing values, or values that are not finite and nobody said that those are missing. ``own`` is what the
    file's percentiles are.
    """

    low: np.ndarray
    high: np.ndarray
    own: tuple[float, float] | None
    odd: dict[int, str]  # why an example cannot be used


def measure(info: Info, units: Units, cache: Cache) -> Measure:
    """Read a file once.

    Raises:
        UnreadableError: none of its examples can be used, or it is constant and scaled by its own range.
    """
    low, high = np.full(info.entries, np.nan), np.full(info.entries, np.nan)
    odd: dict[int, str] = {}
    kept = []
    for index in range(info.entries):
        try:
            parts = [limits(values, None) for values in _parts(info, index, units, cache, kept)]
            if not parts:
                raise UnreadableError("it has nothing but missing values")
            low[index], high[index] = min(p[0] for p in parts), max(p[1] for p in parts)
        except UnreadableError as error:
            odd[index] = str(error)
    if len(odd) == info.entries:
        raise UnreadableError(next(iter(odd.values())))
    own = None
    if units.percentiles is not None:
        own = limits(np.concatenate(kept), units.percentiles)
        if own[0] == own[1]:
            raise UnreadableError(f"all its values are {own[0]:g}")
    return Measure(low, high, own, odd)


def _parts(
    info: Info, index: int, units: Units, cache: Cache, kept: list[np.ndarray]
) -> Iterator[np.ndarray]:
    """The values of an example that are there, part by part; also kept, where percentiles need them."""
    missing = missing_value(units.missing)
    for region in _regions(info, units):
        values = READERS[info.format].read(info, index, units, cache, region)
        there = present(values, missing)
        if units.missing is None and not there.all():
            wrong = values.size - int(there.sum())
            all_of_it = "all of its" if wrong == values.size else f"{wrong} of its"
            raise UnreadableError(
                f"{all_of_it} values are NaN or infinite; missing='nan' would leave them out"
            )
        values = values[there]
        if not values.size:
            continue
        if units.percentiles is not None:
            kept.append(values)
        yield values


def _regions(info: Info, units: Units) -> Iterator[Region | None]:
    """Slabs along the first axis, where reading a part does not mean to read all."""
    if info.format != "npy":
        yield None
        return
    first, *others = READERS[info.format].grid(info, units)
    step = max(_PART // (prod(others) * info.channels), 1)
    for start in range(0, first, step):
        yield [(start, min(start + step, first)), *((0, n) for n in others)]
