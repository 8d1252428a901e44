"""Recordings for the audio examples: learnt from or judged by, all at one level, and drawn."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _runs import debian, keep
from torch import Tensor

from dynunet.data import FolderDataset, find, load, loudness, save
from dynunet.plotting import spectrogram

SPEECH, NOISE = "usr/share/asterisk/sounds/en_US_f_Allison", "usr/share/sonic-pi/samples"
NOISES = ("vinyl_hiss", "ambi_sauna", "loop_3d_printer", "ambi_lunar_land")  # of many samples, the noises
JUDGED = 60  # recordings at most that are held out
LEVEL = 0.25  # root mean square of what the network is given

WHOLE: dict[str, Any] = {
    "spatial_dims": 1,
    "channels": 1,
    "split": "all",
    "coloured": True,
}  # how all of them are read

Denoise = Callable[[Tensor], Tensor]
Test = tuple[Tensor, Tensor]  # a clean recording (C, T), and it with noise


def gain(x: Tensor) -> float:
    """The factor that brings x to the level that the network is trained at."""
    return 1 / loudness(x.numpy(), LEVEL)


def recordings(
    speech: Path | None, noise: Path | None, folder: Path, size: int, level: float | None = LEVEL, **how: Any
) -> tuple[FolderDataset, FolderDataset, list[Test]]:
    """Pairs to learn from, pairs to validate with, and whole recordings to judge by.

    A ninth of the recordings (60 at most) and the last quarter of every noise are held out.

    Args:
        speech, noise: folders; the Debian packages' if None.
        folder: of the run, where the parts of the noises are kept.
        size: of a pair, in samples.
        level: of the noisy part of every pair; None to leave them as they are.
        how: further options of FolderDataset.
    """
    names = NOISES if noise is None else None
    speech = debian(SPEECH, packages="asterisk-core-sounds-en-wav sonic-pi-samples", data=speech)
    noise = debian(NOISE, packages="sonic-pi-samples", data=noise, flag="--noise")
    noises = [file for file in find(noise) if names is None or file.stem in names]
    how |= WHOLE
    whole = FolderDataset(speech, size=(size,), **how)
    print(whole.report())
    clips = [clip for clip in find(speech) if clip not in whole.skipped]
    held = held_out(clips, whole.units)
    learn, judge = _divided(noises, folder / "noise", whole.units)
    others = [clip for clip in clips if clip not in held]
    pairs = FolderDataset(others, size=(size,), noise=learn, level=level, **how)
    validation = FolderDataset(held, size=(size,), noise=judge, level=level, **how)
    return pairs, validation, with_noise(held, judge, **how)


def with_noise(clips: Sequence[Path], noise: Path, **how: Any) -> list[Test]:
    """Whole recordings, each beside itself with noise that is always the same."""
    tests = []
    for i, clip in enumerate(clips):
        torch.manual_seed(i)
        item = FolderDataset([clip], noise=noise, **how | WHOLE)[0]
        tests.append((item["x0"], item["cond"]))
    return tests


def held_out(clips: Sequence[Path], units: dict[str, Any]) -> list[Path]:
    """Some at random, always the same."""
    return [clip for clip, _ in heard(clips, units, min(JUDGED, max(1, len(clips) // 9)))]


def heard(
    files: Sequence[Path], units: dict[str, Any], most: int, seconds: float = 0.5, seed: int = 0
) -> list[tuple[Path, Tensor]]:
    """Recordings ``(C, T)`` at random, always the same, that are so long and in which something is heard."""
    found: list[tuple[Path, Tensor]] = []
    for i in np.random.default_rng(seed).permutation(len(files)).tolist():
        try:
            x = load(files[i], units).x
        except ValueError:  # a few of the packages' files are empty
            continue
        if x.shape[-1] >= seconds * units["sample_rate"] and x.square().mean() > 1e-6:
            found.append((files[i], x))
        if len(found) == most:
            break
    return found


def _divided(files: Sequence[Path], out: Path, units: dict[str, Any]) -> tuple[Path, Path]:
    """Folders with the first three quarters of every noise and with the rest."""
    folders = out / "learn", out / "judge"
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        x = load(file, units).x
        cut = 3 * x.shape[-1] // 4
        for folder, part in zip(folders, (x[:, :cut], x[:, cut:]), strict=True):
            save(folder / f"{file.stem}.wav", part, units, overwrite=True)
    return folders


def show(denoise: Denoise, tests: Sequence[Test], folder: Path, units: dict[str, Any]) -> None:
    """Three tests as wav files, noisy, denoised and clean, and their spectrograms."""
    rate = units["sample_rate"]
    for i, (clean, noisy) in enumerate(tests[:3]):
        heard = {"noisy": noisy, "denoised": denoise(noisy), "clean": clean}
        for name, x in heard.items():
            save(folder / f"{i}-{name}.wav", x, units, overwrite=True)
        shown = torch.stack([*heard.values()])
        spectrogram(shown, folder / f"{i}.png", rate, labels=[*heard])
        if i == 0:
            keep(folder, **heard, sample_rate=torch.tensor(rate))
