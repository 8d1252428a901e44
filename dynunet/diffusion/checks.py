"""Checks of what a diffusion model is given: each error names the argument, the rule and the value."""

import warnings
from collections.abc import Mapping, Sequence
from math import inf
from typing import Any

import torch
from torch import Tensor

from convnd.arguments import integer

from .guidance import Interval, can_guide


def look_up(value: Any, known: Mapping[Any, Any], name: str) -> Any:
    """An object by its name, or as it is."""
    if isinstance(value, str) or (value is None and None in known):
        if value not in known:
            raise ValueError(f"{name} must be one of {', '.join(map(repr, known))}, got {value!r}")
        return known[value]
    if value is None:
        raise TypeError(f"{name} must be a name or an object, got None")
    return value


def check_object(value: Any, name: str) -> None:
    """Refuse what a damaged configuration may have in the place of a name."""
    if isinstance(value, (bool, int, float, Mapping, Sequence)) and not isinstance(value, str):
        raise TypeError(f"{name} must be a name or an object, got {value!r}")


def number(value: Any, name: str, low: float, high: float) -> float:
    """A number from ``low`` to ``high``."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, got {value!r}")
    try:
        if low <= value <= high:
            return float(value)
    except OverflowError:
        raise ValueError(f"{name} must be in the range of floats, got an int beyond it") from None
    raise ValueError(f"{name} must be in [{low:g}, {high:g}], got {value}")


def check_model(model: Any) -> None:
    if not callable(model):
        raise TypeError(f"model must be a callable model(x_t, t, **cond), got {model!r}")
    if getattr(model, "time_embedding", True) is None:
        raise ValueError("model must take a time: build the UNet with time_embedding=True")


def check_data(x: Any, name: str, model: Any) -> None:
    """Refuse what is not ``(N, C, *spatial)`` in floating point, or not for this network."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        got = f"dtype {x.dtype}" if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"{name} must be a floating-point tensor, got {got}")
    if x.ndim < 3 or x.shape[0] < 1:
        raise ValueError(f"{name} must be (N, C, *spatial) with N at least 1, got shape {tuple(x.shape)}")
    check_shape(x.shape, f"the shape of {name}", model)


def check_shape(shape: Any, name: str, model: Any) -> tuple[int, ...]:
    """``(N, C, *spatial)`` with the channels and the number of axes of the network, if it tells them."""
    if not isinstance(shape, Sequence) or isinstance(shape, str):
        raise TypeError(f"{name} must be a sequence of ints (N, C, *spatial), got {shape!r}")
    sizes = tuple(integer(size, f"{name}[{i}]") for i, size in enumerate(shape))
    if len(sizes) < 3:
        raise ValueError(f"{name} must be (N, C, *spatial) with positive sizes, got {sizes}")
    channels, dims = getattr(model, "in_channels", None), getattr(model, "spatial_dims", None)
    if (isinstance(channels, int) and sizes[1] != channels) or (
        isinstance(dims, int) and len(sizes) - 2 != dims
    ):
        axes = f" and {dims} spatial axes" if isinstance(dims, int) else ""
        raise ValueError(f"{name} must fit the model, with {channels} channels{axes}, got {sizes}")
    return sizes


def check_finite(x: Tensor, name: str) -> None:
    if torch.compiler.is_compiling() or x.isfinite().all():
        return
    wrong = int((~x.isfinite()).sum())
    raise ValueError(f"{name} must be finite, got {wrong} of {x.numel()} entries that are NaN or infinite")


def positive_time(value: Any, name: str) -> float:
    """A time in (0, 1]."""
    if number(value, name, 0, 1) == 0:
        raise ValueError(f"{name} must be above 0 and at most 1, got {value}")
    return float(value)


def check_quantiles(value: Any, n: int) -> None:
    """``(n,)`` in (0, 1)."""
    if not isinstance(value, Tensor) or value.shape != (n,) or not value.is_floating_point():
        got = f"{value.dtype} of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"{value!r}"
        raise ValueError(f"quantiles must be a floating-point tensor ({n},), one per sample, got {got}")
    if value.device.type == "cpu" and not ((value > 0) & (value < 1)).all():
        raise ValueError(f"quantiles must be in (0, 1), got {value.min().item():g} to {value.max().item():g}")


def check_guidance(
    scale: Any, rescale: Any, interval: Any, cond: Mapping[str, Any]
) -> tuple[float, float, Interval | None]:
    """The options of :func:`dynunet.diffusion.guidance.guided`."""
    if scale != 1 and not can_guide(cond):
        raise ValueError(f"guidance_scale must be 1 without class_labels or context to guide by, got {scale}")
    number(scale, "guidance_scale", -inf, inf)
    number(rescale, "guidance_rescale", 0, 1)
    if interval is not None:
        if not isinstance(interval, Sequence) or len(interval) != 2 or not 0 <= interval[0] < interval[1]:
            raise ValueError(
                f"guidance_interval must be (low, high), noise levels with 0 <= low < high, got {interval!r}"
            )
        interval = float(interval[0]), float(interval[1])
    return float(scale), float(rescale), interval


def check_clip(clip: Any) -> None:
    if clip is None or clip == "dynamic":
        return
    if isinstance(clip, str):
        raise ValueError(f"clip must be a positive number or 'dynamic', got {clip!r}")
    if not clip > 0:
        raise ValueError(f"clip must be positive, got {clip}")


def warn_of_scale(x0: Tensor) -> None:
    """Warn of data that is far from unit scale, which the schedules assume."""
    low, high = x0.min().item(), x0.max().item()
    if max(-low, high) > 10:
        warnings.warn(
            f"x0 should be in about [-1, 1], got values from {low:.3g} to {high:.3g}; scale it, for "
            f"instance 2 * (x0 - low) / (high - low) - 1, and scale samples back",
            stacklevel=4,
        )
