"""Runs one bilinear map: chooses its algorithm, cuts the work to the workspace limit, checks the FFT."""

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from time import perf_counter
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..arguments import Ints
from . import blocks, conv, fft, native, outputs, plan, problems, settings, transpose, weight, winograd
from .eager import autocasting
from .geometry import Geometry
from .problems import Op, Problem

_CONV: dict[str, Callable[..., Tensor]] = {
    "native": conv.native_conv,
    "onednn": conv.onednn_conv,
    "channels_last": conv.channels_last_conv,
    "taps": conv.taps_conv,
    "gemm": conv.gemm_conv,
    "fft": fft.fft_conv,
}
_WEIGHT: dict[str, Callable[..., Tensor]] = {
    "native": weight.native_weight,
    "onednn": weight.onednn_weight,
    "channels_last": weight.channels_last_weight,
    "gemm": weight.gemm_weight,
    "fft": fft.fft_weight,
}

_measured: dict[Problem, dict[str, float]] = {}


def problem(op: Op, a: Tensor, b: Tensor, g: Geometry, sizes: Ints) -> Problem:
    """``sizes`` are the spatial sizes of the result; ``g`` has no padding but zeros."""
    return problem_of(op, tuple(a.shape), tuple(b.shape), g, sizes, a.dtype, a.device.type)


def problem_of(
    op: Op, a: Ints, b: Ints, g: Geometry, sizes: Ints, dtype: torch.dtype, device: str
) -> Problem:
    """The same from the shapes of ``a`` and ``b``."""
    if native.emulated(dtype, device):
        dtype = torch.float32
    if op == "conv":
        x, y, kernel, inputs, outputs = a[2:], sizes, b[2:], a[1], b[0]
    elif op == "transpose":
        x, y, kernel, inputs, outputs = sizes, a[2:], b[2:], b[1] * g.groups, a[1]
    else:
        x, y, kernel, inputs, outputs = a[2:], b[2:], sizes, a[1], b[1]
    return Problem(op, a[0], inputs, outputs, x, y, kernel, g, dtype, device)


def choose(p: Problem, forced: str | None, run: Callable[[str], Any] | None = None) -> str:
    """The forced algorithm, where it applies, or the best."""
    if forced is not None and problems.applies(p, forced):
        return forced
    if not settings.benchmarking or run is None:
        return plan.estimated_best(p)
    if p not in _measured:
        _measured[p] = {name: _seconds(partial(run, name)) for name in candidates(p)}
    return min(_measured[p], key=_measured[p].__getitem__)


def candidates(p: Problem) -> list[str]:
    """What measuring tries: what applies and is not hopeless."""
    names = [name for name in problems.ALGORITHMS if problems.applies(p, name)]
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
    op: Op, a: Tensor, b: Tensor, bias: Tensor | None, g: Geometry, sizes: Ints, forced: str | None = None
) -> Tensor:
    """``conv(x, w)``, ``transpose(y, w)`` or ``weight(x, y)``, whose result has spatial ``sizes``.

    By the best algorithm, or by the forced one where it applies; for eager tensors.
    """
    if 0 in a.shape or 0 in b.shape:
        return _of_nothing(op, a, b, bias, g, sizes)
    dtype = a.dtype
    if native.emulated(dtype, a.device.type):
        a, b, bias = native.wide(a), native.wide(b), None if bias is None else native.wide(bias)
    with torch.autocast(a.device.type, enabled=False) if autocasting(a.device.type) else nullcontext():
        return padded(op, a, b, bias, g, sizes, partial(_bilinear, forced=forced)).to(dtype)


def composed(op: Op, a: Tensor, b: Tensor, bias: Tensor | None, g: Geometry, sizes: Ints) -> Tensor:
    """As :func:`bilinear`, by torch's differentiable operators, chosen by rank, kernel and channels only.

    So one trace serves every size, and compilers, transforms and forward mode see through it.
    """
    if 0 in b.shape:  # of a, batch and sizes may vary
        return _of_nothing(op, a, b, bias, g, sizes)
    return padded(op, a, b, bias, g, sizes, _composed)


def rows_and_columns(op: Op, a: Tensor, b: Tensor, groups: int) -> tuple[int, int]:
    """The first two sizes of the result of a map."""
    if op == "weight":
        return b.shape[1], a.shape[1] // groups
    return a.shape[0], b.shape[0] if op == "conv" else b.shape[1] * groups


def _of_nothing(op: Op, a: Tensor, b: Tensor, bias: Tensor | None, g: Geometry, sizes: Ints) -> Tensor:
    """A map of an empty batch or of no channels: sums of no products are zero, and so are gradients."""
    rows, columns = rows_and_columns(op, a, b, g.groups)
    zero = a.narrow(0, 0, 0).sum() + b.narrow(0, 0, 0).sum()  # of no entries, that autograd finds both in it
    y = zero.to(a.dtype).expand(rows, columns, *sizes)  # sums of integers are int64
    return y.clone() if bias is None else y + bias.view(-1, *(1,) * len(sizes))


def padded(
    op: Op,
    a: Tensor,
    b: Tensor,
    bias: Tensor | None,
    g: Geometry,
    sizes: Ints,
    run: Callable[[Op, Tensor, Tensor, Tensor | None, Geometry, Ints], Tensor],
) -> Tensor:
    """A map with padding of every mode, or its adjoint, around one with padding of zeros."""
    if op != "transpose":
        a, g = g.padded(a)
        return run(op, a, b, bias, g, sizes)
    if g.modes is None:
        return run(op, a, b, bias, g, sizes)
    inside, zeros = g.before_padding(sizes)
    x = g.padded_adjoint(run(op, a, b, None, zeros, inside))
    return x if bias is None else x + bias.to(x.dtype).view(-1, *(1,) * len(sizes))


def _bilinear(
    op: Op, a: Tensor, b: Tensor, bias: Tensor | None, g: Geometry, sizes: Ints, forced: str | None
) -> Tensor:
    p = problem(op, a, b, g, sizes)
    if op != "transpose":
        p = p._replace(geometry=g.reaching(p.sizes, p.counts, p.kernel))

    def run(algorithm: str) -> Tensor:
        if op == "conv":
            return _conv(p, a, b, bias, algorithm)
        if op == "weight":
            return _weight(p, a, b, algorithm)
        return _transpose(p, a, b, bias, algorithm)

    algorithm = choose(p, forced, run)
    if plan.spreads_inputs(p, algorithm) and not _finite(a):
        return run(_faithful(p))
    out = run(algorithm)
    if algorithm in plan.SPREADING and forced is None and not _finite(out):
        return run(_faithful(p))
    return out


def _faithful(p: Problem) -> str:
    """The best that carries a NaN or an infinity no further than the definition says."""
    times = {name: t for name, t in plan.estimates(p).items() if not plan.spreads(p, name)}
    return min(times, key=times.__getitem__)


def _finite(x: Tensor) -> bool:
    """Whether all entries are, by their sum; the rare overflow of a sum of finite entries is no harm here."""
    total = native.wide(x).sum().item()
    return total - total == 0


class _Piece(NamedTuple):
    """A part of the work: its problem, and the ranges ``(axis, start, length)`` of ``x`` and ``y``."""

    problem: Problem
    x: tuple[int, int, int]
    y: tuple[int, int, int]


def _conv(p: Problem, x: Tensor, w: Tensor, bias: Tensor | None, algorithm: str) -> Tensor:
    pieces = _halves(p, algorithm)
    if pieces is not None:
        y = x.new_empty(p.batch, *p.counts, p.outputs).movedim(-1, 1)
        for piece in pieces:
            y.narrow(*piece.y).copy_(_conv(piece.problem, x.narrow(*piece.x), w, bias, algorithm))
        return y
    g = p.geometry
    if algorithm == "winograd":
        inside, best, blocked = _one_product(p)
        convolve = partial(_conv, inside, algorithm=best)
        if best == "blocks":  # which the additions put into place
            convolve = partial(conv.native_conv, g=blocks.strided(inside.geometry, inside.counts, blocked))
        return winograd.winograd_conv(x, w, bias, g, blocked, problems.channels_last(inside), convolve)
    if algorithm == "channels":
        last = problems.folded_last(p)
        convolve = partial(conv.channels_conv, last=last)
        return blocks.blocks_conv(x, w, bias, g, problems.folded_blocks(p), last, convolve)
    if algorithm == "outputs":
        inside = plan.unadded(p)
        layout = plan.joined(p), problems.blocks_of(inside), problems.unadded_last(inside)
        return outputs.outputs_conv(x, w, bias, g, *layout, settings.workspace_limit)
    if algorithm == "blocks":
        last = problems.channels_last(p)
        return blocks.blocks_conv(native.laid(x, last), w, bias, g, problems.blocks_of(p), last)
    return _CONV[algorithm](x, w, bias, g)


def _weight(p: Problem, x: Tensor, y: Tensor, algorithm: str) -> Tensor:
    pieces = _halves(p, algorithm)
    if pieces is not None:
        first, second = (_weight(q, x.narrow(*at_x), y.narrow(*at_y), algorithm) for q, at_x, at_y in pieces)
        return (native.wide(first) + second).to(x.dtype)
    g, kernel = p.geometry, p.kernel
    if algorithm == "winograd":
        inside, best, blocked = _one_product(p)
        weigh = partial(_weight, inside, algorithm=best)
        if best == "blocks":
            within = blocks.strided(inside.geometry, inside.counts, blocked)
            weigh = partial(weight.native_weight, g=within, kernel=blocks.larger(inside.kernel, blocked))
        return winograd.winograd_weight(x, y, g, kernel, blocked, weigh)
    if algorithm == "channels":
        return blocks.blocks_weight(x, y, g, kernel, problems.folded_blocks(p), weight.channels_weight)
    if algorithm == "blocks":
        return blocks.blocks_weight(native.channels_last(x), y, g, kernel, problems.blocks_of(p))
    return _WEIGHT[algorithm](x, y, g, kernel)


def _one_product(p: Problem) -> tuple[Problem, str, Ints]:
    """What a product of :mod:`.winograd` is, its algorithm, and the blocks it leaves to be put into place."""
    inside = problems.one_product(p)
    best = plan.inner(inside)
    return inside, best, problems.blocks_of(inside) if best == "blocks" else (1,) * len(inside.kernel)


def _halves(p: Problem, algorithm: str) -> list[_Piece] | None:
    """The two halves of work that is too large: of the batch, or of the longest axis of ``y``."""
    if plan.workspace(p, algorithm) <= settings.workspace_limit:
        return None
    if p.batch > 1:
        cut = p.batch // 2
        ranges = ((0, 0, cut), (0, cut, p.batch - cut))
        return [_Piece(p._replace(batch=at[2]), at, at) for at in ranges]
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
        pieces.append(_Piece(part, (2 + axis, first, last - first), (2 + axis, start, stop - start)))
    return pieces


def _with(values: tuple[Any, ...], axis: int, value: Any) -> tuple[Any, ...]:
    return *values[:axis], value, *values[axis + 1 :]


def _transpose(p: Problem, y: Tensor, w: Tensor, bias: Tensor | None, algorithm: str) -> Tensor:
    args = y, w, bias, p.geometry, p.sizes
    if algorithm == "native":
        return transpose.native_transpose(*args)
    if algorithm == "channels_last":
        return transpose.channels_last_transpose(*args)
    if algorithm == "gemm" and transpose.shuffles(p.kernel, p.geometry):
        return transpose.gemm_transpose(*args)
    if algorithm == "fft":
        return transpose.upsampled_transpose(*args, partial(_planned_conv, forced="fft"))
    if algorithm == "channels" and max(p.geometry.stride) > 1:
        return transpose.channels_transpose(*args, settings.workspace_limit)
    forced = None if algorithm == "phases" else algorithm
    return transpose.phases_transpose(*args, partial(_planned_conv, forced=forced))


def _planned_conv(x: Tensor, w: Tensor, bias: Tensor | None, g: Geometry, forced: str | None) -> Tensor:
    return _bilinear("conv", x, w, bias, g, g.outputs(tuple(x.shape[2:]), tuple(w.shape[2:])), forced)


def _composed(op: Op, a: Tensor, b: Tensor, bias: Tensor | None, g: Geometry, sizes: Ints) -> Tensor:
    if op == "conv":
        return _composed_conv(a, b, bias, g)
    if op == "weight":
        return weight.exchanged(a, b, g, sizes, _composed_conv)
    if len(sizes) <= native.MAX_AXES:
        return transpose.native_transpose(a, b, bias, g, sizes)
    return transpose.phases_transpose(a, b, bias, g, sizes, _composed_conv)


def _composed_conv(x: Tensor, w: Tensor, bias: Tensor | None, g: Geometry) -> Tensor:
    if len(g.stride) <= native.MAX_AXES:
        return conv.native_conv(x, w, bias, g)
    if 1 < g.groups == x.shape[1] == w.shape[0]:
        return conv.taps_conv(x, w, bias, g)
    return conv.channels_conv(x, w, bias, g)
