"""Resampling over any number of axes, one axis at a time.

Output position ``o`` lies at ``c(o) = (o + 1/2) * scale - 1/2`` of the input (at ``o * scale`` with
``align_corners``), where ``scale`` is input size over output size. Every mode is a short list of
input positions around ``c`` and their weights; over several axes the weights multiply.
"""

from collections.abc import Sequence
from math import ceil
from typing import NamedTuple

import torch
from torch import Tensor

from .._torch import resample as kernels
from .._torch.dtypes import LOW_PRECISION
from .._torch.eager import deterministic, eager, known
from .pool import adaptive_avg_pool
from .windows import last_axes

MODES = ("nearest", "nearest-exact", "linear", "cubic", "area")
INTERPOLATING = ("linear", "cubic")  # the modes that have align_corners

Scales = tuple[float | None, ...]
Taps = list[tuple[Tensor, Tensor | None]]  # input positions, weights; one entry per output position


class Rule(NamedTuple):
    """How entries between two others are found: the same along every axis."""

    mode: str
    align_corners: bool
    antialias: bool

    def step(self, n: int, size: int, scale: float | None) -> float:
        """How many of ``n`` input entries lie between two of ``size`` output entries."""
        if self.align_corners:
            return (n - 1) / (size - 1) if size > 1 else 0.0
        return n / size if scale is None else 1 / scale


def resample(
    x: Tensor,
    sizes: tuple[int, ...],
    scales: Scales,
    mode: str,
    align_corners: bool,
    antialias: bool = False,
) -> Tensor:
    """Resample ``(N, C, *spatial)`` to ``sizes``.

    ``scales`` (output over input) override the ratio of sizes; whole numbers must be ints.
    """
    if mode == "area":
        return adaptive_avg_pool(x, sizes)
    rule, dtype, n = Rule(mode, align_corners, antialias), x.dtype, len(sizes)
    in_bytes = dtype == torch.uint8 and mode in INTERPOLATING
    factors = _factors_taken(rule, n, in_bytes)
    if factors:
        scales = _taken(x.shape[2:], sizes, scales, factors)
    if in_bytes:
        return _resample_bytes(x, sizes, scales, rule)
    last = _native_axes(x, sizes, scales, rule)
    if last < n and dtype in LOW_PRECISION and not mode.startswith("nearest"):
        x = x.float()  # round once, at the end
    for axis in range(n - last):
        x = _resample_axis(x, axis + 2, sizes[axis], scales[axis], rule)
    if last:
        x = _resample_last(x, sizes[n - last :], scales[n - last :], rule)
    return x.to(dtype)


def _native_axes(x: Tensor, sizes: tuple[int, ...], scales: Scales, rule: Rule) -> int:
    """How many of the last axes torch's kernels resample at once and as one by one, 0 for none."""
    if not x.is_floating_point() or (eager(x) and x.numel() == 0):  # its CUDA kernels refuse empty tensors
        return 0
    last = kernels.interpolated_axes(rule.mode, len(sizes))
    return 0 if last and _differs(x, sizes, scales, rule, last) else last


def _differs(x: Tensor, sizes: tuple[int, ...], scales: Scales, rule: Rule, last: int) -> bool:
    """True if torch's kernels resample the last axes otherwise than one by one, or may fail."""
    n = len(sizes)
    if rule.mode == "nearest":  # on other than two axes, the scales taken depend on the memory format
        return n != 2 and _taken(x.shape[2:], sizes, scales, (1, 2)) != scales
    if rule.antialias and (n != 2 or x.dtype in LOW_PRECISION or sizes[-1] == 1):
        # torch supports it for two axes in single and double precision, and (2.13, on CPU) gets it wrong
        # if the last axis shrinks to one entry.
        return True
    if rule.mode in INTERPOLATING and deterministic(x):  # one by one by gathers: deterministic gradients
        return True
    return rule.mode in ("cubic", "nearest-exact") and _copied(x.shape[-last:], sizes[-last:], scales[-last:])


def _resample_axis(x: Tensor, axis: int, size: int, scale: float | None, rule: Rule) -> Tensor:
    if _kept(x.shape[axis], size, scale):
        return x
    real = torch.float64 if x.dtype == torch.float64 else torch.float32
    shape = [-1 if a == axis else 1 for a in range(x.ndim)]
    terms = [
        x.index_select(axis, at) * (1 if weight is None else weight.to(x.dtype).view(shape))
        for at, weight in _taps(x.shape[axis], size, scale, rule, real, x.device)
    ]
    return sum(terms[1:], terms[0])


def _resample_last(x: Tensor, sizes: tuple[int, ...], scales: Scales, rule: Rule) -> Tensor:
    """Resample the last axes, contiguous in memory, by torch's kernels; the other axes become channels."""
    mode, last = rule.mode, len(sizes)
    corners = rule.align_corners if mode in INTERPOLATING else None
    resized = kernels.interpolate(last_axes(x, last), sizes, scales, mode, corners, rule.antialias)
    return resized if x.ndim == last + 2 else resized.unflatten(1, x.shape[1:-last])


def _factors_taken(rule: Rule, n: int, in_bytes: bool) -> tuple[int, ...]:
    """Whole numbers that torch's kernels (2.13, on CPU) take instead of fractions that give the same size."""
    if rule.mode == "linear" or rule.antialias or in_bytes:
        return (1,)
    return (1, 2) if rule.mode == "nearest" and n == 2 else ()


def _taken(inputs: Sequence[int], outputs: Sequence[int], scales: Scales, factors: Sequence[int]) -> Scales:
    """The scales, with a fraction replaced by one of ``factors`` if that gives the same size."""
    if None in scales:
        return scales

    def take(n: int, size: int, scale: float | None) -> float | None:
        equal = [f for f in factors if size == f * n] if isinstance(scale, float) else []
        return equal[0] if equal else scale

    return tuple(map(take, inputs, outputs, scales))


def _copied(inputs: Sequence[int], outputs: Sequence[int], scales: Scales) -> bool:
    """True if torch, looking only at sizes, takes resampling for the identity.

    So does the gradient of its cubic kernel (2.13), and on CUDA its nearest-exact kernel for two axes (2.11).
    """
    same = all(known(n == size) for n, size in zip(inputs, outputs, strict=True))
    return same and any(scale not in (None, 1) for scale in scales)


def _kept(n: int, size: int, scale: float | None) -> bool:
    """True if an axis certainly stays as it is; a traced size that may vary is not guarded on."""
    if scale is None:
        return known(size == n)
    return scale == 1


def _resample_bytes(x: Tensor, sizes: tuple[int, ...], scales: Scales, rule: Rule) -> Tensor:
    """Linear and cubic resampling of bytes by torch's rule for two axes, which is Pillow's.

    Weights are integers: scaled by the largest power of two with which all fit into 16 bits, then rounded.
    The result is rounded to bytes after each axis, the last axis first.
    """
    if len(sizes) == 2 and max(sizes) > 1 and eager(x):  # torch (2.13) may fail if one entry is left
        x = x.contiguous()
        return kernels.interpolate(x, sizes, scales, *rule)
    for axis in range(x.ndim - 1, 1, -1):
        n, size, scale = x.shape[axis], sizes[axis - 2], scales[axis - 2]
        if _kept(n, size, scale):
            continue
        taps = _taps(n, size, scale, rule, torch.float64, x.device)
        weights = torch.zeros(size, n, dtype=torch.float64, device=x.device)
        for at, weight in taps:
            assert weight is not None, rule
            weights = weights.scatter_add(1, at[:, None], weight[:, None])
        doublings = 2.0 ** torch.arange(1, 23, dtype=torch.float64, device=x.device)
        unit = 2.0 ** ((0.5 + weights.amax() * doublings).floor() < 2**15).sum()
        weights = (weights * unit + 0.5 * weights.sign()).trunc()
        total = x.movedim(axis, -1).double() @ weights.T  # exact: the sums are far below 2 ** 53
        x = (total / unit + 0.5).floor().clamp(0, 255).to(torch.uint8).movedim(-1, axis)
    return x.contiguous()


def _taps(
    n: int,
    size: int,
    scale: float | None,
    rule: Rule,
    real: torch.dtype,
    device: torch.device,
) -> Taps:
    """The input positions and weights of each output position along one axis of ``n`` entries."""
    mode, step = rule.mode, rule.step(n, size, scale)
    if rule.antialias:
        return _antialiased_taps(n, size, step, mode, real, device)
    if mode not in INTERPOLATING:
        real = torch.float32  # as torch computes them, whatever the dtype of the data
    o = torch.arange(size, device=device, dtype=real)
    if mode == "nearest":
        return [((o * step).long().clamp(max=n - 1), None)]
    if mode == "nearest-exact":
        return [(((o + 0.5) * step).long().clamp(max=n - 1), None)]
    at = o * step if rule.align_corners else (o + 0.5) * step - 0.5
    if mode == "linear":
        at = at.clamp(min=0)
        left = at.long().clamp(max=n - 1)
        fraction = at - left
        return [(left, 1 - fraction), ((left + 1).clamp(max=n - 1), fraction)]
    left = at.floor()
    fraction = at - left
    offsets = (-1, 0, 1, 2)
    return [((left.long() + k).clamp(0, n - 1), keys(fraction - k)) for k in offsets]


def _antialiased_taps(
    n: int,
    size: int,
    step: float,
    mode: str,
    real: torch.dtype,
    device: torch.device,
) -> Taps:
    """As :func:`_taps`, with the kernel widened to the step if that is longer than one entry."""
    widening = max(step, 1.0)
    support = (1 if mode == "linear" else 2) * widening
    centre = (torch.arange(size, device=device, dtype=real) + 0.5) * step
    first = (centre - support + 0.5).long().clamp(min=0)
    stop = (centre + support + 0.5).long().clamp(max=n)
    positions = [first + t for t in range(2 * ceil(support) + 1)]
    weights = []
    for at in positions:
        distance = ((at - centre + 0.5) / widening).abs()
        weight = (1 - distance).clamp(min=0) if mode == "linear" else keys(distance, a=-0.5)
        weights.append(torch.where((at < stop) & (distance < support / widening), weight, 0))
    total = torch.stack(weights).sum(0)
    return [(at.clamp(max=n - 1), weight / total) for at, weight in zip(positions, weights, strict=True)]


def keys(distance: Tensor, a: float = -0.75) -> Tensor:
    """Cubic convolution kernel (Keys 1981, eq. 4) with torch's ``a``."""
    d = distance.abs()
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return torch.where(d <= 1, near, far)
