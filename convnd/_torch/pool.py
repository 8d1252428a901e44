"""torch's pooling kernels by number of axes."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from ..arguments import Ints
from .eager import eager

MAX_FRACTIONAL_AXES = 2

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


def on_planes(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a kernel so that zero planes ``(N, C)`` become an empty batch, the only form that torch allows."""

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


@on_planes
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
    # Only the kernels for two and three axes accept integers and dynamic sizes.
    out = F.max_pool2d(input.unsqueeze(-2), *_with_unit_axis(*args), **options)
    return tuple(o.squeeze(-2) for o in out) if return_indices else out.squeeze(-2)


def averages(device: str, sizes: Ints, kernel: Ints) -> bool:
    """True if torch can average over this many axes at once, correctly and fast.

    Its 3-D kernel is slow on the CPU, and refuses inputs that without padding are shorter than a window.
    """
    if len(kernel) < 3 or device in ("cpu", "meta"):
        return len(kernel) < 3
    return len(kernel) == 3 and all(k <= size for k, size in zip(kernel, sizes, strict=True))


@on_planes
def avg_pool(input: Tensor, kernel: Ints, stride: Ints, padding: Ints, *args: Any) -> Tensor:
    if len(kernel) == 1:
        lifted = input.unsqueeze(-2), *_with_unit_axis(kernel, stride, padding)
        return avg_pool(*lifted, *args).squeeze(-2)
    if input.device.type == "cuda" and any(padding):
        # In channels-last memory the backward kernel ignores all padding (torch 2.11).
        input = input.contiguous()
    return _AVG_POOL[len(kernel)](input, kernel, stride, padding, *args)


@on_planes
def adaptive_avg_pool(input: Tensor, sizes: Ints) -> Tensor:
    if len(sizes) == 1:  # as torch does, but it also works with dynamic sizes
        return F.adaptive_avg_pool2d(input.unsqueeze(-2), (1, *sizes)).squeeze(-2)
    return _ADAPTIVE_AVG_POOL[len(sizes)](input, sizes)


@on_planes
def adaptive_max_pool(input: Tensor, sizes: Ints, return_indices: bool) -> Any:
    return _ADAPTIVE_MAX_POOL[len(sizes)](input, sizes, return_indices=return_indices)


@on_planes
def fractional_max_pool(input: Tensor, kernel: Ints, sizes: Ints, samples: Tensor) -> tuple[Tensor, Tensor]:
    """One or two axes, since the 3-D kernel refuses windows that just fit. ``samples`` are in axis order."""
    if len(kernel) == 2:  # torch expects the last axis first
        samples = samples.flip(-1)
        return F.fractional_max_pool2d_with_indices(input, kernel, sizes, _random_samples=samples)
    lifted = input.unsqueeze(-2), (1, *kernel), (1, *sizes), samples.expand(*samples.shape[:2], 2)
    x, kernel, sizes, samples = lifted
    out = F.fractional_max_pool2d_with_indices(x, kernel, sizes, _random_samples=samples)
    return out[0].squeeze(-2), out[1].squeeze(-2)


def _with_unit_axis(kernel: Ints, stride: Ints, padding: Ints, *dilation: Ints) -> Any:
    return (1, *kernel), (1, *stride), (0, *padding), *((1, *d) for d in dilation)
