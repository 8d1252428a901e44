"""diffusers' schedulers as samplers, which makes UniPC, DEIS and others available here.

A diffusers scheduler has its own noise table and timesteps, keeps x in one of three scalings and expects one
kind of network output. Each evaluation is translated both ways: with (alpha_k, sigma_k) the scheduler's
scales at its k-th evaluation,

    time        t with alpha(t) / sigma(t) = alpha_k / sigma_k in the schedule of the model
    x           x_k times |(alpha, sigma)| / |(alpha_k, sigma_k)|, which is exact as the ratios agree
    output      the value that the scheduler's own formula converts back to the x_0 estimate

so the model's schedule and prediction need not be the scheduler's. diffusers is not imported: any object with
``set_timesteps`` and ``step`` whose ``sigmas`` or ``alphas_cumprod`` are like those of diffusers will do.
This is tested before every run, see :func:`_check_law`.
"""

import copy
import inspect
from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import hypot, inf, log
from typing import Any

import torch
from torch import Tensor

from .noise import Noise
from .schedules import ScheduleLike, as_schedule
from .steps import Callback, Denoise, Level, Sampler, check_times, estimate, level, report
from .translation import Scales, scales_of, step_ends, walk

_MEAN, _STDS = 0.5, (0.0, 0.3)  # of the data that a scheduler is tested on: within [-1, 1], where many clip
_TRIED = 1024  # entries of x in that test
_TOLERANCE = 0.4  # of mean and std of x there over |(alpha, sigma)|: Heun's overshoots as much in 4 steps
_FIRST_RATIO = 3.0  # least sigma / alpha at the start, where x is taken to be pure noise


def is_scheduler(value: Any) -> bool:
    """True if a value looks like a diffusers scheduler."""
    return not isinstance(value, type) and all(
        callable(getattr(value, n, None)) for n in ("set_timesteps", "step")
    )


def from_scheduler(scheduler: Any, **step_options: Any) -> Sampler:
    """A sampler that runs a diffusers scheduler.

    Only the number of steps is taken from ``times``, which must go from 1 to 0; the times themselves are the
    scheduler's. Noise levels beyond the model's schedule become its ends. The scheduler's own configuration
    applies: ``clip_sample=True``, the default of DDPM and DDIM, limits every estimate to [-1, 1].
    Second-order schedulers, such as Heun's, evaluate the denoiser about twice per step. Consistency
    schedulers (LCM) are meant for networks distilled for them, which estimate the end of the probability
    flow, not the mean.

    Args:
        scheduler: the scheduler object; each run works on a copy of it.
        step_options: further arguments of its ``step``, such as DDIM's ``eta=0.5`` or Euler's ``s_churn``.

    Returns:
        ``sampler(denoise, x, schedule, times, generator=None, callback=None)``. The noise of the scheduler's
        step is drawn from torch generators; a function as generator needs a scheduler whose step takes
        ``variance_noise``. It raises ValueError before the first evaluation if the scheduler with these
        options does not work in this number of steps, which is tested without the network.

    Raises:
        TypeError: if it is not such an object or does not take these options.
        ValueError: if it needs a kind of network output that x_0 does not determine.
    """
    if not is_scheduler(scheduler):
        raise TypeError(
            f"scheduler must be an object with set_timesteps and step, got one of {type(scheduler).__name__}"
        )
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
        runner, scales = _tried(scheduler, len(times) - 1, x.ndim, step_options)
        levels = [_matching(schedule, pair) for pair in scales]
        factors = [_factor(*pair) for pair in zip(levels, scales, strict=True)]

        def x0_at(k: int, x: Tensor) -> Tensor:
            return estimate(denoise, x / factors[k], levels[k].t)

        number, ends = 0, step_ends(runner, scales)
        state = start = _factor(level(schedule, 1.0), scales[0]) * x
        for k, state, x0 in walk(runner, scales, start, x0_at, generator, step_options):
            if ends[k]:
                report(callback, number, levels[k + 1], state / factors[k + 1], x0)
                number += 1
        return state / factors[-1]

    run.__name__ = type(scheduler).__name__
    return run


def _tried(
    scheduler: Any, steps: int, ndim: int, step_options: Mapping[str, Any]
) -> tuple[Any, list[Scales]]:
    """A copy of a scheduler, ready for a run, and its scales at every evaluation and at the end.

    Raises:
        ValueError: if the scheduler cannot be used; names it, its options and the reason.
    """
    try:
        runner = copy.deepcopy(scheduler)
        runner.set_timesteps(steps)  # on the CPU, so nothing is read back from a device
        scales = scales_of(runner)
        _check_levels(runner, scales)
        # Noise given by the user is for the run: tensors have the shape of x, generators must not draw twice.
        settings = {k: v for k, v in step_options.items() if not isinstance(v, Tensor | torch.Generator)}
        for std in _STDS:
            _check_law(copy.deepcopy(runner), scales, std, ndim, settings)
    except Exception as error:  # whatever its own code raises
        reason = str(error) if type(error) is ValueError else f"{type(error).__name__}: {error}"
        raise ValueError(f"{_called(scheduler)} cannot be served in {steps} steps: {reason}") from error
    return runner, scales


def _called(scheduler: Any) -> str:
    """The name of a scheduler, with the options that are not its defaults."""
    defaults = {n: p.default for n, p in inspect.signature(type(scheduler).__init__).parameters.items()}
    changed = (
        f"{name}={value!r}"
        for name, value in scheduler.config.items()
        if name in defaults and isinstance(value, str | int | float | None) and value != defaults[name]
    )
    return f"{type(scheduler).__name__}({', '.join(changed)})"


def _check_levels(scheduler: Any, scales: Sequence[Scales]) -> None:
    """Refuse noise levels that do not fall from pure noise to 0, or at whose first x_0 is not determined."""
    for alpha, sigma in scales:
        if not (0 <= alpha < inf and 0 <= sigma < inf and hypot(alpha, sigma) > 0):
            raise ValueError(f"its scales must be finite and not negative, got {alpha:.4g} and {sigma:.4g}")
    ratios = [sigma / alpha if alpha > 0 else inf for alpha, sigma in scales]
    for now, then in pairwise(ratios):
        if then > now or now == 0:
            raise ValueError(f"its noise levels sigma / alpha must fall to 0, got {now:.4g}, then {then:.4g}")
    _check_first_level(scheduler, ratios[0])


def _check_first_level(scheduler: Any, ratio: float) -> None:
    """Refuse a ratio sigma / alpha far from pure noise, or at which the output does not determine x_0."""
    if ratio < _FIRST_RATIO:
        raise ValueError(
            f"its first noise level sigma / alpha must be at least {_FIRST_RATIO:g}, as it starts from noise "
            f"alone, got {ratio:.4g}"
        )
    if ratio == inf and scheduler.config.get("prediction_type") == "epsilon":
        raise ValueError(
            "its prediction_type must not be 'epsilon' where no signal is left, alpha = 0 (zero terminal "
            "SNR, flow sigmas): there the noise does not tell the data"
        )


def _check_law(
    runner: Any, scales: Sequence[Scales], data_std: float, ndim: int, step_options: Mapping[str, Any]
) -> None:
    """Test a scheduler on Gaussian data, N(m, s^2) entry by entry, whose exact estimate is known.

    After each evaluation x should be N(alpha_k m, alpha_k^2 s^2 + sigma_k^2). For s = 0 the estimate is m for
    every x, and single- or multistep solvers of the flow or the reverse process are exact in any number of
    steps, since their error depends on how much the estimate and the noise in x vary. A scheduler that treats
    its input or output differently, or has other scales than it says, fails. For s > 0 few steps give too
    small a variance; one that is far too large shows an unstable solver.
    """
    places = (torch.arange(_TRIED, dtype=torch.float64) + 0.5) / _TRIED
    x = (hypot(*scales[0]) * torch.special.ndtri(places)).view(-1, *(1,) * (ndim - 1))
    takes = inspect.signature(runner.step).parameters
    generator = torch.Generator().manual_seed(0) if "generator" in takes else None

    def x0_at(k: int, x: Tensor) -> Tensor:
        alpha, sigma = scales[k]
        return _MEAN + alpha * data_std**2 / (alpha**2 * data_std**2 + sigma**2) * (x - alpha * _MEAN)

    with torch.random.fork_rng(devices=[]):
        for k, state, _ in walk(runner, scales, x, x0_at, generator, step_options):
            alpha, sigma = scales[k + 1]
            wanted, got = (alpha * _MEAN, hypot(alpha * data_std, sigma)), (state.mean(), state.std())
            off = max(abs(g.item() - w) for w, g in zip(wanted, got, strict=True)) / hypot(alpha, sigma)
            if not off <= _TOLERANCE or not state.isfinite().all():
                raise ValueError(
                    f"tried on data with mean {_MEAN} and standard deviation {data_std}, x must have mean "
                    f"{wanted[0]:.3g} and standard deviation {wanted[1]:.3g} after evaluation {k + 1} of "
                    f"{len(scales) - 1}, got {got[0]:.3g} and {got[1]:.3g}"
                )


def _matching(schedule: ScheduleLike, scales: Scales) -> Level:
    """The level of a schedule with the same ratio sigma / alpha as the scheduler's scales."""
    alpha, sigma = scales
    log_snr = -inf if alpha == 0 else inf if sigma == 0 else 2 * log(alpha / sigma)
    t = as_schedule(schedule).time(torch.tensor([log_snr], dtype=torch.float64))
    return level(schedule, t.item())


def _factor(at: Level, scales: Scales) -> float:
    """The ratio of the scheduler's x to the schedule's x."""
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
            f"{_called(scheduler)} cannot be served: its prediction_type must be one of {known}, got "
            f"{config.get('prediction_type')!r}"
        )
    if config.get("variance_type") in ("learned", "learned_range"):
        raise ValueError(f"{_called(scheduler)} cannot be served: its variance_type must not be learned")
