"""Who speaks when: the truth of a clean recording, the classical answer from a noisy one, and the figures."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from _speech import Test, gain
from torch import Tensor
from torch.utils.data import Dataset

import convnd.functional as F
from dynunet.metrics import sensitivity, specificity

VOICE = "usr/share/asterisk/sounds/it_IT_m_Carlo"
FRAME = 0.03  # seconds over which power is measured
AUDIBLE = -45.0  # dB of full scale: speech that is weaker does not count

Detect = Callable[[Tensor], Tensor]  # from a noisy recording (1, T) to bool (T,)


def power(x: Tensor, sample_rate: int) -> Tensor:
    """Power of ``(1, T)`` in dB of full scale over the frame around every entry, ``(T,)``."""
    half = max(1, round(FRAME * sample_rate / 2))
    squares = F.pad(x.square(), (half, half), mode="replicate")
    return 10 * F.avg_pool(squares, 2 * half + 1, 1, spatial_dims=1)[0].clamp(min=1e-10).log10()


def speaking(clean: Tensor, sample_rate: int) -> Tensor:
    """Where speech is heard in a clean recording, bool ``(T,)``."""
    return power(clean, sample_rate) > AUDIBLE


class Voices(Dataset[dict[str, Tensor]]):
    """Noisy crops at one level, and where speech is heard."""

    def __init__(self, pairs: Any, sample_rate: int) -> None:
        self.pairs, self.sample_rate = pairs, sample_rate

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        item = self.pairs[index]
        target = speaking(item["x0"], self.sample_rate).long()
        return {"x0": item["cond"] * gain(item["cond"]), "target": target}


def threshold(tests: Sequence[Test], sample_rate: int) -> Detect:
    """Speech is where the power is so many dB above the noise, its tenth percentile: as does best here."""

    def above(noisy: Tensor) -> Tensor:
        level = power(noisy, sample_rate)
        return level - level.quantile(0.1)

    levels = torch.cat([above(noisy) for _, noisy in tests])
    truth = torch.cat([speaking(clean, sample_rate) for clean, _ in tests])
    best = max(range(31), key=lambda decibel: sum(shares(levels > decibel, truth)))
    return lambda noisy: above(noisy) > best


def shares(found: Tensor, truth: Tensor) -> tuple[float, float]:
    """How much of speech and how much of silence is found."""
    rows = found.long()[None], truth.long()[None], 2
    return sensitivity(*rows)[0, 1].item(), specificity(*rows)[0, 1].item()


def judge(methods: Mapping[str, Detect], voices: Mapping[str, Sequence[Test]], rate: int) -> dict[str, str]:
    """Print what every method finds of speech and of silence for each voice; return balanced accuracies."""
    figures = {}
    for voice, tests in voices.items():
        truth = torch.cat([speaking(clean, rate) for clean, _ in tests])
        print(f"\n{len(tests)} recordings of the {voice}, {truth.float().mean():.0%} of them speech:\n")
        print(f"  {'':12}speech found   silence found    mean")
        for name, detect in methods.items():
            speech, silence = shares(torch.cat([detect(noisy) for _, noisy in tests]), truth)
            figures[f"{name}, {voice}"] = f"{(speech + silence) / 2:.3f}"
            print(f"  {name:12}{speech:12.3f}{silence:16.3f}{(speech + silence) / 2:8.3f}")
    return figures


def draw(methods: Mapping[str, Detect], test: Test, rate: int, path: Path) -> None:
    """The noisy recording, and below it where speech is and where each method finds it."""
    from matplotlib.figure import Figure

    clean, noisy = test
    time = torch.arange(noisy.shape[-1]) / rate
    found = {"truth": speaking(clean, rate)} | {name: detect(noisy) for name, detect in methods.items()}
    figure = Figure((10, 2 + 0.5 * len(found)), layout="constrained")
    axes = figure.subplots(len(found) + 1, 1, sharex=True, height_ratios=[3] + [1] * len(found))
    axes[0].plot(time, noisy[0], linewidth=0.5)
    axes[0].set_ylabel("noisy")
    for ax, (name, where) in zip(axes[1:], found.items(), strict=True):
        ax.fill_between(time, where.float(), step="mid")
        ax.set(yticks=[], ylim=(0, 1))
        ax.set_ylabel(name, rotation=0, ha="right", va="center")
    axes[-1].set_xlabel("time in s")
    figure.savefig(path, dpi=100)
