"""Metrics: of restorations against clean data, and of a set of samples against real data.

Metrics of restorations take ``(N, C, *spatial)`` of any rank and return one value per sample in float64, on
the device of ``estimate``, or on the CPU if that device lacks float64. Entries that do not count (``mask``
False) may have any value, even NaN; the metric of a sample in which no entry counts is NaN. The definitions
are those of torchmetrics, which computes SNR, SI-SDR and PSNR here (``pip install 'dynunet[train]'``). Its
SSIM supports two and three axes; :func:`ssim` is the same for any number of axes.
"""

from importlib import import_module
from typing import Any

import torch
from torch import Tensor

import convnd.functional as F

from .._devices import moved
from ..arguments import positive
from ..masks import expanded_mask

__all__ = [
    "frechet_distance",
    "psnr",
    "si_sdr",
    "snr",
    "ssim",
]

_WITHOUT_FLOAT64 = ("mps",)  # device types


def snr(estimate: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    r"""Signal-to-noise ratio ``10 log10(|target|^2 / |target - estimate|^2)`` in dB; more is better.

    Args:
        estimate, target: the restored and the clean data, ``(N, C, *spatial)``, of equal shape.
        mask: bool, broadcast against them: True where an entry counts.

    Returns:
        ``(N,)``, over all channels of a sample together.

    >>> import torch
    >>> snr(torch.full((1, 1, 10), 0.9), torch.ones(1, 1, 10)).round()
    tensor([20.], dtype=torch.float64)
    """
    estimate, target, counted = _checked(estimate, target, mask)
    value = _torchmetrics("audio").signal_noise_ratio(estimate.flatten(1), target.flatten(1))
    return value.where(counted.flatten(1).any(1), torch.nan)


def si_sdr(
    estimate: Tensor, target: Tensor, mask: Tensor | None = None, *, zero_mean: bool = False
) -> Tensor:
    r"""Scale-invariant signal-to-distortion ratio in dB (Le Roux et al. 2019, eq. 5); more is better.

    The SNR after scaling the clean data by the factor that maximises it, so that loudness does not matter.

    Args:
        estimate, target, mask: see :func:`snr`.
        zero_mean: subtract the mean of every sample first, as usual for recordings with an offset.

    Returns:
        ``(N,)``, over all channels of a sample together.
    """
    estimate, target, counted = _checked(estimate, target, mask)
    counted = counted.flatten(1)
    rows = [estimate.flatten(1), target.flatten(1)]
    if zero_mean:
        number = counted.sum(1, keepdim=True).clamp(min=1)
        rows = [(row - row.sum(1, keepdim=True) / number).where(counted, 0) for row in rows]
    value = _torchmetrics("audio").scale_invariant_signal_distortion_ratio(*rows)
    return value.where(counted.any(1), torch.nan)


def psnr(estimate: Tensor, target: Tensor, data_range: float = 2.0, mask: Tensor | None = None) -> Tensor:
    r"""Peak signal-to-noise ratio ``10 log10(data_range^2 / mean squared error)`` in dB; more is better.

    Args:
        estimate, target, mask: see :func:`snr`.
        data_range: largest minus smallest possible value of the data: 2 for data in [-1, 1], 255 for bytes.

    Returns:
        ``(N,)``; infinite if estimate and target are equal.
    """
    estimate, target, counted = _checked(estimate, target, mask)
    data_range = positive(data_range, "data_range")
    rows, share = counted.flatten(1), counted.flatten(1).double().mean(1)
    value = _torchmetrics("image").peak_signal_noise_ratio(
        estimate.flatten(1), target.flatten(1), data_range, reduction="none", dim=1
    )
    return (value + 10 * share.log10()).where(rows.any(1), torch.nan)


def ssim(
    estimate: Tensor,
    target: Tensor,
    data_range: float = 2.0,
    mask: Tensor | None = None,
    *,
    sigma: float = 1.5,
) -> Tensor:
    r"""Structural similarity, at most 1 (Wang et al. 2004, eq. 13), for any number of axes.

    Local means, variances and covariance have Gaussian weights (11 entries along every axis by default), and
    the data is reflected at its borders; values in 2-D and 3-D equal those of torchmetrics. With a mask,
    only entries that count have weights, and the mean is taken over them.

    Args:
        estimate, target, mask: see :func:`snr`; every axis must be longer than half a window (5).
        data_range: see :func:`psnr`.
        sigma: standard deviation of the weights, in entries.

    Returns:
        ``(N,)``.

    Raises:
        ValueError: also if an axis is too short.
    """
    estimate, target, counted = _checked(estimate, target, mask)
    sigma = positive(sigma, "sigma")
    radius = int(3.5 * sigma + 0.5)
    if min(estimate.shape[2:]) <= radius:
        raise ValueError(
            f"estimate must have more than {radius} entries along every axis for windows of "
            f"{2 * radius + 1}, got shape {tuple(estimate.shape)}"
        )
    weights = counted.double()
    near = _blurred(weights, sigma, radius).clamp(min=torch.finfo(torch.float64).tiny)

    def local(x: Tensor) -> Tensor:
        return _blurred(x, sigma, radius) / near  # x is 0 where it does not count

    a, b = local(estimate), local(target)
    variances = (local(estimate**2) - a**2).clamp(min=0) + (local(target**2) - b**2).clamp(min=0)
    covariance = local(estimate * target) - a * b
    data_range = positive(data_range, "data_range")
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    index = (2 * a * b + c1) * (2 * covariance + c2) / ((a**2 + b**2 + c1) * (variances + c2))
    return (weights * index).flatten(1).sum(1) / weights.flatten(1).sum(1)


def frechet_distance(a: Tensor, b: Tensor) -> float:
    r"""Fréchet distance between Gaussians fitted to two sets of features (Heusel et al. 2017, eq. 6).

    .. math:: |\mu_a - \mu_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^{1/2})

    Args:
        a, b: features ``(N, D)`` from any feature extractor, with at least two rows each.

    Returns:
        The squared distance, at least 0 up to rounding, in float64. It is biased upwards by the finite
        number of samples, so compare distances only between sets of similar size.

    Raises:
        ValueError: if the sets are not ``(N, D)`` with the same D and N at least 2.

    >>> import torch
    >>> x = torch.randn(100, 3)
    >>> round(frechet_distance(x, x + 1), 3)
    3.0
    """
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise ValueError(
            "a and b must be (N, D) with the same D and at least two rows, "
            f"got shapes {tuple(a.shape)} and {tuple(b.shape)}"
        )
    a, b = _double(a), _double(b)
    cov_a, cov_b = (torch.cov(x.T).reshape(x.shape[1], x.shape[1]) for x in (a, b))
    # The eigenvalues of a product of two covariances are real and nonnegative.
    root = torch.linalg.eigvals((cov_a @ cov_b).cpu()).real.clamp(min=0).sqrt().sum()
    return ((a.mean(0) - b.mean(0)).square().sum() + cov_a.trace() + cov_b.trace() - 2 * root).item()


def _checked(estimate: Tensor, target: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Estimate and target in float64, zero where they do not count, and the mask of entries that count."""
    if estimate.ndim < 3 or estimate.shape != target.shape or 0 in estimate.shape:
        raise ValueError(
            "estimate and target must be (N, C, *spatial), alike and with no size 0, "
            f"got shapes {tuple(estimate.shape)} and {tuple(target.shape)}"
        )
    if estimate.is_complex() or target.is_complex():
        raise TypeError(f"estimate and target must be real, got {estimate.dtype} and {target.dtype}")
    estimate = _double(estimate.detach())
    target = moved(target.detach(), estimate.device).double()
    if mask is None:
        return estimate, target, torch.ones_like(target, dtype=torch.bool)
    counted = expanded_mask(mask, target)
    return estimate.where(counted, 0), target.where(counted, 0), counted


def _double(x: Tensor) -> Tensor:
    return (x.cpu() if x.device.type in _WITHOUT_FLOAT64 else x).double()


def _blurred(x: Tensor, sigma: float, radius: int) -> Tensor:
    """Gaussian-weighted local means, axis by axis, of data reflected at its borders."""
    place = torch.arange(-radius, radius + 1, dtype=x.dtype, device=x.device)
    kernel = (-((place / sigma) ** 2) / 2).exp()
    kernel = (kernel / kernel.sum()).view(1, 1, -1)
    for axis in range(2, x.ndim):
        lines = x.movedim(axis, -1)
        padded = F.pad(lines.reshape(-1, 1, lines.shape[-1]), (radius, radius), mode="reflect")
        x = F.conv(padded, kernel).reshape(lines.shape).movedim(-1, axis)
    return x


def _torchmetrics(domain: str) -> Any:
    try:
        return import_module(f"torchmetrics.functional.{domain}")
    except ImportError as error:
        raise ImportError("snr, si_sdr and psnr need torchmetrics: pip install 'dynunet[train]'") from error
