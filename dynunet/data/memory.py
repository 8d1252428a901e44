"""Files that are larger once they are read than they look."""

import os
from contextlib import suppress
from pathlib import Path

from ..writing import amount
from .sources import UnreadableError

_COPIES = 4  # of what is read, at least, while it is worked on
_DENSE = 500  # times as large as on disk: not even a signal of silence is
_SMALL = 2**28  # bytes, which may be as dense as they like


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
    if read > max(_SMALL, _DENSE * on_disk):
        raise UnreadableError(f"it would become {amount(read)} out of {amount(on_disk)}")
