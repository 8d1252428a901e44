"""Recordings with gaps or that were too loud: read, damaged, repaired by hand, judged and drawn."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from _spectral import model_of, opposite, spectrum
from scipy.interpolate import CubicSpline
from scipy.linalg import toeplitz
from torch import Tensor
from torch.utils.data import Dataset

import convnd.functional as F
from dynunet import Diffusion
from dynunet.data import FolderDataset, find, load, loudness
from dynunet.diffusion import MMPS
from dynunet.metrics import si_sdr, snr
from dynunet.operators import Clip, Mask

LEVEL = 0.25  # root mean square of the recordings
SPEED = 0.5, 1.1  # of what is learnt from: a slower voice is a lower one, a man's from a woman's
GAP = 0.02  # seconds
CLIPPED = 0.2  # share of the entries that are beyond the limit
# Of the autoregressive model that repairs: the best for a voice that is learnt from, of eight from 16 to 96.
ORDERS = {"gaps": 64, "clipped": 24}
AROUND = 512  # entries around a gap that it looks at: speech soon changes, and 1024 are worse
DOUBT = 5, 40  # dB by which a recording is above the noise in what its spectrum is taken of, in training
ROUNDS = 5  # of finding the model and the values in turn
SPECTRA = 2  # rounds of samples, each given the spectrum of what was found before


def recordings(folder: Path, size: int, sample_rate: int) -> list[Tensor]:
    """All recordings ``(1, T)`` in which something is heard and that are longer than a crop, at one level."""
    whole = FolderDataset(folder, 1, size=(size,), channels=1, split="all", sample_rate=sample_rate)
    print(whole.report())
    read = [load(path, whole.units).x for path in find(folder) if path not in whole.skipped]
    heard = [x for x in read if x.shape[-1] > 2 * size and x.square().mean() > 1e-6]
    return [x / loudness(x.numpy(), LEVEL) for x in heard]


def crop(x: Tensor, size: int) -> Tensor:
    """A crop of a recording at a random place where somebody speaks."""
    while True:
        start = int(torch.randint(x.shape[-1] - size + 1, ()))
        part = x[:, start : start + size]
        if part.square().mean().sqrt() > LEVEL / 2:
            return part


class Speech(Dataset[dict[str, Tensor]]):
    """Crops ``(1, size)`` at random speeds and levels, and what is known of their spectra."""

    def __init__(self, recordings: Sequence[Tensor], size: int) -> None:
        self.recordings, self.size = recordings, size

    def __len__(self) -> int:
        return len(self.recordings)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        speed = torch.empty(()).uniform_(*SPEED).item()
        part = crop(self.recordings[index], round(speed * self.size))
        level = torch.empty(()).uniform_(0.5, 1.2)
        x0 = level * F.interpolate(part.unsqueeze(0), size=(self.size,), mode="cubic")[0]
        noise = x0.square().mean().sqrt() * 10 ** (-torch.empty(()).uniform_(*DOUBT) / 20)
        heard = x0 + noise * torch.randn_like(x0)
        return {"x0": x0, "spectrum": spectrum(heard.unsqueeze(0))[0]}


class Damage(NamedTuple):
    """Damaged recordings ``(N, 1, T)``, what they were, and where they are wrong."""

    kind: str
    y: Tensor
    clean: Tensor
    wrong: Tensor
    limit: float = torch.inf


def with_gaps(clean: Tensor, sample_rate: int) -> Damage:
    """A gap in the middle of each."""
    length = round(GAP * sample_rate)
    at = torch.arange(clean.shape[-1]) - (clean.shape[-1] - length) // 2
    wrong = ((at >= 0) & (at < length)).expand_as(clean)
    return Damage("gaps", clean.where(~wrong, 0), clean, wrong)


def clipped(clean: Tensor) -> Damage:
    """All at one limit, each brought to where it is beyond that for a share of its entries."""
    limit = 0.8 * LEVEL
    clean = clean * limit / clean.abs().quantile(1 - CLIPPED, dim=-1, keepdim=True)
    return Damage("clipped", clean.clamp(-limit, limit), clean, clean.abs() >= limit, limit)


def cubic(damage: Damage) -> Tensor:
    """Splines through what is right; where that was at the limit, at least as far as it."""

    def one(y: np.ndarray, wrong: np.ndarray) -> np.ndarray:
        places = np.flatnonzero(~wrong)
        return CubicSpline(places, y[places])(np.arange(len(y)))

    return _each(one, damage)


def autoregressive(damage: Damage) -> Tensor:
    """The values that leave the least errors to an autoregressive model (Janssen et al. 1986).

    Model and values are found in turn, for each recording its own; at a limit, values are at least that.
    """
    order, length = ORDERS[damage.kind], damage.y.shape[-1]
    margin = max(0, length - AROUND) // 2 if damage.kind == "gaps" else 0

    def one(y: np.ndarray, wrong: np.ndarray) -> np.ndarray:
        places, x = np.flatnonzero(wrong), y
        for _ in range(ROUNDS):
            model, _ = model_of(x, order)
            squares = np.correlate(model, model, "full")
            matrix = toeplitz(np.pad(squares[order:], (0, len(x) - order - 1)))[np.ix_(places, places)]
            from_known = np.convolve(np.where(wrong, 0, y), squares, "same")[places]
            x = y.copy()
            x[places] = np.linalg.solve(matrix, -from_known)
        return x

    def near(y: np.ndarray, wrong: np.ndarray) -> np.ndarray:
        inside = slice(margin, length - margin)
        return np.concatenate([y[:margin], one(y[inside], wrong[inside]), y[length - margin :]])

    return _each(near, damage)


def repaired(model: Diffusion, damage: Damage, guess: Tensor, **how: Any) -> Tensor:
    """Samples ``(num_samples, N, 1, T)`` of what was damaged, from a guess, which tells the spectrum."""
    for _ in range(SPECTRA - 1):
        guess = drawn(model, damage, spectrum(guess), **how).mean(0)
    return drawn(model, damage, spectrum(guess), **how)


def drawn(model: Diffusion, damage: Damage, spectra: Tensor, *, num_samples: int, steps: int) -> Tensor:
    """Samples ``(num_samples, N, 1, T)`` of what recordings of given spectra may have been.

    Fine structure has to be known to fill a gap, so the equations are solved well; without fresh noise in
    each step the mean of two opposite samples is nearly exact. Limits are not linear: there noise helps.
    """
    how: dict[str, Any] = {"num_samples": num_samples, "steps": steps, "spectrum": spectra}
    how |= {"generator": opposite, "batch_size": 2 * max(1, 128 // len(damage.y))}
    if damage.kind == "gaps":
        return model.reconstruct(damage.y, Mask(~damage.wrong), method=MMPS(16), **how)
    limits = Clip(-damage.limit, damage.limit)
    return model.reconstruct(damage.y, limits, method=MMPS(3), sampler="dpmpp_2m_sde", **how)


def _each(one: Callable[[np.ndarray, np.ndarray], np.ndarray], damage: Damage) -> Tensor:
    """A function of a recording and of where it is wrong, applied to each."""
    rows = [one(y[0], w[0]) for y, w in zip(damage.y.double().numpy(), damage.wrong.numpy(), strict=True)]
    x = torch.from_numpy(np.stack(rows)).float().unsqueeze(1)
    beyond = torch.where(damage.y > 0, x.clamp(min=damage.limit), x.clamp(max=-damage.limit))
    return beyond.where(damage.wrong, damage.y) if damage.limit < torch.inf else x


def judge(title: str, damage: Damage, answers: Mapping[str, Tensor]) -> dict[str, str]:
    """Print how near each answer is to the truth, means over the recordings, and return the SI-SDR."""
    figures = {}
    print(f"\n{title}, {len(damage.y)} recordings, mean SI-SDR, and SNR where they were wrong, in dB:\n")
    for name, x in answers.items():
        found, there = si_sdr(x, damage.clean), snr(x, damage.clean, damage.wrong)
        figures[name] = f"{found.mean():.2f}"
        print(f"  {name:16}{found.mean():7.2f}{there.mean():8.2f}")
    return figures


def draw(damage: Damage, answers: Mapping[str, Tensor], samples: Tensor, rate: int, path: Path) -> None:
    """Some recordings where they were wrong: the truth, what is known, the answers and the samples."""
    from matplotlib.figure import Figure

    figure = Figure((12, 9), layout="constrained")
    middle = damage.y.shape[-1] // 2
    near = slice(max(0, middle - 240), middle + 240)
    time = torch.arange(near.start, min(near.stop, damage.y.shape[-1])) / rate * 1000
    for i, ax in enumerate(figure.subplots(min(4, len(damage.y)), 1, squeeze=False)[:, 0]):
        for x in samples[:8, i, 0, near]:
            ax.plot(time, x, color="tab:orange", linewidth=0.4, alpha=0.6)
        known = damage.y[i, 0].where(~damage.wrong[i, 0], torch.nan)
        ax.plot(time, damage.clean[i, 0, near], color="black", linewidth=1, label="truth")
        ax.plot(time, answers["autoregressive"][i, 0, near], "--", color="tab:blue", label="autoregressive")
        ax.plot(time, answers["network"][i, 0, near], color="tab:orange", label="network")
        ax.plot(time, known[near], color="0.6", linewidth=3, label="what is known", zorder=0)
        ax.set_xlim(time[0].item(), time[-1].item())
    figure.axes[0].legend(loc="upper right", ncols=4, title="thin: samples")
    figure.axes[-1].set_xlabel("time in ms")
    figure.savefig(path, dpi=100)
