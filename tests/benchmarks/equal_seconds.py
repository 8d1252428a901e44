"""mmps beside RePaint on real data where entries are removed, both at equal seconds of sampling.

    digits   scikit-learn's digits of 8x8, one half to learn from; squares of 4x4 removed
    brain    the MNI152 template on a grid of 4 mm, its front to learn from; cubes of 20 mm removed behind
    ocean    temperatures of the World Ocean Atlas by month, depth, latitude and longitude, less the mean of
             their parallel; boxes removed in the Atlantic at all depths and months, the rest to learn from

Both methods have one network for each kind of data, trained here for some seconds, the same questions,
sampler and number of samples. RePaint takes as many steps as cost what those of mmps do, for each number of
its resamplings; so does mmps with a single iteration of its solver. The fair CRPS and the root mean square
error of the samples' mean are over removed entries. Seconds are of the processor on a CPU, else of the clock
with the device waited for: then nothing else may run there.
"""

import argparse
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter, process_time
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dynunet import Diffusion, FolderDataset, UNet
from dynunet.diffusion import MMPS, RePaint
from dynunet.metrics import crps
from dynunet.operators import Mask

from .trainings import over_seeds

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
import _ocean

TEMPLATE = "datasets/data/mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
RESAMPLINGS = (4, 10)  # of RePaint: 4 is this library's default, 10 that of the paper
SAMPLER = "ddpm"  # of both: a random one; with few steps mmps is better by it than by its default
METHODS: dict[str, Any] = {
    "mmps": MMPS(),
    "mmps, 1 iteration": MMPS(1),
    **{f"repaint, {n}": RePaint(n) for n in RESAMPLINGS},
}
BATCH = 64  # of samples that are made at once on a CPU, elsewhere all are


class Questions(NamedTuple):
    """Examples to learn from and others to ask about, ``(N, C, *spatial)``.

    ``cond`` is what both networks and questions are told; ``removed`` is True where an answer is wanted.
    """

    learn: Tensor
    asked: Tensor
    removed: Tensor
    cond: tuple[Tensor, Tensor] | None = None

    def to(self, device: torch.device) -> "Questions":
        cond = None if self.cond is None else (self.cond[0].to(device), self.cond[1].to(device))
        return Questions(self.learn.to(device), self.asked.to(device), self.removed.to(device), cond)


def seconds(device: torch.device) -> float:
    """So far: of the processor on a CPU, else by the clock when the device has done what it was asked."""
    if device.type == "cpu":
        return process_time()
    torch.accelerator.synchronize(device)
    return perf_counter()


def box(shape: tuple[int, ...], size: tuple[int, ...]) -> Tensor:
    """True in a box at a random place, ``(1, *shape)``."""
    starts = [int(torch.randint(n - s + 1, ())) for n, s in zip(shape, size, strict=True)]
    inside = torch.zeros(1, *shape, dtype=torch.bool)
    inside[0, *[slice(a, a + s) for a, s in zip(starts, size, strict=True)]] = True
    return inside


def crops(volume: Tensor, size: tuple[int, ...], number: int, least: Callable[[Tensor], bool]) -> Tensor:
    """So many crops of ``(C, *spatial)`` at random places for which ``least`` holds."""
    found: list[Tensor] = []
    while len(found) < number:
        starts = [int(torch.randint(n - s + 1, ())) for n, s in zip(volume.shape[1:], size, strict=True)]
        crop = volume[:, *[slice(a, a + s) for a, s in zip(starts, size, strict=True)]]
        if least(crop):
            found.append(crop)
    return torch.stack(found)


def digits(count: int) -> Questions:
    from sklearn.datasets import load_digits

    images: Any = load_digits(return_X_y=True)[0]
    x = torch.from_numpy(images).float().view(-1, 1, 8, 8) / 8 - 1
    x = x[torch.randperm(len(x))]
    removed = torch.stack([box((8, 8), (4, 4)) for _ in range(count)])
    return Questions(x[: len(x) // 2], x[-count:], removed)


def brain(count: int) -> Questions:
    package = find_spec("nilearn")
    if package is None:
        raise SystemExit("the MNI152 template comes with nilearn: pip install nilearn")
    path = Path(str(package.origin)).parent / TEMPLATE
    volume = FolderDataset([path], 3, spacing=(4.0,), split="all")[0]["x0"].clamp(-1, 1)
    size, cut = (12, 12, 12), volume.shape[2] * 3 // 5

    def tissue(crop: Tensor) -> bool:
        return (crop > -0.8).float().mean().item() > 0.5

    learn, asked = (
        crops(volume[:, :, cut:], size, 600, tissue),
        crops(volume[:, :, :cut], size, count, tissue),
    )
    return Questions(learn, asked, torch.stack([box(size, (5, 5, 5)) for _ in range(count)]))


def ocean(count: int) -> Questions:
    field, water = _ocean.read(None, (3, 6, 2, 2))
    columns = torch.arange(field.shape[-1])
    atlantic = (columns >= 24) & (columns < 48)  # from 84 degrees west to 12 east
    mean = _ocean.mean_of_parallel(field, water & ~atlantic)
    away = (field - mean) * water / 5
    depth, latitude = (
        torch.linspace(-1, 1, n).view(-1, *(1,) * after).expand(field.shape)
        for n, after in ((field.shape[1], 2), (field.shape[2], 1))
    )
    volume = torch.stack([away, water.float(), depth, latitude, mean / 15])
    size = (*field.shape[:2], 12, 12)

    def sea(crop: Tensor) -> bool:
        return crop[1].mean().item() > 0.7

    other = volume.roll(-48, -1)[..., : field.shape[-1] - 24]
    learn, asked = crops(other, size, 600, sea), crops(volume[..., atlantic], size, count, sea)
    removed = torch.stack([box(size, (*size[:2], 6, 6)) for _ in range(count)])
    return Questions(learn[:, :1], asked[:, :1], removed & (asked[:, 1:2] > 0), (learn[:, 1:], asked[:, 1:]))


DATA: dict[str, tuple[Callable[[int], Questions], dict[str, Any], dict[str, Any], int]] = {
    "digits": (digits, {"channels": (16, 32)}, {}, 32),
    "brain": (brain, {"channels": (8, 16), "num_groups": 4}, {"shift": 2.0}, 8),
    "ocean": (ocean, {"channels": (8, 16), "num_groups": 4}, {"shift": 2.0}, 4),
}


def trained(name: str, data: Questions, budget: float) -> Diffusion:
    """A model of the data after some seconds of training; the learning rate falls to 0 in these."""
    (_, network, how, batch), device = DATA[name], data.learn.device
    channels = 0 if data.cond is None else data.cond[0].shape[1]
    unet = UNet(data.learn.ndim - 2, 1, time_embedding=True, cond_channels=channels, **network)
    diffusion = Diffusion(unet, **how).to(device)
    optimizer = torch.optim.AdamW(diffusion.parameters(), lr=2e-3)
    start, share, steps = seconds(device), 0.0, 0
    while share < 1:
        optimizer.param_groups[0]["lr"] = 2e-3 * min(1.0, (steps + 1) / 50) * (1 - share)
        chosen = torch.randint(len(data.learn), (batch,)).to(device)
        cond: dict[str, Any] = {} if data.cond is None else {"cond": data.cond[0][chosen]}
        optimizer.zero_grad()
        diffusion.loss(data.learn[chosen], **cond).backward()
        torch.nn.utils.clip_grad_norm_(diffusion.parameters(), 1.0)
        optimizer.step()
        steps, share = steps + 1, (seconds(device) - start) / budget
    print(f"{name}: {steps} steps in {share * budget:.0f} s", file=sys.stderr)
    return diffusion.eval()


class Answers(NamedTuple):
    """How good the answers of a method are, and what they took."""

    crps: float
    rmse: float
    steps: int
    seconds: float


PLACES = (4, 4, 0, 0)  # of these, after the point


def answered(diffusion: Diffusion, data: Questions, method: str, steps: int, samples: int) -> Answers:
    cond: dict[str, Any] = {} if data.cond is None else {"cond": data.cond[1]}
    device = data.asked.device
    size = max(1, BATCH // len(data.asked)) if device.type == "cpu" else samples
    start = seconds(device)
    made = diffusion.reconstruct(
        data.asked,
        Mask(~data.removed),
        num_samples=samples,
        steps=steps,
        method=METHODS[method],
        sampler=SAMPLER,
        batch_size=size,
        progress=False,
        **cond,
    )
    taken = seconds(device) - start
    truth, made = data.asked[data.removed], made[:, data.removed]
    score = crps(made.unsqueeze(1), truth.unsqueeze(0)).item()
    return Answers(score, (made.mean(0) - truth).square().mean().sqrt().item(), steps, taken)


def compared(name: str, seed: int, options: argparse.Namespace) -> dict[str, Answers]:
    """Each method's answers with one network; the steps of all cost what those of mmps do."""
    torch.manual_seed(seed)
    make, *_ = DATA[name]
    data = make(options.questions).to(options.device)
    diffusion = trained(name, data, options.train_seconds)
    if options.device.type != "cpu":  # kernels are loaded and chosen in the first call
        for method in METHODS:
            answered(diffusion, data, method, 1, options.answers)
    answers = {"mmps": answered(diffusion, data, "mmps", options.mmps_steps, options.answers)}
    for method in list(METHODS)[1:]:
        step = answered(diffusion, data, method, 1, options.answers).seconds
        steps = max(1, round(answers["mmps"].seconds / step))
        answers[method] = answered(diffusion, data, method, steps, options.answers)
    print(f"{name}, seed {seed}: {answers}", file=sys.stderr)
    return answers


def main(options: argparse.Namespace) -> None:
    """Print a table for each kind of data: medians over seeds, and the least and the largest."""
    for name in options.fields:
        runs = [compared(name, seed, options) for seed in range(options.seeds)]
        print(f"\n{name}, at equal seconds\n\n| | CRPS | RMSE | steps | seconds |\n|---|---|---|---|---|")
        for method in METHODS:
            columns = zip(*(run[method] for run in runs), strict=True)
            cells = [over_seeds(c, places) for c, places in zip(columns, PLACES, strict=True)]
            print(f"| {method} | {' | '.join(cells)} |", flush=True)
