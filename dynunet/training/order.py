"""The samples of a step, and the random numbers of each: functions of the seed and a number alone.

Samples are numbered in the order in which they are drawn, over all epochs and processes. Sample ``n`` of a
data set of ``L`` items is number ``n mod L`` in epoch ``n // L``, whose order depends on ``(seed, epoch)``.
What is random in reading it (crop, flip, noise, augmentation) and in its loss (time, noise, dropped
conditions) depends on ``(seed, n)``. So the samples are the same for any number of workers and processes, and
a run is resumed without the state of any generator: from the number of its step.
"""

import random
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence, Sized
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from ..diffusion.noise import hashed
from .interrupts import stand_apart

CHANCE = ("quantiles", "generator")  # the keywords of Stream.chance
_GOLDEN = 11400714819323198485  # 2^64 / golden ratio


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """The global generators of torch on the CPU, NumPy and Python seeded for a while, then as they were."""
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread for a while, as processes that read ahead have: several divide an array among them, and what
    is at the ends of their parts is rounded in another way.
    """
    threads = torch.get_num_threads()
    if threads == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class Stream(Dataset[tuple[int, dict[str, Any]]]):
    """A data set as the endless stream of its samples: item ``n`` is ``(n, keywords of the loss)``.

    Args:
        dataset: of a known length, with items that are ``x0``, a pair ``(x0, label)`` or a dict with ``x0``.
        seed: of the order and of what is random in reading.
        label: the keyword that the second of a pair is.
        change: a function of the keywords of an item, random as reading is.
    """

    def __init__(
        self,
        dataset: Any,
        seed: int,
        label: str = "class_labels",
        change: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
    ) -> None:
        self.dataset, self.seed, self.label, self.change = dataset, seed, label, change
        self.length = len(cast(Sized, dataset))
        self._epoch: tuple[int, Tensor] | None = None

    def __getitem__(self, n: int) -> tuple[int, dict[str, Any]]:
        with seeded(hashed(self.seed, "item", n)), one_thread():
            item = keywords(self.dataset[self.index(n)], self.label)
            return n, item if self.change is None else self.change(item)

    def index(self, n: int) -> int:
        """The item that sample ``n`` is."""
        epoch, position = divmod(n, self.length)
        if self._epoch is None or self._epoch[0] != epoch:
            generator = torch.Generator().manual_seed(hashed(self.seed, "epoch", epoch))
            self._epoch = epoch, torch.randperm(self.length, generator=generator)
        return int(self._epoch[1][position])

    def chance(self, numbers: Sequence[int], device: torch.device) -> dict[str, Any]:
        """Random numbers for the loss of samples, as keywords of it: times, and generators for the rest.

        The place of sample n in the distribution of times is the fraction of ``n / golden ratio + shift``:
        any samples in sequence are spread evenly over it, so that their mean varies less (Kingma et al. 2021,
        appendix I.1, spread those of one batch), and no number but n is needed.
        """
        shift = hashed(self.seed, "shift")
        parts = [((n * _GOLDEN + shift) % 2**64 >> 12) + 0.5 for n in numbers]
        return {
            "quantiles": torch.tensor(parts, dtype=torch.float64) / 2**52,
            "generator": [torch.Generator(device).manual_seed(hashed(self.seed, "loss", n)) for n in numbers],
        }

    def batches(
        self, numbers: Iterable[list[int]], workers: int = 0, pin: bool = False
    ) -> Generator[tuple[list[int], dict[str, Any]]]:
        """Batches ``(numbers, keywords of the loss)`` of the samples with these numbers; closing it ends the
        processes that read them.
        """
        yield from DataLoader(
            self,
            batch_sampler=numbers,
            num_workers=workers,
            collate_fn=_collate,
            pin_memory=pin,
            worker_init_fn=stand_apart,
            generator=torch.Generator(),  # the loader would draw from the global one
        )


def schedule(
    steps: range, batch_size: int, accumulate: int, processes: int, process: int
) -> Iterator[list[int]]:
    """The sample numbers of the batches of one process.

    A step takes the next ``accumulate * processes`` batches of the stream, so that it has the same samples
    however they are divided.
    """
    for batch in range(steps.start * accumulate, steps.stop * accumulate):
        first = (batch * processes + process) * batch_size
        yield list(range(first, first + batch_size))


def keywords(item: Any, label: str = "class_labels") -> dict[str, Any]:
    """An item of a data set as keywords of the loss."""
    if isinstance(item, dict) and "x0" in item:
        return item
    if isinstance(item, (tuple, list)) and len(item) in (1, 2):
        return dict(zip(("x0", label), item, strict=False))
    if isinstance(item, (Tensor, np.ndarray)):
        return {"x0": item}
    kind = f"a dict of {', '.join(map(str, item))}" if isinstance(item, dict) else type(item).__name__
    kind += f" of {len(item)}" if isinstance(item, (tuple, list)) else ""
    raise TypeError(
        "items of dataset must be a tensor x0 (C, *spatial), a pair (x0, class_label) or a dict of keywords "
        f"of the model's loss with 'x0', got {kind}"
    )


def example(dataset: Any) -> dict[str, Any]:
    """The first item of a data set, always the same, as keywords of the loss."""
    with seeded(0):
        return keywords(dataset[0])


def _collate(items: list[tuple[int, dict[str, Any]]]) -> tuple[list[int], dict[str, Any]]:
    return [n for n, _ in items], default_collate([item for _, item in items])
