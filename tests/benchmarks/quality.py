"""Samples of networks that learn images of classes, at equal seconds: ours beside those of other libraries.

    python -m tests.benchmarks.quality --data digits --seconds 60
    python -m tests.benchmarks.quality --data fashion-mnist --steps diffusers=900 --batch 64 --device cuda

All have as many channels and learn in one loop: AdamW, whose learning rate falls from 1e-3 to 0 along a line,
batches of 128, and an average of the weights with a decay of (1 + n) / (10 + n), at most .995; the velocity
is predicted with a cosine schedule. Only the network differs. "trainer" is ours by :class:`dynunet.Trainer`
with nothing given but data and channels, "command" what ``dynunet train`` makes of these without a GPU,
"float32" the same in this precision, and "before" what it made of them in version 0.1. First, steps of all
are timed, as seconds of the processor; then each takes as many as fit into the budget. That is ``--seconds``,
or what the steps of the first network of ``--steps`` take; ``--parts 1 .5`` adds what is learnt in half of
it. The samples take 20 steps of DPM-Solver++. Over seeds, medians and the least and largest of

    agreement    share of samples that a classifier takes for the class that was asked for; it learnt from
                 real images
    Frechet      distance to held-out images in its hidden units, over that of as many training images
    trained on   accuracy on held-out images of a classifier that learnt from the samples, over that of one
                 that learnt from as many real ones
    nearest      mean distance of samples to the nearest training image, over that of held-out images: much
                 below 1, training images are given back

each without guidance, and with the scale of guidance at which the Fréchet distance is smallest. Below them,
of pairs with diffusers' network of the same seed that has learnt for the whole budget, the geometric mean of
the ratios of distances and the mean difference in agreement, with intervals that hold it with 95 % (of
Student's t, for the logarithms of ratios).

``--device`` trains and samples elsewhere, in full float32, so many steps as the processor of this machine
takes in the budget, or as are given for each network by ``--steps``; ``--seeds 0`` times steps and no more.
The plain loop draws its noise on the processor, so that its results are the same but for rounding; the
trainer draws on the device.

Results are kept in ``--out``, and a second call makes those that are not there. Several processes that are
started at once with the same ``--out`` divide them among themselves; each prints what is there when it ends.
"""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import process_time
from typing import Any, NamedTuple

import torch
from filelock import FileLock, Timeout
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from dynunet import Diffusion, Trainer, UNet
from dynunet.defaults import GENERATION
from dynunet.plotting import image_grid

from .generation import Task, arguments, run, sampled
from .generators import MAKERS
from .quality_tables import Row, pairs, read, table
from .trainings import TIMED, seconds_of_steps


class Trained(NamedTuple):
    """A network by the trainer: its options beside the channels, and those of its training."""

    network: Mapping[str, Any]
    training: Mapping[str, Any]


TRAINED = {
    "trainer": Trained({}, {}),
    "command": Trained(GENERATION, {}),
    "float32": Trained(GENERATION, {"precision": "no"}),
    "before": Trained({}, {"lr": 2e-4, "batch_size": 16, "precision": "no"}),
}
SCALES = (1.0, 1.25, 1.5, 2.0)  # of guidance
LR, DECAY = 1e-3, 0.995
NAMES = (*MAKERS, *TRAINED)
ASKED = ("seconds", "channels", "batch", "size", "samples")  # what all results in a folder have in common


class Loop:
    """The loop in which all networks learn, a step at a time."""

    def __init__(self, learnt: tuple[Tensor, Tensor], diffusion: Diffusion, batch: int) -> None:
        self.learnt, self.batch = learnt, batch
        self.diffusion = diffusion.to(learnt[0].device).train()
        self.optimizer = torch.optim.AdamW(diffusion.parameters(), LR, fused=True)
        self.average: Any = AveragedModel(diffusion, multi_avg_fn=_average)
        self.order = torch.empty(0, dtype=torch.int64)

    def step(self, done: float = 0.0) -> None:
        """One step; ``done`` of all."""
        x, labels = self.learnt
        if len(self.order) < self.batch:
            self.order = torch.cat([self.order, torch.randperm(len(x))])
        chosen, self.order = self.order[: self.batch], self.order[self.batch :]
        self.optimizer.param_groups[0]["lr"] = LR * (1 - done)
        self.optimizer.zero_grad()
        chosen = chosen.to(x.device)
        loss = self.diffusion.loss(x[chosen], class_labels=labels[chosen], generator=torch.default_generator)
        loss.backward()
        self.optimizer.step()
        self.average.update_parameters(self.diffusion)


def _average(averages: Any, news: Any, number: Any) -> None:
    n = int(number)
    get_ema_multi_avg_fn(min(DECAY, (1 + n) / (10 + n)))(averages, news, n)


def in_loop(task: Task, name: str, steps: int) -> Diffusion:
    loop = Loop(task.learnt, built(task, name), task.options.batch)
    for step in range(steps):
        loop.step(step / steps)
    return loop.average.module


def by_trainer(
    task: Task, name: str, steps: int, channels: Sequence[int] | None = None, **more: Any
) -> Diffusion:
    """By the trainer with nothing given but data and channels; ``more`` is of :class:`dynunet.Trainer`."""
    quiet = {"sample_every": 0, "progress": False, "tensorboard": False}
    # A process that reads ahead changes no result; on the processor its seconds would not count.
    where = {"device": str(task.device), "tf32": False, "workers": int(task.device.type != "cpu")}
    options: Any = {"steps": steps, "seed": torch.initial_seed(), **where, **quiet, **TRAINED[name].training}
    with TemporaryDirectory() as folder:
        options |= {"out": Path(folder, "run"), **more}
        return Trainer(built(task, name, channels), task.dataset, **options).fit()


def built(task: Task, name: str, channels: Sequence[int] | None = None) -> Diffusion:
    colours: int = task.shape[0]
    if channels is None:
        channels = tuple(task.options.channels)
    if name not in TRAINED:
        return Diffusion(MAKERS[name](channels, colours, task.classes), "cosine", "v_prediction")
    options: Any = {
        "channels": channels,
        "time_embedding": True,
        "num_classes": task.classes,
        **TRAINED[name].network,
    }
    return Diffusion(UNet(2, colours, **options))


def timed(task: Task, names: Sequence[str]) -> dict[str, float]:
    """Seconds of a step of each, of the processor."""
    learnt: Any = tuple(each.cpu() for each in task.learnt)
    loops = {n: Loop(learnt, built(task, n), task.options.batch) for n in names if n not in TRAINED}
    plain = seconds_of_steps({name: loop.step for name, loop in loops.items()})
    return {name: plain[name] if name in plain else seconds_in_training(task, name) for name in names}


def seconds_in_training(task: Task, name: str) -> float:
    """Median seconds of a step by the trainer, with all that it does in it: it reads examples one by one."""
    ends: list[float] = []
    torch.manual_seed(0)
    more: Any = {"callbacks": [lambda step, row: ends.append(process_time())], "log_every": 1}
    by_trainer(task, name, 2 * TIMED + 1, device="cpu", workers=0, validate_every=0, **more)
    return median(end - start for start, end in pairwise(ends))


def planned(task: Task, folder: Path) -> dict[str, int]:
    """Steps of each network in the whole budget; what was timed once is kept in the folder."""
    options, kept = task.options, folder / "steps.json"
    given: dict[str, int] = dict(options.steps)
    with FileLock(folder / "steps.lock"):  # one process times them
        check_asked(options, folder)
        steps = (json.loads(kept.read_text()) if kept.exists() else {}) | given
        new = [name for name in options.networks if name not in steps]
        if new:
            first = next(iter(given), None)
            taken = timed(task, new if first is None else [first, *new])
            print("seconds of the processor for a step:", {name: round(t, 4) for name, t in taken.items()})
            seconds = options.seconds if first is None else given[first] * taken[first]
            steps |= {name: max(1, round(seconds / taken[name])) for name in new}
            kept.write_text(json.dumps(steps))
    return {name: steps[name] for name in options.networks}


def check_asked(options: argparse.Namespace, folder: Path) -> None:
    """Refuse a folder whose steps and results are of something else."""
    asked, kept = {name: getattr(options, name) for name in ASKED}, folder / "asked.json"
    if options.steps:
        del asked["seconds"]
    before = json.loads(kept.read_text()) if kept.exists() else {}
    if {**asked, **before} != {**before, **asked}:
        raise SystemExit(f"--out: what is in {folder} is of {before}, got {asked}: take another folder")
    kept.write_text(json.dumps({**before, **asked}))


def result(task: Task, name: str, seed: int, steps: int, folder: Path) -> Iterator[Row]:
    """Train one, and judge its samples at every scale of guidance; those of the first seed are drawn."""
    torch.manual_seed(seed)
    start = process_time()
    diffusion = (by_trainer if name in TRAINED else in_loop)(task, name, steps).eval()
    seconds = process_time() - start
    for scale in task.options.scales:
        samples = sampled(task, diffusion, steps=20, sampler="dpmpp_2m", guidance_scale=scale)
        if seed == 0:
            shown = samples[: 10 * task.classes].unflatten(0, (-1, task.classes)).transpose(0, 1)
            image_grid(shown, folder / f"{name}-{steps}-{scale:g}.png", row_labels=task.names)
        row = {"name": name, "seed": seed, "steps": steps, "seconds": seconds, "scale": scale}
        yield row | task.figures(samples)


def main(options: argparse.Namespace) -> None:
    task, folder = Task(options), options.out / Path(options.data).name
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / "results.jsonl"
    print(f"{options.data}: {len(task.learnt[0])} images to learn from, {task.count} samples judged")
    steps = planned(task, folder)
    print("steps in the whole budget:", steps, flush=True)
    wanted = [(n, max(1, round(part * steps[n]))) for part in options.parts for n in options.networks]
    for seed in range(options.first, options.first + options.seeds):
        for name, number in wanted:
            make(task, name, seed, number, kept)
    rows = [row for row in read(kept) if (row["name"], row["steps"]) in wanted]
    if rows:
        print(f"\n{table(rows)}\n\n{pairs(rows)}\n\nPictures: {folder}")


def make(task: Task, name: str, seed: int, steps: int, kept: Path) -> None:
    """Write the rows of a network, unless they are there or another process is at them."""
    lock = FileLock(kept.parent / f"{name}-{steps}-{seed}.lock")
    try:
        held = lock.acquire(timeout=0)
    except Timeout:
        return
    with held:
        key = (name, seed, steps)
        there = {row["scale"] for row in read(kept) if (row["name"], row["seed"], row["steps"]) == key}
        if there >= {*task.options.scales}:
            return
        for row in result(task, name, seed, steps, kept.parent):
            if row["scale"] not in there:
                with kept.open("a") as file:
                    print(json.dumps(row), file=file)
                print({k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()}, flush=True)


def number_of(given: str) -> tuple[str, int]:
    name, _, number = given.partition("=")
    if name not in NAMES or not number.isdecimal() or int(number) < 1:
        raise argparse.ArgumentTypeError(f"NAME=N with a name of {', '.join(NAMES)}, got {given!r}")
    return name, int(number)


def asked() -> argparse.ArgumentParser:
    parser = arguments("quality", __doc__, seeds=5)
    parser.add_argument("--seconds", type=float, default=60, help="of the processor, for each network")
    parser.add_argument("--steps", nargs="+", type=number_of, default=[], metavar="NAME=N")
    parser.add_argument("--parts", nargs="+", type=float, default=[1.0], help="of the budget, each by itself")
    usual = [name for name in NAMES if name not in ("float32", "before")]
    parser.add_argument("--networks", nargs="+", choices=NAMES, default=usual)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--first", type=int, default=0, help="of the seeds")
    parser.add_argument("--scales", type=float, nargs="+", default=[*SCALES], help="of guidance")
    parser.add_argument("--out", type=Path, default=Path("runs/quality"))
    return parser


if __name__ == "__main__":
    run(main, asked())
