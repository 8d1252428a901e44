"""What is learnt of noisy examples alone, beside what is learnt with clean ones: signals, images, volumes.

    python -m tests.benchmarks.self_supervised

The same network learns as many steps from clean examples with ever new noise (supervised), from two noisy
takes of each example (noise2noise) and from one (r2r, noise2void), and estimates held-out examples in one
step. Noise is Gaussian, of known level, white or with neighbours correlated by a half along every axis. The
figures are means over held-out examples, of sound SI-SDR, of others PSNR, in dB.

    digits   scikit-learn's digits of 8x8, one half to learn from
    speech   pieces of one voice at 8 kHz, of recordings that are held out
    brain    blocks of 12^3 of a scan at 2 mm, its front to learn from; what is behind is held out

The classical rows are SciPy's local Wiener filter, told the level and with the best of three windows, and for
sound the one of spectra in ``examples/_classical.py``.
"""

import argparse
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from scipy.signal import wiener
from torch import Tensor
from torch.utils.data import Dataset

from dynunet import Diffusion, FolderDataset, Trainer, UNet
from dynunet.data.self_supervision import blinded, recorrupted
from dynunet.defaults import GENERATION
from dynunet.metrics import psnr, si_sdr

from .equal_seconds import crops
from .recipe import SPEECH
from .trainings import over_seeds

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
import _classical
from _runs import debian

BRAIN = "usr/share/mricron/templates/ch2.nii.gz"
ASKED = 128

Item = dict[str, Tensor]
Draw = Callable[[Sequence[int]], Tensor]  # noise (C, *spatial)


class Examples(NamedTuple):
    """Clean examples to learn from, two noisy takes, and others with one take, all ``(N, C, *spatial)``."""

    clean: Tensor
    takes: tuple[Tensor, Tensor]
    asked: Tensor
    noisy: Tensor


def white(std: float) -> Draw:
    return lambda shape: std * torch.randn(*shape)


def correlated(std: float) -> Draw:
    """Means of two neighbours along every axis, of the same variance."""

    def draw(shape: Sequence[int]) -> Tensor:
        noise = torch.randn(shape[0], *(n + 1 for n in shape[1:]))
        for axis in range(1, len(shape)):
            n = shape[axis]
            noise = (noise.narrow(axis, 0, n) + noise.narrow(axis, 1, n)) * 0.5**0.5
        return std * noise

    return draw


NOISES = {"white": white, "correlated": correlated}


def of_wholes(learn: Sequence[Tensor], asked: Sequence[Tensor], draw: Draw, cut: Any) -> Examples:
    """Examples cut from clean wholes ``(C, *spatial)`` and, at the same places, from noisy ones."""
    parts = []
    for number, wholes in ((2000, learn), (ASKED, asked)):
        stacks = [torch.cat([x, x + draw(x.shape), x + draw(x.shape)]) for x in wholes]
        parts += cut(stacks, number).unflatten(1, (3, -1)).unbind(1)
    clean, one, other, held, noisy, _ = parts
    return Examples(clean, (one, other), held, noisy)


def digits(draw: Draw) -> Examples:
    from sklearn.datasets import load_digits

    images: Any = load_digits(return_X_y=True)[0]
    x = torch.from_numpy(images).float().view(-1, 1, 8, 8) / 8 - 1
    x = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(0))]
    first, second, third = (torch.stack([one + draw(one.shape) for one in x]) for _ in range(3))
    half = len(x) // 2
    return Examples(x[:half], (first[:half], second[:half]), x[half:], third[half:])


def speech(draw: Draw) -> Examples:
    folder = debian(SPEECH, packages="asterisk-core-sounds-en-wav")
    dataset = FolderDataset(folder, 1, size=2**15)
    learn, asked = (
        [item["x0"][item["mask"]][None] for item in (part[i] for i in range(min(len(part), 200)))]
        for part in (dataset, dataset.validation())
        if part is not None
    )

    def cut(wholes: list[Tensor], number: int) -> Tensor:
        long = [x for x in wholes if x.shape[1] >= 1024]
        return torch.cat(
            [crops(long[i % len(long)], (1024,), 1, lambda x: bool(x[0].std() > 0.03)) for i in range(number)]
        )

    return of_wholes(learn, asked, draw, cut)


def brain(draw: Draw) -> Examples:
    path = debian(BRAIN, packages="mricron-data")
    volume = FolderDataset([path], 3, spacing=(2.0,), split="all")[0]["x0"].clamp(-1, 1)
    behind = volume.shape[2] * 2 // 5

    def cut(wholes: list[Tensor], number: int) -> Tensor:
        return crops(wholes[0], (12,) * 3, number, lambda x: bool((x[0] > -0.8).float().mean() > 0.5))

    return of_wholes([volume[:, :, behind:]], [volume[:, :, :behind]], draw, cut)


class Task(NamedTuple):
    make: Callable[[Draw], Examples]
    std: float  # of the noise
    figure: Callable[..., Tensor]
    network: dict[str, Any]
    batch: int


DATA = {
    "digits": Task(digits, 0.2, psnr, {"channels": (16, 32)}, 64),
    "speech": Task(speech, 0.05, si_sdr, {"channels": (12, 24, 48), "strides": 4}, 8),
    "brain": Task(brain, 0.2, psnr, {"channels": (8, 16)}, 8),
}


def supervised(data: Examples, i: int, draw: Draw) -> Item:
    return {"x0": data.clean[i], "cond": data.clean[i] + draw(data.clean[i].shape)}


def noise2noise(data: Examples, i: int, draw: Draw) -> Item:
    return {"x0": data.takes[0][i], "cond": data.takes[1][i]}


def r2r(data: Examples, i: int, draw: Draw) -> Item:
    noisy = data.takes[0][i]
    x0, cond = recorrupted(noisy, draw(noisy.shape))
    return {"x0": x0, "cond": cond}


def noise2void(data: Examples, i: int, draw: Draw) -> Item:
    noisy = data.takes[0][i]
    cond, mask = blinded(noisy)
    return {"x0": noisy, "cond": cond, "mask": mask}


METHODS = {"supervised": supervised, "noise2noise": noise2noise, "r2r": r2r, "noise2void": noise2void}


class Pairs(Dataset[Item]):
    """Examples to train on, by a method; noise that it draws is of a law."""

    def __init__(self, method: str, data: Examples, draw: Draw) -> None:
        self.make, self.data, self.draw = METHODS[method], data, draw

    def __len__(self) -> int:
        return len(self.data.clean)

    def __getitem__(self, i: int) -> Item:
        return self.make(self.data, i, self.draw)


def trained(task: Task, pairs: Pairs, steps: int, seed: int) -> Diffusion:
    torch.manual_seed(seed)
    quiet: Any = {"sample_every": 0, "validate_every": 0, "progress": False, "tensorboard": False}
    x = pairs.data.clean
    options = {**GENERATION, **task.network, "cond_channels": x.shape[1]}
    unet = UNet(x.ndim - 2, x.shape[1], time_embedding=True, **options)
    diffusion = Diffusion(unet, prediction="sample", shift=1000.0)
    with TemporaryDirectory() as folder:
        out = Path(folder, "run")
        return Trainer(diffusion, pairs, out, steps=steps, seed=seed, batch_size=task.batch, **quiet).fit()


def restored(diffusion: Diffusion, noisy: Tensor) -> Tensor:
    chance = torch.Generator().manual_seed(0)
    parts = [
        diffusion.sample(tuple(y.shape), 1, cond=y, generator=chance, progress=False) for y in noisy.split(32)
    ]
    return torch.cat(parts)


def classical(name: str, data: Examples, std: float) -> dict[str, Tensor]:
    """Estimates of the filters that are not learnt."""
    found = {
        f"Wiener, {n} entries": torch.stack(
            [torch.from_numpy(wiener(y[0].double().numpy(), n, std**2))[None] for y in data.noisy]
        )
        for n in (3, 5, 7)
    }
    if name == "speech":
        found["Wiener, spectra"] = torch.stack([_classical.wiener(y, 8000) for y in data.noisy])
    return found


def figures(name: str, noise: str, seed: int, options: argparse.Namespace) -> dict[str, float]:
    """Means over held-out examples in dB, by row."""
    task = DATA[name]
    draw = NOISES[noise](task.std)
    torch.manual_seed(seed)
    data = task.make(draw)

    def mean(x: Tensor) -> float:
        return fmean(task.figure(x.float(), data.asked).tolist())

    filtered = {row: mean(x) for row, x in classical(name, data, task.std).items()}
    rows = {"noisy": mean(data.noisy), "classical": max(filtered.values())}
    plans = [(method, method, draw) for method in options.methods]
    if noise != "white" and "r2r" in options.methods:
        plans.append(("r2r, told it is white", "r2r", white(task.std)))
    for row, method, drawn in plans:
        diffusion = trained(task, Pairs(method, data, drawn), options.steps, seed)
        rows[row] = mean(restored(diffusion, data.noisy))
        if row == "r2r" and options.draws:
            rows[f"r2r, {options.draws} draws"] = mean(averaged(diffusion, data.noisy, drawn, options.draws))
        print(f"{name}, {noise}, seed {seed}: {rows}", file=sys.stderr, flush=True)
    return rows


def averaged(diffusion: Diffusion, noisy: Tensor, draw: Draw, count: int) -> Tensor:
    """The mean of estimates at the noise that r2r has learned at (as Pang et al. 2021)."""
    noises = (torch.stack([draw(y.shape) for y in noisy]) for _ in range(count))
    return torch.stack([restored(diffusion, recorrupted(noisy, z)[1]) for z in noises]).mean(0)


def main(options: argparse.Namespace) -> None:
    for noise in options.noises:
        columns = {}
        for name in options.data:
            runs = [figures(name, noise, seed, options) for seed in range(options.seeds)]
            columns[name] = {row: over_seeds([run[row] for run in runs], 2) for row in runs[0]}
        print(f"\n{noise} noise\n\n| | {' | '.join(columns)} |\n|---|{'---:|' * len(columns)}")
        for row in next(iter(columns.values())):
            print(f"| {row} | {' | '.join(column[row] for column in columns.values())} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.self_supervised",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", nargs="+", choices=DATA, default=[*DATA])
    parser.add_argument("--noises", nargs="+", choices=NOISES, default=[*NOISES])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=[*METHODS])
    parser.add_argument("--steps", type=int, default=400, help="of each training")
    parser.add_argument("--draws", type=int, default=0, help="of noise that r2r is averaged over, too")
    parser.add_argument("--seeds", type=int, default=3)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    main(parser.parse_args())
