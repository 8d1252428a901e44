"""Decoded files that are kept in memory: the least recently used one goes first."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

import numpy as np


class Cache:
    """Arrays by key, up to a number of bytes. A copy in another process starts empty."""

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
