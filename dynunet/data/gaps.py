"""Files in which something is to be made anew: what a mask marks, on the grid of the file."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from .cache import Cache
from .files import READERS
from .loading import Marks, look
from .scaling import scale_of
from .sources import Info, Units, UnreadableError, attempt, shown


def marks_of(mask: Path, units: Units) -> Marks:
    """What a mask says of a file: not 0, or of images bright, where something is to be made anew.

    Args:
        mask: a file of the kind that the units are of, and of the size of the file; with its channels each
            has its own, with another number all have the same.
    """

    def marks(info: Info) -> np.ndarray:
        try:
            return attempt(lambda: _marks(look(mask, replace(units, series=info.series)), units, info))
        except UnreadableError as error:
            raise UnreadableError(f"its mask {shown(mask)}: {error}") from None

    return marks


def _marks(own: Info, units: Units, info: Info) -> np.ndarray:
    """Bool ``(N or 1, channels or 1, *shape)``."""
    if own.shape != info.shape or own.entries not in (1, info.entries):
        sizes = ("x".join(map(str, (*[i.entries] * i.series, *i.shape))) for i in (info, own))
        raise UnreadableError("it must have the size of the file, {}, and has {}".format(*sizes))
    reader, cache = READERS[own.format], Cache(float("inf"))
    if units.kind == "images":
        grey = Units("images", 2, 1)
        values = np.stack([reader.read(own, n, grey, cache) for n in range(own.entries)])
        return values > scale_of(own, units).high / 2
    stored = np.stack([reader.stored(own, n, units, cache) for n in range(own.entries)])
    marked = np.nan_to_num(own.numbers.values(stored)) != 0
    return marked if own.channels == info.channels else marked.any(1, keepdims=True)
