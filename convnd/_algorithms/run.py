"""Runs one bilinear map: chooses its algorithm, cuts the work to the workspace limit, checks the FFT."""

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from ..arguments import Ints
from . import conv, fft, native, plan, settings, transpose, weight
from .geometry import Geometry
from .plan import Op, Problem

_CONV: dict[str, Callable[..., Tensor]] = {
    "native": conv.native_conv,
    "channels_last": conv.channels_last_conv,
    "channels": conv.channels_conv,
    "taps": conv.taps_conv,
    "gemm": conv.gemm_conv,
    "fft": fft.fft_conv,
}
_WEIGHT: dict[str, Callable[..., Tensor]] = {
    "native": weight.native_weight,
    "channels_last": weight.channels_last_weight,
    "channels": weight.channels_weight,
    "taps": weight.taps_weight,
    "gemm": weight.gemm_weight,
    "fft": fft.fft_weight,
}

_measured: dict[Problem, dict[str, float]] = {}


def problem(op: Op, a: Tensor, b: Tensor, g: Geometry, sizes: Ints) -> Problem:
    """``sizes`` are the spatial sizes of the result; ``g`` has no padding but zeros."""
    shapes = tuple(a.shape[2:]), tuple(b.shape[2:])
    if op == "conv":
        x, y, kernel, inputs, outputs = shapes[0], sizes, shapes[1], a.shape[1], b.shape[0]
    elif op == "transpose":
        x, y, kernel, inputs, outputs = sizes, shapes[0], shapes[1], b.shape[1] * g.groups, a.shape[1]
    else:
        x, y, kernel, inputs, outputs = shapes[0], shapes[1], sizes, a.shape[1], b.shape[1]
    return Problem(op, a.shape[0], inputs, outputs, x, y, kernel, g, a.dtype, a.device.type)


def choose(p: Problem, forced: str | None, strict: bool, run: Callable[[str], Any] | None = None) -> str:
    """The forced algorithm (refused if ``strict``, else ignored where it does not apply), or the best."""
    if forced is not None:
        if plan.applies(p, forced):
            return forced
        if strict:
            raise ValueError(
                f"algorithm {forced!r} does not apply to this {_NAMES[p.op]} over {len(p.kernel)} axes"
            )
    times = plan.estimates(p)
    if settings.benchmarking and run is not None:
        if p not in _measured:
            _measured[p] = {name: _seconds(partial(run, name)) for name in candidates(p)}
        times = _measured[p]
    return min(times, key=times.__getitem__)


_NAMES = {"conv": "convolution", "transpose": "transposed convolution", "weight": "weight gradient"}


def candidates(p: Problem) -> list[str]:
    """What measuring tries: what applies and is not hopeless."""
    names = [name for name in plan.ALGORITHMS if plan.applies(p, name)]
    times = {name: plan.cost(p, name) for name in names}
    return [name for name in names if times[name] < 10 * min(times.values()) + 1e-4]


def _seconds(run: Callable[[], Any], repeats: int = 3) -> float:
    run()
    best = float("inf")
    for _ in range(repeats):
        start = perf_counter()
        run()
        best = min(best, perf_counter() - start)
    return best


def bilinear(
    op: Op,
    a: Tensor,
    b: Tensor,
    bias: Tensor | None,
    g: Geometry,
    sizes: Ints,
    forced: str | None = None,
    strict: bool = False,
) -> Tensor:
    """``conv(x, w)``, ``transpose(y, w)`` or ``weight(x, y)``, whose result has spatial ``sizes``."""
    device = a.device.type
    autocast = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    with torch.autocast(device, enabled=False) if autocast else nullcontext():
        if op == "transpose":
            inside, zeros = g.before_padding(sizes)
            x = _bilinear(op, a, b, bias if g.modes is None else None, zeros, inside, forced, strict)
            if g.modes is None:
                return x
            x = g.padded_adjoint(x)
            return x if bias is None else x + bias.view(-1, *(1,) * len(sizes))
        a, zeros = g.padded(a)
        return _bilinear(op, a, b, bias, zeros, sizes, forced, strict)


def _bilinear(
    op: Op,
    a: Tensor,
    b: Tensor,
    bias: Tensor | None,
    g: Geometry,
    sizes: Ints,
    forced: str | None,
    strict: bool,
) -> Tensor:
    p = problem(op, a, b, g, sizes)
    if op != "transpose":
        g = g.reaching(p.sizes, p.counts, p.kernel)
        p = p._replace(geometry=g)

    def run(algorithm: str) -> Tensor:
        if op == "conv":
            return _conv(p, a, b, bias, algorithm)
        if op == "weight":
            return _weight(p, a, b, algorithm)
        return _transpose(p, a, b, bias, algorithm)

    algorithm = choose(p, forced, strict, run)
    out = run(algorithm)
    if algorithm == "fft" and forced is None and not torch.isfinite(out).all():
        # A NaN or an infinity reaches everywhere in the frequency domain: do as the definition says.
        times = {name: t for name, t in plan.estimates(p).items() if name != "fft"}
        out = run(min(times, key=times.__getitem__))
    return out


def _conv(p: Problem, x: Tensor, w: Tensor, bias: Tensor | None, algorithm: str) -> Tensor:
    function = _CONV[algorithm]
    if algorithm == "channels":
        function = partial(function, block=plan.block_of(p))
    halves = _halves(p, algorithm)
    if halves is None:
        return function(x, w, bias, p.geometry)
    out = x.new_empty(p.batch, *p.counts, p.outputs).movedim(-1, 1)
    for (axis, start, stop), part, samples, window in halves:
        piece = x.narrow(0, *samples)
        for dim, (first, length) in enumerate(window, start=2):
            piece = piece.narrow(dim, first, length)
        out.narrow(axis, start, stop - start).copy_(_conv(part, piece, w, bias, algorithm))
    return out


def _weight(p: Problem, x: Tensor, y: Tensor, algorithm: str) -> Tensor:
    function = _WEIGHT[algorithm]
    halves = _halves(p, algorithm)
    if algorithm == "gemm":
        tile = max(min(weight.TILE_BYTES, settings.workspace_limit // 2), 1)
        return weight.gemm_weight(x, y, p.geometry, p.kernel, tile)
    if halves is None:
        return function(x, y, p.geometry, p.kernel)
    total: Tensor | None = None
    for (axis, start, stop), part, samples, window in halves:
        piece = x.narrow(0, *samples)
        for dim, (first, length) in enumerate(window, start=2):
            piece = piece.narrow(dim, first, length)
        term = _weight(part, piece, y.narrow(axis, start, stop - start), algorithm)
        total = term.to(_accumulator(term.dtype)) if total is None else total + term
    assert total is not None
    return total.to(x.dtype)


def _accumulator(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype in conv.LOW_PRECISION else dtype


def _halves(p: Problem, algorithm: str) -> list[Any] | None:
    """The two halves of work that is too large: of the batch, or of the longest axis of ``y``.

    Each is where it lies in ``y`` (axis, start, stop), its problem, and what it reads of ``x``: samples
    and, for each axis, first entry and length.
    """
    if plan.workspace(p, algorithm) <= settings.workspace_limit:
        return None
    whole = [(0, n) for n in p.sizes]
    if p.batch > 1:
        cut = p.batch // 2
        return [
            ((0, start, stop), p._replace(batch=stop - start), (start, stop - start), whole)
            for start, stop in ((0, cut), (cut, p.batch))
        ]
    axis = max(range(len(p.counts)), key=p.counts.__getitem__)
    g, halves = p.geometry, []
    if p.counts[axis] < 2:
        return None
    extent, stride, (before, _) = g.extents(p.kernel)[axis], g.stride[axis], g.pads[axis]
    cut = p.counts[axis] // 2
    for start, stop in ((0, cut), (cut, p.counts[axis])):
        low, high = start * stride - before, (stop - 1) * stride - before + extent
        first, last = max(low, 0), min(high, p.sizes[axis])
        if first >= last:  # nothing but padding: cannot be cut here
            return None
        pads = list(g.pads)
        pads[axis] = first - low, high - last
        part = p._replace(
            batch=1,
            sizes=(*p.sizes[:axis], last - first, *p.sizes[axis + 1 :]),
            counts=(*p.counts[:axis], stop - start, *p.counts[axis + 1 :]),
            geometry=g._replace(pads=tuple(pads)),
        )
        window = [*whole[:axis], (first, last - first), *whole[axis + 1 :]]
        halves.append(((2 + axis, start, stop), part, (0, 1), window))
    return halves


def _transpose(p: Problem, y: Tensor, w: Tensor, bias: Tensor | None, algorithm: str) -> Tensor:
    g, sizes = p.geometry, p.sizes
    if algorithm == "native":
        return transpose.native_transpose(y, w, bias, g, sizes)
    if algorithm == "channels_last":
        return transpose.channels_last_transpose(y, w, bias, g, sizes)
    if algorithm == "gemm" and transpose.shuffles(p.kernel, g):
        return transpose.gemm_transpose(y, w, bias, g, sizes)
    if algorithm == "fft":
        return transpose.upsampled_transpose(y, w, bias, g, sizes, partial(_inner, algorithm="fft"))
    inner = None if algorithm == "phases" else algorithm
    return transpose.phases_transpose(y, w, bias, g, sizes, partial(_inner, algorithm=inner))


def _inner(x: Tensor, w: Tensor, bias: Tensor | None, g: Geometry, algorithm: str | None) -> Tensor:
    counts = g.outputs(tuple(x.shape[2:]), tuple(w.shape[2:]))
    return _bilinear("conv", x, w, bias, g, counts, algorithm, False)


def composed(op: Op, g: Geometry, sizes: Ints, a: Tensor, b: Tensor, bias: Tensor | None) -> Tensor:
    """A composition of torch's operators, chosen by rank, kernel, channels and dtype only.

    So one trace serves every size, and compilers, transforms and forward mode see through it.
    """
    if op == "weight":
        a, g = g.padded(a)
        return weight.taps_weight(a, b, g, sizes)
    if op == "conv":
        a, g = g.padded(a)
        return _composed_conv(a, b, bias, g)
    inside, zeros = g.before_padding(sizes)
    alone = bias if g.modes is None else None
    if len(sizes) <= native.MAX_AXES:
        x = transpose.native_transpose(a, b, alone, zeros, inside)
    else:
        x = transpose.phases_transpose(a, b, alone, zeros, inside, _composed_conv)
    if g.modes is None:
        return x
    x = g.padded_adjoint(x)
    return x if bias is None else x + bias.to(x.dtype).view(-1, *(1,) * len(sizes))


def _composed_conv(x: Tensor, w: Tensor, bias: Tensor | None, g: Geometry) -> Tensor:
    if len(g.stride) <= native.MAX_AXES:
        return conv.native_conv(x, w, bias, g)
    if 1 < g.groups == x.shape[1] == w.shape[0]:
        return conv.taps_conv(x, w, bias, g)
    return conv.channels_conv(x, w, bias, g)
