"""The patches and batches that a plan chooses among, in the order in which they grow.

A patch has the same physical extent along every axis, as far as the files go, or for whole examples the
proportions of these. It grows as long as it shows more: up to the typical file, and to :data:`MOST` entries
of the coarsest level, which blocks there do not see beyond. Context comes before the number of examples: a
batch has two of them at first, and more only once the patch is as large as it may be (as in nnU-Net). All in
all every candidate has more entries than the one before and no axis is shorter, so a larger budget never
gives less.
"""

from collections.abc import Iterator, Sequence
from math import prod
from typing import NamedTuple

from .topology import LEAST, Topology, topology

__all__ = ["BATCHES", "Candidate", "candidates", "patches"]

MOST = 16  # entries of an axis at the coarsest level
BATCHES = (2, 3, 4, 6, 8, 12, 16)  # examples
_STEP = 1.1  # by which the extent grows


class Candidate(NamedTuple):
    """One way to spend memory."""

    size: tuple[int, ...]
    batch: int
    topology: Topology

    @property
    def entries(self) -> int:
        """Positions in a batch."""
        return self.batch * prod(self.size)


def candidates(shape: Sequence[int], spacing: Sequence[float], whole: bool = False) -> list[Candidate]:
    """All of them, the smallest first.

    Args:
        shape: of a typical file.
        spacing: of its entries.
        whole: patches are whole files, resized.
    """
    sizes = patches(shape, spacing, whole)
    small = [(sizes[0], 1), *((size, BATCHES[0]) for size in sizes)]
    made = [*small, *((sizes[-1], batch) for batch in BATCHES[1:])]
    return [Candidate(size, batch, topology(size, spacing)) for size, batch in made]


def patches(shape: Sequence[int], spacing: Sequence[float], whole: bool = False) -> list[tuple[int, ...]]:
    """Sizes of patches; each is a multiple of its network's strides, and has no axis shorter than the last.

    >>> patches((20, 256, 256), (5.0, 1.0, 1.0))[::8]
    [(4, 4, 4), (4, 16, 16), (10, 48, 48), (20, 128, 128)]
    """
    found: list[tuple[int, ...]] = []
    for wanted in _growing(shape, [1.0] * len(shape) if whole else spacing, whole):
        levels = topology(wanted, spacing)
        multiples = zip(wanted, levels.total, strict=True)
        size = tuple(min(n // m, MOST) * m for n, m in multiples)
        if topology(size, spacing) == levels and (not found or _grown(found[-1], size)):
            found.append(size)
    return found


def _growing(shape: Sequence[int], spacing: Sequence[float], whole: bool) -> Iterator[tuple[int, ...]]:
    """Sizes of equal extent, or of the proportions of the shape, from a few entries up to the shape."""
    longest = max(n * s for n, s in zip(shape, spacing, strict=True))
    extent = LEAST * min(spacing)
    while True:
        if whole:
            size = tuple(max(min(round(n * extent / longest), n), min(n, LEAST)) for n in shape)
        else:
            steps = zip(shape, spacing, strict=True)
            size = tuple(max(min(int(extent / s), n), min(n, LEAST)) for n, s in steps)
        yield size
        if size == tuple(shape):
            return
        extent *= _STEP


def _grown(before: Sequence[int], now: Sequence[int]) -> bool:
    pairs = list(zip(before, now, strict=True))
    return all(b <= n for b, n in pairs) and any(b < n for b, n in pairs)
