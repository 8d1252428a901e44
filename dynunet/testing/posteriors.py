"""Data whose posterior given a linear measurement is known, and the laws of posterior sampling for it.

All of it is written with dense matrices: no gradients, no solver.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..diffusion.schedules import ScheduleLike
from ..diffusion.spacing import with_signal
from ..diffusion.steps import Denoise, Sampler, level
from ..operators import Operator
from .gaussians import scales

_METHODS = ("mmps", "pigdm")
_RANK = 1e-12  # singular values below this fraction of the largest are 0


@dataclass(frozen=True, eq=False)
class CorrelatedGaussian:
    """Data with correlated, normally distributed entries.

    Args:
        mean: ``(C, *spatial)``, in float64.
        covariance: ``(n, n)`` of the n entries in the order of ``mean.flatten()``, symmetric and positive
            semidefinite.
    """

    mean: Tensor
    covariance: Tensor

    def __post_init__(self) -> None:
        n = self.mean.numel()
        if self.mean.ndim < 1 or self.covariance.shape != (n, n):
            raise ValueError(
                f"covariance must be ({n}, {n}), the entries of a mean (C, *spatial), got shapes "
                f"{tuple(self.covariance.shape)} and {tuple(self.mean.shape)}"
            )
        if not torch.allclose(self.covariance, self.covariance.mT, rtol=1e-10, atol=1e-12):
            raise ValueError("covariance must be symmetric")

    def denoiser(self, schedule: ScheduleLike) -> Denoise:
        """The exact ``denoise(x, t)`` for x ``(N, C, *spatial)`` and t ``(N,)``."""
        values, vectors = torch.linalg.eigh(self.covariance)

        def denoise(x: Tensor, t: Tensor) -> Tensor:
            flat, mean = x.flatten(1), self.mean.to(x).flatten()
            alpha, sigma = scales(schedule, t, flat)
            axes, variances = vectors.to(x), values.to(x)
            away = (flat - alpha * mean) @ axes
            return (mean + alpha * variances / (alpha**2 * variances + sigma**2) * away @ axes.mT).view_as(x)

        return denoise

    def posterior(
        self, operator: Operator, y: Tensor, noise_std: float | Tensor = 0.0
    ) -> "CorrelatedGaussian":
        """The law of the data given a linear measurement.

        Args:
            operator: linear.
            y: its measurement of one sample, ``(C', *spatial')``.
            noise_std: standard deviation of the noise, a number or in the shape of y.
        """
        matrix, noise = dense(operator, self.mean), _noise(noise_std, y)
        gain = self.covariance @ matrix.mT @ _inverse(noise + matrix @ self.covariance @ matrix.mT)
        mean = self.mean.flatten() + gain @ (y.flatten() - matrix @ self.mean.flatten())
        covariance = self.covariance - gain @ matrix @ self.covariance
        return CorrelatedGaussian(mean.view_as(self.mean), (covariance + covariance.mT) / 2)


def posterior_law(
    sampler: Sampler,
    schedule: ScheduleLike,
    times: Tensor,
    data: CorrelatedGaussian,
    operator: Operator,
    y: Tensor,
    noise_std: float | Tensor = 0.0,
    method: str = "mmps",
    max_draws: int | None = None,
    **options: Any,
) -> tuple[Tensor, Tensor]:
    """The exact mean and covariance of what a method of posterior sampling gives for Gaussian data.

    The result is an affine function of all noise drawn, as in :func:`gaussian_law`: sample 0 gets no noise
    and gives the mean, each other sample a one in one entry of one draw, and the differences are the
    coefficients of the noise.

    Args:
        sampler: any sampler that takes its noise from ``generator(shape)``.
        schedule, times: as for the sampler; x starts as sigma(times[0]) times noise.
        data: its mean and covariance.
        operator: linear.
        y: its measurement of one sample, ``(C', *spatial')``.
        noise_std: standard deviation of the noise, a number or in the shape of y.
        method: ``"mmps"`` or ``"pigdm"``.
        max_draws: largest number of noise draws, the start included; by default one per step.
        options: options of the sampler.

    Returns:
        mean ``(C, *spatial)`` and covariance ``(n, n)``.
    """
    if method not in _METHODS:
        raise ValueError(f"method must be one of {', '.join(map(repr, _METHODS))}, got {method!r}")
    n, draws = data.mean.numel(), len(times) if max_draws is None else max_draws
    count = iter(range(draws))

    def units(shape: torch.Size) -> Tensor:
        noise = torch.zeros(1 + draws * n, n, dtype=torch.float64)
        first = 1 + n * next(count)
        noise[first : first + n] = torch.eye(n, dtype=torch.float64)
        return noise.view(shape)

    matrix, noise = dense(operator, data.mean), _noise(noise_std, y)
    conditioned = _conditioned(schedule, data, matrix, noise, y.flatten(), method)
    shape = torch.Size((1 + draws * n, *data.mean.shape))
    start = level(schedule, float(times[0])).sigma * units(shape)
    out = sampler(conditioned, start, schedule, times, units, **options).flatten(1)
    if not noise.any():  # what is measured without noise is kept
        out = out + (y.flatten() - out @ matrix.mT) @ torch.linalg.pinv(matrix, rtol=_RANK).mT
    coefficients = out[1:] - out[0]
    return out[0].view_as(data.mean), coefficients.mT @ coefficients


def _conditioned(
    schedule: ScheduleLike,
    data: CorrelatedGaussian,
    matrix: Tensor,
    noise: Tensor,
    y: Tensor,
    method: str,
) -> Denoise:
    """The estimate ``D + V A^T (S + A W A^T)^-1 (y - A D)``: W is V for mmps, r_t^2 I for pigdm."""
    mean, covariance, eye = data.mean.flatten(), data.covariance, torch.eye(data.mean.numel()).double()

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        now = level(schedule, t[0].item())
        at = with_signal(schedule, now)
        ratio = at.sigma / now.sigma  # x at the level that is evaluated
        total = at.alpha**2 * covariance + at.sigma**2 * eye
        gain = at.alpha * covariance @ torch.linalg.inv(total)
        given = covariance - at.alpha * gain @ covariance  # V
        x0 = mean + (ratio * x.flatten(1) - at.alpha * mean) @ gain.mT
        assumed = given if method == "mmps" else at.sigma**2 / (at.alpha**2 + at.sigma**2) * eye
        weight = given @ matrix.mT @ _inverse(noise + matrix @ assumed @ matrix.mT)
        return (x0 + (y - x0 @ matrix.mT) @ weight.mT).view_as(x)

    return denoise


def dense(operator: Operator, mean: Tensor) -> Tensor:
    """The matrix ``(m, n)`` of a linear operator on data of the shape of a mean, ``(C, *spatial)``."""
    if not operator.linear:
        raise ValueError(f"operator must be linear, got {operator}")
    n = mean.numel()
    return operator(torch.eye(n, dtype=torch.float64).view(n, *mean.shape)).flatten(1).mT


def _noise(noise_std: float | Tensor, y: Tensor) -> Tensor:
    """The covariance of the noise, ``(m, m)``."""
    std = torch.as_tensor(noise_std, dtype=torch.float64).expand(y.shape)
    return torch.diag(std.flatten() ** 2)


def _inverse(matrix: Tensor) -> Tensor:
    return torch.linalg.pinv(matrix, rtol=_RANK, hermitian=True)
