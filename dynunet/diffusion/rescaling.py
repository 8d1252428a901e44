"""Schedules derived from others: with zero terminal SNR, or shifted for another resolution."""

from dataclasses import dataclass
from math import log

import torch
from torch import Tensor

from ..arguments import positive
from .bridges import Bridge
from .schedules import Discrete, Numerical, Schedule


@dataclass(frozen=True)
class ZeroTerminalSNR(Schedule):
    """A variance-preserving schedule whose last time is pure noise; see :func:`zero_terminal_snr`.

    In terms of ``p = 1 - alpha`` the rescaling is a division by p(1), and ``sigma^2 = p (1 + alpha)`` has no
    cancellation.
    """

    schedule: Schedule

    def _last(self, like: Tensor) -> Tensor:
        return self.schedule(like.new_ones(()))[0]

    def log_snr(self, t: Tensor) -> Tensor:
        alpha, sigma = self.schedule(t)
        last = self._last(t)
        p = sigma**2 / (1 + alpha) / (1 - last)
        alpha = torch.where(t >= 1, 0.0, ((alpha - last) / (1 - last)).clamp(min=0))
        return 2 * alpha.log() - p.log() - torch.log1p(alpha)

    def _invert(self, log_snr: Tensor) -> Tensor:
        alpha, sigma = self.scales(log_snr)
        last = self._last(log_snr)
        p = sigma**2 / (1 + alpha) * (1 - last)
        alpha = alpha * (1 - last) + last  # 1 - p would cancel if little signal is left
        return self.schedule.time(2 * alpha.log() - p.log() - torch.log1p(alpha))


@dataclass(frozen=True)
class Shifted(Schedule):
    """A schedule with its log-SNR lower by ``2 log shift`` at every time; see :func:`shifted`."""

    schedule: Schedule
    shift: float

    def log_snr(self, t: Tensor) -> Tensor:
        return self.schedule.log_snr(t) - 2 * log(self.shift)

    def _invert(self, log_snr: Tensor) -> Tensor:
        return self.schedule.time(log_snr + 2 * log(self.shift))

    def scales(self, log_snr: Tensor) -> tuple[Tensor, Tensor]:
        return self.schedule.scales(log_snr)


def zero_terminal_snr(schedule: Schedule) -> Schedule:
    """The schedule with alpha shifted and scaled to be 0 at t = 1 and unchanged at the first time.

    ``alpha' = (alpha - alpha(1)) alpha(0) / (alpha(0) - alpha(1))``, ``sigma'^2 = 1 - alpha'^2`` (Lin et al.
    2024, algorithm 1). For a table the first entry is kept, as in the paper. A schedule that already ends in
    pure noise is returned unchanged.

    Raises:
        ValueError: if the schedule is not variance preserving, such as ``EDM``, whose alpha is always 1.
    """
    _check_shiftable(schedule)
    alpha, sigma = (s.item() for s in schedule(torch.ones((), dtype=torch.float64)))
    if alpha == 0:
        return schedule
    if abs(alpha**2 + sigma**2 - 1) > 1e-9:
        raise ValueError(
            f"schedule must have alpha^2 + sigma^2 = 1 to be given zero terminal SNR, got {schedule!r}"
        )
    if isinstance(schedule, Discrete):
        a = torch.tensor(schedule.alphas_cumprod, dtype=torch.float64).sqrt()
        return Discrete(((a - a[-1]) * (a[0] / (a[0] - a[-1]))) ** 2)
    return ZeroTerminalSNR(schedule)


def shifted(schedule: Schedule, shift: float) -> Schedule:
    """The schedule with sigma / alpha multiplied by ``shift``, for data of another resolution.

    ``l'(t) = l(t) - 2 log shift`` (Hoogeboom et al. 2023, section 3.1): with ``shift = size / 64`` a larger
    image loses as much of its coarse structure as one of 64 pixels. For ``Flow`` this is the time shift
    ``shift t / (1 + (shift - 1) t)`` (Esser et al. 2024, eq. 23). The family of scales does not change. A
    bridge has ``shift`` times as much noise.
    """
    _check_shiftable(schedule)
    positive(shift, "shift")
    if isinstance(schedule, Bridge):
        return schedule.shifted(shift)
    return schedule if shift == 1 else Shifted(schedule, shift)


def _check_shiftable(schedule: Schedule) -> None:
    if not isinstance(schedule, Schedule) or isinstance(schedule, Numerical):
        raise TypeError(f"schedule must be a Schedule, which knows its log-SNR, got {schedule!r}")
