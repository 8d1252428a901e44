"""torch's own kernels by number of axes: the one place that names them.

Everything else in convnd is written for any number of axes and comes here with at most three.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..arguments import Ints
from .eager import eager, known

LOW_PRECISION = (torch.float16, torch.bfloat16)
SMALL_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32)
INTEGERS = (*SMALL_INTEGERS, torch.int64)


def _slow() -> tuple[torch.dtype, ...]:
    if not torch.backends.mkldnn.is_available():
        return LOW_PRECISION
    fast = torch.ops.mkldnn._is_mkldnn_fp16_supported(), torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return tuple(dtype for dtype, known in zip(LOW_PRECISION, fast, strict=True) if not known)


# What this processor has no instructions for: torch's convolutions take some thirty times as long on it as in
# single precision (torch 2.13, AVX2).
SLOW = _slow()
MAX_AXES = 3
MAX_FRACTIONAL_AXES = 2

_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_CONV_TRANSPOSE = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
_MAX_POOL: dict[int, Any] = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_AVG_POOL: dict[int, Any] = {2: F.avg_pool2d, 3: F.avg_pool3d}
_ADAPTIVE_AVG_POOL: dict[int, Any] = {
    2: F.adaptive_avg_pool2d,
    3: F.adaptive_avg_pool3d,
}
_ADAPTIVE_MAX_POOL: dict[int, Any] = {
    1: F.adaptive_max_pool1d,
    2: F.adaptive_max_pool2d,
    3: F.adaptive_max_pool3d,
}
_LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}
_CUBIC = {2: "bicubic"}
_GRID_MODES = {"linear": 0, "nearest": 1, "cubic": 2}
_GRID_PADDINGS = {"zeros": 0, "border": 1, "reflection": 2}


def wide(x: Tensor) -> Tensor:
    """``x`` in a precision to add in, which is rounded (of integers: wrapped) once, at the end."""
    if x.dtype in LOW_PRECISION:
        return x.float()
    return x.long() if x.dtype in SMALL_INTEGERS else x


def errs(
    dtype: torch.dtype, device: str, sizes: Iterable[int], kernel: Sequence[int], stride: Ints, dilation: Ints
) -> bool:
    """Whether oneDNN's kernels may read or write outside their operands (torch 2.13, processors with AMX).

    ``sizes`` are those of the side of a convolution that its kernel moves over. Seen in half precision alone:
    with stride or dilation, in the convolution and both gradients; with neither, in the gradient by the
    weight, where an axis is shorter than the kernel. Such calls are made in single precision and rounded
    once.
    """
    if device != "cpu" or dtype not in LOW_PRECISION:
        return False
    short = any(known(size < k) for size, k in zip(sizes, kernel, strict=True))
    return short or max(*stride, *dilation) > 1


def emulated(dtype: torch.dtype, device: str) -> bool:
    """Whether single precision is so much faster that calls are made in it, and rounded once.

    The ``meta`` device stands for the CPU.
    """
    return device in ("cpu", "meta") and dtype in SLOW


def widens(
    dtype: torch.dtype, device: str, sizes: Iterable[int], kernel: Sequence[int], stride: Ints, dilation: Ints
) -> bool:
    """Whether a call is made in a wider type: for speed, because the kernel errs, or for want of a kernel."""
    if dtype in SMALL_INTEGERS or emulated(dtype, device):
        return True
    return errs(dtype, device, sizes, kernel, stride, dilation)


def _widened(kernel: Callable[..., Tensor], *args: Any) -> Tensor:
    with torch.autocast("cpu", enabled=False):
        wider = [wide(a) if isinstance(a, Tensor) else a for a in args]
        return kernel(*wider).to(args[0].dtype)


def _plain(x: Tensor) -> Tensor:
    """The strides of a contiguous tensor where it is one, also along axes of one entry, which may have any.

    Those of one channel, or of a kernel of one tap, read channels-last; then some of oneDNN's kernels return
    what lies outside their operands (torch 2.13).
    """
    if 1 not in x.shape[1:] or torch.compiler.is_compiling() or not x.is_contiguous():
        return x
    return x.squeeze().view(x.shape)


def _plain_weight(weight: Tensor) -> Tensor:
    """Contiguous: by the strides of others some kernels convolve wrongly, refuse or crash (torch 2.13).

    One takes a weight for channels-last which the next does not, and groups are cut from it in the wrong
    places. Which layout a kernel works in, it is to take from the input.
    """
    return _plain(weight.contiguous())


def _met(dilation: Ints, kernel: Sequence[int]) -> Ints:
    """A single tap has no dilation: oneDNN reads outside short axes by it (torch 2.13)."""
    if max(dilation) == 1:
        return dilation
    return tuple(1 if k == 1 else d for d, k in zip(dilation, kernel, strict=True))


def passes_by_onednn(batch: int, channels: int, sizes: Ints, dtype: torch.dtype) -> bool:
    """Whether torch convolves one small sample by a slow kernel though it has oneDNN (torch 2.13)."""
    few = batch == 1 and channels * prod(sizes[:2]) <= 20480
    return few and dtype == torch.float32 and len(sizes) > 1 and torch.backends.mkldnn.is_available()


def onednn_conv(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Ints,
    padding: Ints,
    dilation: Ints,
    groups: int,
) -> Tensor:
    input, weight, dilation = _plain(input), _plain_weight(weight), _met(dilation, weight.shape[2:])
    return torch.ops.aten.mkldnn_convolution(input, weight, bias, padding, stride, dilation, groups)


def channels_lie_last(x: Tensor) -> bool:
    """Whether one axis has its channels next to each other, which only kernels for two axes keep."""
    return x.ndim == 3 and x.device.type == "cpu" and x.stride(1) == 1 < x.shape[1]


def conv(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Ints,
    padding: Ints,
    dilation: Ints,
    groups: int,
) -> Tensor:
    kernel = weight.shape[2:]
    sizes = input.shape[-len(kernel) :]  # with a batch or without
    if widens(input.dtype, input.device.type, sizes, kernel, stride, dilation):
        return _widened(conv, input, weight, bias, stride, padding, dilation, groups)
    input, weight, dilation = _plain(input), _plain_weight(weight), _met(dilation, weight.shape[2:])
    if weight.ndim == 3 and channels_lie_last(input):
        window = (1, *stride), (0, *padding), (1, *dilation)
        return F.conv2d(input.unsqueeze(2), weight.unsqueeze(2), bias, *window, groups).squeeze(2)
    args = bias, stride, padding, dilation, groups
    return _CONV[weight.ndim - 2](input, weight, *args)


def channels_last(x: Tensor) -> Tensor:
    """``(N, C, *spatial)`` with the channels next to each other in memory."""
    return x.movedim(1, -1).contiguous().movedim(-1, 1)


def laid(x: Tensor, last: bool) -> Tensor:
    """With channels ``last`` in memory, or contiguous."""
    return channels_last(x) if last else x.contiguous()


def empty(x: Tensor, shape: Sequence[int], last: bool) -> Tensor:
    """Room for a result ``(N, C, *spatial)`` with channels ``last`` in memory, or contiguous."""
    return x.new_empty(shape[0], *shape[2:], shape[1]).movedim(-1, 1) if last else x.new_empty(shape)


def conv_weight_gradient(
    x: Tensor, y: Tensor, weight: Ints, stride: Ints, padding: Ints, dilation: Ints, groups: int
) -> Tensor:
    """The gradient of ``<y, conv(x, w)>`` by ``w`` of shape ``weight``."""
    x, dilation = _plain(x), _met(dilation, weight[2:])
    geometry = weight, stride, padding, dilation, groups
    if widens(x.dtype, x.device.type, x.shape[2:], weight[2:], stride, dilation):
        return _widened(conv_weight_gradient, x, y, *geometry)
    if x.is_complex():  # torch's convolutions take these apart as well, but not their gradients
        parts = [[conv_weight_gradient(a, b, *geometry) for a in (x.real, x.imag)] for b in (y.real, y.imag)]
        (rr, ir), (ri, ii) = parts
        return torch.complex(rr - ii, ri + ir)
    empty = x.new_empty(1).expand(weight)
    zeros = [0] * len(stride)
    args = y, x, empty, None, list(stride), list(padding), list(dilation), False, zeros, groups
    return torch.ops.aten.convolution_backward(*args, (False, True, False))[1]


def conv_transpose(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Ints,
    padding: Ints,
    output_padding: Ints,
    groups: int,
    dilation: Ints,
) -> Tensor:
    input, weight = _plain(input), _plain_weight(weight)
    args = stride, padding, output_padding, groups, dilation
    kernel = weight.shape[2:]
    rows = zip(input.shape[-len(kernel) :], kernel, stride, padding, output_padding, dilation, strict=True)
    sizes = ((i - 1) * s - 2 * p + d * (k - 1) + 1 + o for i, k, s, p, o, d in rows)
    if widens(input.dtype, input.device.type, sizes, kernel, stride, dilation):
        return _widened(conv_transpose, input, weight, bias, *args)
    return _CONV_TRANSPOSE[weight.ndim - 2](input, weight, bias, *args)


def _on_planes(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """A kernel to which no planes ``(N, C)`` are always an empty batch, the one kind that torch allows."""

    @wraps(kernel)
    def call(input: Tensor, *args: Any) -> Any:
        if input.shape[1]:
            return kernel(input, *args)
        lead = input.shape[:2]
        planes = (a.reshape(0, 1, *a.shape[2:]) if isinstance(a, Tensor) else a for a in (input, *args))
        out = kernel(*planes)
        single = isinstance(out, Tensor)
        reshaped = tuple(o.reshape(*lead, *o.shape[2:]) for o in ((out,) if single else out))
        return reshaped[0] if single else reshaped

    return call


@_on_planes
def max_pool(
    input: Tensor,
    kernel: Ints,
    stride: Ints,
    padding: Ints,
    dilation: Ints,
    ceil_mode: bool,
    return_indices: bool,
) -> Any:
    args = kernel, stride, padding, dilation
    options = {"ceil_mode": ceil_mode, "return_indices": return_indices}
    if len(kernel) > 1 or (input.is_floating_point() and eager(input)):
        return _MAX_POOL[len(kernel)](input, *args, **options)
    # Only the kernels for two and three axes take integers, and sizes that a traced program leaves open.
    out = F.max_pool2d(input.unsqueeze(-2), *_with_unit_axis(*args), **options)
    return tuple(o.squeeze(-2) for o in out) if return_indices else out.squeeze(-2)


def averages(device: str, sizes: Ints, kernel: Ints) -> bool:
    """Whether torch averages over as many axes at once, and well.

    Its kernel for three is slow on the CPU, and refuses inputs shorter than a window without their padding.
    """
    if len(kernel) < 3 or device in ("cpu", "meta"):
        return len(kernel) < 3
    return len(kernel) == 3 and all(k <= size for k, size in zip(kernel, sizes, strict=True))


@_on_planes
def avg_pool(input: Tensor, kernel: Ints, stride: Ints, padding: Ints, *args: Any) -> Tensor:
    if len(kernel) == 1:
        lifted = input.unsqueeze(-2), *_with_unit_axis(kernel, stride, padding)
        return avg_pool(*lifted, *args).squeeze(-2)
    if input.device.type == "cuda" and any(padding):
        # The kernel of the gradient in channels-last memory takes all padding for zero (torch 2.11).
        input = input.contiguous()
    return _AVG_POOL[len(kernel)](input, kernel, stride, padding, *args)


@_on_planes
def adaptive_avg_pool(input: Tensor, sizes: Ints) -> Tensor:
    if len(sizes) == 1:  # as torch does, but with sizes that a traced program leaves open
        return F.adaptive_avg_pool2d(input.unsqueeze(-2), (1, *sizes)).squeeze(-2)
    return _ADAPTIVE_AVG_POOL[len(sizes)](input, sizes)


@_on_planes
def adaptive_max_pool(input: Tensor, sizes: Ints, return_indices: bool) -> Any:
    return _ADAPTIVE_MAX_POOL[len(sizes)](input, sizes, return_indices=return_indices)


@_on_planes
def fractional_max_pool(input: Tensor, kernel: Ints, sizes: Ints, samples: Tensor) -> tuple[Tensor, Tensor]:
    """One or two axes: the kernel for three refuses windows that just fit. ``samples`` in axis order."""
    if len(kernel) == 2:  # torch's takes the last axis first
        samples = samples.flip(-1)
        return F.fractional_max_pool2d_with_indices(input, kernel, sizes, _random_samples=samples)
    lifted = input.unsqueeze(-2), (1, *kernel), (1, *sizes), samples.expand(*samples.shape[:2], 2)
    x, kernel, sizes, samples = lifted
    out = F.fractional_max_pool2d_with_indices(x, kernel, sizes, _random_samples=samples)
    return out[0].squeeze(-2), out[1].squeeze(-2)


@_on_planes
def interpolate(
    input: Tensor,
    sizes: Ints,
    scales: Sequence[float | None],
    mode: str,
    align_corners: bool | None,
    antialias: bool,
) -> Tensor:
    if channels_lie_last(input):
        unit = (1, *sizes), (1, *scales)
        return interpolate(input.unsqueeze(2), *unit, mode, align_corners, antialias).squeeze(2)
    factors = None if None in scales else [float(s) for s in scales if s is not None]
    return F.interpolate(
        input,
        sizes if factors is None else None,
        factors,
        interpolation_mode(mode, len(sizes)),
        align_corners,
        antialias=antialias,
    )


def _with_unit_axis(kernel: Ints, stride: Ints, padding: Ints, *dilation: Ints) -> Any:
    return (1, *kernel), (1, *stride), (0, *padding), *((1, *d) for d in dilation)


def interpolation_mode(mode: str, n: int) -> str:
    """torch's name of an interpolation mode on ``n`` axes."""
    return {"linear": _LINEAR, "cubic": _CUBIC}.get(mode, {}).get(n, mode)


def interpolated_axes(mode: str, n: int) -> int:
    """How many of ``n`` axes torch can interpolate at once, 0 for none."""
    known = _CUBIC if mode == "cubic" else _LINEAR
    return max([0, *[k for k in known if k <= n]])


def samples_grids(mode: str, padding: Sequence[str]) -> bool:
    """Whether torch samples at given places in this mode on as many axes, with this padding of each."""
    one = len(set(padding)) == 1 and padding[0] in _GRID_PADDINGS
    return one and len(padding) in ((2,) if mode == "cubic" else (2, 3))


def grid_sample(x: Tensor, grid: Tensor, mode: str, padding: str, align_corners: bool) -> Tensor:
    """``x (N, C, *sizes)`` at places ``(N, K, n)``: ``(N, C, K)``."""
    options = _GRID_MODES[mode], _GRID_PADDINGS[padding], align_corners
    return torch.grid_sampler(x, _with_unit_axes(grid), *options).flatten(2)


def _with_unit_axes(places: Tensor) -> Tensor:
    """``(N, K, n)`` as a grid of as many axes as there are coordinates."""
    return places.view(places.shape[0], *(1,) * (places.shape[-1] - 1), *places.shape[1:])


def grid_sample_gradients(
    y: Tensor, x: Tensor, grid: Tensor, mode: str, padding: str, align_corners: bool, by: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of ``<y, grid_sample(x, grid)>``, as far as they are needed."""
    kernels = {
        4: torch.ops.aten.grid_sampler_2d_backward,
        5: torch.ops.aten.grid_sampler_3d_backward,
    }
    options = _GRID_MODES[mode], _GRID_PADDINGS[padding], align_corners
    at = _with_unit_axes(grid)
    by_x, by_grid = kernels[x.ndim](y.view(*y.shape[:2], *at.shape[1:-1]), x, at, *options, by)
    return by_x if by[0] else None, by_grid.view_as(grid) if by[1] else None
