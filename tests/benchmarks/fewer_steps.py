"""Samples in one, two and four steps beside the twenty of the model they were tuned from, of image classes.

    python -m tests.benchmarks.fewer_steps --data digits --train-steps 700 --tune-steps 900

A model learns by :class:`dynunet.Trainer`, and a copy of it is tuned to few steps by
:meth:`dynunet.Diffusion.distill`. Printed are the agreement and the Frechet distance over the floor, as of
``python -m tests.benchmarks.quality``, and the distance over that of the first model's twenty steps; over
seeds, medians and the least and largest.
"""

import argparse
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from time import process_time
from typing import Any

import torch

from dynunet import Diffusion, Trainer

from .generation import Task, arguments, run, sampled
from .quality import built
from .trainings import over_seeds

STEPS = (1, 2, 4)


def tuned(task: Task, options: argparse.Namespace, seed: int) -> dict[str, tuple[float, float]]:
    """Agreement and distance of each, by name."""
    torch.manual_seed(seed)
    quiet: Any = {"sample_every": 0, "validate_every": 0, "progress": False}
    quiet |= {"seed": seed, "ema": options.ema, "device": options.device}
    with TemporaryDirectory() as folder:
        start = process_time()
        teacher = Trainer(
            built(task, "command"), task.dataset, Path(folder, "teacher"), steps=options.train_steps, **quiet
        ).fit()
        middle = process_time()
        rate = {} if options.lr is None else {"lr": options.lr}
        more: Any = {"train_steps": options.tune_steps, "batch_size": options.batch, **rate, **quiet}
        student = teacher.distill(task.dataset, Path(folder, "student"), **more)
        seconds = f"{middle - start:.0f} and {process_time() - middle:.0f} s of the processor"
    found = {"20 steps": judged(task, teacher, {"steps": 20})}
    for steps in STEPS:
        found[f"{steps} untuned"] = judged(task, teacher, {"steps": steps, "sampler": "ddim"})
        found[f"{steps} tuned"] = judged(task, student, {"steps": steps})
    print(f"seed {seed}, {seconds}: {found}", file=sys.stderr, flush=True)
    return found


def judged(task: Task, model: Diffusion, how: dict[str, Any]) -> tuple[float, float]:
    made = sampled(task, model, **how)
    return task.judge.agreement(made, task.asked), task.judge.frechet(made) / task.judge.floor


def main(options: argparse.Namespace) -> None:
    task = Task(options)
    runs = [tuned(task, options, seed) for seed in range(options.seeds)]
    print("\n| | agreement | Frechet / floor | over that of 20 steps |\n|---|---:|---:|---:|")
    for name in runs[0]:
        agreements, distances = zip(*(run[name] for run in runs), strict=True)
        ratios = [run[name][1] / run["20 steps"][1] for run in runs]
        print(f"| {name} | {' | '.join(over_seeds(values) for values in (agreements, distances, ratios))} |")


if __name__ == "__main__":
    parser = arguments("fewer_steps", __doc__, seeds=3)
    parser.add_argument("--train-steps", type=int, default=700)
    parser.add_argument("--tune-steps", type=int, default=900)
    parser.add_argument("--batch", type=int, default=64, help="in tuning")
    parser.add_argument("--lr", type=float, help="in tuning; by default that of distill")
    parser.add_argument("--ema", type=float, default=0.995)
    run(main, parser)
