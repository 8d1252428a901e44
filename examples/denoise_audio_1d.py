"""Denoise speech: train a U-Net to take recorded and coloured noise away, and judge it beside two filters.

    python examples/denoise_audio_1d.py                   # telephone prompts, under ten minutes on two cores
    python examples/denoise_audio_1d.py --channels 16 32 64 --strides 4 8
    python examples/denoise_audio_1d.py --data clean/ --noise noises/ --sample-rate 16000

The network learns to find the clean recording in pure noise when it is shown the noisy one as a condition: a
single step then gives the mean of what may have been said, which has the least squared error.
Every run has a folder of its own under runs/ and a line in runs/results.csv. --resume goes on after Ctrl-C.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from _runs import NetworkOptions, begin, explained, fit, report, suggest
from _speech import gain, judge, recordings, show, times_real_time
from torch import Tensor

from dynunet import Diffusion, Trainer, UNet
from dynunet.nn.flags import with_flags

NETWORK = {
    "channels": (16, 32, 64, 128),
    "strides": ("4",) * 3,
    "kernel_size": (7,),
    "upsample": ("transpose",),
    "causal": ...,
    "lookahead": ...,
}


@dataclass
class Options(with_flags(NetworkOptions, NETWORK)):
    """Train a network to take noise off recordings and judge it beside classical filters."""

    data: Path | None = None
    """folder of clean recordings; telephone prompts if left out"""
    noise: Path | None = None
    """folder of recorded noises; four of them if left out. Every other noise is coloured"""
    snr: tuple[float, float] = (0.0, 10.0)
    """least and largest signal-to-noise ratio of the noisy recordings in dB"""
    sample_rate: int = 8000
    """in Hz; other files are resampled"""
    size: int = 8192
    """samples in a training example"""
    train_steps: int = 4000
    """of training"""
    batch_size: int = 2
    """training examples per step"""
    lr: float = 2e-3
    """peak learning rate"""


def main(options: Options) -> None:
    options, folder = begin(options, "audio")
    torch.manual_seed(options.seed)
    rate = options.sample_rate
    with explained(folder):
        unet = UNet(1, 1, cond_channels=1, time_embedding=True, **options.network())
        # The shift moves nearly all times of training to pure noise, from where a single step starts.
        diffusion = Diffusion(unet, prediction="sample", shift=1000)
        sources = options.data, options.noise
        pairs, held_out, tests = recordings(*sources, folder, options.size, sample_rate=rate, snr=options.snr)
    print(unet.summary((1, 1, options.size)))

    training = {"steps": options.train_steps, "batch_size": options.batch_size, "lr": options.lr}
    pictures = {"sample_every": 500, "sample_args": {"steps": 1}}
    more = {"validation": held_out, "loss": "l1", "ema": 0.995, "seed": options.seed}
    trainer = Trainer(diffusion, pairs, folder / "model", **training, **pictures, **more)
    model, seconds = fit(trainer, folder)

    def denoise(noisy: Tensor) -> Tensor:
        """The clean recording ``(1, T)``, as loud as it is in the noisy one."""
        cond = (noisy * gain(noisy)).unsqueeze(0)
        window = 8 * options.size  # bounds the memory that a long recording takes
        return model.sample(cond.shape, 1, cond=cond, window=window, progress=False)[0] / gain(noisy)

    show(denoise, tests, folder, pairs.units)
    figures = judge(denoise, tests, rate)
    figures["real-time"] = times_real_time(denoise, tests[0][1], rate)
    parameters = sum(p.numel() for p in unet.parameters())
    print()
    report(folder, options, {"parameters": str(parameters), "seconds": seconds, **figures})
    print(f"\nListen to {folder}/*.wav and look at {folder}/*.png. To try next:")
    suggest("--channels 16 32 64 --strides 4 8", "--causal True --norm layer", "--snr -5 5")


if __name__ == "__main__":
    main(tyro.cli(Options))
