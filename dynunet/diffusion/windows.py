"""Windows: sampling signals far longer and volumes far larger than the network was trained on.

At every step the estimate of the data is computed in overlapping windows and blended, so that all windows
form one joint sample, without stitching afterwards (Bar-Tal et al. 2023, eq. 5; Jimenez 2023). The weight of
a window along one axis, over the overlap with a neighbour::

    1 |-------.                    in the outer 3/8 of an overlap, where a window lacks its surroundings,
      |        \\                   it counts for nothing; in the middle quarter the weight falls as cos^2;
    0 |         '-------           at the border of the data itself it does not fall

The weights along an axis sum to 1; over several axes they are multiplied. A translation-invariant denoiser
whose receptive field reaches at most 3/8 of the overlap to each side gives exactly the same result as without
windows.

To get anatomy in a large volume, not just seamless texture, condition the network on position: train it on
:func:`random_crops` with their coordinates as condition, and sample with ``cond=coordinates(shape)``.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from math import pi
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from convnd.arguments import PerAxis, integer, per_axis

from .._devices import moved
from ..progress import Bar
from ..windows import Place, check_windows, cut, fitted, rows, stack, starts
from .guidance import Estimate


def windowed(
    estimate: Estimate,
    window: PerAxis,
    overlap: PerAxis | None = None,
    batch_size: int = 4,
    progress: bool = False,
) -> Estimate:
    """An estimate computed in overlapping windows, with the memory of a few windows.

    Args:
        estimate: ``estimate(x, t, cond) -> x_0``, with one entry per sample in ``t`` and every condition.
        window: size of a window, one int or one per axis. An axis that is not longer is not cut.
        overlap: overlap of neighbouring windows, less than ``window``; a quarter of it by default.
        batch_size: number of windows evaluated at once.
        progress: show a bar, if it takes more than a second.

    Returns:
        ``estimate(x, t, cond)`` for x of any size. Conditions with the spatial axes of x are cut like x; the
        one named ``cond`` is first resized to x, as the networks do. Where a gradient of x is taken, windows
        are evaluated again for it, so that it takes the memory of a few windows, too.

    Raises:
        ValueError, TypeError: naming the argument, the rule and the value received.
    """
    batch_size = integer(batch_size, "batch_size")

    def run(x: Tensor, t: Tensor, cond: Mapping[str, Any]) -> Tensor:
        axes = _axes(x, window, overlap)
        if all(len(first) == 1 for first, _ in axes):
            return estimate(x, t, cond)
        evaluate = _recomputed(estimate) if torch.is_grad_enabled() and x.requires_grad else estimate
        cond = fitted(cond, x)
        crops = list(_crops(x.shape[0], axes))
        out = torch.zeros_like(x)
        firsts = range(0, len(crops), batch_size)
        for first in Bar(firsts, desc="windows", leave=False, delay=1, disable=not progress):
            group = crops[first : first + batch_size]
            places = [place for place, _ in group]
            estimates = evaluate(stack(x, places), rows(t, places), cut(cond, x, places))
            for ((n, at), weights), part in zip(group, estimates, strict=True):
                for axis, weight in enumerate(weights, start=1):
                    part = part * weight.view(-1, *(1,) * (part.ndim - 1 - axis))
                out[n, :, *at] += part
        return out

    return run


def _recomputed(estimate: Estimate) -> Estimate:
    """An estimate whose graph is not kept: it is evaluated again for every gradient."""

    def run(x: Tensor, t: Tensor, cond: Mapping[str, Any]) -> Tensor:
        found: Any = checkpoint(estimate, x, t, cond, use_reentrant=False, preserve_rng_state=False)
        return found

    return run


def coordinates(shape: Sequence[int], *, dtype: Any = None, device: Any = None) -> Tensor:
    """The coordinates of every entry: one channel per axis, from -1 at the first entry to 1 at the last.

    Args:
        shape: ``(N, C, *spatial)`` of the data.

    Returns:
        ``(N, len(spatial), *spatial)``.

    >>> coordinates((1, 1, 3))
    tensor([[[-1.,  0.,  1.]]])
    """
    sizes = tuple(shape[2:])
    lines = [
        torch.linspace(-1, 1, n, dtype=dtype, device=device)
        if n > 1
        else torch.zeros(1, dtype=dtype, device=device)
        for n in sizes
    ]
    return torch.stack(torch.meshgrid(*lines, indexing="ij")).expand(shape[0], -1, *sizes)


def random_crops(x: Tensor, size: PerAxis, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    """A random crop of every sample, and its coordinates in the whole.

    Args:
        x: ``(N, C, *spatial)``.
        size: size of the crops, one int or one per axis; an axis that is not longer is not cut.
        generator: random generator of the positions, on the CPU.

    Returns:
        crops ``(N, C, *size)`` and their :func:`coordinates` in x, ``(N, len(spatial), *size)``.

    >>> crops, at = random_crops(torch.randn(2, 1, 40, 50), 16)
    >>> crops.shape, at.shape
    (torch.Size([2, 1, 16, 16]), torch.Size([2, 2, 16, 16]))
    """
    sizes = [min(s, n) for s, n in zip(per_axis(size, x.ndim - 2, "size"), x.shape[2:], strict=True)]
    at = coordinates(x.shape, dtype=x.dtype, device=x.device)
    crops, places = [], []
    for n in range(x.shape[0]):
        starts = [
            int(torch.randint(full - s + 1, (), generator=generator))
            for s, full in zip(sizes, x.shape[2:], strict=True)
        ]
        cut = [slice(start, start + s) for start, s in zip(starts, sizes, strict=True)]
        crops.append(x[n, :, *cut])
        places.append(at[n, :, *cut])
    return torch.stack(crops), torch.stack(places)


_Axis = tuple[list[int], list[Tensor]]  # starts of its windows, and the weights of each
_Crop = tuple[Place, tuple[Tensor, ...]]  # a window, and its weights along each axis


def _axes(x: Tensor, window: PerAxis, overlap: PerAxis | None) -> list[_Axis]:
    windows, overlaps = check_windows(window, overlap, x.ndim - 2)
    made = []
    for size, length, shared in zip(x.shape[2:], windows, overlaps, strict=True):
        # An axis no longer than a window has one start, and an overlap that no longer matters.
        first, length = starts(size, length, shared), min(length, size)
        made.append((first, _weights(first, length, shared, x)))
    return made


def _weights(first: list[int], window: int, overlap: int, x: Tensor) -> list[Tensor]:
    """The weights ``(window,)`` of the windows along an axis, like x: they add up to 1 at every entry.

    Those of windows with the same neighbours are one tensor: a long axis takes no more memory than a short
    one.
    """
    margin = min(-(-3 * overlap // 8), overlap // 2)
    ramp = overlap - 2 * margin
    place = torch.arange(window, dtype=torch.float64) + 0.5 - margin
    rise = (pi / 2 * (place / ramp).clamp(0, 1)).sin() ** 2 if ramp else (place > 0).double()
    last = len(first) - 1
    known: dict[tuple[tuple[int, bool, bool], ...], Tensor] = {}

    def before_sum(begins: bool, ends: bool) -> Tensor:
        weight = torch.ones_like(rise) if begins else rise
        return weight if ends else weight * rise.flip(0)

    def made(i: int, near: tuple[tuple[int, bool, bool], ...]) -> Tensor:
        total = torch.zeros(window, dtype=torch.float64)
        for offset, *at_ends in near:
            low, high = max(offset, 0), min(offset + window, window)
            total[low:high] += before_sum(*at_ends)[low - offset : high - offset]
        return moved((before_sum(i == 0, i == last) / total).to(x.dtype), x.device)

    weights = []
    for i, start in enumerate(first):
        low, high = bisect_right(first, start - window), bisect_left(first, start + window)
        near = tuple((first[j] - start, j == 0, j == last) for j in range(low, high))
        if near not in known:
            known[near] = made(i, near)
        weights.append(known[near])
    return weights


def _crops(samples: int, axes: list[_Axis]) -> Iterator[_Crop]:
    choices = [
        [(slice(s, s + w.numel()), w) for s, w in zip(first, weights, strict=True)] for first, weights in axes
    ]
    for n in range(samples):
        for chosen in product(*choices):
            yield (n, tuple(at for at, _ in chosen)), tuple(weight for _, weight in chosen)
