"""Samples of networks that learn images of classes, at equal seconds: ours beside those of other libraries.

    python -m tests.benchmarks.quality --data digits --seconds 60
    python -m tests.benchmarks.quality --data fashion-mnist --seconds 300 --batch 64

All have as many channels and learn in one loop: AdamW, whose learning rate falls from 1e-3 to 0 along a line,
batches of 128, and an average of the weights with a decay of (1 + n) / (10 + n), at most .995; the velocity
is predicted with a cosine schedule. Only the network differs. "trainer" is ours by :class:`dynunet.Trainer`
with nothing given but data and channels, "command" what ``dynunet train`` makes of these without a GPU.
First, steps of all are timed in turn, as seconds of the processor; then each takes as many as fit into the
budget. The samples take 20 steps of DPM-Solver++. Over seeds, medians and the least and largest of

    agreement    share of samples that a classifier takes for the class that was asked for; it learnt from
                 real images
    Frechet      distance to held-out images in its hidden units, over that of as many training images
    trained on   accuracy on held-out images of a classifier that learnt from the samples, over that of one
                 that learnt from as many real ones
    nearest      mean distance of samples to the nearest training image, over that of held-out images: much
                 below 1, training images are given back

each without guidance, and with the scale of guidance at which the Fréchet distance is smallest. Results are
kept in ``--out``, and a second call makes those that are not there.
"""

import argparse
import json
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from dynunet import Diffusion, Trainer, UNet
from dynunet.defaults import GENERATION, examples_in_batch
from dynunet.plotting import image_grid

from .generators import MAKERS
from .trainings import over_seeds, seconds_of_steps

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
from _images import Images, Judge, classifier_of, image_sets, right

# Networks by the trainer, and their options beside the channels.
TRAINED: dict[str, Mapping[str, Any]] = {"trainer": {}, "command": GENERATION}
SCALES = (1.0, 1.25, 1.5, 2.0)  # of guidance
LR, DECAY = 1e-3, 0.995
AT_ONCE = 500  # samples
COLUMNS = ("agreement", "frechet", "trained_on", "nearest")
Row = dict[str, Any]


class Task:
    """What is learnt, from which images, and who judges."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        data = None if options.data == "digits" else Path(options.data)
        self.dataset, held_out = image_sets(data, options.size)
        train, unseen = Images.of(self.dataset), Images.of(held_out)
        if train.labels is None or unseen.labels is None or train.names is None:
            raise SystemExit(f"--data: images of classes are needed, in folders of their own: {options.data}")
        count = min(options.samples, len(train.x), len(unseen.x))
        self.real = Images(train.x[:count], train.labels[:count], train.names)
        self.unseen = Images(unseen.x[:count], unseen.labels[:count], train.names)
        self.shape, self.names, self.count = tuple(train.x.shape[1:]), train.names, count
        self.classes = len(self.names)
        self.asked = torch.arange(count) % self.classes

    @cached_property
    def learnt(self) -> tuple[Tensor, Tensor]:
        """All that is learnt from, images and labels."""
        dataset: Any = self.dataset
        items = [dataset[i] for i in range(len(dataset))]
        pairs = [(i["x0"], i["class_labels"]) if isinstance(i, dict) else i for i in items]
        x, labels = (torch.stack(list(column)) for column in zip(*pairs, strict=True))
        return x, labels

    @cached_property
    def judge(self) -> Judge:
        return Judge(self.real, self.unseen)

    @cached_property
    def best_accuracy(self) -> float:
        """On held-out images of a classifier that learnt from as many real ones."""
        return self._accuracy(self.real.x, self.real.labels)

    @cached_property
    def usual_distance(self) -> Tensor:
        return self._to_nearest(self.unseen.x)

    def figures(self, samples: Tensor) -> Row:
        nearest = self._to_nearest(samples) / self.usual_distance
        return {
            "agreement": self.judge.agreement(samples, self.asked),
            "frechet": self.judge.frechet(samples) / self.judge.floor,
            "trained_on": self._accuracy(samples, self.asked) / self.best_accuracy,
            "nearest": nearest.item(),
        }

    def _accuracy(self, x: Tensor, labels: Any) -> float:
        unseen: Any = self.unseen.labels
        return right(classifier_of(x, labels), self.unseen.x, unseen)

    def _to_nearest(self, x: Tensor) -> Tensor:
        return torch.cdist(x.flatten(1), self.learnt[0].flatten(1)).amin(1).mean()


class Loop:
    """The loop in which all networks learn, a step at a time."""

    def __init__(self, task: Task, diffusion: Diffusion, batch: int) -> None:
        self.task, self.diffusion, self.batch = task, diffusion.train(), batch
        self.optimizer = torch.optim.AdamW(diffusion.parameters(), LR, fused=True)
        self.average: Any = AveragedModel(diffusion, avg_fn=_averaged)
        self.order = torch.empty(0, dtype=torch.int64)

    def step(self, done: float = 0.0) -> None:
        """One step; ``done`` of all."""
        x, labels = self.task.learnt
        if len(self.order) < self.batch:
            self.order = torch.cat([self.order, torch.randperm(len(x))])
        chosen, self.order = self.order[: self.batch], self.order[self.batch :]
        self.optimizer.param_groups[0]["lr"] = LR * (1 - done)
        self.optimizer.zero_grad()
        self.diffusion.loss(x[chosen], class_labels=labels[chosen]).backward()
        self.optimizer.step()
        self.average.update_parameters(self.diffusion)


def _averaged(average: Tensor, new: Tensor, number: Any) -> Tensor:
    n = int(number)
    return torch.lerp(new, average, min(DECAY, (1 + n) / (10 + n)))


def in_loop(task: Task, name: str, steps: int, folder: Path) -> Diffusion:
    loop = Loop(task, built(task, name), task.options.batch)
    for step in range(steps):
        loop.step(step / steps)
    return loop.average.module


def by_trainer(task: Task, name: str, steps: int, folder: Path) -> Diffusion:
    """By the trainer with nothing given but data and channels."""
    options: Any = {"steps": steps, "seed": torch.initial_seed(), "sample_every": 0, "overwrite": True}
    trainer = Trainer(built(task, name), task.dataset, folder, **options)
    trainer.fit()
    return Diffusion.from_pretrained(folder)


def built(task: Task, name: str) -> Diffusion:
    channels, colours = task.options.channels, task.shape[0]
    if name not in TRAINED:
        return Diffusion(MAKERS[name](channels, colours, task.classes), "cosine", "v_prediction")
    options: Any = {
        "channels": channels,
        "time_embedding": True,
        "num_classes": task.classes,
        **TRAINED[name],
    }
    return Diffusion(UNet(2, colours, **options))


def timed(task: Task, names: Sequence[str]) -> dict[str, float]:
    """Seconds of a step of each."""
    batch: int = task.options.batch
    batches = dict.fromkeys(names, batch) | dict.fromkeys(TRAINED, examples_in_batch(task.shape[1:]))
    loops = {name: Loop(task, built(task, name), batches[name]) for name in names}
    return seconds_of_steps({name: loop.step for name, loop in loops.items()})


def sampled(task: Task, diffusion: Diffusion, **how: Any) -> Tensor:
    """Samples of all classes in turn, always of the same noise; ``how`` is of :meth:`Diffusion.sample`."""
    chance, made = torch.Generator().manual_seed(0), []
    for labels in task.asked.split(AT_ONCE):
        more: Any = {"class_labels": labels, "generator": chance, "progress": False, **how}
        made.append(diffusion.sample((len(labels), *task.shape), **more).clamp(-1, 1))
    return torch.cat(made)


def result(task: Task, name: str, seed: int, steps: int, folder: Path) -> Iterator[Row]:
    """Train one, and judge its samples at every scale of guidance; those of the first seed are drawn."""
    torch.manual_seed(seed)
    start = process_time()
    diffusion = (by_trainer if name in TRAINED else in_loop)(task, name, steps, folder / name).eval()
    seconds = process_time() - start
    for scale in task.options.scales:
        samples = sampled(task, diffusion, steps=20, sampler="dpmpp_2m", guidance_scale=scale)
        if seed == 0:
            shown = samples[: 10 * task.classes].unflatten(0, (-1, task.classes)).transpose(0, 1)
            image_grid(shown, folder / f"{name}-{scale:g}.png", row_labels=task.names)
        row = {"name": name, "seed": seed, "steps": steps, "seconds": seconds, "scale": scale}
        yield row | task.figures(samples)


def table(rows: Sequence[Row]) -> str:
    """Medians over seeds: without guidance, then with the best scale of each."""
    lines = [f"| | guidance | steps | {' | '.join(COLUMNS)} |", "|---|" + "---:|" * (2 + len(COLUMNS))]
    names = dict.fromkeys(row["name"] for row in rows)
    for best in (False, True):
        for name in names:
            by_scale: dict[float, list[Row]] = {}
            for row in rows:
                if row["name"] == name:
                    by_scale.setdefault(row["scale"], []).append(row)
            scale = min(by_scale, key=lambda s: median(r["frechet"] for r in by_scale[s])) if best else 1.0
            chosen = by_scale.get(scale, [])
            if chosen:
                cells = [over_seeds([row[column] for row in chosen]) for column in COLUMNS]
                lines.append(f"| {name} | {scale:g} | {chosen[0]['steps']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(options: argparse.Namespace) -> None:
    task, folder = Task(options), options.out / Path(options.data).name
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / "results.jsonl"
    rows = [json.loads(line) for line in kept.read_text().splitlines()] if kept.exists() else []
    print(f"{options.data}: {len(task.learnt[0])} images to learn from, {task.count} samples judged")
    missing = [
        (n, s) for s in range(options.seeds) for n in options.networks if not _there(rows, n, s, options)
    ]
    steps = {row["name"]: row["steps"] for row in rows}
    new = [name for name in options.networks if name not in steps]
    if new:
        taken = timed(task, new)
        print("seconds of the processor for a step:", {name: round(t, 3) for name, t in taken.items()})
        steps |= {name: max(1, round(options.seconds / t)) for name, t in taken.items()}
    for name, seed in missing:
        for row in result(task, name, seed, steps[name], folder):
            rows.append(row)
            with kept.open("a") as file:
                print(json.dumps(row), file=file)
            print({k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()}, flush=True)
    print(f"\n{table([row for row in rows if row['name'] in options.networks])}\n\nPictures: {folder}")


def _there(rows: Sequence[Row], name: str, seed: int, options: argparse.Namespace) -> bool:
    scales = {row["scale"] for row in rows if (row["name"], row["seed"]) == (name, seed)}
    return scales >= {*options.scales}


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.quality",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", default="digits", help="digits, fashion-mnist, or a folder of folders")
    parser.add_argument("--size", type=int, help="of the images of a folder")
    parser.add_argument("--seconds", type=float, default=60, help="of the processor, for each network")
    parser.add_argument("--networks", nargs="+", choices=[*MAKERS, *TRAINED], default=[*MAKERS, *TRAINED])
    parser.add_argument("--channels", type=int, nargs="+", default=[32, 64, 128])
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--scales", type=float, nargs="+", default=[*SCALES], help="of guidance")
    parser.add_argument("--samples", type=int, default=2000, help="at most; as many real ones are the floor")
    parser.add_argument("--out", type=Path, default=Path("runs/quality"))
    return parser.parse_args()


if __name__ == "__main__":
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    main(parsed())
