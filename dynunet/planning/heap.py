"""How much memory a process has resident for the blocks that it uses, with glibc's allocator.

Up to 32 MiB a block lies in the heap, in the smallest gap that holds it, or at its end; a larger one is
mapped by itself and given back at once. torch asks for aligned blocks, so a gap must have some bytes more
than the block, and what is over is left as two scraps beside it. If nothing takes a scrap, it joins the gap
again once the block is free. But small blocks do take scraps, those of other tensors and of autograd's nodes,
and stay as long as these: then the gap is too small for the next block of the same size, and the heap grows.
That is why a step has often half as much again resident as its tensors have in use, which was read off traces
of such processes: at the fullest moment most gaps were of exactly the size of a block, between two small
blocks.

The replay below is of this, with chance where it depends on too much: each scrap is taken with a
probability, :data:`TAKEN`, where autograd makes nodes that stay. That was fitted to 71 networks, and
:data:`SAFETY` to 120 others; ``python -m tests.benchmarks.training_memory`` compares the estimate with
others. It cannot be exact: the same network took from 0.78 to 0.92 GB in five processes.
"""

from bisect import bisect_left, insort
from collections.abc import Iterable
from random import Random
from statistics import mean

from .dry_run import Event, Trace

__all__ = ["Heap", "resident"]

TAKEN = 0.3  # of the scraps, where nodes are made
SAFETY = 1.265  # too much is less of a harm than too little
_RUNS = 4  # that are averaged
_STEPS = 2  # the second begins with the gaps of the first
_ALIGNMENT, _HEADER, _LEAST = 64, 16, 32  # bytes
_SCRAP = _ALIGNMENT + _LEAST  # what is asked for beyond a block
_THRESHOLD = 128 << 10  # above which a block is mapped: at first; it rises to the largest that was given back
_MOST = 32 << 20  # but never beyond


def resident(trace: Trace) -> int:
    """The most bytes that the process has resident in the first steps of training, with AdamW."""
    return int(SAFETY * mean(_replayed(trace, seed) for seed in range(_RUNS)))


def _replayed(trace: Trace, seed: int) -> int:
    heap = Heap(seed)
    for copy in range(2):  # weights and their moving average
        heap.run(Event(_name(copy, i), size) for i, size in enumerate(trace.weights))
    for step in range(_STEPS):
        heap.run(trace.forward, TAKEN)
        heap.run(trace.backward)
        heap.end_step()
        if step == 0:  # Adam's two moments
            for copy in range(2, 4):
                heap.run(Event(_name(copy, i), size) for i, size in enumerate(trace.weights))
    return heap.most


def _name(copy: int, i: int) -> int:
    """Of a block that stays: below the numbers of a trace."""
    return -(4 * i + copy) - 1


class Heap:
    """Blocks at their places.

    Attributes:
        most: bytes that were resident at once, up to now.
    """

    def __init__(self, seed: int = 0) -> None:
        self.most = 0
        self._random, self._taken = Random(seed), 0.0
        self._end = self._mapped = 0  # of the heap; bytes outside it
        self._threshold = _THRESHOLD
        self._blocks: dict[int, tuple[int | None, int]] = {}  # start, or None if mapped, and size
        self._gaps: list[tuple[int, int]] = []  # sizes and starts, in order
        self._starts: dict[int, int] = {}  # of the gaps, with their sizes
        self._ends: dict[int, int] = {}  # and their starts
        self._scraps: list[tuple[int, int]] = []  # that were taken in this step

    def run(self, events: Iterable[Event], taken: float = 0.0) -> None:
        """Take and give back blocks; ``taken`` is the probability that a scrap is, where nodes are made."""
        for block, size, recorded in events:
            self._taken = taken if recorded else 0.0
            if size:
                self._take(block, size)
            else:
                self._give_back(*self._blocks.pop(block))

    def end_step(self) -> None:
        """Give back all that was small."""
        for start, size in self._scraps:
            self._add_gap(start, size)
        self._scraps.clear()

    def _take(self, block: int, size: int) -> None:
        size = -(-(size + _HEADER // 2) // _HEADER) * _HEADER
        place = bisect_left(self._gaps, (size + _SCRAP, -1))
        if place < len(self._gaps):
            start = self._in_gap(place, size + _SCRAP)
        elif size + _SCRAP >= self._threshold:
            self._blocks[block] = None, size
            self._mapped += size
            self.most = max(self.most, self._end + self._mapped)
            return
        else:
            start = self._end
            self._end += size + _SCRAP
        self.most = max(self.most, self._end + self._mapped)
        lead = -(start + _HEADER) % _ALIGNMENT
        lead += _ALIGNMENT if 0 < lead < _LEAST else 0
        self._scrap(start, lead)
        self._scrap(start + lead + size, _SCRAP - lead)
        self._blocks[block] = start + lead, size

    def _in_gap(self, place: int, size: int) -> int:
        """The start of the first bytes of a gap, which is as much smaller then."""
        whole, start = self._gaps[place]
        self._remove_gap(start)
        if whole > size:
            self._add_gap(start + size, whole - size)
        return start

    def _scrap(self, start: int, size: int) -> None:
        if size and self._random.random() < self._taken:
            self._scraps.append((start, size))
        elif size:
            self._add_gap(start, size)

    def _give_back(self, start: int | None, size: int) -> None:
        if start is None:
            self._mapped -= size
            if size <= _MOST:
                self._threshold = max(self._threshold, size)
        else:
            self._add_gap(start, size)

    def _add_gap(self, start: int, size: int) -> None:
        """Join it to the gaps beside it; a large one at the end is given back to the system."""
        if start in self._ends:
            before = self._ends[start]
            size += self._remove_gap(before)
            start = before
        if start + size in self._starts:
            size += self._remove_gap(start + size)
        if start + size == self._end and size >= 2 * self._threshold:
            self._end = start
            return
        insort(self._gaps, (size, start))
        self._starts[start], self._ends[start + size] = size, start

    def _remove_gap(self, start: int) -> int:
        size = self._starts.pop(start)
        del self._ends[start + size]
        del self._gaps[bisect_left(self._gaps, (size, start))]
        return size
