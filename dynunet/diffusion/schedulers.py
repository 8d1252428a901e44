"""Schedulers of diffusers as samplers, so that UniPC, DEIS and the rest sample here too.

A scheduler of diffusers holds a noise table of its own, walks its own timesteps, keeps x in one of three
scalings and asks the network for one kind of output. Each evaluation is translated both ways: with
(alpha_k, sigma_k) the scheduler's scales at its k-th evaluation,

    time        t with alpha(t) / sigma(t) = alpha_k / sigma_k in the schedule of the model
    x           x_k times |(alpha, sigma)| / |(alpha_k, sigma_k)|, which is exact as the ratios agree
    output      what the scheduler's own formula turns back into the x_0 estimate

so the model's schedule and prediction need not be the scheduler's. Nothing of diffusers is imported: any
object with ``set_timesteps`` and ``step`` that keeps its ``sigmas`` or ``alphas_cumprod`` as diffusers does
will do.
"""

import copy
import inspect
from collections.abc import Sequence
from math import hypot, inf, log, sqrt
from typing import Any

import torch
from torch import Tensor

from .noise import Noise
from .schedules import ScheduleLike, as_schedule
from .steps import Callback, Denoise, Level, Sampler, check_times, estimate, level, report

Scales = tuple[float, float]


def is_scheduler(value: Any) -> bool:
    """Whether a value looks like a scheduler object of diffusers."""
    return not isinstance(value, type) and all(
        callable(getattr(value, n, None)) for n in ("set_timesteps", "step")
    )


def from_scheduler(scheduler: Any, **step_options: Any) -> Sampler:
    """A sampler that runs a scheduler object of diffusers.

    The number of steps is that of the times; the times themselves are the scheduler's, so they must go from 1
    to 0. Noise levels beyond the model's schedule are taken as its ends. What the scheduler is configured to
    do it does: DDPM's and DDIM's ``clip_sample=True``, their default, limits every estimate to [-1, 1].
    Schedulers of second order, such as Heun's, evaluate the denoiser about twice in a step.

    Args:
        scheduler: the object; each run works on a copy of it.
        step_options: further arguments of its ``step``, such as ``eta=0.5`` of DDIM or ``s_churn`` of Euler.

    Returns:
        ``sampler(denoise, x, schedule, times, generator=None, callback=None)``. The noise of the scheduler's
        step is drawn from torch generators; a function as generator is for schedulers whose step takes
        ``variance_noise``.

    Raises:
        TypeError: if it is not such an object or takes none of these options.
        ValueError: if its network output is of a kind that x_0 does not determine.
    """
    if not is_scheduler(scheduler):
        raise TypeError(f"scheduler must be an object with set_timesteps and step, got {scheduler!r}")
    takes = inspect.signature(scheduler.step).parameters
    for name in step_options:
        if name not in takes:
            raise TypeError(
                f"{name} must be an argument of {type(scheduler).__name__}.step, which has {list(takes)}"
            )
    _check_output(scheduler)

    def run(
        denoise: Denoise,
        x: Tensor,
        schedule: ScheduleLike,
        times: Tensor,
        generator: Noise = None,
        callback: Callback | None = None,
    ) -> Tensor:
        times = check_times(times)
        if times[0] != 1 or times[-1] != 0:
            raise ValueError(f"times must go from 1 to 0 with a scheduler of diffusers, got {times.tolist()}")
        runner = copy.deepcopy(scheduler)
        runner.set_timesteps(len(times) - 1, device=x.device)
        number = 0
        scales = _scales(runner, 0)
        x = _factor(level(schedule, 1.0), scales) * x
        for k, timestep in enumerate(runner.timesteps):
            at = _matching(schedule, scales)
            x0 = estimate(denoise, x / _factor(at, scales), at.t)
            if hasattr(runner, "scale_model_input"):  # its result is not needed, that it was called is
                runner.scale_model_input(x, timestep)
            output = _output(runner, x, x0, scales)
            noise = _noise(takes, generator, x)
            x = runner.step(output, timestep, x, return_dict=False, **noise, **step_options)[0].to(x0.dtype)
            scales = _scales(runner, k + 1)
            in_step = not getattr(runner, "state_in_first_order", True)
            if not in_step or k + 1 == len(runner.timesteps):
                reached = _matching(schedule, scales)
                report(callback, number, reached, x / _factor(reached, scales), x0)
                number += 1
        return x / _factor(level(schedule, 0.0), scales)

    return run


def _is_flow(scheduler: Any) -> bool:
    """Whether x_k = (1 - sigma_k) x_0 + sigma_k noise; the flow-matching classes predict nothing else."""
    config = scheduler.config
    return bool(config.get("use_flow_sigmas")) or "prediction_type" not in config


def _scales(scheduler: Any, k: int) -> Scales:
    """alpha_k and sigma_k of the x that the network is evaluated at for the k-th time."""
    if k == len(scheduler.timesteps):
        return 1.0, 0.0
    if hasattr(scheduler, "sigmas"):
        sigma = float(scheduler.sigmas[k])
        if _is_flow(scheduler):
            return 1 - sigma, sigma
        if hasattr(scheduler, "_sigma_to_alpha_sigma_t") and "sigma_data" not in scheduler.config:
            return 1 / hypot(1, sigma), sigma / hypot(1, sigma)
        return 1.0, sigma
    power = float(scheduler.alphas_cumprod[int(scheduler.timesteps[k])])
    return sqrt(power), sqrt(1 - power)


def _matching(schedule: ScheduleLike, scales: Scales) -> Level:
    """The level of a schedule with the given ratio of the scales."""
    alpha, sigma = scales
    log_snr = -inf if alpha == 0 else inf if sigma == 0 else 2 * log(alpha / sigma)
    t = as_schedule(schedule).time(torch.tensor([log_snr], dtype=torch.float64))
    return level(schedule, t.item())


def _factor(at: Level, scales: Scales) -> float:
    """x of the scheduler over x of the schedule."""
    return hypot(*scales) / hypot(at.alpha, at.sigma)


def _check_output(scheduler: Any) -> None:
    name, config = type(scheduler).__name__, getattr(scheduler, "config", {})
    if not hasattr(config, "get") or not (
        hasattr(scheduler, "sigmas") or hasattr(scheduler, "alphas_cumprod")
    ):
        raise TypeError(
            f"scheduler must have a config and sigmas or alphas_cumprod as diffusers' have, got {name}"
        )
    if hasattr(scheduler, "sigmas_interpol"):  # KDPM2, which evaluates between its sigmas
        raise TypeError(f"scheduler must evaluate the network at its sigmas, got {name}")
    known = ("epsilon", "sample", "v_prediction", "flow_prediction")
    if config.get("prediction_type", known[0]) not in known:
        raise ValueError(
            f"scheduler's prediction_type must be one of {known}, got {config.get('prediction_type')!r}"
        )
    if config.get("variance_type") in ("learned", "learned_range"):
        raise ValueError(
            f"scheduler's variance_type must not be learned, got {config.get('variance_type')!r}"
        )


def _output(scheduler: Any, x: Tensor, x0: Tensor, scales: Scales) -> Tensor:
    """The network output that the scheduler turns into the given estimate."""
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
    return noise - x0 if _is_flow(scheduler) else noise


def _noise(takes: Any, generator: Noise, x: Tensor) -> dict[str, Any]:
    """The noise source as an argument of the scheduler's step."""
    if generator is None:
        return {}
    if isinstance(generator, (torch.Generator, Sequence)):
        value = generator if isinstance(generator, torch.Generator) else list(generator)
        return {"generator": value} if "generator" in takes else {}
    if "variance_noise" not in takes:
        return {} if "generator" not in takes else _refuse(generator)
    return {"variance_noise": generator(x.shape).to(x)}


def _refuse(generator: Any) -> dict[str, Any]:
    raise TypeError(
        f"generator must be a torch generator or one per sample with this scheduler, got {generator!r}"
    )
