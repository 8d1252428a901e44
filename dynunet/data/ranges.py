"""The range of a file's values, found once before training, in parts that fit in memory."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import numpy as np

from .errors import UnreadableError
from .formats import Header
from .memory import Cache
from .options import missing_value
from .spec import DataSpec
from .values import Region, limits, present

_PART = 2**24  # values read at once


@dataclass(frozen=True)
class Ranges:
    """The range of the values of every example in a file.

    ``low`` and ``high`` have one entry per example, NaN for one that cannot be used: it has nothing but
    missing values, or values that are not finite and nobody said that those are missing. ``percentiles`` is
    the range between the file's percentiles, where these are asked for.
    """

    low: np.ndarray
    high: np.ndarray
    percentiles: tuple[float, float] | None
    odd: dict[int, str]  # why an example cannot be used


def ranges_of(header: Header, spec: DataSpec, cache: Cache) -> Ranges:
    """Read a file once.

    Raises:
        UnreadableError: none of its examples can be used, or it is constant and scaled by its own range.
    """
    low, high = np.full(header.entries, np.nan), np.full(header.entries, np.nan)
    odd: dict[int, str] = {}
    kept = []
    for index in range(header.entries):
        try:
            parts = [limits(values, None) for values in _parts(header, index, spec, cache, kept)]
            if not parts:
                raise UnreadableError("it has nothing but missing values")
            low[index], high[index] = min(p[0] for p in parts), max(p[1] for p in parts)
        except UnreadableError as error:
            odd[index] = str(error)
    if len(odd) == header.entries:
        raise UnreadableError(next(iter(odd.values())))
    own = None
    if spec.percentiles is not None:
        own = limits(np.concatenate(kept), spec.percentiles)
        if own[0] == own[1]:
            raise UnreadableError(f"all its values are {own[0]:g}")
    return Ranges(low, high, own, odd)


def _parts(
    header: Header, index: int, spec: DataSpec, cache: Cache, kept: list[np.ndarray]
) -> Iterator[np.ndarray]:
    """The values of an example that are there, part by part; also kept, where percentiles need them."""
    missing = missing_value(spec.missing)
    for region in regions(header, spec):
        values = header.format.read(header, index, spec, cache, region)
        there = present(values, missing)
        if spec.missing is None and not there.all():
            wrong = values.size - int(there.sum())
            all_of_it = "all of its" if wrong == values.size else f"{wrong} of its"
            raise UnreadableError(
                f"{all_of_it} values are NaN or infinite; missing='nan' would leave them out"
            )
        values = values[there]
        if not values.size:
            continue
        if spec.percentiles is not None:
            kept.append(values)
        yield values


def regions(header: Header, spec: DataSpec) -> Iterator[Region | None]:
    """Slabs along the first axis, where reading a part does not mean to read all."""
    if not header.format.partial:
        yield None
        return
    first, *others = header.format.grid(header, spec)
    step = max(_PART // (prod(others) * header.channels), 1)
    for start in range(0, first, step):
        yield [(start, min(start + step, first)), *((0, n) for n in others)]
