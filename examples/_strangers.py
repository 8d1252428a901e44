"""What a network learns to take noise off speech from, and the strangers it is judged by.

It learns from women's prompts in three languages, in noises that are made of many: recorded sounds at other
speeds and through filters, other people's talk, noise of all colours that comes and goes. It is judged by a
man and a woman who speak a fourth language, in noises none of which was among them.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _runs import debian
from _speech import LEVEL, WHOLE, Test, heard, held_out
from scipy.signal import butter, resample, sosfiltfilt
from torch import Tensor

from dynunet.data import FolderDataset, find, load, save
from dynunet.data.degradation import coloured_noise, mixed

VOICES = ("en_US_f_Allison", "es_MX_f_Allison", "fr_CA_f_June")
STRANGERS = ("it_IT_m_Carlo", "it_IT_f_Menardi")
CROWD = "ru_RU_f_IvrvoiceRU"  # whose talk, several prompts at once, is a noise the strangers are heard in
UNHEARD = ("loop_3d_printer", "ambi_sauna", "vinyl_hiss")  # recorded noises they are heard in
SOUNDS, SAMPLES = "usr/share/asterisk/sounds", "usr/share/sonic-pi/samples"
PACKAGES = (
    "asterisk-core-sounds-en-wav asterisk-core-sounds-es-wav asterisk-core-sounds-fr-wav "
    "asterisk-core-sounds-it-wav asterisk-core-sounds-ru-wav asterisk-prompt-it-menardi-wav sonic-pi-samples"
)
_MADE, _SECONDS = 240, 8  # noises that are made to learn from, and how long each is
_PER_VOICE, _LONGEST = 30, 8  # recordings of a stranger, and seconds of each


@dataclass
class Speech:
    """Pairs to learn from, pairs to validate with, and whole recordings to judge by, of each kind."""

    pairs: FolderDataset
    validation: FolderDataset
    tests: dict[str, list[Test]]


def speech(
    data: Path | None, other: Path | None, noise: Path | None, folder: Path, size: int, **how: Any
) -> Speech:
    """Find recordings and noises, make the noises to learn from in ``folder / "noise"``, and divide all.

    Args:
        data, other: folders of clean recordings to learn from, and of strangers; the Debian packages'
            if None, but beside recordings of one's own there are no strangers unless they are given.
        noise: folder of recorded noises, of which the last quarter of each is judged by.
        folder: of the run.
        size: of a pair, in samples.
        how: sample_rate and snr of FolderDataset; what is learnt from has 5 dB less and more.
    """

    def places(given: Path | None, flag: str, *names: str) -> list[Path]:
        return [
            debian(name, packages=PACKAGES, data=given, flag=flag) for name in names[: 1 if given else None]
        ]

    voices = places(data, "--data", *(f"{SOUNDS}/{voice}" for voice in VOICES))
    strangers = () if data and not other else STRANGERS
    strangers = places(other, "--other", *(f"{SOUNDS}/{voice}" for voice in strangers))
    (noises,) = places(noise, "--noise", SAMPLES)
    how = {**WHOLE, **how, "size": (size,)}
    whole = FolderDataset([file for voice in voices for file in find(voice)], **how)
    print(whole.report())
    units, rng = whole.units, np.random.default_rng(0)
    clips = [file for voice in voices for file in find(voice) if file not in whole.skipped]
    held = held_out(clips, units)
    others = [clip for clip in clips if clip not in held]

    learnt, judged = _noises(find(noises), noise is None, units)
    if not data:
        (crowd,) = places(None, "", f"{SOUNDS}/{CROWD}")
        judged.append(_crowd(_samples(find(crowd), units, 200), 60 * units["sample_rate"], rng))
    talk = _samples(others, units, 300)
    made = _written(_made(learnt, talk, units, rng), folder / "noise" / "learn", units)
    _written(judged, folder / "noise" / "judge", units)

    low, high = snr = how.pop("snr")
    how |= {"snr": (low - 5, high + 5), "noise": made, "level": LEVEL}
    pairs, validation = (FolderDataset(files, **how) for files in (others, held))
    tests: dict[str, list[Test]] = {}
    for voice in strangers:
        chosen = [file for file, _ in heard(find(voice), units, _PER_VOICE, 1.0, seed=1)]
        tests.setdefault("strangers", []).extend(_tests(chosen, judged, units, snr))
    tests["voices it learnt"] = _tests(held, judged, units, snr)
    return Speech(pairs, validation, tests)


def _samples(files: Sequence[Path], units: dict[str, Any], most: int) -> list[np.ndarray]:
    """The first channels of some that are heard."""
    return [x[0].numpy() for _, x in heard(files, units, most, seed=1)]


def _noises(
    files: Sequence[Path], ours: bool, units: dict[str, Any]
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Noises to learn from, and others to judge by."""
    learnt, judged = [], []
    for file, sound in heard(files, units, len(files), seed=1):
        x = sound[0].numpy()
        if ours:
            (judged if file.stem in UNHEARD else learnt).append(x)
        else:
            cut = 3 * len(x) // 4
            learnt.append(x[:cut])
            judged.append(x[cut:])
    return learnt, judged


def _made(
    recorded: Sequence[np.ndarray],
    talk: Sequence[np.ndarray],
    units: dict[str, Any],
    rng: np.random.Generator,
) -> Iterator[np.ndarray]:
    """Noises: recorded ones, talk and coloured ones, through filters; of some two at once."""
    size = _SECONDS * units["sample_rate"]

    def one() -> np.ndarray:
        kind = rng.random()
        if kind < 0.45:
            x = _faster(recorded[int(rng.integers(len(recorded)))], np.exp(rng.uniform(-0.7, 0.7)))
            noise = np.resize(np.roll(x, rng.integers(len(x))), size)
        elif kind < 0.75:
            noise = _faster(_crowd(talk, int(1.3 * size), rng), np.exp(rng.uniform(-0.4, 0.25)))[:size]
        else:
            noise = coloured_noise((1, size), rng.uniform(-0.5, 2.5))[0].numpy()
            wave = np.sin(2 * np.pi * np.arange(size) / units["sample_rate"] * rng.uniform(0.3, 12))
            noise = noise * (1 + rng.uniform(0, 1) * wave)
        noise = _filtered(noise - noise.mean(), rng)
        return noise / max(noise.std(), 1e-6)

    torch.manual_seed(0)
    for _ in range(_MADE):
        yield one() + (rng.uniform(0.3, 1) * one() if rng.random() < 0.3 else 0)


def _crowd(talk: Sequence[np.ndarray], size: int, rng: np.random.Generator) -> np.ndarray:
    """Three to eight people, each saying one thing after the other."""
    total = np.zeros(size)
    for _ in range(rng.integers(3, 9)):
        said = [talk[int(rng.integers(len(talk)))] for _ in range(1 + size // max(map(len, talk)))]
        one = np.resize(np.concatenate(said), size)
        total += np.roll(one, rng.integers(size)) / max(one.std(), 1e-4) * rng.uniform(0.4, 1)
    return total


def _faster(x: np.ndarray, factor: float) -> np.ndarray:
    return np.asarray(resample(x, max(2, round(len(x) / factor))))


def _filtered(x: np.ndarray, rng: np.random.Generator, decibel: float = 8) -> np.ndarray:
    """Through a smooth filter of six random gains, evenly apart in pitch."""
    frequencies = np.fft.rfftfreq(len(x))
    places = np.log(np.geomspace(0.01, 0.5, 6))
    gains = np.interp(np.log(np.maximum(frequencies, 0.01)), places, rng.uniform(-decibel, decibel, 6))
    return np.fft.irfft(np.fft.rfft(x) * 10 ** (gains / 20), len(x))


def _written(noises: Iterable[np.ndarray], out: Path, units: dict[str, Any]) -> Path:
    out.mkdir(parents=True, exist_ok=True)
    for i, x in enumerate(noises):
        quiet = torch.from_numpy(np.float32(0.9 * x / max(np.abs(x).max(), 1e-6)))
        save(out / f"{i:03}.wav", quiet[None], units, overwrite=True)
    return out


def _without_rumble(x: Tensor, units: dict[str, Any]) -> Tensor:
    """What is below 70 Hz is no speech, and one of the strangers has a fiftieth of the power there."""
    high = butter(4, 70, "highpass", fs=units["sample_rate"], output="sos")
    return torch.from_numpy(sosfiltfilt(high, x.double().numpy()).astype(np.float32))


def _tests(
    clips: Sequence[Path], noises: Sequence[np.ndarray], units: dict[str, Any], snr: tuple[float, float]
) -> list[Test]:
    """Recordings of some seconds, each beside itself with noise, recorded or pink, always the same."""
    tests, rng = [], np.random.default_rng(2)
    torch.manual_seed(0)
    for i, clip in enumerate(clips):
        clean = _without_rumble(load(clip, units).x, units)[:, : _LONGEST * units["sample_rate"]]
        size, kind = clean.shape[1], i % (len(noises) + 1)
        if kind == len(noises):
            noise = coloured_noise((1, size), 1.0)
        else:
            x = noises[kind]
            noise = torch.from_numpy(np.float32(np.resize(np.roll(x, -rng.integers(len(x))), size)))[None]
        noisy = mixed(clean, noise - noise.mean(), rng.uniform(*snr))
        loud = max(float(noisy.abs().max()), 1.0)
        tests.append((clean / loud, noisy / loud))
    return tests
