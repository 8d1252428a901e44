"""Speech restored in one to four steps by a bridge from it, beside the one-step mean and plain diffusion.

    python -m tests.benchmarks.bridges --train-steps 700 --size 4096 --every 3

The same U-Net on the waveform learns the pairs of ``examples/denoise_audio_1d.py`` in equally many steps: at
all levels of noise ("diffusion"), from noise alone ("mean", as the example with ``--n-fft 0``), and on a
bridge. Printed are means over noisy recordings of strangers: SI-SDR, PESQ and STOI; the log-spectral distance
to the clean recording in dB (windows of 32 ms, down to 60 dB below the loudest); and the energy from 2 kHz on
over that of the clean recording in dB, which a mean of many possible recordings has too little of.
"""

import argparse
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import mean
from time import process_time
from typing import Any

import torch
from torch import Tensor

from dynunet import Diffusion, Trainer, UNet
from dynunet.data import Augment
from dynunet.metrics import si_sdr

from .trainings import over_seeds

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
from _denoisers import perceptual
from _speech import gain
from _strangers import speech

RATE, WINDOW, HIGH, RANGE = 8000, 256, 2000, 1e-6
MODELS: dict[str, Callable[[float], dict[str, Any]]] = {
    "mean": lambda noise: {"schedule": "cosine", "shift": 1000.0},
    "bridge": lambda noise: {"schedule": "bridge", "shift": noise},
    "diffusion": lambda noise: {"schedule": "cosine"},
}
ZEROS = torch.zeros  # in place of noise: the deterministic path from the noisy signal itself
ROWS: dict[str, tuple[str, dict[str, Any]]] = {
    "one-step mean": ("mean", {"steps": 1}),
    "bridge, 1 step": ("bridge", {"steps": 1}),
    "bridge, 2, ODE": ("bridge", {"steps": 2, "sampler": "ddim", "generator": ZEROS}),
    "bridge, 2, ancestral": ("bridge", {"steps": 2, "sampler": "ddpm"}),
    "bridge, 4, ODE": ("bridge", {"steps": 4, "sampler": "ddim", "generator": ZEROS}),
    "bridge, 4, ancestral": ("bridge", {"steps": 4, "sampler": "ddpm"}),
    "bridge, 4, dpmpp_2m": ("bridge", {"steps": 4}),
    "diffusion, 1": ("diffusion", {"steps": 1}),
    "diffusion, 4": ("diffusion", {"steps": 4}),
    "diffusion, 4, ancestral": ("diffusion", {"steps": 4, "sampler": "ddpm"}),
    "diffusion, 20": ("diffusion", {"steps": 20}),
}


def spectrum(x: Tensor) -> Tensor:
    """The powers of short-time spectra, ``(frequencies, times)``."""
    window = torch.hann_window(WINDOW, dtype=x.dtype)
    return torch.stft(x, WINDOW, WINDOW // 4, window=window, return_complex=True).abs().square()


def spectral(x: Tensor, clean: Tensor) -> tuple[float, float]:
    """The log-spectral distance, and the energy at high frequencies, both in dB."""
    found, wanted = spectrum(x), spectrum(clean)
    least = RANGE * wanted.max()
    distance = 10 * (found.clamp(min=least).log10() - wanted.clamp(min=least).log10())
    first = -(-HIGH * WINDOW // RATE)
    high = 10 * (found[first:].sum() / wanted[first:].sum()).log10()
    return distance.square().mean(0).sqrt().mean().item(), high.item()


def figures(x: Tensor, clean: Tensor) -> list[float]:
    found = [si_sdr(x[None, None], clean[None, None]).item()]
    found += [measure(x.numpy(), clean.numpy()) for measure in perceptual(RATE).values()]
    return [*found, *spectral(x, clean)]


def trained(options: argparse.Namespace, data: Any, name: str, seed: int) -> Diffusion:
    torch.manual_seed(seed)
    unet = UNet(
        1, 1, channels=options.channels, strides=4, kernel_size=7, num_blocks=1, upsample="transpose",
        cond_channels=1, time_embedding=True, num_groups=8,
    )  # fmt: skip
    diffusion = Diffusion(unet, prediction="sample", **MODELS[name](options.bridge_noise))
    training: dict[str, Any] = {"steps": options.train_steps, "batch_size": options.batch_size, "lr": 1e-3}
    training |= {"loss": options.loss, "ema": 0.995, "seed": seed, "sample_every": 0, "validate_every": 0}
    augment = Augment(scale=(0.8, 1.4), filter=5, gain=(-2, 2), preset=False)
    start = process_time()
    folder = options.out / f"{name}-{seed}"
    model = Trainer(diffusion, data.pairs, folder, augment=augment, progress=False, **training).fit(
        resume=True
    )
    print(
        f"{name}, seed {seed}: {process_time() - start:.0f} s of the processor", file=sys.stderr, flush=True
    )
    return model


def restored(model: Diffusion, noisy: Tensor, how: dict[str, Any], seed: int) -> Tensor:
    """A recording ``(1, T)`` without noise."""
    cond = (noisy * gain(noisy)).unsqueeze(0)
    how = {"generator": torch.Generator().manual_seed(seed), **how}
    return (model.sample(cond.shape, cond=cond, progress=False, **how)[0] / gain(noisy))[0]


def main(options: argparse.Namespace) -> None:
    data = speech(None, None, None, options.out, options.size, sample_rate=RATE, snr=(0.0, 10.0))
    tests = data.tests["strangers"][:: options.every]
    rows: dict[str, list[list[float]]] = {"noisy": []}
    rows["noisy"].append([mean(c) for c in zip(*(figures(x[0], y[0]) for y, x in tests), strict=True)])
    for seed in range(options.seeds):
        models = {name: trained(options, data, name, seed) for name in options.models}
        for row, (name, how) in ROWS.items():
            if name in models:
                made = ((restored(models[name], x, how, i), y[0]) for i, (y, x) in enumerate(tests))
                values = [mean(column) for column in zip(*(figures(*pair) for pair in made), strict=True)]
                rows.setdefault(row, []).append(values)
                print(f"seed {seed}, {row}: {values}", file=sys.stderr, flush=True)
    names = ("SI-SDR", *perceptual(RATE), "LSD", "from 2 kHz")
    print(f"\n| | {' | '.join(names)} |\n|---|{'---:|' * len(names)}")
    for row, seeds in rows.items():
        print(f"| {row} | {' | '.join(over_seeds(values, 2) for values in zip(*seeds, strict=True))} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.bridges",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, default=Path("runs/bridges"), help="folder of the trainings")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=[*MODELS])
    parser.add_argument("--channels", type=int, nargs="+", default=[16, 32, 64, 128])
    parser.add_argument("--size", type=int, default=4096, help="samples of a training example")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--train-steps", type=int, default=700)
    parser.add_argument("--loss", default="l1+stft", help="see dynunet train --help")
    parser.add_argument("--bridge-noise", type=float, default=0.5, help="times as much noise as I2SB's")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--every", type=int, default=1, help="judge by one recording in so many")
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    main(parser.parse_args())
