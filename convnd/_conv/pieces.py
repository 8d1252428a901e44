"""Runs one algorithm on one map, in pieces that fit the workspace limit."""

from typing import Any, NamedTuple

from torch import Tensor

from .._torch.dtypes import wide
from . import settings
from .algorithm import Algorithm
from .cost import workspace
from .problem import Problem


class Piece(NamedTuple):
    """A part of the work: its problem, and the ranges ``(axis, start, length)`` of ``x`` and ``y``."""

    problem: Problem
    x: tuple[int, int, int]
    y: tuple[int, int, int]


def run(p: Problem, algorithm: Algorithm, a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    """Apply the map to ``a`` and ``b``. Of a transposed convolution, only the convolutions inside are cut."""
    if p.op == "transpose":
        return algorithm.transpose(p, a, b, bias)
    pieces = halves(p, algorithm)
    if p.op == "conv":
        if pieces is None:
            return algorithm.conv(p, a, b, bias)
        y = a.new_empty(p.batch, *p.counts, p.outputs).movedim(-1, 1)
        for piece in pieces:
            y.narrow(*piece.y).copy_(run(piece.problem, algorithm, a.narrow(*piece.x), b, bias))
        return y
    if pieces is None:
        return algorithm.weight(p, a, b)
    first, second = (run(q, algorithm, a.narrow(*at_x), b.narrow(*at_y)) for q, at_x, at_y in pieces)
    return (wide(first) + second).to(a.dtype)


def halves(p: Problem, algorithm: Algorithm) -> list[Piece] | None:
    """Cut work that is too large into two halves: of the batch, or of the longest axis of ``y``."""
    if workspace(p, algorithm) <= settings.workspace_limit:
        return None
    if p.batch > 1:
        cut = p.batch // 2
        ranges = ((0, 0, cut), (0, cut, p.batch - cut))
        return [Piece(p._replace(batch=at[2]), at, at) for at in ranges]
    axis = max(range(len(p.counts)), key=p.counts.__getitem__)
    g, count, pieces = p.geometry, p.counts[axis], []
    if count < 2:
        return None
    extent, stride, (before, _) = g.extents(p.kernel)[axis], g.stride[axis], g.pads[axis]
    for start, stop in ((0, count // 2), (count // 2, count)):
        low, high = start * stride - before, (stop - 1) * stride - before + extent
        first, last = max(low, 0), min(high, p.sizes[axis])
        if first >= last:  # nothing but padding: cannot be cut here
            return None
        part = p._replace(
            sizes=_with(p.sizes, axis, last - first),
            counts=_with(p.counts, axis, stop - start),
            geometry=g._replace(pads=_with(g.pads, axis, (first - low, high - last))),
        )
        pieces.append(Piece(part, (2 + axis, first, last - first), (2 + axis, start, stop - start)))
    return pieces


def _with(values: tuple[Any, ...], axis: int, value: Any) -> tuple[Any, ...]:
    return *values[:axis], value, *values[axis + 1 :]
