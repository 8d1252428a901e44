"""Windows as columns and back, and pixel shuffles.

``unfold`` lists the entries of every window; ``fold`` is its adjoint and adds them back. Both go axis
by axis: entry ``t`` of window ``o`` lies at ``o * stride + t * dilation`` of the padded axis.
"""

from math import prod

import torch
from torch import Tensor

from ..arguments import Ints
from .pad import zero_pad
from .windows import Windows, open_windows


def unfold(x: Tensor, windows: Windows) -> Tensor:
    """``(N, C, *spatial)`` to ``(N, C * taps, windows)``, the taps of one channel together."""
    x = zero_pad(x, tuple((p, p) for p in windows.padding))
    for axis, (k, s, _, d) in enumerate(zip(*windows, strict=True), start=2):
        x = open_windows(x, axis, k, s, d)
    n = len(windows.kernel)
    x = x.permute(0, 1, *range(n + 2, 2 * n + 2), *range(2, n + 2))
    # Always copy, once: the result is never a view of the input, and traced sizes raise no question about it.
    return x.clone(memory_format=torch.contiguous_format).flatten(1, n + 1).flatten(2)


def fold(columns: Tensor, sizes: Ints, counts: Ints, windows: Windows) -> Tensor:
    """``(N, C * taps, windows)`` to ``(N, C, *sizes)``: entries in several windows are summed."""
    n = len(sizes)
    channels = columns.shape[1] // prod(windows.kernel)
    x = columns.reshape(columns.shape[0], channels, *windows.kernel, *counts)
    for axis, (size, k, s, p, d) in enumerate(zip(sizes, *windows, strict=True)):
        # Axis 2 has the taps and axis 2 + n - axis the windows of this spatial axis, which moves to the end.
        at_tap = torch.arange(k, device=x.device) * d
        at_window = torch.arange(counts[axis], device=x.device) * s
        positions = (at_tap[:, None] + at_window).flatten()
        x = x.movedim((2, 2 + n - axis), (-2, -1)).flatten(-2)
        padded = x.new_zeros(*x.shape[:-1], size + 2 * p)
        x = padded.index_add(-1, positions, x).narrow(-1, p, size)
    return x


def pixel_shuffle(x: Tensor, factors: Ints) -> Tensor:
    """``(*, C * prod(factors), *spatial)`` to ``(*, C, *(spatial * factors))``."""
    n = len(factors)
    lead = x.ndim - n - 1
    x = x.unflatten(lead, (-1, *factors))  # (*, C, *factors, *spatial)
    first = lead + 1
    order = [a for axis in range(n) for a in (first + n + axis, first + axis)]
    x = x.permute(*range(first), *order)
    return x.reshape(*x.shape[:first], *(x.shape[first + 2 * a] * factors[a] for a in range(n)))


def pixel_unshuffle(x: Tensor, factors: Ints) -> Tensor:
    """``(*, C, *(spatial * factors))`` to ``(*, C * prod(factors), *spatial)``."""
    n = len(factors)
    lead = x.ndim - n - 1
    first = lead + 1
    for axis, factor in reversed(list(enumerate(factors, start=first))):
        x = x.unflatten(axis, (-1, factor))
    order = [*range(first + 1, first + 2 * n, 2), *range(first, first + 2 * n, 2)]
    return x.permute(*range(first), *order).flatten(lead, lead + n)
