"""Losses: the times at which the network is trained, their weights, and the distance of output and target.

The loss is the expectation of ``w(t) d(output, target)`` over times, data and noise. The error of x_0 is the
error of the output times the prediction's gain g, see
:meth:`dynunet.diffusion.predictions.Prediction.gains`. So a weight of errors of x_0 translates to a weight of
the output, with the same objective whatever the network predicts:

    name        weight of an error of x_0               weight w of the output
    None        1 / g^2                                 1
    snr         alpha^2 / sigma^2                       n^2
    min_snr     min(alpha^2 / sigma^2, gamma)           min(n^2, gamma g^2)
    edm         alpha^2 / sigma^2 + 1 / sigma_data^2    n^2 + g^2 / sigma_data^2

with ``n = g alpha / sigma``, the gain of the noise, in a form that avoids 0 times infinity.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import huber_loss

from ..arguments import positive
from ..config import Data
from ..masks import expanded_mask
from .noise import Generators, rand
from .predictions import Prediction
from .schedules import ScheduleLike, as_schedule

Elementwise = Callable[[Tensor, Tensor], Tensor]

_FLOOR = 1e-4  # smaller magnitudes count as this: the derivative of a power is infinite at 0


@dataclass(frozen=True)
class Weighting(Data):
    """No weighting: all times and output errors count equally."""

    def times(self, quantiles: Tensor, schedule: ScheduleLike) -> Tensor:
        """Training times for quantiles in (0, 1) of their distribution: here uniform on [0, 1]."""
        return quantiles

    def weight(self, alpha: Tensor, sigma: Tensor, prediction: Prediction) -> Tensor:
        """The weight of a squared error of the output, in the shape of ``alpha``."""
        return torch.ones_like(alpha)


@dataclass(frozen=True)
class SNR(Weighting):
    """Weights errors of x_0 by the signal-to-noise ratio (Salimans and Ho 2022, section 4).

    This equals the unweighted loss of a network that predicts the noise (Ho et al. 2020, eq. 14).
    """

    def weight(self, alpha: Tensor, sigma: Tensor, prediction: Prediction) -> Tensor:
        return prediction.gains(alpha, sigma)[1] ** 2


@dataclass(frozen=True)
class MinSNR(Weighting):
    """The signal-to-noise ratio, at most ``gamma`` (Hang et al. 2023, section 3, Min-SNR-gamma)."""

    gamma: float = 5.0

    def __post_init__(self) -> None:
        positive(self.gamma, "gamma")

    def weight(self, alpha: Tensor, sigma: Tensor, prediction: Prediction) -> Tensor:
        data, noise = prediction.gains(alpha, sigma)
        return torch.minimum(noise**2, self.gamma * data**2)


@dataclass(frozen=True)
class LogNormal(Weighting):
    """EDM's noise levels and weights (Karras et al. 2022, table 1), with any schedule and prediction.

    ``log(sigma / alpha)`` is normal with ``mean`` and ``std``; levels beyond the schedule become its end.
    The weight is ``(s^2 + sigma_data^2) / (s sigma_data)^2`` at ``s = sigma / alpha``; for the output of an
    EDM network with the same sigma_data this is a weight of 1.
    """

    mean: float = -1.2
    std: float = 1.2
    sigma_data: float = 0.5

    def __post_init__(self) -> None:
        positive(self.std, "std")
        positive(self.sigma_data, "sigma_data")

    def times(self, quantiles: Tensor, schedule: ScheduleLike) -> Tensor:
        log_level = self.mean + self.std * torch.special.ndtri(quantiles)
        return as_schedule(schedule).time(-2 * log_level)

    def weight(self, alpha: Tensor, sigma: Tensor, prediction: Prediction) -> Tensor:
        data, noise = prediction.gains(alpha, sigma)
        return noise**2 + (data / self.sigma_data) ** 2


def l1(output: Tensor, target: Tensor) -> Tensor:
    """The absolute error of every entry; its minimiser is the median of x_0, not the mean."""
    return (output - target).abs()


def l2(output: Tensor, target: Tensor) -> Tensor:
    """The squared error of every entry; its minimiser is the mean, which the samplers assume."""
    return (output - target).square()


def huber(output: Tensor, target: Tensor, delta: float = 1.0) -> Tensor:
    """Half the squared error up to ``delta``, linear beyond (Huber 1964): outliers count for less."""
    return huber_loss(output, target, reduction="none", delta=delta)


@dataclass(frozen=True)
class WithSpectra:
    """An error of single entries, plus the distance of short-time spectra along the last axis.

    That is the mean over three sizes of Hann windows, a quarter of them apart, over frequencies and times, of
    ``(1 - phase) (|X|^power - |Y|^power)^2 + phase |X|X|^(power - 1) - Y|Y|^(power - 1)|^2`` (Braun and
    Tashev 2021, "A consolidated view of loss functions for supervised deep learning-based speech
    enhancement", eq. 5). Windows have the power 1, so that white noise of power 1 has spectra of power 1.
    """

    entries: Elementwise
    sizes: tuple[int, ...] = (128, 256, 512)
    power: float = 0.3
    phase: float = 0.3

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        return self.entries(output, target)

    def of_samples(self, output: Tensor, target: Tensor) -> Tensor:
        """The distance of every sample ``(N, C, *spatial)``, ``(N,)``."""
        return torch.stack([self._distance(output, target, size) for size in self.sizes]).mean(0)

    def _distance(self, output: Tensor, target: Tensor, size: int) -> Tensor:
        x, y = (self._spectra(signal, size) for signal in (output, target))
        a, b = (z.abs().clamp(min=_FLOOR) for z in (x, y))
        magnitudes = (a**self.power - b**self.power).square()
        both = (x * a ** (self.power - 1) - y * b ** (self.power - 1)).abs().square()
        return ((1 - self.phase) * magnitudes + self.phase * both).mean((1, 2, 3))

    def _spectra(self, signal: Tensor, size: int) -> Tensor:
        """``(N, signals, frequencies, times)``."""
        window = torch.hann_window(size, dtype=signal.dtype, device=signal.device)
        rows = torch.stft(
            signal.flatten(0, -2),
            size,
            size // 4,
            window=window / window.square().sum().sqrt(),
            pad_mode="constant",
            return_complex=True,
        )
        return rows.unflatten(0, (len(signal), -1))


def loss_sum(
    output: Tensor,
    target: Tensor,
    weight: Tensor | float = 1.0,
    mask: Tensor | None = None,
    loss: Elementwise = l2,
) -> tuple[Tensor, Tensor]:
    """The sum of ``weight * loss(output, target)`` over the entries that count, and their number.

    For the mean over several batches or devices, add the sums and divide by the total count. Errors are
    computed and summed in at least float32: in half precision a sum overflows at 65,504.

    Args:
        output, target: ``(N, C, *spatial)``.
        weight: broadcasts against them.
        mask: bool, with as many axes as ``output``, each of its size or 1. Entries where it is False are
            missing and have no influence, not even if they are NaN. A sample without any entry is ignored.
        loss: ``loss(output, target)`` entry by entry, or :class:`WithSpectra`, whose distance of a sample
            counts as often as it has entries, with their mean weight; missing ones are 0 in both signals.

    Returns:
        A differentiable scalar, and an integer scalar.

    Raises:
        ValueError, TypeError: naming the argument, the rule and the value received.
    """
    dtype = torch.promote_types(output.dtype, torch.float32)
    output, target = output.to(dtype), target.to(dtype)
    if mask is not None:
        mask = expanded_mask(mask, output)
        # Missing entries are replaced before the loss: its derivative at NaN would be NaN times 0.
        output, target = torch.where(mask, output, 0), torch.where(mask, target, 0)
    errors = weight * loss(output, target)
    if isinstance(loss, WithSpectra):
        of_samples = loss.of_samples(output, target)
        errors = errors + weight * of_samples.view(-1, *(1,) * (output.ndim - 1))
    if mask is None:
        return errors.sum(), torch.full((), output.numel(), device=output.device)
    return torch.where(mask, errors, 0).sum(), mask.sum()


def mean_loss(
    output: Tensor,
    target: Tensor,
    weight: Tensor | float = 1.0,
    mask: Tensor | None = None,
    loss: Elementwise = l2,
) -> Tensor:
    """The mean of ``weight * loss(output, target)`` over the entries that count: :func:`loss_sum`, divided.

    Returns:
        A differentiable scalar; 0 if no entry counts.
    """
    total, count = loss_sum(output, target, weight, mask, loss)
    return total / count.clamp(min=1)


def draw_quantiles(n: int, generator: Generators) -> Tensor:
    """Quantiles of the training times, ``(n,)`` in (0, 1), float64 on the CPU.

    There is one number in each of n equal intervals: a single draw shifts a grid (Kingma et al. 2021,
    appendix I.1), so each number is uniform and their mean varies less. With one generator per sample, each
    number is drawn independently.
    """
    tiny = 2.0**-53  # excludes both ends, where weights may be infinite
    if isinstance(generator, Sequence):
        return rand(n, generator).clamp(tiny, 1 - tiny)
    shift = rand(1, generator)
    return ((shift + torch.arange(n, device="cpu")) / max(n, 1)).clamp(tiny, 1 - tiny)


LOSSES: dict[str | None, Weighting] = {
    None: Weighting(),
    "snr": SNR(),
    "min_snr": MinSNR(),
    "edm": LogNormal(),
}
ERRORS: dict[str, Elementwise] = {
    "l1": l1,
    "l2": l2,
    "huber": huber,
    "l1+stft": WithSpectra(l1),
}
