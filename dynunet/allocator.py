"""The memory of tensors on the CPU: given back once it is free, or kept by the C library for later.

glibc keeps what is free below 32 MiB in its heap. Small blocks come to lie in the gaps, so these do not fit
the next tensor of the same size and the heap grows: a process that trains has up to twice as much resident as
its tensors have in use, and not the same each time. A block that is mapped by itself leaves no gap, but its
pages are cleared each time that it is taken. (The malloc of glibc, https://sourceware.org/glibc/wiki/MallocInternals.)
"""

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["compact_memory", "has_glibc"]

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # names of mallopt, from malloc.h
_COMPACT = 1 << 20  # bytes from which on a block is mapped by itself
_USUAL = 32 << 20  # to which the library's own threshold rises as tensors come and go


def has_glibc() -> bool:
    """True if the C library of this process is glibc."""
    return platform.libc_ver()[0] == "glibc"


@contextmanager
def compact_memory(wanted: bool = True) -> Iterator[None]:
    """Have all blocks of a mebibyte or more given back to the system as soon as they are free.

    It holds for the whole process. Afterwards it is as usual once tensors of 32 MiB have come and gone.

    Args:
        wanted: False does nothing.

    Raises:
        ValueError: if the C library of this process is not glibc.
    """
    if not wanted:
        yield
        return
    if not has_glibc():
        raise ValueError("compact_memory must be False here: it needs glibc, and this is another C library")
    _map_from(_COMPACT)
    try:
        yield
    finally:
        _map_from(_USUAL)


def _map_from(size: int) -> None:
    """Map blocks of at least so many bytes, and keep at most twice that at the end of the heap."""
    library = ctypes.CDLL(None)
    for name, value in ((_MMAP_THRESHOLD, size), (_TRIM_THRESHOLD, 2 * size)):
        if not library.mallopt(name, value):
            raise RuntimeError(f"mallopt refused {value} bytes")
