"""The levels of a network for a patch: by how much each axis is down-sampled, and with which kernel.

A step along an axis is as long as its spacing, and doubles with every halving. Axes along which steps are at
least twice as long as along the finest one are coarse: they are not down-sampled before the others have
caught up, and not convolved until then, for their neighbours are too far apart to make one feature (Isensee
et al. 2021, nnU-Net). An axis is halved as long as :data:`LEAST` entries are left, so every axis of the
coarsest level has from 4 to 7 entries where it is not limited otherwise. In one dimension levels are a
quarter as long, as signals are long and networks for them want a large receptive field.
"""

from collections.abc import Sequence
from math import prod
from typing import NamedTuple

__all__ = ["COARSE", "LEAST", "Topology", "channels_of", "topology"]

LEAST = 4  # entries of an axis at the coarsest level
COARSE = 2  # times the finest step
_MOST_LEVELS = 6  # a seventh has more weights than all others, and sees no more than a patch
_MOST_TIMES = 8  # the channels of the first level


class Topology(NamedTuple):
    """One entry per transition, or per level, and in it one per axis."""

    strides: tuple[tuple[int, ...], ...]
    kernels: tuple[tuple[int, ...], ...]

    @property
    def total(self) -> tuple[int, ...]:
        """By how much each axis is down-sampled in all: patches are multiples of it."""
        return tuple(prod(s[i] for s in self.strides) for i in range(len(self.kernels[0])))


def topology(size: Sequence[int], spacing: Sequence[float]) -> Topology:
    """Strides and kernels for a patch of this size.

    >>> topology((16, 64, 64), (5.0, 1.0, 1.0)).strides
    ((1, 2, 2), (1, 2, 2), (2, 2, 2), (2, 2, 2))
    >>> topology((16, 64, 64), (5.0, 1.0, 1.0)).kernels[:3]
    ((1, 3, 3), (1, 3, 3), (3, 3, 3))
    """
    factor = 4 if len(size) == 1 else 2
    left, step = list(size), list(spacing)
    strides, kernels = [], [_kernel(step)]
    while len(kernels) < _MOST_LEVELS:
        able = [i for i, n in enumerate(left) if n >= factor * LEAST]
        if not able:
            break
        finest = min(step[i] for i in able)
        stride = tuple(factor if i in able and step[i] < COARSE * finest else 1 for i in range(len(size)))
        left = [n // s for n, s in zip(left, stride, strict=True)]
        step = [d * s for d, s in zip(step, stride, strict=True)]
        strides.append(stride)
        kernels.append(_kernel(step))
    kernels[-1] = (3,) * len(size)  # somewhere every axis is looked along
    return Topology(tuple(strides), tuple(kernels))


def _kernel(step: Sequence[float]) -> tuple[int, ...]:
    return tuple(3 if s < COARSE * min(step) else 1 for s in step)


def channels_of(levels: int, width: int) -> tuple[int, ...]:
    """Channels of the levels: twice as many on each, up to eight times those of the first."""
    return tuple(width * min(2**i, _MOST_TIMES) for i in range(levels))
