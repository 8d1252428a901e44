"""Computes one bilinear map of eager tensors: pads, chooses the algorithm, keeps NaN from spreading."""

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from .._torch.dtypes import emulated, wide
from .._torch.eager import autocasting
from ..arguments import Ints
from . import pieces, settings
from .algorithm import ALGORITHMS, Algorithm
from .cost import estimated_best, estimates, seconds
from .problem import Geometry, Op, Problem, after_padding, before_padding, map_of_nothing, problem_of

_measured: dict[Problem, dict[Algorithm, float]] = {}


def execute(
    op: Op,
    a: Tensor,
    b: Tensor,
    bias: Tensor | None,
    g: Geometry,
    sizes: Ints,
    forced: Algorithm | None = None,
) -> Tensor:
    """``conv(x, w)``, ``transpose(y, w)`` or ``weight(x, y)``, whose result has spatial ``sizes``.

    Uses the forced algorithm where it applies, otherwise the best one.
    """
    if 0 in a.shape or 0 in b.shape:
        return map_of_nothing(op, a, b, bias, g, sizes)
    dtype, device = a.dtype, a.device.type
    if emulated(dtype, device):
        a, b, bias = wide(a), wide(b), None if bias is None else wide(bias)
    with torch.autocast(device, enabled=False) if autocasting(device) else nullcontext():
        a, inner_bias, zeros, inside = before_padding(op, a, bias, g, sizes)
        p = problem_of(op, tuple(a.shape), tuple(b.shape), zeros, inside, a.dtype, device)
        if op != "transpose":
            p = p._replace(geometry=zeros.reaching(p.sizes, p.counts, p.kernel))
        algorithm = _for_input(p, choose(p, forced, a, b, inner_bias), a)
        out = pieces.run(p, algorithm, a, b, inner_bias)
        if algorithm.spreads and forced is None and not _all_finite(out):
            out = pieces.run(p, _faithful(p), a, b, inner_bias)
        return after_padding(op, out, bias, g).to(dtype)


def _for_input(p: Problem, algorithm: Algorithm, a: Tensor) -> Algorithm:
    """The algorithm, or a faithful one if it would spread a NaN or an infinity of this operand."""
    return _faithful(p) if algorithm.spreads_inputs(p) and not _all_finite(a) else algorithm


def convolution(x: Tensor, w: Tensor, bias: Tensor | None, g: Geometry, forced: Algorithm | None) -> Tensor:
    """A convolution as a step of another algorithm; ``g`` has zero padding only."""
    sizes = g.outputs(tuple(x.shape[2:]), tuple(w.shape[2:]))
    return execute("conv", x, w, bias, g, sizes, forced)


def choose(p: Problem, forced: Algorithm | None, *operands: Any) -> Algorithm:
    """The forced algorithm where it applies, otherwise the best, measured on the operands or estimated."""
    if forced is not None and forced.applies(p):
        return forced
    if not settings.benchmarking or not operands:
        return estimated_best(p)
    if p not in _measured:
        _measured[p] = {c: _seconds(partial(pieces.run, p, c, *operands)) for c in candidates(p)}
    return min(_measured[p], key=_measured[p].__getitem__)


def candidates(p: Problem) -> list[Algorithm]:
    """The algorithms to measure: those that apply and are not hopelessly slow by their estimate."""
    times = {a: seconds(p, a) for a in ALGORITHMS.values() if a.applies(p)}
    return [a for a in times if times[a] < 10 * min(times.values()) + 1e-4]


def _seconds(run: Callable[[], Any], repeats: int = 3) -> float:
    run()
    best = float("inf")
    for _ in range(repeats):
        start = perf_counter()
        run()
        best = min(best, perf_counter() - start)
    return best


def _faithful(p: Problem) -> Algorithm:
    """The best algorithm that spreads NaN and infinity no further than the definition says."""
    times = {a: t for a, t in estimates(p).items() if not (a.spreads or a.spreads_inputs(p))}
    return min(times, key=times.__getitem__)


def _all_finite(x: Tensor) -> bool:
    """Looks at the sum of the entries; if a sum of finite entries overflows (rare), no harm is done here.

    On the ``meta`` device there are no entries to look at.
    """
    if x.is_meta:
        return True
    total = wide(x).sum().item()
    return total - total == 0
