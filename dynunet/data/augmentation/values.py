"""Changes of values, where they are. Each is a function of a few parameters, 0 where it does nothing.

With missing entries (0, and told by a mask) the statistics are of those that are there, and whatever mixes
neighbours divides by the weight of those that are there.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import ceil, exp, log, pi
from typing import Any

import numpy as np
import torch
from torch import Tensor

import convnd.functional as F

from ..._devices import moved
from ..._filters import exact_conv
from ..values import squared_frequencies, with_gain
from .chance import between, happens, log_between
from .options import Augment

Function = Callable[[Tensor, Tensor | None], Tensor]  # of values (C, *spatial), and where they are there
_TERMS = 3  # of the curve of a filter
_TRUNCATE = 4.0  # standard deviations, as SciPy's gaussian_filter


@dataclass(frozen=True)
class Change:
    """A change of values.

    Attributes:
        draw: its random parameters, by the strength and the number of axes.
        function: what it does, by the parameters, the strength, and values and where they are there.
        width: number of parameters, by the number of axes.
        degrades: what is lost by it cannot be told from the result: where something is to be restored, it is
            of what is given alone.
    """

    draw: Callable[[Any, int], list[float]]
    function: Callable[[list[float], Any, Tensor, Tensor | None], Function]
    width: Callable[[int], int] = lambda n: 1
    degrades: bool = False


def num_features(options: Augment, n: int) -> int:
    """How many parameters the changes have, by the options for n axes."""
    return sum(change.width(n) for name, change in CHANGES.items() if options.has(name))


def changed(
    options: Augment, x: Tensor, given: Tensor | None, there: Tensor | None
) -> tuple[Tensor, Tensor | None, list[float]]:
    """Values with random changes, and the parameters.

    Args:
        options: for so many axes.
        x: ``(C, *spatial)``.
        given: ``(G, *spatial)``, which shows the same as x, if x is to be restored from it.
        there: bool of the shape of x, if any of it is missing.
    """
    parameters: list[float] = []
    for name, change in CHANGES.items():
        if not options.has(name):
            continue
        if not happens(options, name):
            parameters += [0.0] * change.width(x.ndim - 1)
            continue
        x = x if there is None else torch.where(there, x, 0)
        strength = getattr(options, name)
        drawn = change.draw(strength, x.ndim - 1)
        parameters += drawn
        function = change.function(drawn, strength, x, there)
        if given is None or not change.degrades:
            x = function(x, there)
            x = x if there is None else torch.where(there, x, 0)
        if given is not None:
            given = function(given, None)
    return x, given, parameters


def _pointwise(f: Callable[[Tensor], Tensor]) -> Function:
    return lambda y, _: f(y)


def _mixing(f: Callable[[Tensor], Tensor]) -> Function:
    """A weighted mean of neighbours, without the missing ones."""

    def function(y: Tensor, there: Tensor | None) -> Tensor:
        if there is None:
            return f(y)
        weight = f(there.to(y.dtype))
        return f(torch.where(there, y, 0)) / torch.where(there, weight, 1)

    return function


def _present(x: Tensor, there: Tensor | None) -> np.ndarray:
    """The values that are there; NumPy's statistics of them do not depend on the number of threads."""
    return (x if there is None else x[there]).cpu().numpy()


def _contrast(p: list[float], _: Any, x: Tensor, there: Tensor | None) -> Function:
    values = _present(x, there)
    mean = float(values.mean(dtype=np.float64)) if values.size else 0.0
    return _pointwise(lambda y: mean + (y - mean) * exp(p[0]))


def _gamma(p: list[float], _: Any, x: Tensor, there: Tensor | None) -> Function:
    values = _present(x, there)
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    if low == high:
        return _pointwise(lambda y: y)

    def function(y: Tensor) -> Tensor:
        share = (y - low) / (high - low)
        return low + (high - low) * share.sign() * share.abs() ** exp(p[0])

    return _pointwise(function)


def gaussian(x: Tensor, sigma: float) -> Tensor:
    """``(C, *spatial)`` blurred along every axis; the outermost entries go on outside."""
    reach = int(_TRUNCATE * sigma + 0.5)
    weights = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, dtype=torch.float64) / sigma) ** 2)
    weights = moved((weights / weights.sum()).to(x.dtype), x.device)
    for axis in range(1, x.ndim):
        lines = x.movedim(axis, -1)
        rows = F.pad(lines.reshape(-1, 1, lines.shape[-1]), (reach, reach), mode="replicate")
        x = exact_conv(rows, weights.view(1, 1, -1)).view(lines.shape).movedim(-1, axis)
    return x.contiguous()


def coarse(x: Tensor, share: float) -> Tensor:
    """``(C, *spatial)`` with a share of the entries along every axis, and enlarged again."""
    sizes = tuple(x.shape[1:])
    few = tuple(max(1, ceil(size * share)) for size in sizes)
    small = F.interpolate(x[None], few, mode="linear", antialias=True)
    return F.interpolate(small, sizes, mode="linear")[0]


def filtered(x: Tensor, gain: Callable[[Tensor], Tensor]) -> Tensor:
    """``(C, *spatial)`` with a gain by frequency: the length of its vector, 1 for the highest of an axis."""
    frequency = 2 * squared_frequencies(x.shape[1:], torch.float64).sqrt()
    return with_gain(x, moved(gain(frequency).to(x.dtype), x.device))


def _noise_like(x: Tensor) -> Tensor:
    """White noise: the same on any device, as all that is drawn here is of the generator on the CPU."""
    return moved(torch.randn_like(x, device="cpu"), x.device)


def _filter(p: list[float], most: float, x: Tensor, there: Tensor | None) -> Function:
    def gain(frequency: Tensor) -> Tensor:
        terms = [a * torch.cos(pi * j * frequency) for j, a in enumerate(p, 1)]
        return 10 ** (most * torch.stack(terms).sum(0) / _TERMS / 20)

    return _pointwise(lambda y: filtered(y, gain))


def _band_stop(p: list[float], most: float, x: Tensor, there: Tensor | None) -> Function:
    low, width = p
    return _pointwise(lambda y: filtered(y, lambda f: ((f < low) | (f >= low + width)).float()))


def _erase(p: list[float], most: float, x: Tensor, there: Tensor | None) -> Function:
    def function(y: Tensor) -> Tensor:
        sizes, y = y.shape[1:], y.clone()
        starts = [round(s * n) for s, n in zip(p[: len(sizes)], sizes, strict=True)]
        counts = [max(1, round(s * n)) for s, n in zip(p[len(sizes) :], sizes, strict=True)]
        y[:, *(slice(a, a + c) for a, c in zip(starts, counts, strict=True))] = 0
        return y

    return _pointwise(function)


def _draw_box(most: float, n: int) -> list[float]:
    lengths = [most * between(0, 1) for _ in range(n)]
    return [*(between(0, 1 - length) for length in lengths), *lengths]


def _draw_band(most: float, n: int) -> list[float]:
    width = most * between(0, 1)
    return [between(0, 1 - width), width]


def _decibels(bounds: tuple[float, float], n: int) -> list[float]:
    return [between(*bounds) * log(10) / 20]


def _factor(bounds: tuple[float, float], n: int) -> list[float]:
    return [log(log_between(bounds))]


# In the order in which they are made: what light or a room does, what a device does, what is lost at last.
CHANGES: Mapping[str, Change] = {
    "gamma": Change(_factor, _gamma),
    "contrast": Change(_factor, _contrast),
    "brightness": Change(
        lambda most, n: [most * between(-1, 1)], lambda p, _, x, there: _pointwise(lambda y: y + p[0])
    ),
    "gain": Change(_decibels, lambda p, _, x, there: _pointwise(lambda y: y * exp(p[0]))),
    "filter": Change(lambda most, n: [between(-1, 1) for _ in range(_TERMS)], _filter, lambda n: _TERMS),
    "band_stop": Change(_draw_band, _band_stop, lambda n: 2),
    "blur": Change(
        lambda most, n: [between(0, 1)],
        lambda p, most, x, there: _mixing(lambda y: gaussian(y, most * p[0])),
        degrades=True,
    ),
    "resolution": Change(
        lambda low, n: [-log(between(low, 1))],
        lambda p, _, x, there: _mixing(lambda y: coarse(y, exp(-p[0]))),
        degrades=True,
    ),
    "noise": Change(
        lambda most, n: [between(0, 1)],
        lambda p, most, x, there: _pointwise(lambda y: y + most * p[0] * _noise_like(y)),
        degrades=True,
    ),
    "erase": Change(_draw_box, _erase, lambda n: 2 * n, degrades=True),
}
