"""Reconstruction: a run of posterior sampling for several samples of each measurement.

The samples of one batch are ``(k N, C, *spatial)``, k for each of the N measurements. Operators see N at a
time, as the user gave them, and conditions are repeated.
"""

from collections.abc import Callable, Sequence
from math import inf
from typing import Any

import torch
from torch import Tensor

from .._devices import moved
from ..arguments import real
from ..masks import expanded_mask
from ..operators import as_operator
from . import checks
from .measurement import Measurement
from .noise import Noise
from .posterior import METHODS, RePaint
from .sampling import as_sampler, check_own_times
from .schedulers import is_scheduler


def measured(
    y: Tensor,
    operator: Any,
    noise_std: Any,
    known: Tensor | None,
    shape: Any,
    model: Any,
    place: Callable[[Tensor], torch.device],
) -> tuple[Measurement, tuple[int, ...]]:
    """A measurement and the shape of its data, checked, on the device that ``place`` names for y.

    Raises:
        ValueError, TypeError: naming the argument, the rule and the value received.
    """
    if not isinstance(y, Tensor) or not y.is_floating_point():
        got = f"dtype {y.dtype}" if isinstance(y, Tensor) else type(y).__name__
        raise TypeError(f"y must be a floating-point tensor, got {got}")
    y = moved(y, place(y))
    if known is None:
        known = torch.ones_like(y, dtype=torch.bool)
        checks.check_finite(y, "y")
    else:
        known = expanded_mask(known, y, "known", "y", "y is given")
        y = torch.where(known, y, 0)
        checks.check_finite(y, "y, where it is known,")
    y = y.to(torch.promote_types(y.dtype, torch.float32))
    operator = as_operator(operator)
    given = operator.data_shape(y.shape) if shape is None else shape
    size = checks.check_shape(given, "shape" if shape is not None else "the shape of the data", model)
    operator.check(y, size)
    std, noisy = _noise(noise_std, y)
    return Measurement(y, operator, std**2, known, noisy), size


def _noise(noise_std: Any, y: Tensor) -> tuple[Tensor, bool]:
    """The noise as a tensor that broadcasts against y, and whether there is any, as a number says itself."""
    if not isinstance(noise_std, Tensor):
        noise_std = real(noise_std, "noise_std")
        if not 0 <= noise_std < inf:
            raise ValueError(f"noise_std must be at least 0 and finite, got {noise_std:g}")
        return torch.full((), noise_std, dtype=y.dtype, device=y.device), noise_std > 0
    std = moved(noise_std.to(y.dtype), y.device)
    try:
        fits = torch.broadcast_shapes(std.shape, y.shape) == y.shape
    except RuntimeError:
        fits = False
    if not fits:
        raise ValueError(
            f"noise_std must be a number, or broadcast against y, {tuple(y.shape)}, got {tuple(std.shape)}"
        )
    if not bool(((std >= 0) & std.isfinite()).all()):
        raise ValueError(f"noise_std must be at least 0 and finite, got {std.min().item():g}")
    return std, bool(std.any())


def posterior_sampler(method: Any, sampler: Any, measurement: Measurement, options: dict[str, Any]) -> Any:
    """A sampler of the posterior, by the names or objects of method and sampler.

    Raises:
        ValueError, TypeError: naming the argument, the rule and the value received.
    """
    method = checks.look_up(method, METHODS, "method")
    if not callable(method):
        raise TypeError(f"method must be a name or an object of dynunet.diffusion, got {method!r}")
    if sampler is None:
        sampler = "ddpm" if isinstance(method, RePaint) else "dpmpp_2m"
    if is_scheduler(sampler):
        if isinstance(method, RePaint):
            raise ValueError(
                f"sampler must be a name or a function here, as inpainting goes back and forth in time, and "
                f"{type(sampler).__name__} has times of its own"
            )
        check_own_times(sampler, options.get("spacing", "uniform"), None)
    clip = checks.check_clip(options.pop("clip", None))
    return method(as_sampler(sampler, options.pop("eta", None)), measurement, clip)


def in_batches(
    sample: Callable[..., Tensor],
    shape: tuple[int, ...],
    num_samples: int,
    batch_size: int | None,
    generator: Noise,
    cond: dict[str, Any],
    place: torch.device | str,
) -> Tensor:
    """``(num_samples, N, C, *spatial)`` from calls ``sample(shape, generator=..., **cond)``, moved there."""
    n, size = shape[0], num_samples if batch_size is None else batch_size
    if isinstance(generator, Sequence) and len(generator) != num_samples * n:
        raise ValueError(
            f"generator must be one generator, or one for each of the {num_samples} * {n} samples, got "
            f"{len(generator)}"
        )
    parts = []
    for first in range(0, num_samples, size):
        k = min(size, num_samples - first)
        chance = generator[first * n : (first + k) * n] if isinstance(generator, Sequence) else generator
        repeated = {name: _repeated(value, k, n) for name, value in cond.items()}
        made = sample((k * n, *shape[1:]), generator=chance, **repeated)
        parts.append(moved(made.view(k, *shape), place))
    return torch.cat(parts)


def _repeated(value: Any, k: int, n: int) -> Any:
    """A condition of n samples for k times as many."""
    alike = isinstance(value, Tensor) and value.ndim > 0 and len(value) == n
    return value.repeat(k, *(1,) * (value.ndim - 1)) if alike else value
