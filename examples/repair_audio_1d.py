"""Repair speech: gaps of 20 ms and clipped peaks, by what a network knows of clean speech alone.

    python examples/repair_audio_1d.py                   # telephone prompts
    python examples/repair_audio_1d.py --channels 32 64 128 --strides 4 4
    python examples/repair_audio_1d.py --data clean/ --other voice/ --sample-rate 16000

The network learns what speech of a given spectrum is like, from three voices at many speeds, and nothing of
damage. What is left of another voice is repaired by a classical method, which tells the spectrum; samples of
what was said are drawn given both. Their mean is the answer, and tells the spectrum again, better.
Every run has a folder of its own under runs/ and a line in runs/results.csv. --resume goes on after Ctrl-C.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from _repair import (
    LEVEL,
    Speech,
    autoregressive,
    clipped,
    crop,
    cubic,
    draw,
    judge,
    recordings,
    repaired,
    with_gaps,
)
from _runs import NetworkOptions, begin, debian, explained, fit, report, suggest
from _spectral import BANDS, FOLD, SCHEDULE, Refined
from _speech import SPEECH
from _voices import VOICE

from dynunet import Diffusion, Trainer, UNet
from dynunet.diffusion import LogNormal
from dynunet.nn.flags import with_flags

NETWORK = {
    "channels": (64, 128),
    "strides": ("4",),
    "kernel_size": (5,),
    "upsample": ("transpose",),
    "mid_attention": "full",
}
LEARNT = SPEECH, *(str(Path(SPEECH).parent / name) for name in ("fr_CA_f_June", "ru_RU_f_IvrvoiceRU"))
PACKAGES = " ".join(f"asterisk-core-sounds-{language}-wav" for language in ("en", "fr", "ru", "it"))


@dataclass
class Options(with_flags(NetworkOptions, NETWORK)):
    """Train a network on clean speech and repair another voice by it."""

    data: Path | None = None
    """folder of clean recordings to learn from; telephone prompts by three women if left out"""
    other: Path | None = None
    """folder of clean recordings of another voice; an Italian man's telephone prompts if left out"""
    sample_rate: int = 8000
    """in Hz; other files are resampled"""
    size: int = 512
    """samples in a training example, and in what is repaired; a multiple of 4"""
    train_steps: int = 1500
    """of training"""
    batch_size: int = 16
    """training examples per step"""
    lr: float = 2e-3
    """peak learning rate"""
    count: int = 48
    """recordings that are repaired"""
    num_samples: int = 8
    """of each of them; an even number"""
    sample_steps: int = 20
    """of the sampler"""


def main(options: Options) -> None:
    options, folder = begin(options, "repair")
    torch.manual_seed(options.seed)
    size, rate = options.size, options.sample_rate
    with explained(folder):
        for name, value, of in (("size", size, FOLD), ("num-samples", options.num_samples, 2)):
            if value % of:
                raise ValueError(f"--{name} must be a multiple of {of}, got {value}")
        voices = [debian(voice, packages=PACKAGES, data=options.data) for voice in LEARNT]
        other = debian(VOICE, packages=PACKAGES, data=options.other, flag="--other")
        learnt = [x for voice in dict.fromkeys(voices) for x in recordings(voice, size, rate)]
        data, others = Speech(learnt, size), recordings(other, size, rate)
        unet = UNet(1, 2 * FOLD, FOLD, time_embedding=True, cond_features=BANDS, **options.network())
        weighting = LogNormal(mean=-2.0, std=1.2, sigma_data=LEVEL)
        diffusion = Diffusion(Refined(unet), SCHEDULE, "sample", weighting)
    print(unet.summary((1, 2 * FOLD, size // FOLD)))
    training: dict[str, Any] = {"steps": options.train_steps, "batch_size": options.batch_size}
    training |= {"lr": options.lr, "sample_every": 0, "ema": 0.995, "seed": options.seed}
    model, seconds = fit(Trainer(diffusion, data, folder / "model", **training), folder)

    torch.manual_seed(0)  # the same recordings, whatever was learnt
    chosen = torch.randperm(len(others))[: options.count].tolist()
    clean = torch.stack([crop(others[i], size) for i in chosen])
    figures: dict[str, str] = {}
    for name, damage in {"gaps": with_gaps(clean, rate), "clipped": clipped(clean)}.items():
        answers = {"nothing": damage.y, "cubic": cubic(damage), "autoregressive": autoregressive(damage)}
        how = {"num_samples": options.num_samples, "steps": options.sample_steps}
        samples = repaired(model, damage, answers["autoregressive"], **how)
        answers |= {"a sample": samples[0], "network": samples.mean(0)}
        found = judge(name, damage, answers)
        figures |= {f"{name}, {method}": x for method, x in found.items()}
        draw(damage, answers, samples, rate, folder / f"{name}.png")
    report(folder, options, {"seconds": seconds, **figures})
    print(f"\nLook at {folder}/*.png. To try next:")
    suggest("--train-steps 6000", "--channels 32 64 128 --strides 4 4", "--num-samples 32")


if __name__ == "__main__":
    main(tyro.cli(Options))
