"""What is chosen after training, of image classes: the length of the average of the weights, and guidance.

    python -m tests.benchmarks.after_training --data digits --train-steps 700

A network learns as "command" in ``python -m tests.benchmarks.quality`` does. Printed are the agreement and
the Frechet distance over the floor, as there, of samples of the average that training keeps, of those of
other lengths (:func:`dynunet.average`), and of the first with guidance of several scales: from the estimate
without a label, the same as adaptive projected guidance (APG), and by weaker models (autoguidance):
"earlier", the same network after a quarter of the steps, and "smaller", one of half the channels that has
learnt for as many. Over seeds, medians and the least and largest. Results are kept in ``--out``, and a second
call makes those of the seeds that are not there.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch

from dynunet import Diffusion, average
from dynunet.averages import stored
from dynunet.diffusion import APG

from .generation import Task, arguments, run, sampled
from .quality import by_trainer
from .quality_tables import Row, read
from .trainings import over_seeds

TRACKED = (0.05, 0.1)  # lengths that training keeps up
LENGTHS = (0.02, 0.05, 0.075, 0.1, 0.15, 0.2, 0.25)
SCALES = (1.25, 1.5, 2.0, 3.0)


def models(task: Task, seed: int, folder: Path) -> tuple[Diffusion, dict[str, Diffusion]]:
    """A trained model, and weaker ones to guide it."""
    steps, half = task.options.train_steps, [c // 2 for c in task.options.channels]
    torch.manual_seed(seed)
    model = by_trainer(task, "command", steps, out=folder, ema_lengths=TRACKED)
    early = min(stored(folder), key=lambda step: abs(step - steps / 4))
    torch.manual_seed(seed)
    smaller = by_trainer(task, "command", max(1, steps // 4), channels=half)
    earlier = average(folder, TRACKED[1], step=early, device=task.device)
    return model.eval(), {"earlier": earlier, "smaller": smaller.eval()}


def judged(task: Task, seed: int) -> Iterator[Row]:
    with TemporaryDirectory() as parent:
        folder = Path(parent, "run")
        model, guides = models(task, seed, folder)
        others = {length: average(folder, length, device=task.device) for length in LENGTHS}
        ways: dict[str, tuple[Diffusion, dict[str, Any]]] = {"as trained": (model, {})}
        ways |= {f"length {length:g}": (other, {}) for length, other in others.items()}
        for scale in SCALES:
            by_label = {"guidance_scale": scale}
            ways[f"guidance {scale:g}"] = model, by_label
            ways[f"APG {scale:g}"] = model, by_label | {"guidance_projection": APG()}
            for name, guide in guides.items():
                ways[f"{name} guide {scale:g}"] = model, {"guide": guide, "guide_scale": scale}
        for way, (used, how) in ways.items():
            samples = sampled(task, used, steps=20, sampler="dpmpp_2m", **how)
            yield {
                "way": way,
                "seed": seed,
                "steps": task.options.train_steps,
                "agreement": task.judge.agreement(samples, task.asked),
                "frechet": task.judge.frechet(samples) / task.judge.floor,
            }


def table(rows: list[Row]) -> str:
    lines = ["| | seeds | agreement | Frechet / floor | over that as trained |\n|---|---:|---:|---:|---:|"]
    plain = {row["seed"]: row["frechet"] for row in rows if row["way"] == "as trained"}
    for way in dict.fromkeys(row["way"] for row in rows):
        of_way = [row for row in rows if row["way"] == way]
        columns = [[row[name] for row in of_way] for name in ("agreement", "frechet")]
        ratio = median(row["frechet"] / plain[row["seed"]] for row in of_way)
        cells = " | ".join(over_seeds(values) for values in columns)
        lines.append(f"| {way} | {len(of_way)} | {cells} | {ratio:.3f} |")
    return "\n".join(lines)


def of_steps(kept: Path, steps: int) -> list[Row]:
    return [row for row in read(kept) if row["steps"] == steps]


def main(options: argparse.Namespace) -> None:
    task, kept = Task(options), options.out / f"{Path(options.data).name}.jsonl"
    kept.parent.mkdir(parents=True, exist_ok=True)
    done = {row["seed"] for row in of_steps(kept, options.train_steps)}
    for seed in sorted({*range(options.first, options.first + options.seeds)} - done):
        for row in [*judged(task, seed)]:  # of a seed all or none
            with kept.open("a") as file:
                print(json.dumps(row), file=file)
            print(row, flush=True)
    print(f"\n{table(of_steps(kept, options.train_steps))}")


if __name__ == "__main__":
    parser = arguments("after_training", __doc__, seeds=3)
    parser.add_argument("--train-steps", type=int, default=700)
    parser.add_argument("--first", type=int, default=0, help="of the seeds")
    parser.add_argument("--out", type=Path, default=Path("runs/after-training"))
    run(main, parser)
