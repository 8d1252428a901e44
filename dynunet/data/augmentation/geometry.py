r"""Changes of places, of any number of axes at once: everything in an example is sampled on one moved grid.

What is seen at p, measured from the centre in units of length, moves to

.. math:: q = R S D F p + t

where F mirrors, D scales, S shears and R rotates, each a product over axes or planes; so the value at q is
the one that was at :math:`p = (R S D F)^{-1} (q - t)`, plus an elastic displacement. Mirroring alone only
reorders entries. In the coordinates of :func:`convnd.functional.grid_sample` the edges of the example are at
-1 and 1; an axis of n entries at a distance s is n s long, so that a rotation keeps shapes whatever the sizes
and the spacing are.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from math import cos, radians, sin, tan

import numpy as np
import torch
from torch import Tensor

import convnd.functional as F

from ..._devices import moved
from .chance import between, happens, log_between
from .options import Augment

_NODES = 5  # of a displacement along every axis: they are a fifth of it apart
_AT_ONCE = 8  # labels
_LINEAR = ("flip", "rotation", "scale", "stretch", "shear", "shift")


@dataclass(frozen=True)
class Move:
    """A change of places.

    Attributes:
        sizes: of x0.
        flips: axes that are mirrored first.
        matrix: of what is seen, after mirroring, ``(n, n)`` in units of length.
        shift: of what is seen, as a share of every axis.
        nodes: displacement of what is sampled at some nodes, ``(n, *nodes)``, as a share of every axis.
        options: resolved for so many axes.
        grids: that were made, by the sizes of an array.
    """

    sizes: tuple[int, ...]
    flips: tuple[int, ...]
    matrix: np.ndarray
    shift: np.ndarray
    nodes: Tensor | None
    options: Augment
    grids: dict[tuple[int, ...], Tensor] = field(default_factory=dict)

    @cached_property
    def samples(self) -> bool:
        """Whether anything but mirroring is done."""
        moved = not np.array_equal(self.matrix, np.eye(len(self.sizes))) or bool(self.shift.any())
        return moved or self.nodes is not None

    @property
    def padding(self) -> tuple[str, ...]:
        given = self.options.several("padding")
        return tuple("zeros" if p == "missing" else p for p in given * (len(self.sizes) // len(given)))

    def grid(self, sizes: tuple[int, ...]) -> Tensor:
        """Where an array of these sizes is sampled, ``(1, *sizes, n)``, float32."""
        if sizes not in self.grids:
            lengths = np.array(self.sizes) * np.array(self.options.spacing or (1.0,) * len(sizes))
            inverse = np.linalg.inv(self.matrix) * lengths / lengths[:, None]
            theta = np.concatenate([inverse[::-1, ::-1], (-inverse @ (2 * self.shift))[::-1, None]], 1)
            grid = F.affine_grid(torch.from_numpy(theta)[None].float(), (1, 1, *sizes))
            if self.nodes is not None:
                smooth = F.interpolate(self.nodes[None], sizes, mode="cubic")
                grid += 2 * smooth.movedim(1, -1).flip(-1)
            self.grids[sizes] = grid
        return self.grids[sizes]

    def values(self, x: Tensor, there: Tensor | None = None) -> Tensor:
        """``(C, *any sizes)`` moved; entries that are not there, bool of the shape of x, have no weight."""
        return self._each(x, lambda y, grid, mask: self._values(y, mask, grid), there)

    def flags(self, flags: Tensor) -> Tensor:
        """Bool ``(C, *any sizes)`` moved: True where True has more than half of the weight."""
        return self._each(flags, lambda y, grid, _: self._sample(y.float(), grid, "linear") > 0.5)

    def labels(self, labels: Tensor) -> Tensor:
        """Integers ``(C, *any sizes)`` moved: the one with the most weight, of equals the least."""
        return self._each(labels, lambda y, grid, _: self._labels(y, grid))

    def _each(
        self,
        x: Tensor,
        sampled: Callable[[Tensor, Tensor, Tensor | None], Tensor],
        there: Tensor | None = None,
    ) -> Tensor:
        axes = [1 + axis for axis in self.flips]
        if axes:
            x, there = x.flip(axes), None if there is None else there.flip(axes)
        return sampled(x, moved(self.grid(tuple(x.shape[1:])), x.device), there) if self.samples else x

    def _values(self, x: Tensor, there: Tensor | None, grid: Tensor) -> Tensor:
        if there is None:
            return self._sample(x, grid, self.options.interpolation or "linear")
        total = self._sample(torch.where(there, x, 0), grid, "linear")
        weight = self._sample(there.to(x.dtype), grid, "linear")
        return torch.where(weight > 0.5, total / weight.clamp(min=0.5), 0)

    def _labels(self, labels: Tensor, grid: Tensor) -> Tensor:
        if self.options.labels == "nearest":
            return self._sample(labels, grid, "nearest")
        found = torch.stack([self._voted(channel, grid) for channel in labels])
        return found.to(labels.dtype)

    def _voted(self, labels: Tensor, grid: Tensor) -> Tensor:
        """The labels ``(*sizes)`` with the most weight."""
        values = labels.unique()
        best, most = labels.new_full(grid.shape[1:-1], int(values[0])), grid.new_zeros(grid.shape[1:-1])
        for some in values.split(_AT_ONCE):
            one_hot = (labels == some.view(-1, *(1,) * labels.ndim)).float()
            weight, which = self._sample(one_hot, grid, "linear").max(0)
            better = weight > most
            best, most = torch.where(better, some[which], best), torch.where(better, weight, most)
        return best

    def _sample(self, x: Tensor, grid: Tensor, mode: str) -> Tensor:
        return F.grid_sample(x[None], grid, mode, self.padding)[0]


def num_features(options: Augment) -> int:
    """How many parameters a move has, by the options for some number of axes."""
    k = len(_axes(options))
    return (k * k + k if _moves(options) else 0) + options.has("elastic")


def draw(options: Augment, sizes: tuple[int, ...]) -> tuple[Move | None, list[float]]:
    """A random move for examples of these sizes, None where nothing moves, and its parameters."""
    n, axes = len(sizes), list(options.several("axes"))
    flips = tuple(axis for axis in options.several("flip") if happens(options, "flip"))
    matrix, shift = np.eye(n), np.zeros(n)
    matrix[np.ix_(axes, axes)] = _rotation(options) @ _shear(options) @ np.diag(_factors(options))
    if happens(options, "shift"):
        shift[axes] = [between(-1, 1) * (options.shift or 0) for _ in axes]
    share = between(0, 1) if happens(options, "elastic") else 0.0
    nodes = share * (options.elastic or 0) * _nodes(n, axes) if share else None
    move = Move(sizes, flips, matrix, shift, nodes, options)
    elastic = [share] if options.has("elastic") else []
    parameters = [*_linear_parameters(move), *elastic]
    return (move if flips or move.samples else None), parameters


def _linear_parameters(move: Move) -> list[float]:
    """The matrix, with reflections, without the identity, and the shift, along axes that may move."""
    if not _moves(move.options):
        return []
    n, told = len(move.sizes), _axes(move.options)
    signs = np.where(np.isin(np.arange(n), move.flips), -1.0, 1.0)
    seen = move.matrix * signs - np.eye(n)
    return [*seen[np.ix_(told, told)].flatten().tolist(), *move.shift[told].tolist()]


def _moves(options: Augment) -> bool:
    return any(options.has(name) for name in _LINEAR)


def _axes(options: Augment) -> list[int]:
    """Axes along which anything may move."""
    return sorted({*options.several("axes"), *options.several("flip")})


def _rotation(options: Augment) -> np.ndarray:
    """A product of rotations in every plane, those of the last planes first."""
    k = len(options.several("axes"))
    planes = [*combinations(range(k), 2)]
    matrix = np.eye(k)
    if happens(options, "rotation"):
        degrees = options.several("rotation")
        for (i, j), most in zip(planes, degrees * (len(planes) // len(degrees)), strict=True):
            matrix = matrix @ in_plane(k, i, j, radians(between(-most, most)))
    return matrix


def in_plane(n: int, i: int, j: int, angle: float) -> np.ndarray:
    """A rotation ``(n, n)`` that moves axis i towards axis j."""
    matrix = np.eye(n)
    matrix[[i, j], [i, j]] = cos(angle)
    matrix[j, i], matrix[i, j] = sin(angle), -sin(angle)
    return matrix


def _shear(options: Augment) -> np.ndarray:
    """In every plane either axis along the other: a product of such, which keeps volumes."""
    k = len(options.several("axes"))
    matrix = np.eye(k)
    if happens(options, "shear"):
        for pair in combinations(range(k), 2):
            one = np.eye(k)
            i, j = pair if between(0, 1) < 0.5 else pair[::-1]
            most = options.shear or 0
            one[i, j] = tan(radians(between(-most, most)))
            matrix = matrix @ one
    return matrix


def _factors(options: Augment) -> list[float]:
    factors = [1.0 for _ in options.several("axes")]
    if happens(options, "scale"):
        one = log_between(options.scale)
        factors = [one for _ in factors]
    if happens(options, "stretch"):
        factors = [f * log_between(options.stretch) for f in factors]
    return factors


def _nodes(n: int, axes: Sequence[int]) -> Tensor:
    """Standard normal displacements along some axes, that vary along these alone."""
    sizes = [_NODES if axis in axes else 1 for axis in range(n)]
    nodes = torch.zeros(n, *sizes)
    nodes[list(axes)] = torch.randn(len(axes), *sizes)
    return nodes
