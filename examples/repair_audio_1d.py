"""Repair speech: gaps of 20 ms and clipped peaks, by what a network knows of clean speech alone.

    python examples/repair_audio_1d.py                   # telephone prompts
    python examples/repair_audio_1d.py --channels 16 32 64 --strides 4 8
    python examples/repair_audio_1d.py --data clean/ --other voice/ --sample-rate 16000

The network learns what speech is like, from one voice at many speeds, and nothing about damage. Samples of
what was said are drawn given what is left of another voice; their mean has the least squared error.
Every run has a folder of its own under runs/ and a line in runs/results.csv. --resume goes on after Ctrl-C.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from _repair import Speech, autoregressive, clipped, crop, cubic, draw, judge, recordings, with_gaps
from _runs import NetworkOptions, begin, debian, explained, fit, report, suggest
from _speech import SPEECH
from _voices import VOICE

from dynunet import Diffusion, Trainer, UNet
from dynunet.nn.flags import with_flags
from dynunet.operators import Clip, Mask

NETWORK = {
    "channels": (16, 32, 64, 128),
    "strides": ("4",) * 3,
    "kernel_size": (7,),
    "upsample": ("transpose",),
    "attention": ("none", "none", "none", "full"),
}


@dataclass
class Options(with_flags(NetworkOptions, NETWORK)):
    """Train a network on clean speech and repair another voice by it."""

    data: Path | None = None
    """folder of clean recordings to learn from; an English woman's telephone prompts if left out"""
    other: Path | None = None
    """folder of clean recordings of another voice; an Italian man's telephone prompts if left out"""
    sample_rate: int = 8000
    """in Hz; other files are resampled"""
    size: int = 1024
    """samples in a training example, and in what is repaired"""
    train_steps: int = 4000
    """of training"""
    batch_size: int = 8
    """training examples per step"""
    lr: float = 2e-3
    """peak learning rate"""
    count: int = 24
    """recordings that are repaired"""
    num_samples: int = 8
    """of each of them"""
    sample_steps: int = 10
    """of the sampler"""


def main(options: Options) -> None:
    options, folder = begin(options, "repair")
    torch.manual_seed(options.seed)
    size, rate = options.size, options.sample_rate
    with explained(folder):
        packages = "asterisk-core-sounds-en-wav asterisk-core-sounds-it-wav"
        voice = debian(SPEECH, packages=packages, data=options.data)
        other = debian(VOICE, packages=packages, data=options.other, flag="--other")
        data, others = Speech(recordings(voice, size, rate), size), recordings(other, size, rate)
        unet = UNet(1, 1, time_embedding=True, **options.network())
        # Most of speech is faint: the shift is to less noise.
        diffusion = Diffusion(unet, prediction="edm", sigma_data=0.25, shift=0.3)
    print(unet.summary((1, 1, size)))
    training: dict[str, Any] = {"steps": options.train_steps, "batch_size": options.batch_size}
    training |= {"lr": options.lr, "sample_every": 0, "ema": 0.995, "seed": options.seed}
    model, seconds = fit(Trainer(diffusion, data, folder / "model", **training), folder)

    torch.manual_seed(0)  # the same recordings, whatever was learnt
    chosen = torch.randperm(len(others))[: options.count].tolist()
    clean = torch.stack([crop(others[i], size) for i in chosen])
    figures: dict[str, str] = {}
    for name, damage in {"gaps": with_gaps(clean, rate), "clipped": clipped(clean)}.items():
        operator = Mask(~damage.wrong) if name == "gaps" else Clip(-damage.limit, damage.limit)
        how: dict[str, Any] = {"num_samples": options.num_samples, "steps": options.sample_steps}
        how |= {"sampler": "dpmpp_2m_sde", "batch_size": max(1, 64 // len(clean))}
        samples = model.reconstruct(damage.y, operator, **how)
        answers = {"nothing": damage.y, "cubic": cubic(damage), "autoregressive": autoregressive(damage)}
        answers |= {"a sample": samples[0], "network": samples.mean(0)}
        found = judge(name, damage, answers)
        figures |= {f"{name}, {method}": x for method, x in found.items()}
        draw(damage, answers, samples, rate, folder / f"{name}.png")
    report(folder, options, {"seconds": seconds, **figures})
    print(f"\nLook at {folder}/*.png. To try next:")
    suggest("--size 2048", "--channels 16 32 64 --strides 4 8 --attention none", "--num-samples 32")


if __name__ == "__main__":
    main(tyro.cli(Options))
