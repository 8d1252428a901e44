"""Find where somebody speaks: a 1-D U-Net marks every sample of noisy recordings of a voice it never heard.

    python examples/detect_speech_1d.py
    python examples/detect_speech_1d.py --snr -5 5
    python examples/detect_speech_1d.py --data clean/ --noise noises/ --other another-voice/

It learns from a woman's telephone prompts in English with recorded and coloured noise, and is judged on a
man's in Italian, with parts of the noises that it has not heard. Where speech is, the clean recordings say.
Every run has a folder of its own under runs/ and a line in runs/results.csv.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from _runs import NetworkOptions, begin, debian, explained, fit, report, suggest
from _speech import gain, held_out, recordings, with_noise
from _voices import VOICE, Voices, draw, judge, threshold
from torch import Tensor

from dynunet import Supervised, Trainer, UNet
from dynunet.data import find
from dynunet.nn.flags import with_flags

NETWORK = {"channels": (8, 16, 32, 64), "strides": ("4",) * 3, "kernel_size": (7,), "num_groups": 4}


@dataclass
class Options(with_flags(NetworkOptions, NETWORK)):
    """Train a network to mark speech in noise and judge it on another voice."""

    data: Path | None = None
    """folder of clean recordings; an English woman's telephone prompts if left out"""
    other: Path | None = None
    """folder of clean recordings of another voice; an Italian man's prompts if left out"""
    noise: Path | None = None
    """folder of recorded noises; four of them if left out. Every other noise is coloured"""
    snr: tuple[float, float] = (0.0, 10.0)
    """least and largest signal-to-noise ratio of the noisy recordings in dB"""
    sample_rate: int = 8000
    """in Hz; other files are resampled"""
    size: int = 8192
    """samples in a training example"""
    train_steps: int = 1500
    """of training"""
    batch_size: int = 4
    """training examples per step"""
    lr: float = 2e-3
    """peak learning rate"""


def main(options: Options) -> None:
    options, folder = begin(options, "speech")
    torch.manual_seed(options.seed)
    rate = options.sample_rate
    how: dict[str, Any] = {"sample_rate": rate, "snr": options.snr}
    with explained(folder):
        unet = UNet(1, 1, 2, **options.network())
        other = debian(VOICE, packages="asterisk-core-sounds-it-wav", data=options.other, flag="--other")
        sources = options.data, options.noise
        pairs, _, tests = recordings(*sources, folder, options.size, level=None, **how)
        unheard = held_out(find(other), pairs.units)
        voices = {"voice": tests, "other voice": with_noise(unheard, folder / "noise" / "judge", **how)}
    print(unet.summary((1, 1, options.size)))
    training: dict[str, Any] = {"steps": options.train_steps, "batch_size": options.batch_size}
    training |= {"lr": options.lr, "seed": options.seed, "ema": 0.99, "sample_every": 0}
    trainer = Trainer(Supervised(unet), Voices(pairs, rate), folder / "model", **training)
    model, seconds = fit(trainer, folder)

    def detect(noisy: Tensor) -> Tensor:
        return model.predict((noisy * gain(noisy)).unsqueeze(0), window=8 * options.size)[0] == 1

    methods = {"threshold": threshold(tests, rate), "network": detect}
    figures = judge(methods, voices, rate)
    draw(methods, voices["other voice"][0], rate, folder / "other.png")
    print()
    report(folder, options, {"seconds": seconds, **figures})
    print(f"\nLook at {folder}/other.png. To try next:")
    suggest("--snr -5 5", "--channels 8 16 32 --strides 4 8", "--norm none")


if __name__ == "__main__":
    main(tyro.cli(Options))
