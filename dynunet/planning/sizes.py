"""Amounts of memory in words: ``8GB``."""

import re
from math import isfinite

__all__ = ["memory_size"]

_UNITS = {
    "B": 1, "BYTES": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
    "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40,
}  # fmt: skip
_WRITTEN = re.compile(r"\s*([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*([A-Za-z]+)\s*")


def memory_size(memory: float | str) -> int:
    """Bytes of an amount such as ``"8GB"`` or ``"512 MiB"``, or a number of bytes.

    Raises:
        ValueError, TypeError: if it is none, or not at least one byte.

    >>> memory_size("1.5 GB"), memory_size("1KiB"), memory_size(4096)
    (1500000000, 1024, 4096)
    """
    error = ValueError(f"memory must be an amount such as 8GB or 512MiB, got {memory!r}")
    if isinstance(memory, str):
        match = _WRITTEN.fullmatch(memory)
        if match is None or match[2].upper() not in _UNITS:
            raise error
        memory = float(match[1]) * _UNITS[match[2].upper()]
    if isinstance(memory, bool) or not isinstance(memory, (int, float)):
        raise TypeError(f"memory must be an amount such as 8GB, or a number of bytes, got {memory!r}")
    if not isfinite(memory) or memory < 1:
        raise error
    return int(memory)
