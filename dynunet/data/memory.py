"""Memory: decoded files that are kept in it, and files that would not fit."""

import os
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from ..writing import amount
from .errors import UnreadableError

__all__ = ["Cache", "by_parts", "check_density", "check_size", "parts", "stacked", "total"]

_COPIES = 4  # of what is read, at least, while it is worked on
_DENSE = 500  # times as large as on disk: not even a signal of silence is
_SMALL = 2**28  # bytes, which may be as dense as they like
_PART = 2**20  # entries that are worked on at once


class Cache:
    """Decoded files by key, up to a number of bytes: the least recently used one goes first.

    A copy in another process starts empty.
    """

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self._held: OrderedDict[Hashable, np.ndarray] = OrderedDict()
        self._bytes = 0

    def get(self, key: Hashable, make: Callable[[], np.ndarray]) -> np.ndarray:
        """The array of a key, made when it is not there. It must not be written to."""
        if key in self._held:
            self._held.move_to_end(key)
            return self._held[key]
        made = make()
        made.flags.writeable = False
        if made.nbytes <= self.limit:
            self._held[key] = made
            self._bytes += made.nbytes
            while self._bytes > self.limit:
                self._bytes -= self._held.popitem(last=False)[1].nbytes
        return made

    def __getstate__(self) -> dict[str, Any]:
        return {"limit": self.limit}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["limit"])


def by_parts(values: np.ndarray, dtype: Any, change: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """An array changed entry by entry: part by part, so that a long one takes no more memory on the way."""
    made = np.empty(values.shape, dtype)
    changed = made.reshape(-1)
    first = 0
    for part in parts(values):
        changed[first : first + part.size] = change(part)
        first += part.size
    return made


def parts(values: np.ndarray) -> Iterator[np.ndarray]:
    """The entries of an array, some after the other."""
    entries = values.reshape(-1)
    return (entries[first : first + _PART] for first in range(0, values.size, _PART))


def stacked(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Arrays along a new first axis; a single one is not copied."""
    return arrays[0][None] if len(arrays) == 1 else np.stack(arrays)


def total() -> float:
    """Bytes of memory that this machine has, or a container of it may use; infinite where nobody says."""
    found = [float("inf")]
    with suppress(AttributeError, ValueError, OSError):
        found.append(float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")))
    with suppress(ValueError, OSError):  # "max" is no number
        found.append(float(Path("/sys/fs/cgroup/memory.max").read_text()))
    return min(found)


def check_size(read: int, on_disk: int) -> None:
    """Refuse a file before it is read, if that would take all of the memory, or much more than it is worth.

    Args:
        read: its bytes once it is read.
        on_disk: its bytes as it is.
    """
    if _COPIES * read > total():
        raise UnreadableError(f"it would take {amount(read)} to read, of {amount(total())} of memory")
    check_density(read, on_disk)


def check_density(read: int, on_disk: int) -> None:
    """Refuse a file that would become much more than it is worth, even if it is read part by part."""
    if read > max(_SMALL, _DENSE * on_disk):
        raise UnreadableError(f"it would become {amount(read)} out of {amount(on_disk)}")
