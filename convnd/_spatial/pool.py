"""Pooling over any number of spatial axes.

The maximum or sum over a box can be taken over some axes first and then over the others. Large tensors on
the CPU are reduced axis by axis and in place (:mod:`.separable_pool`), unless torch's kernel is as fast. In
all other cases sums are taken axis by axis and divided once; maxima are taken over a few axes at a time, last
axes first, by torch's own kernels. Their indices compose: the flat index of the maximum along the outer axes
selects the flat index along the inner ones. As in torch, the first of equal maxima in row-major order wins
and NaN wins over everything, since each step keeps that rule.
"""

from collections.abc import Callable, Iterator
from functools import lru_cache
from math import prod

import torch
from torch import Tensor

from .._torch import pool as kernels
from .._torch.conv import MAX_AXES
from .._torch.dtypes import wide
from .._torch.eager import deterministic, eager
from ..arguments import Ints
from . import separable_pool as separable
from .pad import zero_pad
from .windows import Windows, every, open_windows, output_size

SMALL = 2**14  # entries; below this, the calls of a separable reduction cost more than its arithmetic
DETERMINISTIC_AXES = 2  # more than two at once have no deterministic gradient in torch's CUDA kernels
OVERLAP = 3  # taps per entry of the input; with fewer, torch finds the indices of maxima as fast


def _axis_groups(n: int, most: int) -> Iterator[slice]:
    """The spatial axes, last first, in groups of at most ``most``."""
    for stop in range(n, 0, -most):
        yield slice(max(stop - most, 0), stop)


def _along(group: slice, op: Callable[..., tuple[Tensor, ...]], *tensors: Tensor) -> tuple[Tensor, ...]:
    """Apply ``op``, which takes ``(1, batch, *axes)``, to some spatial axes; all others become batch."""
    axes = tuple(range(2 + group.start, 2 + group.stop))
    last = tuple(range(-len(axes), 0))
    moved = [t.movedim(axes, last) for t in tensors]
    lead = moved[0].shape[: -len(axes)]
    planes = prod(lead)
    batch = (1, planes) if planes else (0, 1)  # native kernels allow only N to be 0
    results = op(*(m.reshape(*batch, *m.shape[-len(axes) :]) for m in moved))
    return tuple(r.reshape(*lead, *r.shape[2:]).movedim(last, axes) for r in results)


def _maxima(
    x: Tensor,
    n: int,
    some_axes: Callable[[Tensor, slice], tuple[Tensor, ...]],
    most: int = MAX_AXES,
) -> tuple[Tensor, ...]:
    """Combine maxima over groups of axes: ``(values,)`` or ``(values, positions)`` over all axes.

    ``some_axes(x, group)`` gives values and, if positions are wanted, flat positions along the group.
    """
    if n <= most:
        return some_axes(x, slice(0, n))
    sizes = x.shape[2:]
    values, position = x, None
    for group in _axis_groups(n, most):
        values, *found = _along(group, lambda v, group=group: some_axes(v, group), values)
        if not found:
            continue
        winner = found[0]
        if position is not None:
            (inner,) = _along(group, _pick, position, winner)
            winner = winner * prod(sizes[group.stop :]) + inner
        position = winner
    return (values,) if position is None else (values, position)


def max_pool(x: Tensor, windows: Windows, ceil_mode: bool, indices: bool) -> tuple[Tensor, ...]:
    """``(values,)`` or ``(values, indices)`` with indices flat over the spatial axes."""
    if _is_large(x):
        separably = _separable_max_pool(x, windows, ceil_mode, indices)
        if separably is not None:
            return separably

    def natively(x: Tensor, windows: Windows) -> tuple[Tensor, ...]:
        out = kernels.max_pool(x, *windows, ceil_mode, indices)
        return out if indices else (out,)

    n = len(windows.kernel)
    most = DETERMINISTIC_AXES if deterministic(x) else MAX_AXES
    if n <= most:
        return natively(x, windows)
    return _maxima(x, n, lambda x, group: natively(x, windows.along(group)), most)


def _is_large(x: Tensor) -> bool:
    """True if values may be read for free, and are so many that it may pay to reduce axis by axis."""
    return eager(x) and x.device.type in ("cpu", "meta") and x.numel() >= SMALL


def _dense(x: Tensor) -> Tensor:
    """``x`` in a memory format that torch's kernels support and keep."""
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    kept = x.ndim in formats and x.is_contiguous(memory_format=formats[x.ndim])
    return x if kept else x.contiguous()


@lru_cache(maxsize=4096)
def _separable_outputs(sizes: Ints, windows: Windows, ceil_mode: bool) -> Ints | None:
    """The sizes of the result if it can be computed axis by axis, otherwise None."""
    outputs = windows.outputs(sizes, ceil_mode)
    return outputs if separable.applies(sizes, windows, outputs) else None


def _separable_max_pool(
    x: Tensor, windows: Windows, ceil_mode: bool, indices: bool
) -> tuple[Tensor, ...] | None:
    """Maxima axis by axis; None if that does not apply or torch's kernels are as fast."""
    n, sizes = len(windows.kernel), tuple(x.shape[2:])
    outputs = _separable_outputs(sizes, windows, ceil_mode)
    if x.dtype not in separable.REDUCED or outputs is None:
        return None
    overlap = prod(windows.kernel) * prod(outputs) >= OVERLAP * prod(sizes)
    with_places = indices or (x.requires_grad and torch.is_grad_enabled())
    slow = all if with_places else any  # what makes torch's kernels slow
    if n <= MAX_AXES and not slow((overlap, x.is_contiguous())):
        return None
    if with_places:
        return _separable_winners(x, windows, outputs, indices)
    return None if n == 1 else (separable.maxima(_dense(x), windows, outputs),)


def _separable_winners(
    x: Tensor, windows: Windows, outputs: Ints, indices: bool
) -> tuple[Tensor, ...] | None:
    """Maxima picked by their places, as gradients and indices need them; None where that does not apply."""
    if x.dtype not in separable.KEYED or prod(x.shape[2:]) > separable.MAX_PLACES:
        return None
    with torch.no_grad():
        places = separable.winners(x.detach(), windows, outputs)
    if places is None:
        return None
    (values,) = _pick(x, places)
    return (values, places) if indices else (values,)


def adaptive_max_pool(x: Tensor, sizes: Ints, indices: bool) -> tuple[Tensor, ...]:
    """As :func:`max_pool`, over windows ``[floor(o n / size), ceil((o + 1) n / size))``."""

    def some_axes(x: Tensor, group: slice) -> tuple[Tensor, ...]:
        out = kernels.adaptive_max_pool(x, sizes[group], indices)
        return out if indices else (out,)

    return _maxima(x, len(sizes), some_axes)


def fractional_max_pool(x: Tensor, kernel: Ints, sizes: Ints, samples: Tensor) -> tuple[Tensor, ...]:
    """As :func:`max_pool`, over windows whose starts ``samples`` ``(N, C, axes)`` choose."""

    def some_axes(x: Tensor, group: slice) -> tuple[Tensor, ...]:
        chosen = samples[..., group]
        if len(sizes) > kernels.MAX_FRACTIONAL_AXES:  # repeat the samples along the other axes
            planes = prod(x.shape[:2]) // max(prod(chosen.shape[:2]), 1)
            chosen = chosen.flatten(0, 1).repeat_interleave(planes, 0).view(*x.shape[:2], chosen.shape[-1])
        return kernels.fractional_max_pool(x, kernel[group], sizes[group], chosen)

    return _maxima(x, len(sizes), some_axes, kernels.MAX_FRACTIONAL_AXES)


def max_unpool(x: Tensor, indices: Tensor, sizes: Ints) -> Tensor:
    """Scatter ``x`` into zeros at flat spatial ``indices``; of entries with equal index the last stays."""
    x, indices = x.flatten(2), indices.flatten(2)
    order = torch.arange(x.shape[2], device=x.device).expand_as(indices)
    nobody = torch.full((*x.shape[:2], prod(sizes)), -1, device=x.device)
    source = nobody.scatter_reduce(2, indices, order, "amax")
    out = x.gather(2, source.clamp(min=0)).where(source >= 0, 0)
    return out.view(*x.shape[:2], *sizes)


def _pick(source: Tensor, index: Tensor) -> tuple[Tensor]:
    """The entries of ``source`` at flat positions ``index`` over the axes after the second."""
    return (source.flatten(2).gather(2, index.flatten(2)).view(index.shape),)


def avg_pool(
    x: Tensor, windows: Windows, ceil_mode: bool, count_include_pad: bool, divisor_override: int | None
) -> Tensor:
    """Mean over windows: sums axis by axis, divided once at the end."""
    sizes, whole = tuple(x.shape[2:]), not x.is_floating_point()
    options = count_include_pad, divisor_override
    native = _has_average(x, windows, ceil_mode)
    if _is_large(x) and not whole and (x.is_contiguous() or not native):
        outputs = _separable_outputs(sizes, windows, ceil_mode)
        if outputs is not None:
            counts = _divisor(x, outputs, sizes, windows, ceil_mode, *options)
            return separable.means(_dense(wide(x)), windows, outputs, counts).to(x.dtype)
    if native:
        kernel, stride, padding, _ = windows
        return kernels.avg_pool(x, kernel, stride, padding, ceil_mode, *options)
    total = _padded_sums(wide(x), windows, ceil_mode)
    counts = _divisor(x, tuple(total.shape[2:]), sizes, windows, ceil_mode, *options)
    return torch.div(total, counts, rounding_mode="trunc" if whole else None).to(x.dtype)


def _has_average(x: Tensor, windows: Windows, ceil_mode: bool) -> bool:
    """True if torch's kernels give the means."""
    if max(windows.dilation) > 1 or not kernels.averages(x.device.type, x.shape[2:], windows.kernel):
        return False
    if len(windows.kernel) > DETERMINISTIC_AXES and deterministic(x):
        return False
    # Inductor (2.13) divides gradients of windows cut off by ceil_mode by the size of full windows.
    return eager(x) or not (ceil_mode or not x.is_floating_point())


def _padded_sums(x: Tensor, windows: Windows, ceil_mode: bool) -> Tensor:
    for axis, (k, s, p, d) in enumerate(zip(*windows, strict=True), start=2):
        count = output_size(x.shape[axis], k, s, p, d, ceil_mode)
        # Amounts that do not depend on the size, which may be dynamic in a traced program.
        x = zero_pad(x, ((p, p + (s - 1 if ceil_mode else 0)), *((0, 0),) * (x.ndim - 1 - axis)))
        x = every(open_windows(x, axis, k, s, d).sum(-1), axis, 0, 1, count)
    return x


def _divisor(
    x: Tensor,
    outputs: Ints,
    sizes: Ints,
    windows: Windows,
    ceil_mode: bool,
    count_include_pad: bool,
    override: int | None,
) -> Tensor | int:
    """How many entries of each window count: the product over the axes."""
    if override is not None:
        return override
    if not ceil_mode and (count_include_pad or not any(windows.padding)):
        return prod(windows.kernel)
    total: Tensor | int = 1
    for axis, (count, n, k, s, p, d) in enumerate(zip(outputs, sizes, *windows, strict=True), start=1):
        starts = torch.arange(count, device=x.device) * s - p
        taps = starts[:, None] + torch.arange(k, device=x.device) * d
        low, high = (-p, n + p) if count_include_pad else (0, n)
        inside = ((taps >= low) & (taps < high)).sum(1)
        total = total * inside.view(-1, *(1,) * (len(sizes) - axis))
    return total


def adaptive_avg_pool(x: Tensor, sizes: Ints) -> Tensor:
    """Mean over windows ``[floor(o n / size), ceil((o + 1) n / size))`` of each axis."""
    if deterministic(x):
        means = wide(x)
        for axis, size in enumerate(sizes, start=2):
            means = _mean_along(means, axis, size)
        return means.to(x.dtype)
    n = len(sizes)
    if n <= MAX_AXES:
        return kernels.adaptive_avg_pool(x, sizes)
    total = wide(x)
    for group in _axis_groups(n, MAX_AXES):
        (total,) = _along(group, lambda v, group=group: (kernels.adaptive_avg_pool(v, sizes[group]),), total)
    return total.to(x.dtype)


def _mean_along(x: Tensor, axis: int, size: int) -> Tensor:
    """The mean over windows of one axis, by gathers: the gradients of these are deterministic."""
    n = x.shape[axis]
    if n % size == 0:
        return x.unflatten(axis, (size, n // size)).mean(axis + 1)
    o = torch.arange(size, device=x.device)
    start, stop = o * n // size, -(-(o + 1) * n // size)

    def along(values: Tensor) -> Tensor:
        return values.view([-1 if a == axis else 1 for a in range(x.ndim)])

    taps = [
        torch.where(along(start + t < stop), x.index_select(axis, (start + t).clamp(max=n - 1)), 0)
        for t in range(n // size + 2)  # as many as a window has, at most
    ]
    return sum(taps[1:], taps[0]) / along(stop - start)
