"""Spatial operators as plain NumPy loops: slow, short, and written from the definitions alone.

Arguments are in normal form: one value per axis, padding as one ``(before, after)`` pair per axis;
``padding`` of a pool is one int per axis. Arrays are ``(N, C, *spatial)``. :func:`evaluate` computes a
whole case.
"""

from collections.abc import Sequence
from itertools import product
from math import floor, prod

import numpy as np
from numpy.typing import NDArray

from .cases import Array, Case

__all__ = [
    "NUMPY_MODES",
    "Ints",
    "Pairs",
    "avg_pool",
    "conv",
    "conv_transpose",
    "evaluate",
    "interpolate",
    "max_pool",
    "pad",
]

Ints = Sequence[int]
Pairs = Sequence[tuple[int, int]]

NUMPY_MODES = {
    "zeros": "constant",
    "constant": "constant",
    "reflect": "reflect",
    "replicate": "edge",
    "circular": "wrap",
}


def evaluate(case: Case) -> Array:
    """The correct result of a case; arguments that the case does not pass are neutral."""
    k, groups = case.kwargs, case.kwargs.get("groups", 1)
    stride, dilation, modes = map(case.per_axis, ("stride", "dilation", "padding_mode"))
    padding, extra = case.padding_pairs, case.per_axis("output_padding")
    if case.operator == "max_pool":
        pads, ceil = case.per_axis("padding"), k.get("ceil_mode", False)
        return max_pool(case.input, k["kernel_size"], stride, pads, dilation, ceil)[0]
    if case.operator == "avg_pool":
        pads, ceil = case.per_axis("padding"), k.get("ceil_mode", False)
        count, divisor = k.get("count_include_pad", True), k.get("divisor_override")
        return avg_pool(case.input, k["kernel_size"], stride, pads, ceil, count, divisor)
    assert case.weight is not None
    operands = case.input, case.weight, case.bias
    if case.operator == "conv":
        return conv(*operands, stride, padding, dilation, groups, modes)
    if case.operator == "conv_transpose" and set(modes) == {"zeros"}:
        return conv_transpose(*operands, stride, padding, extra, groups, dilation)
    raise ValueError(f"operator must be a convolution or a pool with a reference, got {case!r}")


def pad(x: Array, pairs: Pairs, modes: Sequence[str]) -> Array:
    """Pad the last axes, one after the other, each in its own mode; negative amounts crop.

    Reflection and replication still read entries that are cropped; circular padding does not.
    """
    for axis, (pair, mode) in enumerate(zip(pairs, modes, strict=True), start=x.ndim - len(pairs)):
        cropped = x.take(range(max(-pair[0], 0), x.shape[axis] + min(pair[1], 0)), axis)
        source = cropped if mode == "circular" else x
        widths = [(0, 0)] * x.ndim
        widths[axis] = (max(pair[0], 0), max(pair[1], 0))
        padded = np.pad(source, widths, NUMPY_MODES[mode])  # type: ignore[call-overload]
        if mode != "circular":
            padded = padded.take(range(max(-pair[0], 0), padded.shape[axis] + min(pair[1], 0)), axis)
        x = padded
    return x


def conv(
    x: Array,
    weight: Array,
    bias: Array | None,
    stride: Ints,
    padding: Pairs,
    dilation: Ints,
    groups: int,
    modes: Sequence[str],
) -> Array:
    """``out[n, c, o] = bias[c] + sum weight[c, c', t] x[n, c', o s + t d - p]``."""
    x = pad(x, padding, modes)
    kernel = weight.shape[2:]
    per_out, per_in = weight.shape[0] // groups, weight.shape[1]
    counts = [
        (n - d * (k - 1) - 1) // s + 1
        for n, k, s, d in zip(x.shape[2:], kernel, stride, dilation, strict=True)
    ]
    out = np.zeros((x.shape[0], weight.shape[0], *counts))
    for o in np.ndindex(*counts):
        for t in np.ndindex(*kernel):
            at = tuple(i * s + j * d for i, s, j, d in zip(o, stride, t, dilation, strict=True))
            for c in range(weight.shape[0]):
                first = c // per_out * per_in
                values = x[(slice(None), slice(first, first + per_in), *at)]
                out[(slice(None), c, *o)] += values @ weight[(c, slice(None), *t)]
    return out if bias is None else out + bias.reshape(-1, *[1] * len(kernel))


def conv_transpose(
    x: Array,
    weight: Array,
    bias: Array | None,
    stride: Ints,
    padding: Pairs,
    output_padding: Ints,
    groups: int,
    dilation: Ints,
) -> Array:
    """``out[n, c, i s + t d - p] += weight[c', c, t] x[n, c', i]``, zero padding."""
    kernel = weight.shape[2:]
    per_in, per_out = weight.shape[0] // groups, weight.shape[1]
    full = [
        (i - 1) * s + d * (k - 1) + 1 + e
        for i, s, d, k, e in zip(x.shape[2:], stride, dilation, kernel, output_padding, strict=True)
    ]
    out = np.zeros((x.shape[0], per_out * groups, *full))
    for i in np.ndindex(*x.shape[2:]):
        for t in np.ndindex(*kernel):
            at = tuple(a * s + j * d for a, s, j, d in zip(i, stride, t, dilation, strict=True))
            for c in range(weight.shape[0]):
                first = c // per_in * per_out
                value = x[(slice(None), c, *i)][:, None] * weight[(c, slice(None), *t)]
                out[(slice(None), slice(first, first + per_out), *at)] += value
    crop = tuple(slice(a, n - b) for n, (a, b) in zip(full, padding, strict=True))
    out = out[(slice(None), slice(None), *crop)]
    return out if bias is None else out + bias.reshape(-1, *[1] * len(kernel))


def _windows(
    sizes: Ints, kernel: Ints, stride: Ints, padding: Ints, dilation: Ints, ceil_mode: bool
) -> list[list[list[int]]]:
    """For each axis, the input positions of each window, including those in the padding."""
    axes = []
    for n, k, s, p, d in zip(sizes, kernel, stride, padding, dilation, strict=True):
        windows, start = [], -p
        while start + d * (k - 1) < n + p or (ceil_mode and start < n and _overhangs(start, n, k, s, p, d)):
            windows.append([start + d * t for t in range(k)])
            start += s
        axes.append(windows)
    return axes


def _overhangs(start: int, n: int, k: int, s: int, p: int, d: int) -> bool:
    """True if a window past the end still counts because the window before it left entries over."""
    return start - s + d * (k - 1) < n + p - 1


def max_pool(
    x: Array, kernel_size: Ints, stride: Ints, padding: Ints, dilation: Ints, ceil_mode: bool
) -> tuple[Array, NDArray[np.int64]]:
    """Values and flat positions: the last NaN, else the first of equal maxima in row-major order."""
    sizes = x.shape[2:]
    axes = _windows(sizes, kernel_size, stride, padding, dilation, ceil_mode)
    shape = (*x.shape[:2], *map(len, axes))
    values, indices = np.full(shape, -np.inf), np.zeros(shape, dtype=np.int64)
    for o in np.ndindex(*shape):
        windows = [axis[i] for axis, i in zip(axes, o[2:], strict=True)]
        first = True
        for at in product(*windows):
            if all(0 <= i < n for i, n in zip(at, sizes, strict=True)):
                value = x[(*o[:2], *at)]
                if first or value > values[o] or np.isnan(value):
                    values[o], indices[o] = value, np.ravel_multi_index(at, sizes)
                    first = False
    return values, indices


def avg_pool(
    x: Array,
    kernel_size: Ints,
    stride: Ints,
    padding: Ints,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
    dilation: Ints | None = None,
) -> Array:
    """Mean of each window; positions past the right padding never count."""
    sizes = x.shape[2:]
    axes = _windows(sizes, kernel_size, stride, padding, dilation or [1] * len(kernel_size), ceil_mode)
    out = np.zeros((*x.shape[:2], *map(len, axes)))
    for o in np.ndindex(*out.shape[2:]):
        windows = [axis[i] for axis, i in zip(axes, o, strict=True)]
        inside = _within(windows, sizes, [0] * len(sizes))
        total = sum(x[(slice(None), slice(None), *at)] for at in product(*inside))
        count = prod(map(len, _within(windows, sizes, padding) if count_include_pad else inside))
        out[(slice(None), slice(None), *o)] = total / (divisor_override or count)
    return out


def _within(windows: Sequence[Sequence[int]], sizes: Ints, padding: Ints) -> list[list[int]]:
    """The positions of a window that are in the padded input, along every axis."""
    rows = zip(windows, sizes, padding, strict=True)
    return [[i for i in window if -p <= i < n + p] for window, n, p in rows]


def interpolate(
    x: Array, sizes: Ints, scales: Sequence[float | None], mode: str, align_corners: bool
) -> Array:
    """Resample the spatial axes one after the other; ``scales`` override output over input size.

    As in torch, linear resampling ignores a scale that does not change the size; nearest on two axes does
    the same, and also ignores a scale that doubles the size.
    """
    ignored = {"linear": (1,), "nearest": (1, 2) if len(sizes) == 2 else ()}.get(mode, ())
    for axis, (size, scale) in enumerate(zip(sizes, scales, strict=True), start=2):
        n = x.shape[axis]
        scale = None if any(size == factor * n for factor in ignored) else scale
        columns = []
        for o in range(size):
            taps = _interpolation_taps(o, n, size, scale, mode, align_corners)
            columns.append(sum(w * x.take(min(max(i, 0), n - 1), axis) for i, w in taps))
        x = np.stack(columns, axis)
    return x


def _interpolation_taps(
    o: int, n: int, size: int, scale: float | None, mode: str, align_corners: bool
) -> list[tuple[int, float]]:
    if mode == "area":
        inside = range(floor(o * n / size), -floor(-(o + 1) * n / size))
        return [(i, 1 / len(inside)) for i in inside]
    step = n / size if scale is None else 1 / scale
    if mode == "nearest":
        return [(floor(o * step), 1.0)]
    if mode == "nearest-exact":
        return [(floor((o + 0.5) * step), 1.0)]
    if align_corners:
        at = o * (n - 1) / (size - 1) if size > 1 else 0.0
    else:
        at = (o + 0.5) * step - 0.5
    if mode == "linear":
        at = max(at, 0.0)
        return [(floor(at), 1 - at % 1), (floor(at) + 1, at % 1)]
    return [(floor(at) + k, _cubic(abs(at % 1 - k))) for k in (-1, 0, 1, 2)]


def _cubic(d: float, a: float = -0.75) -> float:
    if d <= 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    return a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a
