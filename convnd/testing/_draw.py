"""Draws ranks, arguments per axis and values; shared by all strategies."""

from collections.abc import Collection
from math import prod
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from .cases import Array

Draw = st.DrawFn

MAX_SIDE = {1: 9, 2: 6, 3: 5, 4: 4, 5: 3, 6: 2}
PADDINGS = ("asymmetric", "symmetric", "none")
ELEMENTS = ("integers", "floats")


def ranks(min_dims: int, max_dims: int, dims: Collection[int] | None = None) -> st.SearchStrategy[int]:
    """The number of spatial axes: one of ``dims``, or from ``min_dims`` to ``max_dims``."""
    if dims is None and min_dims > max_dims:
        raise ValueError(f"min_dims must be at most max_dims, got {min_dims} and {max_dims}")
    allowed = sorted(range(min_dims, max_dims + 1) if dims is None else set(dims))
    if not allowed or allowed[0] < 1 or allowed[-1] > max(MAX_SIDE):
        raise ValueError(f"the number of spatial axes must be from 1 to {max(MAX_SIDE)}, got {allowed}")
    return st.sampled_from(allowed)


def choice(value: str, known: Collection[str], name: str) -> str:
    """Check that a value is one of the known names."""
    if value not in known:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, known))}, got {value!r}")
    return value


def axes(draw: Draw, n: int, low: int, high: int) -> tuple[int, ...]:
    """One int per axis."""
    return draw(st.tuples(*[st.integers(low, high)] * n))


def axes_or_ones(draw: Draw, n: int, high: int, varied: bool) -> tuple[int, ...]:
    """One int per axis from 1 to ``high``, or all 1 unless ``varied``."""
    return axes(draw, n, 1, high) if varied else (1,) * n


def paddings(draw: Draw, limits: Collection[int], padding: str, most: int = 4) -> tuple[Any, ...]:
    """Padding of each axis: (before, after) with a sum up to its limit, or an int up to half of it.

    No entry is above ``most``.
    """
    if choice(padding, PADDINGS, "padding") == "none":
        return (0,) * len(limits)
    pads: list[Any] = []
    for limit in limits:
        before = draw(st.integers(0, min(most, limit // 2 if padding == "symmetric" else limit)))
        after = before if padding == "symmetric" else draw(st.integers(0, min(most, limit - before)))
        pads.append(before if padding == "symmetric" else (before, after))
    return tuple(pads)


def pair(padding: Any) -> tuple[int, int]:
    """Padding of one axis as (before, after)."""
    return (padding, padding) if isinstance(padding, int) else padding


def values(draw: Draw, shape: tuple[int, ...], elements: str = "integers", nonfinite: bool = False) -> Array:
    """Entries in [-4, 4], integers unless ``elements`` is ``"floats"``; simple ones come first.

    The array is drawn by number: 0 is all ones, then come a few unit impulses, then 1, 2, 3, ...; the others
    are random, so that confusing two positions is soon detected. Shrinking a number is quick for any shape.
    """
    choice(elements, ELEMENTS, "elements")
    number = draw(st.integers(0, 255))
    size = prod(shape)
    rng = np.random.default_rng(number)
    array: NDArray[Any] = np.ones(size)
    if number > 4:
        array = rng.integers(-4, 5, size) if elements == "integers" else rng.uniform(-4, 4, size)
    elif number == 4:
        array = np.arange(size) % 4 + 1.0
    elif number > 0:
        array = np.eye(1, size, min(number, size) - 1)[0]
    array = array.astype(np.float64)
    if nonfinite and size:
        for _ in range(draw(st.integers(1, 3))):
            at = draw(st.integers(0, size - 1))
            array[at] = draw(st.sampled_from((np.nan, np.inf, -np.inf)))
    return array.reshape(shape)
