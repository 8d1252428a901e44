"""Signals as waveforms and spectrograms."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from .tiles import DPI, MISSING, batched, check_labels, figure

_COLOUR = tuple(value / 255 for value in MISSING)
_POINTS = 4000  # of a curve, at least, if it has more entries
_FLOOR = -80  # dB below the loudest that are still told apart


def waveform(
    x: Tensor, path: str | Path, sample_rate: float | None = None, *, labels: Sequence[str] = ()
) -> None:
    """Signals over time, one below the other.

    Args:
        x: ``(T,)``, ``(C, T)`` or ``(N, C, T)``.
        path: the file to write.
        sample_rate: in Hz; without it the axis counts entries.
        labels: one text per sample.
    """
    draw_signals(batched(x, 1), path, sample_rate, ("waveform",), labels)


def spectrogram(
    x: Tensor, path: str | Path, sample_rate: float | None = None, *, labels: Sequence[str] = ()
) -> None:
    """Power of signals over time and frequency, in dB below the loudest entry of the picture.

    Windows are 32 ms long (256 entries without ``sample_rate``). Arguments are those of :func:`waveform`.
    """
    draw_signals(batched(x, 1), path, sample_rate, ("spectrogram",), labels)


def draw_signals(
    x: Tensor, path: str | Path, sample_rate: float | None, kinds: Sequence[str], labels: Sequence[str]
) -> None:
    """One row for every channel of every sample ``(N, C, T)``, one column for each kind of drawing."""
    check_labels(labels, len(x), "samples")
    if sample_rate is not None and not sample_rate > 0:
        raise ValueError(f"sample_rate must be positive, got {sample_rate}")
    signals = rearrange(x.detach().cpu().double(), "n c t -> (n c) t")
    page = figure(800 if len(kinds) == 1 else 1200, 60 + 110 * len(signals), layout="constrained")
    grid = page.subplots(len(signals), len(kinds), sharex=True, squeeze=False)
    for column, kind in zip(grid.T, kinds, strict=True):
        if kind == "waveform":
            _draw_waveforms(column, signals, sample_rate)
        else:
            image = _draw_spectrograms(column, signals, sample_rate)
            page.colorbar(image, ax=list(column), label="dB")
        column[-1].set_xlabel("time in s" if sample_rate else "entry")
        for n, label in enumerate(labels):
            column[n * x.shape[1]].set_title(label, loc="left", fontsize=9)
    page.savefig(path, dpi=DPI)


def _draw_waveforms(column: Any, signals: Tensor, sample_rate: float | None) -> None:
    most = 1.05 * max(1e-6, signals.nan_to_num().abs().max().item())
    for axes, signal in zip(column, signals.numpy(), strict=True):
        time = np.arange(len(signal)) / (sample_rate or 1)
        edges = np.flatnonzero(np.diff(np.isnan(signal), prepend=False, append=False))
        starts = (edges[::2] - 0.5) / (sample_rate or 1)
        widths = (edges[1::2] - edges[::2]) / (sample_rate or 1)
        spans, above = list(zip(starts, widths, strict=True)), axes.get_xaxis_transform()
        axes.broken_barh(spans, (0, 1), transform=above, color=_COLOUR, linewidth=0.5)
        axes.plot(*_thinned(time, signal), linewidth=0.7)
        axes.set(ylim=(-most, most), xlim=(0, time[-1] or 1))
        axes.grid(alpha=0.3)


def _thinned(time: Any, signal: Any) -> tuple[Any, Any]:
    """Of many entries the least and the largest of each group, which look the same."""
    count = len(signal) // (_POINTS // 2)
    if count < 3:
        return time, signal
    whole = len(signal) // count * count
    parts = signal[:whole].reshape(-1, count)
    return np.repeat(time[:whole:count], 2), np.stack([parts.min(1), parts.max(1)], 1).ravel()


def _draw_spectrograms(column: Any, signals: Tensor, sample_rate: float | None) -> Any:
    """On one scale for all; returns the last image."""
    length = signals.shape[1]
    size = max(1, min(round(0.032 * sample_rate) if sample_rate else 256, length))
    hop = max(1, size // 4, length // _POINTS)
    levels = _levels(signals.nan_to_num(), size, hop)
    missing = torch.nn.functional.pad(signals.isnan().double(), (size // 2, size // 2))
    levels[missing.unfold(1, size, hop).any(-1).unsqueeze(1).expand_as(levels)] = torch.nan
    top = sample_rate / 2000 if sample_rate else 0.5
    image = None
    for axes, level in zip(column, levels.numpy(), strict=True):
        axes.set_facecolor(_COLOUR)  # seen through what is NaN
        span = (0, max(length - 1, 1) / (sample_rate or 1), 0, top)
        image = axes.imshow(
            level, cmap="magma", vmin=_FLOOR, vmax=0, extent=span, origin="lower", aspect="auto",
            interpolation="nearest",
        )  # fmt: skip
        axes.set_ylabel("kHz" if sample_rate else "cycles per entry")
    return image


def _levels(signals: Tensor, size: int, hop: int) -> Tensor:
    """Power in dB below the largest, ``(signals, frequencies, times)``."""
    window = torch.hann_window(size, dtype=signals.dtype)
    spectra = torch.stft(signals, size, hop, window=window, pad_mode="constant", return_complex=True).abs()
    smallest = torch.finfo(spectra.dtype).tiny
    return 20 * (spectra / spectra.max().clamp(min=smallest)).clamp(min=10 ** (_FLOOR / 20)).log10()
