"""The loop of a diffusers scheduler, driven by estimates of x_0 instead of network outputs.

See :mod:`dynunet.diffusion.schedulers` for the translation and its use.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import hypot, sqrt
from typing import Any

import torch
from torch import Tensor

from .._devices import moved
from .noise import Noise

Scales = tuple[float, float]


def walk(
    runner: Any,
    scales: Sequence[Scales],
    x: Tensor,
    x0_at: Callable[[int, Tensor], Tensor],
    generator: Noise,
    step_options: Mapping[str, Any],
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """The scheduler's loop: yields k, x after the k-th evaluation (in its scaling), and the estimate."""
    takes = inspect.signature(runner.step).parameters
    for k, timestep in enumerate(runner.timesteps):
        x0 = x0_at(k, x)
        if hasattr(runner, "scale_model_input"):  # the result is unused, but schedulers require the call
            runner.scale_model_input(x, timestep)
        options = {**_noise(takes, generator, x), **step_options}
        if "prev_timestep" in takes and k + 1 < len(runner.timesteps):  # UnCLIP's step needs it
            options.setdefault("prev_timestep", runner.timesteps[k + 1])
        output = _output(runner, x, x0, scales[k])
        x = runner.step(output, timestep, x, return_dict=False, **options)[0].to(x0.dtype)
        yield k, x, x0


def step_ends(scheduler: Any, scales: Sequence[Scales]) -> list[bool]:
    """For each evaluation, True if it completes a step, i.e. x is at its new level for the last time.

    Second-order solvers evaluate twice at a level, the second time to improve x.
    """
    whole = getattr(scheduler, "_timesteps", None)  # PNDM's list, without the times within a step
    halfway = [whole is not None and t not in whole for t in (*scheduler.timesteps.tolist()[1:], 0)]
    halfway[-1] = False
    again = [now == then for now, then in zip(scales[1:], [*scales[2:], None], strict=True)]
    return [not (half or more) for half, more in zip(halfway, again, strict=True)]


def is_flow(scheduler: Any) -> bool:
    """True if x_k = (1 - sigma_k) x_0 + sigma_k noise, the only form of the flow-matching classes."""
    config = scheduler.config
    return bool(config.get("use_flow_sigmas")) or "prediction_type" not in config


def scales_of(scheduler: Any) -> list[Scales]:
    """alpha and sigma of the network's input at each evaluation, and finally of the result."""
    n = len(scheduler.timesteps)
    if not hasattr(scheduler, "sigmas"):
        powers = [float(scheduler.alphas_cumprod[int(t)]) for t in scheduler.timesteps]
        return [*((sqrt(power), sqrt(1 - power)) for power in powers), (1.0, 0.0)]
    scaled = _scaling(scheduler)
    return [*(scaled(float(sigma)) for sigma in scheduler.sigmas[:n]), (1.0, 0.0)]


def _scaling(scheduler: Any) -> Callable[[float], Scales]:
    """alpha and sigma of the network's input, from an entry of the scheduler's ``sigmas``."""
    if is_flow(scheduler):
        return lambda sigma: (1 - sigma, sigma)
    if hasattr(scheduler, "_sigma_to_alpha_sigma_t") and "sigma_data" not in scheduler.config:
        return lambda sigma: (1 / hypot(1, sigma), sigma / hypot(1, sigma))
    return lambda sigma: (1.0, sigma)


def _output(scheduler: Any, x: Tensor, x0: Tensor, scales: Scales) -> Tensor:
    """The network output that the scheduler converts to the given estimate."""
    alpha, sigma = scales
    kind = scheduler.config.get("prediction_type")
    if "sigma_data" in scheduler.config:  # EDM's preconditioning, Karras et al. 2022, table 1
        data = scheduler.config["sigma_data"]
        length = hypot(sigma, data)
        sign = -1 if kind == "v_prediction" else 1
        return (x0 - (data / length) ** 2 * x) * (sign * length / (sigma * data))
    if kind == "sample":
        return x0
    noise = (x - alpha * x0) / sigma
    if kind == "v_prediction":
        return (alpha * noise - sigma * x0) / hypot(alpha, sigma)
    return noise if kind == "epsilon" else noise - x0


def _noise(takes: Any, generator: Noise, x: Tensor) -> dict[str, Any]:
    """The noise source as an argument of the scheduler's step."""
    if generator is None:
        return {}
    if isinstance(generator, (torch.Generator, Sequence)):
        value = generator if isinstance(generator, torch.Generator) else list(generator)
        return {"generator": value} if "generator" in takes else {}
    if "variance_noise" not in takes:
        return {} if "generator" not in takes else _refuse(generator)
    return {"variance_noise": moved(generator(x.shape).to(x.dtype), x.device)}


def _refuse(generator: Any) -> dict[str, Any]:
    raise TypeError(
        f"generator must be a torch generator or one per sample with this scheduler, got {generator!r}"
    )
