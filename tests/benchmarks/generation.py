"""What benchmarks of generators share: classes of images to learn, their judge, samples, arguments."""

import argparse
import sys
import warnings
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dynunet import Diffusion
from dynunet.training.precision import float32_products

from .quality_tables import Row

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
from _images import Images, Judge, classifier_of, image_sets, right

AT_ONCE = 500  # samples


class Task:
    """What is learnt, from which images, and who judges."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.device = options, torch.device(options.device)
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
        """All that is learnt from, images and labels, on the device."""
        dataset: Any = self.dataset
        items = [dataset[i] for i in range(len(dataset))]
        pairs = [(i["x0"], i["class_labels"]) if isinstance(i, dict) else i for i in items]
        x, labels = (torch.stack(list(column)).to(self.device) for column in zip(*pairs, strict=True))
        return x, labels

    @cached_property
    def judge(self) -> Judge:
        return Judge(self.real, self.unseen)

    @cached_property
    def best_accuracy(self) -> float:
        """On held-out images of a classifier that learnt from as many real ones: the judge's."""
        unseen: Any = self.unseen.labels
        return right(self.judge.classifier, self.unseen.x, unseen)

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
        learnt = self.learnt[0].flatten(1)
        parts = x.to(self.device).flatten(1).split(AT_ONCE)
        return torch.cat([torch.cdist(part, learnt).amin(1) for part in parts]).mean().cpu()


def sampled(task: Task, diffusion: Diffusion, **how: Any) -> Tensor:
    """Samples of all classes in turn, always of the same noise; ``how`` is of :meth:`Diffusion.sample`."""
    chance, made = torch.Generator().manual_seed(0), []
    for labels in task.asked.split(AT_ONCE):
        more: Any = {"class_labels": labels, "generator": chance, "progress": False, **how}
        made.append(diffusion.sample((len(labels), *task.shape), **more).clamp(-1, 1).cpu())
    return torch.cat(made)


def arguments(name: str, about: str | None, seeds: int) -> argparse.ArgumentParser:
    """Those of every such benchmark, whose module has this name, and so many seeds by default."""
    parser = argparse.ArgumentParser(
        prog=f"python -m tests.benchmarks.{name}",
        description=about,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", default="digits", help="digits, fashion-mnist, or a folder of folders")
    parser.add_argument("--size", type=int, help="of the images of a folder")
    parser.add_argument("--channels", type=int, nargs="+", default=[32, 64, 128])
    parser.add_argument("--seeds", type=int, default=seeds, help="how many")
    parser.add_argument("--samples", type=int, default=2000, help="at most; as many real ones are the floor")
    parser.add_argument("--device", default="cpu", help="to train and to sample on")
    return parser


def run(main: Callable[[argparse.Namespace], None], parser: argparse.ArgumentParser) -> None:
    """With one thread, and without TF32, so that devices differ by rounding alone."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    options = parser.parse_args()
    with float32_products(False, torch.device(options.device)):
        main(options)
