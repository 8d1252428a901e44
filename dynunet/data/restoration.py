"""Degrading clean examples: recorded or coloured noise at a random signal-to-noise ratio.

The power of a signal is that of its deviation from its mean, over the entries that are there, and at least
1e-5 (-50 dB of full scale), so that a silent crop does not make the noise vanish. The noise is scaled to
``10 log10(P_signal / P_noise) = snr``. All randomness is of torch's global generator.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .cache import Cache
from .crops import random_place
from .files import READERS
from .sources import Info, Units, UnreadableError, attempt

_LEAST_POWER = 1e-5
_TRIES = 10  # segments of recorded noise that may turn out silent or unreadable


def coloured_noise(shape: Sequence[int], exponent: float) -> Tensor:
    """Noise whose power falls as ``1 / |frequency|^exponent``: 0 white, 1 pink, 2 brown (red).

    Args:
        shape: ``(C, *spatial)`` with any number of spatial axes; the frequency is the length of its vector,
            in cycles per entry.
        exponent: of the power.

    Returns:
        ``shape``, of mean 0 and power 1 in every channel (0 where a channel has one entry), periodic.
    """
    axes = tuple(range(1, len(shape)))
    lines = [torch.fft.fftfreq(n) for n in shape[1:-1]] + [torch.fft.rfftfreq(shape[-1])]
    frequency = sum(f.square() for f in torch.meshgrid(*lines, indexing="ij"))
    assert isinstance(frequency, Tensor)
    shaping = frequency.clamp(min=torch.finfo(torch.float32).tiny) ** (-exponent / 4)
    shaping[(0,) * len(axes)] = 0
    spectrum = torch.fft.rfftn(torch.randn(*shape), dim=axes) * shaping
    noise = torch.fft.irfftn(spectrum, s=tuple(shape[1:]), dim=axes)
    power = noise.square().mean(axes, keepdim=True)
    return noise / power.sqrt().clamp(min=1e-30)


def mixed(clean: Tensor, noise: Tensor, snr: float, mask: Tensor | None = None) -> Tensor:
    """``clean`` with noise at a signal-to-noise ratio in dB.

    Args:
        clean, noise: ``(C, *spatial)``.
        snr: over all channels together.
        mask: bool, which entries of ``clean`` are there; the others get noise too.
    """
    there = clean if mask is None else clean[mask]
    signal = (there - there.mean()).square().mean().clamp(min=_LEAST_POWER) if there.numel() else _LEAST_POWER
    power = noise.square().mean()
    if power == 0:
        return clean.clone()
    return clean + noise * (signal / power / 10 ** (snr / 10)) ** 0.5


@dataclass
class NoiseFiles:
    """Recorded noise, in random segments; what is shorter than the segment is repeated."""

    infos: list[Info]
    units: Units
    failed: dict[Path, str] = field(default_factory=dict)

    def segment(self, shape: Sequence[int], cache: Cache) -> Tensor:
        """Noise of mean 0, ``(C, *spatial)``, of any power; zeros if segment after segment has none."""
        units = replace(self.units, channels=shape[0])
        for _ in range(_TRIES):
            info = self.infos[int(torch.randint(len(self.infos), ()))]
            reader = READERS[info.format]
            grid = reader.grid(info, units)
            region = random_place(grid, shape[1:])
            index = int(torch.randint(info.entries, ()))
            try:
                values = attempt(
                    lambda i=info, n=index, r=region: READERS[i.format].read(i, n, units, cache, r)
                )
            except UnreadableError as error:
                self.failed[info.path] = str(error)
                continue
            values = np.nan_to_num(
                values.astype(np.float64) - values.mean(dtype=np.float64), posinf=0, neginf=0
            )
            power = np.square(values).sum() / prod(values.shape)
            if power > 1e-12 * max(np.square(values).max(), 1e-12):
                short = [(0, 0)] + [(0, s - n) for s, n in zip(shape[1:], values.shape[1:], strict=True)]
                return torch.from_numpy(np.pad(values, short, mode="wrap").astype(np.float32))
        return torch.zeros(*shape)


@dataclass
class Degradation:
    """Noise on the fly, recorded or coloured; where both are asked for, either with equal probability."""

    snr: tuple[float, float]
    coloured: bool
    files: NoiseFiles | None
    keep_below_full_scale: bool

    def __call__(self, clean: Tensor, mask: Tensor | None, cache: Cache) -> tuple[Tensor, Tensor]:
        """Clean and noisy. Of audio, both are made quieter together where the noisy one would clip."""
        recorded = self.files is not None and not (self.coloured and torch.rand(()) < 0.5)
        if recorded and self.files is not None:
            noise = self.files.segment(clean.shape, cache)
        else:
            noise = coloured_noise(clean.shape, 2 * float(torch.rand(())))
        low, high = self.snr
        noisy = mixed(clean, noise, low + (high - low) * float(torch.rand(())), mask)
        peak = noisy.abs().max()
        if self.keep_below_full_scale and peak > 1:
            return clean / peak, noisy / peak
        return clean, noisy
