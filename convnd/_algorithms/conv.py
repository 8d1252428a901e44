r"""Convolution and transposed convolution over any number of spatial axes.

With ``p`` the zeros before an axis, ``s`` the stride and ``d`` the dilation, for each axis

    conv            out[o] = sum_t  weight[t] * input[o * s + t * d - p]
    conv_transpose  out[i * s + t * d - p] += weight[t] * input[i]

At most three axes go to torch's own kernels. With more, the taps of the surplus leading axes become
input channels and their output positions become batch entries, so that one native convolution over
the last three axes does all the arithmetic (and rounds once, in any precision). A transposed
convolution is, for each residue of the output position modulo the stride, a plain convolution of
stride 1 with every s-th tap, reversed.
"""

from itertools import product
from math import gcd, prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..arguments import Ints, Pairs
from . import native


def flat(pairs: Pairs) -> list[int]:
    """The amounts as torch takes them: the last axis first."""
    return [amount for pair in reversed(pairs) for amount in pair]


def zero_pad(input: Tensor, pairs: Pairs) -> Tensor:
    """Zeros around the last ``len(pairs)`` axes; negative amounts crop."""
    if not any(map(any, pairs)):
        return input
    return F.pad(input, flat(pairs))


def convolve(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: Ints, pads: Pairs, dilation: Ints, groups: int
) -> Tensor:
    """Zero-padded convolution of ``(N, C, *spatial)``."""
    surplus = max(len(stride) - native.MAX_AXES, 0)
    # The native kernels pad both sides alike; the rest, and the surplus axes, are padded here.
    inside = [0] * surplus + [max(min(pair), 0) for pair in pads[surplus:]]
    outside = tuple((a - i, b - i) for (a, b), i in zip(pads, inside, strict=True))
    x = zero_pad(x, outside)
    if not surplus:
        return native.conv(x, weight, bias, stride, tuple(inside), dilation, groups)
    return _fold_taps(x, weight, bias, stride, tuple(inside), dilation, groups, surplus)


def _fold_taps(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Ints,
    padding: Ints,
    dilation: Ints,
    groups: int,
    surplus: int,
) -> Tensor:
    """One native convolution: taps of the first ``surplus`` axes in channels, positions in batch."""
    kernel = tuple(weight.shape[2 : 2 + surplus])
    for axis in range(surplus):
        extent = dilation[axis] * (kernel[axis] - 1) + 1
        x = x.unfold(2 + axis, extent, stride[axis])[..., :: dilation[axis]]
    # (N, C, *positions, *rest, *taps) -> (N * positions, *rest, groups * taps * C / groups): laid out
    # channels-last, so that the copy moves whole runs of channels and the kernel finds its layout.
    n, positions = x.shape[0], tuple(x.shape[2 : 2 + surplus])
    rest = tuple(x.shape[2 + surplus : 2 + surplus + native.MAX_AXES])
    x = x.unflatten(1, (groups, x.shape[1] // groups)).movedim((1, 2), (-1 - surplus - 1, -1))
    x = x.reshape(n * prod(positions), *rest, prod(kernel) * x.shape[-1] * groups).movedim(-1, 1)
    weight = weight.movedim(1, 1 + surplus).flatten(1, 1 + surplus)
    out = native.conv(x, weight, bias, stride[surplus:], padding[surplus:], dilation[surplus:], groups)
    return out.reshape(n, *positions, *out.shape[1:]).movedim(1 + surplus, 1)


def transposed_weight(weight: Tensor, groups: int) -> Tensor:
    """``(C, O / groups, *kernel)`` as the ``(O, C / groups, *kernel)`` of the reversed convolution."""
    weight = weight.unflatten(0, (groups, weight.shape[0] // groups)).transpose(1, 2)
    return weight.flatten(0, 1).flip(tuple(range(2, weight.ndim - 1)))


def convolve_transposed(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Ints,
    pads: Pairs,
    dilation: Ints,
    groups: int,
    output_padding: Ints,
) -> Tensor:
    """Transposed convolution of ``(N, C, *spatial)``; ``pads`` are cropped from the full result."""
    sizes = tuple(
        (i - 1) * s - a - b + d * (k - 1) + 1 + extra
        for i, s, (a, b), d, k, extra in zip(
            x.shape[2:], stride, pads, dilation, weight.shape[2:], output_padding, strict=True
        )
    )
    if len(stride) <= native.MAX_AXES:
        both = tuple(min(pair) for pair in pads)
        out = native.conv_transpose(x, weight, bias, stride, both, output_padding, groups, dilation)
        for axis, (size, p, (before, _)) in enumerate(zip(sizes, both, pads, strict=True)):
            if out.shape[2 + axis] != size:
                out = out.narrow(2 + axis, before - p, size)
        return out
    return _phases(x, weight, bias, stride, pads, dilation, groups, sizes)


def _phases(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Ints,
    pads: Pairs,
    dilation: Ints,
    groups: int,
    sizes: Ints,
) -> Tensor:
    """One convolution per residue of the output position, interleaved.

    Position ``q * s + r`` of the uncropped result sums ``weight[t] * input[q - (t * d - r) / s]`` over
    the taps with ``t * d = r (mod s)``; these are every ``s / gcd(s, d)``-th one.
    """
    weight = transposed_weight(weight, groups)
    n_axes = len(stride)
    first = tuple(a // s for (a, _), s in zip(pads, stride, strict=True))
    counts = tuple(
        -(-(a + size) // s) - f for (a, _), size, s, f in zip(pads, sizes, stride, first, strict=True)
    )
    axes = zip(weight.shape[2:], stride, dilation, x.shape[2:], first, counts, strict=True)
    residues = [[_residue(r, *axis) for r in range(axis[1])] for axis in axes]
    # Residues whose taps lie alike share one convolution: all of them when the stride divides the kernel.
    alike: dict[tuple[Any, ...], dict[int, tuple[slice, ...]]] = {}
    for i, chosen in enumerate(product(*residues)):
        parts = [part for part in chosen if part is not None]
        if len(parts) == n_axes:
            window, *layout = zip(*parts, strict=True)
            alike.setdefault(tuple(layout), {})[i] = window
    results = {
        tuple(windows): _side_by_side(x, weight, bias, amounts, steps, groups, tuple(windows.values()))
        for (amounts, steps, _), windows in alike.items()
    }
    out = next(iter(results.values()))  # residue 0 always has a tap
    if len(out) < prod(stride):
        # Where no tap reaches, the result is the bias.
        fill = out.new_zeros(()) if bias is None else bias.to(out.dtype).view(-1, *(1,) * n_axes)
        blocks = [fill.expand(out.shape[1:])] * prod(stride)
        for members, result in results.items():
            for i, block in zip(members, result, strict=True):
                blocks[i] = block
        out = torch.stack(blocks)
    if len(out) == 1:
        return out[0]
    # (residues, N, C, *counts) -> (N, C, count0 * stride0, ...), then crop to the wanted positions.
    out = out.unflatten(0, stride)
    order = [n_axes, n_axes + 1]
    order += [a for axis in range(n_axes) for a in (n_axes + 2 + axis, axis)]
    out = out.permute(order).reshape(
        *out.shape[n_axes : n_axes + 2], *(c * s for c, s in zip(counts, stride, strict=True))
    )
    for axis, size in enumerate(sizes):
        out = out.narrow(2 + axis, pads[axis][0] - first[axis] * stride[axis], size)
    return out


def _side_by_side(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    pads: Pairs,
    dilation: Ints,
    groups: int,
    windows: tuple[tuple[slice, ...], ...],
) -> Tensor:
    """``(len(windows), N, C, *spatial)``: convolutions with parts of one kernel, in a single call."""
    taps = [weight[(slice(None), slice(None), *window)] for window in windows]
    kernels = torch.stack([t.unflatten(0, (groups, -1)) for t in taps], 1).flatten(0, 2)
    if bias is not None:
        bias = bias.view(groups, 1, -1).expand(-1, len(windows), -1).flatten()
    out = convolve(x, kernels, bias, (1,) * len(pads), pads, dilation, groups)
    return out.unflatten(1, (groups, len(windows), -1)).movedim(2, 0).flatten(2, 3)


def _residue(
    r: int, kernel: int, stride: int, dilation: int, size: int, first: int, count: int
) -> tuple[slice, tuple[int, int], int, int] | None:
    """Taps (of the reversed kernel), padding, dilation, number of taps for positions ``q * stride + r``."""
    taps = [t for t in range(kernel) if (t * dilation - r) % stride == 0]
    if not taps:
        return None
    common = gcd(stride, dilation)
    low, high = ((t * dilation - r) // stride for t in (taps[0], taps[-1]))
    window = slice(kernel - 1 - taps[-1], kernel - taps[0], stride // common)
    return window, (high - first, first + count - low - size), dilation // common, len(taps)
