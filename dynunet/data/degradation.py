"""Degraded versions of clean examples: pairs, or recorded or coloured noise at a random level.

The power of a signal is that of its deviation from its mean, over the entries that are there, and at least
1e-5 (-50 dB of full scale), so that a silent crop does not make the noise vanish. The noise is scaled to
``10 log10(P_signal / P_noise) = snr``. All randomness is of torch's global generator.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from .errors import UnreadableError, attempt, count, shown
from .files import search
from .formats import Header
from .formats.format import most, times
from .memory import Cache
from .options import DataOptions
from .pairing import Others
from .selection import File, Selection, mixes_noise, weighted, wrong_channels, wrong_kind
from .spec import DataSpec
from .values import random_place, squared_frequencies, with_gain

_LEAST_POWER = 1e-5
_CODEC = 0.05  # seconds by which recordings of one pair may differ at the end, a tenth of them at most
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
    squares = squared_frequencies(shape[1:])
    gain = squares.clamp(min=torch.finfo(torch.float32).tiny) ** (-exponent / 4)
    gain = torch.where(squares == 0, 0, gain)
    noise = with_gain(torch.randn(*shape), gain)
    power = noise.square().mean(tuple(range(1, noise.ndim)), keepdim=True)
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


class Degradation(Protocol):
    """What is made of an example to learn from."""

    files: "NoiseFiles | None"  # of recorded noise

    def __call__(
        self, x: Tensor, mask: Tensor, gain: float, cache: Cache, /
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The target, what it is to be predicted from, and where it counts.

        Args:
            x: as it is in a file, ``(C, *spatial)``.
            mask: bool, in the shape of x: which entries are there.
            gain: by how much numbers of the file change where those of x change by 1.
            cache: of decoded files.
        """
        ...


@dataclass
class NoiseFiles:
    """Recorded noise, in random segments; what is shorter than the segment is repeated."""

    headers: list[Header]
    spec: DataSpec
    failed: dict[Path, str] = field(default_factory=dict)

    def segment(self, shape: Sequence[int], cache: Cache) -> Tensor:
        """Noise of mean 0, ``(C, *spatial)``, of any power; zeros if segment after segment has none.

        Raises:
            ValueError: segment after segment cannot be read, or has values that are no numbers.
        """
        spec, why, silent = replace(self.spec, channels=shape[0]), "", False
        for _ in range(_TRIES):
            header = self.headers[int(torch.randint(len(self.headers), ()))]
            grid = header.format.grid(header, spec)
            region = random_place(grid, shape[1:])
            index = int(torch.randint(header.entries, ()))
            try:
                values = attempt(lambda h=header, n=index, r=region: h.format.read(h, n, spec, cache, r))
                if not np.isfinite(values).all():
                    raise UnreadableError("it has values that are NaN or infinite")
            except UnreadableError as error:
                self.failed[header.path] = str(error)
                why = why or f"{shown(header.path)}: {error}"
                continue
            silent, values = True, values.astype(np.float64) - values.mean(dtype=np.float64)
            power = np.square(values).sum() / prod(values.shape)
            if power > 1e-12 * max(np.square(values).max(), 1e-12):
                short = [(0, 0)] + [(0, s - n) for s, n in zip(shape[1:], values.shape[1:], strict=True)]
                return torch.from_numpy(np.pad(values, short, mode="wrap").astype(np.float32))
        if not silent:
            raise ValueError(f"noise must be files that can be read, and of numbers, got {why}")
        return torch.zeros(*shape)


@dataclass
class NoiseDegradation:
    """Noise on the fly, recorded or coloured; where both are asked for, either with equal probability."""

    snr: tuple[float, float]
    coloured: bool
    files: NoiseFiles | None
    below_full_scale: bool

    def __call__(
        self, clean: Tensor, mask: Tensor, gain: float, cache: Cache
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Clean, noisy and the mask. Of audio, both are made quieter together where the noisy would clip."""
        recorded = self.files is not None and not (self.coloured and torch.rand(()) < 0.5)
        if recorded and self.files is not None:
            noise = self.files.segment(clean.shape, cache)
        else:
            noise = coloured_noise(clean.shape, 2 * float(torch.rand(())))
        low, high = self.snr
        noisy = mixed(clean, noise, low + (high - low) * float(torch.rand(())), mask)
        peak = noisy.abs().max()
        if self.below_full_scale and peak > 1:
            clean, noisy = clean / peak, noisy / peak
        return torch.where(mask, clean, 0), noisy, mask


def paired(
    files: list[File], root: Path, options: DataOptions, spec: DataSpec, selection: Selection
) -> tuple[DataSpec, list[File]]:
    """Each clean file with the degraded one at the same relative path, whatever their suffixes."""
    assert options.pairs is not None
    alike = replace(options, labels=None, spatial_dims=spec.spatial_dims)
    others = Others(options.pairs, "pairs", files, root, alike, selection)
    cond = replace(spec, channels=most(f.header.channels for f in weighted(others.files)), size=None)

    def accept(file: File, pair: File) -> str | None:
        header = pair.header
        wrong = wrong_kind(header, spec.kind, spec.spatial_dims) or wrong_channels(header, cond.channels)
        if wrong is not None:
            return f"its pair: {wrong}"
        pair.grid = attempt(lambda: header.format.grid(header, cond))
        _shorten(file, pair, spec.sample_rate, selection)
        if pair.grid != file.grid or header.entries != file.header.entries:
            sizes = f"{header.entries} x {times(pair.grid)}, not {file.header.entries} x {times(file.grid)}"
            return f"its pair has another size: {sizes}"
        file.pair = pair
        return None

    return cond, others.match(files, accept, "there is no clean file of its name")


def _shorten(file: File, pair: File, rate: int | None, selection: Selection) -> None:
    """Recordings that differ by some samples at the end, as codecs leave them, are used as far as both go."""
    if rate is None or pair.grid == file.grid:
        return
    (clean,), (degraded,) = file.grid, pair.grid
    if abs(clean - degraded) <= min(_CODEC * rate, clean / 10):
        than = "less" if degraded < clean else "more"
        other = count(abs(clean - degraded), "sample")
        selection.partly[file.header.path] = f"its pair has {other} {than} at the end"
        file.grid = pair.grid = (min(clean, degraded),)


def recorded_noise(options: DataOptions, spec: DataSpec, selection: Selection) -> list[Header]:
    """The files of recorded noise; the channels may be mixed or copied."""
    if options.noise is None:
        return []
    others = replace(options, labels=None, spatial_dims=spec.spatial_dims)
    found = search(options.noise, "noise")
    selection.skipped.update(found.unusable)
    files = selection.read_headers(found.files, others)

    def wrong(file: File) -> str | None:
        header = file.header
        why = wrong_kind(header, spec.kind, spec.spatial_dims) or wrong_channels(header, spec.channels)
        return why if why or options.self_supervised is None else _changed(file, spec)

    return [f.header for f in selection.keep(files, wrong)]


def _changed(file: File, spec: DataSpec) -> str | None:
    """Why noise would not be as strong, or as correlated, once it is read, as it is in its file."""
    header = file.header
    file.grid = attempt(lambda: header.format.grid(header, spec))
    if header.format.scale(spec, header).gain != header.format.scale(spec).gain:
        other = f"those of the noisy files {spec.stored}, of another full scale"
        return f"its numbers are {header.stored}, {other}"
    return mixes_noise(file, spec)
