"""Checks of the arguments of a diffusion model; each error names the argument, the rule and the value."""

import warnings
from collections.abc import Mapping, Sequence
from math import inf
from typing import Any

import torch
from torch import Tensor

from convnd.arguments import integer

from .._devices import moved
from ..arguments import number, real
from ..config import unwrapped
from ..windows import fitted
from .guidance import Interval, can_guide
from .predictions import Prediction
from .projection import APG


def look_up(value: Any, known: Mapping[Any, Any], name: str) -> Any:
    """Look up an object by name; anything but a string is returned as it is."""
    if isinstance(value, str) or (value is None and None in known):
        if value not in known:
            raise ValueError(f"{name} must be one of {', '.join(map(repr, known))}, got {value!r}")
        return known[value]
    if value is None:
        raise TypeError(f"{name} must be a name or an object, got None")
    return value


def check_object(value: Any, name: str) -> None:
    """Refuse values that a damaged configuration may have in place of a name."""
    if isinstance(value, (bool, int, float, Mapping, Sequence)) and not isinstance(value, str):
        raise TypeError(f"{name} must be a name or an object, got {value!r}")


def check_model(model: Any, name: str = "model") -> None:
    if not callable(model):
        raise TypeError(f"{name} must be a callable model(x_t, t, **cond), got {model!r}")
    if getattr(unwrapped(model), "time_embedding", True) is None:
        raise ValueError(f"{name} must take a time: build the UNet with time_embedding=True")


def check_data(x: Any, name: str, model: Any) -> None:
    """Refuse data that is not floating-point ``(N, C, *spatial)`` or does not fit this network."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        got = f"dtype {x.dtype}" if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"{name} must be a floating-point tensor, got {got}")
    check_shape(x.shape, f"the shape of {name}", model)


def check_shape(shape: Any, name: str, model: Any) -> tuple[int, ...]:
    """``(N, C, *spatial)`` with the channels and number of axes of the network, if it states them."""
    if isinstance(shape, str) or not (isinstance(shape, Sequence) or getattr(shape, "ndim", 0) == 1):
        raise TypeError(f"{name} must be a sequence of ints (N, C, *spatial), got {shape!r}")
    sizes = tuple(integer(size, f"{name}[{i}]", min(i, 1)) for i, size in enumerate(shape))  # N may be 0
    if len(sizes) < 2:
        raise ValueError(f"{name} must be (N, C, *spatial), where spatial may be empty, got {sizes}")
    network = unwrapped(model)
    channels, dims = (_stated(network, option) for option in ("in_channels", "spatial_dims"))
    if channels not in (None, sizes[1]) or dims not in (None, len(sizes) - 2):
        axes = "" if dims is None else f" and {dims} spatial axes"
        raise ValueError(f"{name} must fit the model, with {channels} channels{axes}, got {sizes}")
    return sizes


def _stated(network: Any, option: str) -> int | None:
    value = getattr(network, option, None)
    return value if isinstance(value, int) else None


def check_finite(x: Tensor, name: str) -> None:
    if torch.compiler.is_compiling() or x.is_meta or x.isfinite().all():
        return
    wrong = int((~x.isfinite()).sum())
    raise ValueError(f"{name} must be finite, got {wrong} of {x.numel()} entries that are NaN or infinite")


def positive_time(value: Any, name: str) -> float:
    """A time in (0, 1]."""
    value = number(value, name, 0, 1)
    if value == 0:
        raise ValueError(f"{name} must be above 0 and at most 1, got {value}")
    return value


def times_of(value: Any, n: int) -> Tensor:
    """Expand one time for all samples, or one for each, to ``(n,)`` in [0, 1] in at least float32."""
    t = torch.as_tensor(value)
    t = t.to(torch.promote_types(t.dtype, torch.float32))
    if t.is_complex() or t.shape not in ((), (n,)):
        raise ValueError(
            f"t must be one time or have shape ({n},), one per sample, got {t.dtype} {tuple(t.shape)}"
        )
    if t.device.type == "cpu" and not torch.compiler.is_compiling() and not ((t >= 0) & (t <= 1)).all():
        raise ValueError(f"t must be in [0, 1], got {t.min().item():g} to {t.max().item():g}")
    return t.expand(n)


def with_labels(cond: Mapping[str, Any], x: Tensor) -> dict[str, Any]:
    """The conditions, with class labels (one for all or one each) as int64 ``(N,)`` on the device of x."""
    given = cond.get("class_labels")
    if given is None:
        return dict(cond)
    labels = torch.as_tensor(given)
    labels = labels if labels.numel() else labels.long()  # an empty list is a float tensor
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise TypeError(f"class_labels must be integers, got dtype {labels.dtype}")
    if labels.shape not in ((), x.shape[:1]):
        raise ValueError(
            f"class_labels must be one label or have shape ({len(x)},), one per sample, "
            f"got {tuple(labels.shape)}"
        )
    labels = moved(labels.to(torch.int64), x.device)  # unsigned types have no -1
    return {**cond, "class_labels": labels.expand(len(x))}


def check_bridge_prediction(prediction: Prediction) -> None:
    """Refuse a prediction whose estimate at t = 1 takes the noise, which a bridge's network is not shown."""
    zero, one = (torch.full((1,), value, device="cpu") for value in (0.0, 1.0))
    without, with_noise = (prediction.denoised(zero, x, zero, one) for x in (zero, one))
    if not (torch.equal(without, with_noise) and prediction.gains(zero, one)[0].isfinite()):
        raise ValueError(
            "prediction must be 'sample', 'v_prediction' or 'edm' with a bridge, whose network is not shown "
            f"the noise at t = 1, got {prediction!r}"
        )


def start_of_bridge(cond: Mapping[str, Any], x: Tensor) -> Tensor:
    """What a bridge to x starts from: the first channels of ``cond``, as many as x has, at its size."""
    given = cond.get("cond")
    if given is None:
        raise ValueError("cond must be given with a bridge, which starts from it: the noisy or degraded data")
    if not isinstance(given, Tensor) or not given.is_floating_point():
        got = f"dtype {given.dtype}" if isinstance(given, Tensor) else type(given).__name__
        raise TypeError(f"cond must be a floating-point tensor with a bridge, got {got}")
    if given.ndim != x.ndim or len(given) != len(x) or given.shape[1] < x.shape[1]:
        raise ValueError(
            f"cond must be ({len(x)}, at least {x.shape[1]}, *spatial) with {x.ndim - 2} spatial axes for a "
            f"bridge, which starts from its first {x.shape[1]} channels, got shape {tuple(given.shape)}"
        )
    return moved(fitted(cond, x)["cond"][:, : x.shape[1]].to(x.dtype), x.device)


def check_quantiles(value: Any, n: int) -> None:
    """Require shape ``(n,)`` with values in (0, 1)."""
    if not isinstance(value, Tensor) or value.shape != (n,) or not value.is_floating_point():
        got = f"{value.dtype} of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"{value!r}"
        raise ValueError(f"quantiles must be a floating-point tensor ({n},), one per sample, got {got}")
    if value.device.type == "cpu" and not ((value > 0) & (value < 1)).all():
        raise ValueError(f"quantiles must be in (0, 1), got {value.min().item():g} to {value.max().item():g}")


def check_guidance(
    cond: Mapping[str, Any],
    guidance_scale: Any = 1.0,
    guidance_rescale: Any = 0.0,
    guidance_interval: Any = None,
    guidance_projection: Any = None,
    guide: Any = None,
    guide_scale: Any = None,
) -> dict[str, Any]:
    """The options of :func:`dynunet.diffusion.guidance.guided`, checked."""
    scale = number(guidance_scale, "guidance_scale", -inf, inf)
    if scale != 1 and guide is not None:
        raise ValueError(f"guidance_scale must be 1 with a guide, whose scale is guide_scale, got {scale}")
    if scale != 1 and not can_guide(cond):
        raise ValueError(f"guidance_scale must be 1 without class_labels or context to guide by, got {scale}")
    if guide is not None:
        scale = 2.0 if guide_scale is None else number(guide_scale, "guide_scale", -inf, inf)
    elif guide_scale is not None:
        raise ValueError(f"guide_scale must be left out without a guide, got {guide_scale}")
    if guidance_projection is not None and not isinstance(guidance_projection, APG):
        raise TypeError(f"guidance_projection must be None or an APG, got {guidance_projection!r}")
    return {
        "scale": scale,
        "rescale": number(guidance_rescale, "guidance_rescale", 0, 1),
        "interval": _interval(guidance_interval),
        "projection": guidance_projection,
    }


def _interval(interval: Any) -> Interval | None:
    if interval is None:
        return None
    if isinstance(interval, str) or not hasattr(interval, "__len__") or len(interval) != 2:
        raise ValueError(f"guidance_interval must be (low, high), got {interval!r}")
    low, high = (real(value, f"guidance_interval[{i}]") for i, value in enumerate(interval))
    if not 0 <= low < high:
        raise ValueError(
            f"guidance_interval must be (low, high), noise levels with 0 <= low < high, got {interval!r}"
        )
    return low, high


def check_clip(clip: Any) -> float | str | None:
    """None, ``"dynamic"`` or a positive number."""
    if clip is None or (isinstance(clip, str) and clip == "dynamic"):
        return clip
    if isinstance(clip, str):
        raise ValueError(f"clip must be a positive number or 'dynamic', got {clip!r}")
    limit = real(clip, "clip")
    if not limit > 0:
        raise ValueError(f"clip must be positive, got {clip}")
    return limit


def warn_of_scale(x0: Tensor) -> None:
    """Warn if the data is far from unit scale, which the schedules assume."""
    if x0.is_meta or not x0.numel():
        return
    low, high = x0.min().item(), x0.max().item()
    if max(-low, high) > 10:
        warnings.warn(
            f"x0 should be in about [-1, 1], got values from {low:.3g} to {high:.3g}; scale it, for "
            f"instance 2 * (x0 - low) / (high - low) - 1, and scale samples back",
            stacklevel=4,
        )
