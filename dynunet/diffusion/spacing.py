"""Spacings: the times at which a sampler evaluates the network.

Every spacing starts at the first time, has ``steps`` evaluations, and ends with a step to t = 0. With
r = sigma / alpha, the noise level of x / alpha:

    uniform     equal steps of time
    trailing    the same, each rounded to a step the model was trained at (Lin et al. 2024, table 2), if
                the schedule is a table; otherwise equal to uniform
    karras      r^(1 / rho) equally spaced, rho = 7 (Karras et al. 2022, eq. 5)
    log_snr     log r equally spaced (Lu et al. 2022)

The last two need finite bounds of r. The smallest is r(0.001): the first of DDPM's thousand steps, and
``sigma_min`` of the ``edm`` schedule. The largest is r at the first time or, if that is infinite, Karras's
80; the first evaluation is then still at the first time, in pure noise. The error of the last step, from r to
0, is about r^2 / (2 std^2) of the data's standard deviation; more steps do not reduce the error below that.
"""

from math import inf, isfinite, log

import torch
from torch import Tensor

from convnd.arguments import integer

from .schedules import Discrete, ScheduleLike, as_schedule
from .steps import Level, level

SPACINGS = ("uniform", "trailing", "karras", "log_snr")
RHO = 7.0
FIRST_STEP = 1e-3
_MAX_RATIO = 80.0


def spaced(schedule: ScheduleLike, steps: int, spacing: str = "uniform", *, start: float = 1.0) -> Tensor:
    """The times of a sampler.

    Args:
        schedule: ``alpha, sigma = schedule(t)``.
        steps: number of steps, at least 1.
        spacing: ``"uniform"``, ``"trailing"``, ``"karras"`` or ``"log_snr"``, see the module.
        start: the first time, in (0, 1]; below 1 for data that is only partly noised.

    Returns:
        ``(steps + 1,)``, float64, strictly decreasing from ``start`` to 0.

    Raises:
        TypeError, ValueError: naming the argument, the rule and the value received.

    >>> from dynunet.diffusion.schedules import Cosine, EDM
    >>> spaced(Cosine(), 4).tolist()
    [1.0, 0.75, 0.5, 0.25, 0.0]
    >>> [round(s, 3) for s in EDM()(spaced(EDM(), 3, "karras"))[1].tolist()]
    [80.0, 2.515, 0.002, 0.0]
    """
    steps = integer(steps, "steps")
    if spacing not in SPACINGS:
        raise ValueError(f"spacing must be one of {', '.join(map(repr, SPACINGS))}, got {spacing!r}")
    if not 0 < start <= 1:
        raise ValueError(f"start must be in (0, 1], got {start}")
    times = torch.linspace(start, 0, steps + 1, dtype=torch.float64)
    if spacing == "trailing":
        return _trained(schedule, times)
    if spacing == "uniform" or steps == 1:
        return times
    low, high = _bounds(schedule, start)
    share = torch.linspace(0, 1, steps, dtype=torch.float64)
    if spacing == "karras":
        ratio = (high ** (1 / RHO) + share * (low ** (1 / RHO) - high ** (1 / RHO))) ** RHO
        log_ratio = ratio.log()
    else:
        log_ratio = log(high) + share * (log(low) - log(high))
    times[1:-1] = as_schedule(schedule).time(-2 * log_ratio[1:])
    return times


def with_signal(schedule: ScheduleLike, now: Level) -> Level:
    """A level itself, or instead of pure noise, where alpha is 0, the noisiest at which spacings evaluate."""
    if now.ratio < inf:
        return now
    log_snr = -2 * log(_bounds(schedule, now.t)[1])
    return level(schedule, as_schedule(schedule).time(torch.tensor([log_snr], dtype=torch.float64)).item())


def _trained(schedule: ScheduleLike, times: Tensor) -> Tensor:
    if not isinstance(schedule, Discrete):
        return times
    table = len(schedule.alphas_cumprod)
    rounded = (times * table).round() / table
    if (rounded.diff() >= 0).any():
        raise ValueError(
            f"steps must not exceed the trained steps up to the start ({round(times[0].item() * table)}) "
            f"with spacing 'trailing', got {len(times) - 1}"
        )
    return rounded


def _bounds(schedule: ScheduleLike, start: float) -> tuple[float, float]:
    """The smallest and the largest ratio sigma / alpha to evaluate the network at."""
    low = level(schedule, min(FIRST_STEP, start / 2)).ratio
    high = level(schedule, start).ratio
    if not isfinite(high):
        cap = level(schedule, start - FIRST_STEP).ratio
        high = min(cap, _MAX_RATIO) if low < _MAX_RATIO else cap
    return low, high
