"""Filters that take noise off recordings without a network, to compare with.

Both take the short-time spectrum of a recording, learn the power of the noise at each frequency from the
quietest frames, and multiply every entry by a gain. Their constants are those that did best, of some hundred
settings tried, on the held-out speech and noise of the example.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.ndimage import uniform_filter
from scipy.signal import istft, stft
from torch import Tensor

_FRAME = 0.064  # seconds
_QUIET = 0.4  # share of the frames, the quietest, that the noise is learnt from


def wiener(noisy: Tensor, sample_rate: int) -> Tensor:
    """Wiener filter of ``(C, T)``, its signal-to-noise ratio decision-directed (Ephraim and Malah 1984)."""

    def gains(power: np.ndarray, quiet: np.ndarray) -> np.ndarray:
        noise = 3 * quiet.mean(1) + 1e-12  # more than there is: what is left of it disturbs most
        result, before = np.empty_like(power), np.zeros(len(power))
        for t in range(power.shape[1]):
            now = power[:, t] / noise
            ratio = 0.85 * before + 0.15 * np.maximum(now - 1, 0)
            result[:, t] = np.maximum(ratio / (1 + ratio), 0.05)
            before = result[:, t] ** 2 * now
        return result

    return _filtered(noisy, sample_rate, gains)


def spectral_gate(noisy: Tensor, sample_rate: int) -> Tensor:
    """``(C, T)`` less 20 dB wherever its spectrum is not above the noise by two standard deviations in dB."""

    def gains(power: np.ndarray, quiet: np.ndarray) -> np.ndarray:
        level, noise = (10 * np.log10(p + 1e-12) for p in (power, quiet))
        around: Any = (3, 5)  # frequencies and frames: no musical noise
        above = level > noise.mean(1, keepdims=True) + 2 * noise.std(1, keepdims=True)
        return 0.1 + 0.9 * uniform_filter(above.astype(float), around)

    return _filtered(noisy, sample_rate, gains)


def _filtered(
    noisy: Tensor, sample_rate: int, gains: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> Tensor:
    """Every channel with its spectrum times ``gains(power, power of the quietest frames)``."""
    size = max(4, min(round(_FRAME * sample_rate), noisy.shape[-1]) // 4 * 4)
    window: Any = {"nperseg": size, "noverlap": size * 3 // 4}
    rows = []
    for channel in noisy.double().numpy():
        spectrum = stft(channel, **window)[2]
        power = np.abs(spectrum) ** 2
        quietest = np.argsort(power.sum(0))[: max(3, int(_QUIET * power.shape[1]))]
        rows.append(istft(spectrum * gains(power, power[:, quietest]), **window)[1])
    return torch.from_numpy(np.stack(rows)[:, : noisy.shape[-1]]).float()
