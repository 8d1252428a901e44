"""Padding over any number of axes, and its exact adjoint.

The padded axis repeats entries of the original axis: position ``j`` is a copy of entry ``i(j)``, with

    circular   i = j mod n
    replicate  i = min(max(j, 0), n - 1)
    reflect    i = (n - 1) - |(n - 1) - |j||

so padding is a gather along each axis, and its adjoint adds back into the entries that were read.

Negative amounts crop. Reflection and replication read the whole axis, also entries that the other end crops.
A circular axis is first cropped, then wrapped: its period is what the crop leaves. Both rules are torch's.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .._torch.conv import MAX_AXES
from .._torch.eager import deterministic, eager, known
from ..arguments import Ints, Pairs

# A new mode of ``convnd.arguments`` needs a line in _source, and in check_fits if an axis limits it.
_TORCH_MODES = ("reflect", "replicate", "circular")
_LIMITS = {"reflect": "less than", "circular": "at most"}


def flat(pairs: Pairs) -> list[int]:
    """The amounts in torch's order: flat, the last axis first."""
    return [amount for pair in reversed(pairs) for amount in pair]


def _none(pairs: Pairs) -> bool:
    return all(known(amount == 0) for pair in pairs for amount in pair)


def evens(pairs: Pairs) -> Ints:
    """Padding in the form of native kernels: one int per axis, 0 if the two sides differ."""
    return tuple(a if known(a == b) and known(a >= 0) else 0 for a, b in pairs)


def of_mode_zeros(pairs: Pairs, modes: tuple[str, ...]) -> Pairs:
    """The amounts of the axes that are padded with zeros; none on the others."""
    return tuple(pair if mode == "zeros" else (0, 0) for pair, mode in zip(pairs, modes, strict=True))


def zero_pad(input: Tensor, pairs: Pairs) -> Tensor:
    """Pad the last ``len(pairs)`` axes with zeros; negative amounts crop."""
    if _none(pairs):
        return input
    return F.pad(input, flat(cropped(input, pairs)))


def cropped(x: Tensor, pairs: Pairs) -> Pairs:
    """The same amounts, but a crop longer than the axis also shortens the padding at the other end."""
    if not any(known(amount < 0) for pair in pairs for amount in pair):
        return pairs

    def within(size: int, before: int, after: int) -> tuple[int, int]:
        before, after = before + min(size + after, 0), max(after, -size)
        return max(before, -size), after + min(size + before, 0)

    rows = zip(x.shape[x.ndim - len(pairs) :], pairs, strict=True)
    return tuple(within(size, before, after) for size, (before, after) in rows)


def zero_pad_fast(x: Tensor, pairs: Pairs) -> Tensor:
    """As :func:`zero_pad`; where neither autograd nor a tracer records it, :func:`zero_pad_unrecorded`."""
    if _none(pairs):
        return x
    wanted = torch.is_grad_enabled() and x.requires_grad
    return zero_pad(x, pairs) if wanted or not eager(x) else zero_pad_unrecorded(x, pairs)


def zero_pad_unrecorded(x: Tensor, pairs: Pairs) -> Tensor:
    """As :func:`zero_pad`, unknown to autograd and tracers: a contiguous copy, each entry written once."""
    n, pairs = x.ndim - len(pairs), cropped(x, pairs)
    out = inside = x.new_empty(
        [*x.shape[:n], *(s + a + b for s, (a, b) in zip(x.shape[n:], pairs, strict=True))]
    )
    for axis, (before, after) in enumerate(pairs, start=n):
        if before > 0:
            inside.narrow(axis, 0, before).zero_()
        if after > 0:
            inside.narrow(axis, inside.shape[axis] - after, after).zero_()
        if before or after:
            inside = inside.narrow(axis, max(before, 0), inside.shape[axis] - max(before, 0) - max(after, 0))
            x = x.narrow(axis, max(-before, 0), inside.shape[axis])
    inside.copy_(x)
    return out


def check_fits(sizes: tuple[int, ...], pairs: Pairs, modes: tuple[str, ...], name: str) -> None:
    """Refuse padding that is too large for the size of an axis in its mode."""
    for axis, (size, pair, mode) in enumerate(zip(sizes, pairs, modes, strict=True)):
        limit = {"reflect": size - 1, "circular": size}.get(mode)
        if limit is not None and max(pair) > limit:
            raise ValueError(
                f"{name} with mode {mode!r} must be {_LIMITS[mode]} the size of the axis, "
                f"got {pair} on spatial axis {axis} of size {size}"
            )
        if mode == "replicate" and size == 0 and max(pair) > 0:
            raise ValueError(f"{name} cannot replicate the empty spatial axis {axis}")
        if mode == "circular" and min(pair) < 0 < max(pair) and size + min(pair) < 1:
            raise ValueError(
                f"{name} with mode 'circular' must leave an entry to repeat, "
                f"got {pair} on spatial axis {axis} of size {size}"
            )


def _source(mode: str, size: int, pair: tuple[int, int], device: torch.device) -> Tensor:
    """For each entry of a padded axis, the index of the entry that it copies."""
    j = torch.arange(-pair[0], size + pair[1], device=device)
    if mode == "circular":
        if min(pair) >= 0:  # at most once around; ONNX has no remainder of a size that is not fixed
            return torch.where(j < 0, j + size, torch.where(j < size, j, j - size))
        start = max(-pair[0], 0)  # cropped entries are not part of the period
        return (j - start).remainder(size - start - max(-pair[1], 0)) + start
    if mode == "replicate":
        return j.clamp(0, size - 1)
    if mode == "reflect":
        return (size - 1) - ((size - 1) - j.abs()).abs()
    raise NotImplementedError(f"padding mode {mode!r} names no source of its entries")


def _native_axes(x: Tensor, pairs: Pairs, modes: tuple[str, ...]) -> int:
    """How many of the last axes torch can pad in one call, 0 for none."""
    n = len(pairs)
    last = min(n, MAX_AXES)
    if x.ndim != n + 2 or len(set(modes[n - last :])) > 1 or x.shape[1] == 0:
        return 0
    if modes[-1] not in _TORCH_MODES or deterministic(x):
        return 0  # the gradients of torch's CUDA kernels are not deterministic, that of a gather is
    if modes[-1] == "circular" and min(map(min, pairs[n - last :])) < 0:
        return 0  # torch (2.13) reads uninitialised memory
    if modes[-1] == "replicate" and not eager(x):
        return 0  # inductor (2.13) gets the strides of torch's gradient wrong
    return last


def pad_axes(x: Tensor, pairs: Pairs, modes: tuple[str, ...]) -> Tensor:
    """Pad the last ``len(pairs)`` axes of ``x``, each in its own mode."""
    n = len(pairs)
    check_fits(tuple(x.shape[x.ndim - n :]), pairs, modes, "padding")
    if all(m == "zeros" for m in modes):
        return zero_pad(x, pairs)
    last = _native_axes(x, pairs, modes)
    first = tuple(zip(pairs, modes, strict=True))[: n - last]
    for axis, (pair, mode) in enumerate(first, start=x.ndim - n):
        if mode != "zeros" and any(pair):
            x = x.index_select(axis, _source(mode, x.shape[axis], pair, x.device))
    if not last:
        return zero_pad(x, of_mode_zeros(pairs, modes))
    if last == n:
        return F.pad(x, flat(pairs), mode=modes[-1])
    # torch's kernels are best for the last axes, contiguous in memory; the other axes become channels.
    outside = x.shape[1 : x.ndim - last]
    x = F.pad(x.flatten(1, n + 1 - last), flat(pairs[-last:]), mode=modes[-1]).unflatten(1, outside)
    return zero_pad(x, (*of_mode_zeros(pairs[:-last], modes[:-last]), *((0, 0),) * last))


def pad_axes_adjoint(y: Tensor, pairs: Pairs, modes: tuple[str, ...]) -> Tensor:
    """The adjoint of :func:`pad_axes`: every padded entry is added to the one it was read from."""
    for axis, (pair, mode) in enumerate(zip(pairs, modes, strict=True), start=y.ndim - len(pairs)):
        if mode != "zeros" and any(pair):
            size = y.shape[axis] - sum(pair)
            shape = [*y.shape[:axis], size, *y.shape[axis + 1 :]]
            y = y.new_zeros(shape).index_add(axis, _source(mode, size, pair, y.device), y)
    return zero_pad(y, tuple((-a, -b) for a, b in of_mode_zeros(pairs, modes)))
