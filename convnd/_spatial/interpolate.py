"""Resampling over any number of axes, one axis at a time.

Output position ``o`` lies at ``c(o) = (o + 1/2) * scale - 1/2`` of the input (at ``o * scale`` with
``align_corners``), where ``scale`` is input size over output size. Every mode is a short list of
input positions around ``c`` and their weights; over several axes the weights multiply.
"""

from collections.abc import Sequence
from math import ceil

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
    dtype, n = x.dtype, len(sizes)
    in_bytes = dtype == torch.uint8 and mode in INTERPOLATING
    undecided = False
    # torch's kernels (2.13, on CPU) replace some fractions by the whole numbers that give the same size.
    if mode == "linear" or in_bytes or antialias:
        scales = _taken(x.shape[2:], sizes, scales, (1,))
    elif mode == "nearest":
        taken = _taken(x.shape[2:], sizes, scales, (1, 2))
        undecided = n != 2 and taken != scales  # depends on the memory format
        scales = taken if n == 2 else scales
    options = mode, align_corners, antialias
    if in_bytes:
        return _resample_bytes(x, sizes, scales, *options)
    low_precision = dtype in LOW_PRECISION
    last = kernels.interpolated_axes(mode, n) if x.is_floating_point() else 0
    if antialias and (n != 2 or low_precision or sizes[-1] == 1):
        # torch supports it for two axes in single and double precision, and (2.13, on CPU) gets it wrong
        # if the last axis shrinks to one entry.
        last = 0
    if undecided or (eager(x) and x.numel() == 0):  # torch's CUDA kernels refuse empty tensors
        last = 0
    if (
        mode in ("cubic", "nearest-exact")
        and last
        and _copied(x.shape[-last:], sizes[-last:], scales[-last:])
    ):
        last = 0
    if mode in INTERPOLATING and deterministic(x):  # by gathers, whose gradients are deterministic
        last = 0
    if last < n and low_precision and not mode.startswith("nearest"):
        x = x.float()  # round once, at the end
    real = torch.float64 if x.dtype == torch.float64 else torch.float32
    for axis, (size, scale) in enumerate(zip(sizes[: n - last], scales, strict=False), start=2):
        if _kept(x.shape[axis], size, scale):
            continue
        shape = [-1 if a == axis else 1 for a in range(x.ndim)]
        terms = [
            x.index_select(axis, at) * (1 if weight is None else weight.to(x.dtype).view(shape))
            for at, weight in _taps(x.shape[axis], size, scale, *options, real, x.device)
        ]
        x = sum(terms[1:], terms[0])
    if last:
        # torch's kernels are best for the last axes, contiguous in memory; the other axes become channels.
        corners = align_corners if mode in INTERPOLATING else None
        resized = kernels.interpolate(
            last_axes(x, last), sizes[n - last :], scales[n - last :], mode, corners, antialias
        )
        x = resized if last == n else resized.unflatten(1, x.shape[1:-last])
    return x.to(dtype)


def _taken(inputs: Sequence[int], outputs: Sequence[int], scales: Scales, factors: Sequence[int]) -> Scales:
    """The scales, with a fraction replaced by one of ``factors`` if that gives the same size."""

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


def _resample_bytes(
    x: Tensor, sizes: tuple[int, ...], scales: Scales, mode: str, align_corners: bool, antialias: bool
) -> Tensor:
    """Linear and cubic resampling of bytes by torch's rule for two axes, which is Pillow's.

    Weights are integers: scaled by the largest power of two with which all fit into 16 bits, then rounded.
    The result is rounded to bytes after each axis, the last axis first.
    """
    if len(sizes) == 2 and max(sizes) > 1 and eager(x):  # torch (2.13) may fail if one entry is left
        x = x.contiguous()
        return kernels.interpolate(x, sizes, scales, mode, align_corners, antialias)
    for axis in range(x.ndim - 1, 1, -1):
        n, size, scale = x.shape[axis], sizes[axis - 2], scales[axis - 2]
        if _kept(n, size, scale):
            continue
        taps = _taps(n, size, scale, mode, align_corners, antialias, torch.float64, x.device)
        weights = torch.zeros(size, n, dtype=torch.float64, device=x.device)
        for at, weight in taps:
            assert weight is not None, mode
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
    mode: str,
    align_corners: bool,
    antialias: bool,
    real: torch.dtype,
    device: torch.device,
) -> Taps:
    """The input positions and weights of each output position along one axis of ``n`` entries."""
    if antialias:
        return _antialiased_taps(n, size, scale, mode, align_corners, real, device)
    if mode not in INTERPOLATING:
        real = torch.float32  # as torch computes them, whatever the dtype of the data
    o = torch.arange(size, device=device, dtype=real)
    step = _step(n, size, scale, align_corners)
    if mode == "nearest":
        return [((o * step).long().clamp(max=n - 1), None)]
    if mode == "nearest-exact":
        return [(((o + 0.5) * step).long().clamp(max=n - 1), None)]
    at = o * step if align_corners else (o + 0.5) * step - 0.5
    if mode == "linear":
        at = at.clamp(min=0)
        left = at.long().clamp(max=n - 1)
        fraction = at - left
        return [(left, 1 - fraction), ((left + 1).clamp(max=n - 1), fraction)]
    left = at.floor()
    fraction = at - left
    offsets = (-1, 0, 1, 2)
    return [((left.long() + k).clamp(0, n - 1), keys(fraction - k)) for k in offsets]


def _step(n: int, size: int, scale: float | None, align_corners: bool) -> float:
    """How many input entries lie between two output entries."""
    if align_corners:
        return (n - 1) / (size - 1) if size > 1 else 0.0
    return n / size if scale is None else 1 / scale


def _antialiased_taps(
    n: int,
    size: int,
    scale: float | None,
    mode: str,
    align_corners: bool,
    real: torch.dtype,
    device: torch.device,
) -> Taps:
    """As :func:`_taps`, with the kernel widened to the step if that is longer than one entry."""
    step = _step(n, size, scale, align_corners)
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
