"""UniPC: a multistep method that corrects each step by the estimate at its end (Zhao et al. 2023)."""

from collections.abc import Sequence
from math import expm1, inf

import torch
from torch import Tensor

from .noise import Noise
from .schedules import ScheduleLike
from .steps import Callback, Denoise, Level, estimate, report, walk

__all__ = ["unipc"]

Estimate = tuple[float, Tensor]  # lambda, and x_0 as estimated there


def unipc(
    denoise: Denoise,
    x: Tensor,
    schedule: ScheduleLike,
    times: Tensor,
    generator: Noise = None,
    callback: Callback | None = None,
    *,
    order: int = 2,
) -> Tensor:
    """UniPC-p (Zhao et al. 2023, algorithms 1 and 2, for x_0, with B_2) of order p = 1, 2 or 3.

    The estimate of the next step, which is made anyway, corrects this one, so the error falls with the power
    p + 1 of the step. The first steps, and the last ones to clean data, are of lower order, as in the paper.

    Raises:
        ValueError: if order is not 1, 2 or 3.
    """
    if order not in (1, 2, 3):
        raise ValueError(f"order must be 1, 2 or 3, got {order}")
    steps = list(walk(x, schedule, times))
    end = len(steps) if steps[-1][-1].sigma == 0 else inf
    known: list[Estimate] = []  # the last ones, the newest first
    step: tuple[Tensor, Level, Tensor, list[Estimate]] | None = None  # that is corrected next
    for i, now, then in steps:
        x0 = estimate(denoise, x, now.t)
        if step is not None:
            start, before, x0_before, others = step
            x = _moved(start, before, now, x0_before, [(now.log_ratio, x0), *others])
        others = known[: int(min(order, end - i)) - 1]
        if now.log_ratio > -inf:  # steps from pure noise are infinite, and no polynomial goes through it
            step, known = (x, now, x0, others), [(now.log_ratio, x0), *known][: order - 1]
        x = _moved(x, now, then, x0, others)
        report(callback, i, then, x, x0)
    return x


def _moved(x: Tensor, now: Level, then: Level, x0: Tensor, others: Sequence[Estimate]) -> Tensor:
    """x at the level ``then``, if x_0 between is a polynomial through its estimates here and elsewhere."""
    h = then.log_ratio - now.log_ratio
    moved = then.sigma / now.sigma * x
    moved.add_(x0, alpha=-then.alpha * expm1(-h))  # in place: x may be as large as memory allows
    places = [(log_ratio - now.log_ratio) / h for log_ratio, _ in others]
    for weight, place, (_, other) in zip(_weights(h, places), places, others, strict=True):
        moved.add_(other - x0, alpha=then.alpha * weight / place)
    return moved


def _weights(h: float, places: Sequence[float]) -> list[float]:
    """Weights of the differences from x_0 at places in units of h, each divided by its place.

    With one of them it is half of that of x_0; more are exact for polynomials: moment k of the weights over
    the places is that of e^(u - h) over (u / h) in (0, h), for the integral of x_0 (the paper's eq. 9).
    """
    moment = -expm1(-h)
    if len(places) < 2:
        return [moment / 2] * len(places)
    moments = []
    for k in range(1, len(places) + 1):
        moment = 1 - k / h * moment  # by parts
        moments.append(moment)
    powers = [[place**k for place in places] for k in range(len(places))]
    return torch.linalg.solve(torch.tensor(powers).double(), torch.tensor(moments).double()).tolist()
