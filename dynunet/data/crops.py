"""Random crops: their place, drawn before anything is read, and their coordinates."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .sources import Region


def random_place(grid: Sequence[int], size: Sequence[int]) -> Region:
    """Where a crop is, uniform; an axis that is no longer than the crop is not cut.

    Draws from torch's global generator, once for every axis.
    """
    starts = [int(torch.randint(max(n - s, 0) + 1, ())) for n, s in zip(grid, size, strict=True)]
    return [(at, min(at + s, n)) for at, n, s in zip(starts, grid, size, strict=True)]


def region_coordinates(grid: Sequence[int], region: Region) -> Tensor:
    """The part of :func:`dynunet.diffusion.coordinates` of a file in one region, ``(axes, *region)``.

    Only that part is made: a file may be far larger than a crop.
    """
    lines = [
        torch.linspace(-1, 1, n)[a:b] if n > 1 else torch.zeros(1)
        for n, (a, b) in zip(grid, region, strict=True)
    ]
    return torch.stack(torch.meshgrid(*lines, indexing="ij"))


def padded(x: Tensor, size: Sequence[int], value: float | bool = 0) -> Tensor:
    """``(C, *spatial)`` made as large as ``size`` at the ends of its axes."""
    if x.shape[1:] == tuple(size):
        return x
    result = x.new_full((x.shape[0], *size), value)
    result[:, *(slice(0, n) for n in x.shape[1:])] = x
    return result
