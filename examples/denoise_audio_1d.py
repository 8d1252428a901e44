"""Denoise speech: train a U-Net on several voices and many noises, and judge it by voices it never heard.

    python examples/denoise_audio_1d.py                   # telephone prompts, an hour of one core or less
    python examples/denoise_audio_1d.py --train-steps 500
    python examples/denoise_audio_1d.py --data clean/ --other strangers/ --noise noises/ --sample-rate 16000

The U-Net hears the short-time spectrum of a noisy recording, a picture of times and frequencies, and gives a
mask for it. With ``--causal True`` it can do so while the sound comes; with ``--n-fft 0`` it is on the
waveform instead.
Every run has a folder of its own under runs/ and a line in runs/results.csv. --resume goes on after Ctrl-C.
"""

from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

import torch
import tyro
from _denoisers import compare
from _runs import NetworkOptions, begin, explained, fit, report, suggest
from _speech import gain, show
from _strangers import speech
from torch import Tensor

from dynunet import Diffusion, SpectralMask, Trainer, UNet
from dynunet.data import Augment
from dynunet.nn.flags import with_flags

POWER = 0.6  # of masks, chosen by PESQ and STOI of two women who are neither learnt from nor judged by
NETWORK = {
    "channels": (32, 64, 128),
    "strides": ("2",),
    "kernel_size": ...,
    "upsample": ...,
    "skips": "level",
    "mid_blocks": 0,
    "causal": ...,
    "lookahead": ...,
}


@dataclass
class Options(with_flags(NetworkOptions, NETWORK)):
    """Train a network to take noise off speech and judge it by strangers, beside filters and others."""

    data: Path | None = None
    """folder of clean recordings; prompts in three languages if left out"""
    other: Path | None = None
    """folder of clean recordings to judge by; a man and a woman of a fourth language if left out"""
    noise: Path | None = None
    """folder of recorded noises; sound effects if left out. Talk and coloured noise come to it"""
    snr: tuple[float, float] = (0.0, 10.0)
    """least and largest signal-to-noise ratio in dB of what is judged; it learns from 5 dB less and more"""
    sample_rate: int = 8000
    """in Hz; other files are resampled"""
    n_fft: int = 256
    """samples of a window of the spectrum; 0 for a network on the waveform"""
    hop_length: int | None = None
    """samples from one window to the next; a quarter of them if left out"""
    patch_size: tuple[int, int] = (2, 8)
    """windows and frequencies that are channels of the U-Net; 0 0 for all frequencies of single windows"""
    size: int = 16_384
    """samples in a training example"""
    train_steps: int = 10_000
    """of training"""
    batch_size: int = 8
    """training examples per step"""
    lr: float = 1e-3
    """peak learning rate"""


def main(options: Options) -> None:
    options, folder = begin(options, "audio")
    torch.manual_seed(options.seed)
    rate, n_fft = options.sample_rate, options.n_fft
    hop = options.hop_length or n_fft // 4
    with explained(folder):
        if n_fft:
            patch = options.patch_size if any(options.patch_size) else None
            network: Any = SpectralMask.with_unet(1, 1, n_fft, hop, POWER, patch, **options.network())
            unet, shift = network.model, 1.0
            shape = unet.in_channels, *network.unet_size((options.size,))
        else:
            shape = 1, options.size
            unet = UNet(1, 1, cond_channels=1, time_embedding=True, **options.network())
            # The shift moves nearly all times of training to pure noise, from where a single step starts.
            network, shift = unet, 1000.0
        diffusion = Diffusion(network, prediction="sample", shift=shift)
        sources = options.data, options.other, options.noise
        data = speech(*sources, folder, options.size, sample_rate=rate, snr=options.snr)
    print(unet.summary((1, *shape)))

    training: dict[str, Any] = {"steps": options.train_steps, "batch_size": options.batch_size}
    training |= {"lr": options.lr, "loss": "l1+stft", "ema": 0.995, "seed": options.seed}
    training |= {"validation": data.validation, "sample_every": 500, "sample_args": {"steps": 1}}
    augment = Augment(scale=(0.8, 1.4), filter=5, gain=(-2, 2), preset=False)
    model, seconds = fit(
        Trainer(diffusion, data.pairs, folder / "model", augment=augment, **training), folder
    )
    model.cpu()  # how long it takes is said of a core

    def denoise(noisy: Tensor) -> Tensor:
        """The clean recording ``(1, T)``, as loud as it is in the noisy one."""
        cond = (noisy * gain(noisy)).unsqueeze(0)
        window = 8 * options.size  # bounds the memory that a long recording takes
        return model.sample(cond.shape, 1, cond=cond, window=window, progress=False)[0] / gain(noisy)

    show(denoise, next(iter(data.tests.values())), folder, data.pairs.units)
    delay = network.lookaheads[0] / rate if network.is_causal else inf
    figures = compare(denoise, data.tests, rate, delay)
    parameters = sum(p.numel() for p in unet.parameters())
    print()
    report(folder, options, {"parameters": str(parameters), "seconds": seconds, **figures})
    print(f"\nListen to {folder}/*.wav and look at {folder}/*.png. To try next:")
    waveform = "--n-fft 0 --channels 16 32 64 128 --strides 4 --kernel-size 7 --upsample transpose"
    suggest("--causal True --norm layer", "--patch-size 0 0 --channels 256 256 256", waveform)


if __name__ == "__main__":
    main(tyro.cli(Options))
