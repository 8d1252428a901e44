"""Gaussian data and mixtures, and the laws that samplers give for them."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import torch
from torch import Tensor

from ..diffusion.schedules import ScheduleLike, as_schedule, widened
from ..diffusion.steps import Denoise, Sampler, level

__all__ = ["Gaussian", "GaussianMixture", "gaussian_law", "probability_flow"]


def scales(schedule: ScheduleLike, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """alpha and sigma at times ``(N,)``, shaped to broadcast against x."""
    alpha, sigma = schedule(widened(t))
    shape = (-1, *(1,) * (x.ndim - 1))
    return alpha.to(x).view(shape), sigma.to(x).view(shape)


@dataclass(frozen=True)
class Gaussian:
    """Data with independent, normally distributed entries.

    Args:
        mean, std: numbers, or tensors that broadcast against ``(N, ...)``; std positive.
    """

    mean: float | Tensor = 0.0
    std: float | Tensor = 1.0

    def __post_init__(self) -> None:
        if not bool((torch.as_tensor(self.std) > 0).all()):
            raise ValueError(f"std must be positive, got {self.std}")

    def denoiser(self, schedule: ScheduleLike) -> Denoise:
        """The exact ``denoise(x, t)`` for x of any shape ``(N, ...)`` and t ``(N,)``."""

        def denoise(x: Tensor, t: Tensor) -> Tensor:
            alpha, sigma = scales(schedule, t, x)
            gain = alpha * self.std**2 / (alpha**2 * self.std**2 + sigma**2)
            return self.mean + gain * (x - alpha * self.mean)

        return denoise

    def flow(self, x: Tensor, schedule: ScheduleLike, start: float, stop: float) -> Tensor:
        """The exact solution of the probability-flow ODE at time ``stop`` from x at time ``start``."""
        now, then = level(schedule, start), level(schedule, stop)
        spread, spread_then = ((at.alpha**2 * self.std**2 + at.sigma**2) ** 0.5 for at in (now, then))
        return then.alpha * self.mean + (x - now.alpha * self.mean) * (spread_then / spread)


@dataclass(frozen=True, eq=False)
class GaussianMixture:
    """Data from a mixture of K normal distributions, each with the same standard deviation in all entries.

    Args:
        means: ``(K, ...)``, the mean of each component, in the shape of one sample.
        stds: ``(K,)``, positive.
        weights: ``(K,)``, positive, need not sum to 1; equal by default.
    """

    means: Tensor
    stds: Tensor | Sequence[float]
    weights: Tensor | Sequence[float] | None = None

    def __post_init__(self) -> None:
        means = torch.as_tensor(self.means)
        if means.ndim < 1 or not means.is_floating_point():
            raise ValueError(
                f"means must be (K, ...) in floating point, got {means.dtype} {tuple(means.shape)}"
            )
        object.__setattr__(self, "means", means)
        for name in ("stds", "weights"):
            given = getattr(self, name)
            value = (
                means.new_ones(len(means))
                if given is None
                else torch.as_tensor(given, dtype=means.dtype, device=means.device)
            )
            if value.shape != means.shape[:1] or not bool((value > 0).all()):
                raise ValueError(f"{name} must be ({len(means)},) and positive, as means has it, got {given}")
            object.__setattr__(self, name, value)

    def denoiser(self, schedule: ScheduleLike) -> Denoise:
        """The exact ``denoise(x, t)`` for x ``(N, ...)`` and t ``(N,)``."""

        def denoise(x: Tensor, t: Tensor) -> Tensor:
            if x.shape[1:] != self.means.shape[1:]:
                raise ValueError(f"x must be (N, *{tuple(self.means.shape[1:])}), got {tuple(x.shape)}")
            n, k = len(x), len(self.means)
            means, flat = self.means.to(x).view(1, k, -1), x.reshape(n, 1, -1)
            variances = torch.as_tensor(self.stds).to(x).view(1, k, 1) ** 2
            alpha, sigma = scales(schedule, t, flat)
            total = alpha**2 * variances + sigma**2  # the variance of x given the component
            away = flat - alpha * means
            log_likelihood = -0.5 * (away**2 / total + total.log()).sum(-1, keepdim=True)
            weights = torch.as_tensor(self.weights).to(x).view(1, k, 1)
            share = (weights.log() + log_likelihood).softmax(1)
            return (share * (means + alpha * variances / total * away)).sum(1).view_as(x)

        return denoise


def probability_flow(
    denoise: Denoise, x: Tensor, schedule: ScheduleLike, start: float, stop: float, steps: int = 1000
) -> Tensor:
    """An accurate solution of the probability-flow ODE, by the classical Runge-Kutta method of order 4.

    Integrates dy / du = y - x_0 with y = x / alpha over u = log(sigma / alpha), four evaluations per step;
    u must be finite at both ends.

    Args:
        denoise, x, schedule: as for a sampler; use float64.
        start, stop: the times of x and of the result.
        steps: number of steps, equally long in u.
    """
    now, then = level(schedule, start), level(schedule, stop)
    u, length = -now.log_ratio, now.log_ratio - then.log_ratio
    if not isfinite(u) or not isfinite(length):
        raise ValueError(f"start and stop must have finite log-SNR, got times {start} and {stop}")
    # End points and midpoints of the steps.
    grid = u + length * torch.linspace(0, 1, 2 * steps + 1, dtype=torch.float64)
    times = as_schedule(schedule).time(-2 * grid)
    times[0], times[-1] = start, stop
    alphas = schedule(times)[0]

    def slope(y: Tensor, i: int) -> Tensor:
        return y - denoise(alphas[i].item() * y, times[i].to(x).expand(len(x)))

    h = length / steps
    y = x / now.alpha
    for i in range(0, 2 * steps, 2):
        k1 = slope(y, i)
        k2 = slope(y + h / 2 * k1, i + 1)
        k3 = slope(y + h / 2 * k2, i + 1)
        k4 = slope(y + h * k3, i + 2)
        y = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return then.alpha * y


def gaussian_law(
    sampler: Sampler,
    schedule: ScheduleLike,
    times: Tensor,
    data: Gaussian,
    max_draws: int | None = None,
    **options: Any,
) -> tuple[float, float]:
    """The exact mean and variance (up to rounding) of a sampler's result for Gaussian data.

    With a Gaussian denoiser the result is an affine function of all noise drawn, the start included. In one
    batch, sample 0 gets zero noise and gives the mean; sample k gets a one in the k-th draw and zeros in all
    others, so its difference from sample 0 is the coefficient of that draw. The variance is the sum of the
    squared coefficients.

    Args:
        sampler: any sampler that takes its noise from ``generator(shape)``.
        schedule, times: as for the sampler; x starts as sigma(times[0]) times noise.
        data: its mean and std must be numbers.
        max_draws: largest number of noise draws, the start included; by default one per step.
        options: options of the sampler.
    """
    draws = len(times) if max_draws is None else max_draws
    count = iter(range(draws))

    def unit(shape: torch.Size) -> Tensor:
        noise = torch.zeros(shape, dtype=torch.float64)
        noise[1 + next(count)] = 1
        return noise

    start = level(schedule, float(times[0])).sigma * unit(torch.Size((draws + 1, 1, 1)))
    out = sampler(data.denoiser(schedule), start, schedule, times, unit, **options).flatten()
    return out[0].item(), (out[1:] - out[0]).square().sum().item()
