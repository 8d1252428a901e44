"""A plan: network, patch and batch for a data set and a budget of memory, with the reasons.

The rules are those of nnU-Net (Isensee et al. 2021) in spirit, for any number of axes and for diffusion
models as well: :mod:`dynunet.planning.fingerprint` looks at the files, :mod:`dynunet.planning.patches` lists
what could be trained in the order in which it grows, :mod:`dynunet.planning.topology` says which network goes
with each, and :mod:`dynunet.planning.memory` what training it takes. The plan is the last one that fits.

Where time is limited, too, the largest patch comes first, for networks that never saw a whole file found
less in it. Then a run has :data:`STEPS` steps with :data:`EXAMPLES` in a batch: as long as it would have
fewer, the channels are halved, and a batch has more only if there are as many steps. If the channels are
few by then, the batch is smaller, and with fewer than :data:`FEWEST` steps, in which a network hardly
begins to learn, the patch.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from ..arguments import choice, integer, positive
from ..data import DataOptions
from ..defaults import channels_for
from ..jsonable import flat
from ..writing import amount
from .fingerprint import Fingerprint, fingerprint
from .memory import DEVICES, USABLE, Device, TrainingMemory, training_memory
from .models import batch_of, model_of, network_options
from .pace import seconds_per_step
from .patches import BATCHES, Candidate, candidates
from .sizes import memory_size
from .topology import topology

__all__ = ["Plan", "plan", "plan_for"]

_LIBRARIES = 400_000_000  # bytes of torch and the other libraries on the CPU
_UNEVEN = 10  # times as often as the rarest class
STEPS = 500  # of training, if the channels or the batch can be fewer for it
EXAMPLES = 4  # in a batch, likewise
FEWEST = 250  # of training, if the patch can be smaller
_LEAST_WIDTH = 8  # to which channels are halved


@dataclass(frozen=True)
class Plan:
    """What to train on a data set within a budget of memory.

    Attributes:
        data: facts about the files.
        choice: patch, batch and levels.
        width: channels of the first level.
        memory: estimate of training, without what is around it.
        budget: bytes that training may take in all.
        device: ``"cpu"`` or ``"gpu"``.
        beyond: the next larger candidate and what it would take; None if there is none.
        steps: of training, if time is limited.
        pace: seconds of a step, in that case.
    """

    data: Fingerprint
    choice: Candidate
    width: int
    memory: TrainingMemory
    budget: int
    device: Device
    beyond: tuple[Candidate, TrainingMemory] | None
    steps: int | None = None
    pace: float | None = None

    @property
    def around(self) -> int:
        """Bytes beside training: libraries and decoded files, or what a GPU keeps for itself."""
        return _around(self.data, self.budget, self.device)

    @property
    def network(self) -> dict[str, Any]:
        """Arguments of :class:`dynunet.UNet` or :class:`dynunet.Encoder`."""
        return network_options(self.choice, self.width)

    @property
    def options(self) -> DataOptions:
        """How the files are read, for :class:`dynunet.FolderDataset`."""
        resize = self.data.whole and self.data.options.size is None
        return replace(self.data.options, size=self.choice.size, resize=resize or self.data.options.resize)

    @cached_property
    def class_weights(self) -> tuple[float, ...] | None:
        """Weights to classify by, where some classes are much rarer than others.

        The inverse of the square root of how often each is there, such that the mean loss is as before. Label
        maps have none: Dice does not depend on how many positions a class has.
        """
        counts = self.data.counts
        if self.data.task != "classification" or not counts or max(counts) <= _UNEVEN * max(min(counts), 1):
            return None
        raw = [max(c, 1) ** -0.5 for c in counts]
        mean = sum(c * w for c, w in zip(counts, raw, strict=True)) / sum(counts)
        return tuple(round(w / mean, 4) for w in raw)

    def flags(self) -> dict[str, Any]:
        """Values for ``dynunet train --config``, as JSON holds them."""
        usual = flat(DataOptions())
        given = {k: v for k, v in flat(_absolute(self.options)).items() if v != usual[k]}
        made: dict[str, Any] = {"source": str(self.data.source.absolute()), **given}
        network = self.network
        made["channels"] = list(network["channels"])
        if self.choice.topology.strides:
            made["strides"] = list(map(_axes, network["strides"]))
        if any(k != 3 for kernel in network["kernel_size"] for k in kernel):
            made["kernel_size"] = list(map(_axes, network["kernel_size"]))
        made["batch_size"] = self.choice.batch
        if self.steps is not None:
            made["steps"] = self.steps
        if self.class_weights is not None:
            made["class_weights"] = list(self.class_weights)
        return made

    def __str__(self) -> str:
        from .reasons import reasons

        return reasons(self)


def plan(
    source: Path | str,
    memory: float | str,
    *,
    options: DataOptions | None = None,
    device: Device = "cpu",
    width: int | None = None,
    hours: float | None = None,
) -> Plan:
    """Plan the training of a model on a folder of files.

    Args:
        source: a folder or a file.
        memory: the budget: a number of bytes, or such as ``"8GB"`` or ``"512 MiB"``.
        options: how the files are read, with ``targets`` for a model that predicts them; a ``size`` in them
            is kept, and only the batch grows.
        device: what trains: on the CPU the budget is that of the whole process, on a GPU that of the card.
        width: channels of the first level; by default those of ``dynunet train`` for the number of axes, or
            what there are hours for.
        hours: of training on this machine, if they are limited. Steps are timed for it.

    Raises:
        ValueError: if the budget is too small, naming the least that would do; or naming the argument, the
            rule and the value received.
        FileNotFoundError: naming what was looked for.
    """
    memory_size(memory)  # before files are looked at, which may take long
    facts = fingerprint(source, options or DataOptions())
    return plan_for(facts, memory, device=device, width=width, hours=hours)


def plan_for(
    data: Fingerprint,
    memory: float | str,
    *,
    device: Device = "cpu",
    width: int | None = None,
    hours: float | None = None,
) -> Plan:
    """Plan as :func:`plan` does, from the facts about a data set alone.

    Raises:
        ValueError: as :func:`plan`.
    """
    budget, dims = memory_size(memory), len(data.shape)
    choice(device, DEVICES, "device")
    least = _LEAST_WIDTH if width is None else integer(width, "width")
    width = channels_for(dims, device == "gpu")[0] if width is None else width
    possible = _possible(data)
    if hours is None:
        return _chosen(data, possible, budget, device, width)
    seconds, where = 3600 * positive(hours, "hours"), _timing_device(device)
    while True:
        found = _chosen(data, possible, budget, device, width)
        fitting = possible[: possible.index(found.choice) + 1]
        largest = [c for c in fitting if c.size == found.choice.size]  # with more and more examples
        chosen, pace = _last_in_time(found, largest, seconds / STEPS, where)
        few = STEPS * pace > seconds or chosen.batch < min(EXAMPLES, largest[-1].batch)
        if few and width // 2 >= least:
            width //= 2
            continue
        if FEWEST * pace > seconds:
            chosen, pace = _last_in_time(found, fitting, seconds / FEWEST, where)
        return _with(found, chosen, max(1, int(seconds / pace)), pace)


def _timing_device(device: Device) -> torch.device:
    from ..runs import chosen_device

    where = chosen_device("cpu" if device == "cpu" else None)
    if device == "gpu" and where.type == "cpu":
        raise ValueError("hours need steps that are timed on a GPU, for device 'gpu', and there is none here")
    return where


def _last_in_time(
    found: Plan, growing: Sequence[Candidate], most: float, where: torch.device
) -> tuple[Candidate, float]:
    """The last candidate before the first whose steps take more than so many seconds, and those of its steps.

    The first candidate if there is no other.
    """
    paces: list[float] = []
    for candidate in growing:
        model = model_of(found.data, candidate, found.width, where).train()
        pace = seconds_per_step(model, batch_of(found.data, candidate))
        if paces and pace > most:
            break
        paces.append(pace)
    return growing[len(paces) - 1], paces[-1]


def _with(found: Plan, chosen: Candidate, steps: int, pace: float) -> Plan:
    """The plan with another candidate, which takes less memory, and so many steps."""
    if chosen == found.choice:
        return replace(found, steps=steps, pace=pace)
    memory = training_memory(
        model_of(found.data, chosen, found.width), batch_of(found.data, chosen), found.device
    )
    return replace(found, choice=chosen, memory=memory, beyond=None, steps=steps, pace=pace)


def _possible(data: Fingerprint) -> list[Candidate]:
    size = data.options.size
    if size is None:
        return candidates(data.shape, data.spacing, data.whole)
    dims = len(data.shape)
    size = size * dims if len(size) == 1 else size
    if len(size) != dims:
        raise ValueError(f"size must be one number or one for each of {dims} axes, got {size}")
    return [Candidate(size, batch, topology(size, data.spacing)) for batch in (1, *BATCHES)]


def _chosen(
    data: Fingerprint, possible: Sequence[Candidate], budget: int, device: Device, width: int
) -> Plan:
    """The last candidate that fits, found by halving: a larger budget never leads to an earlier one."""
    known: dict[int, TrainingMemory] = {}

    def fits(i: int) -> bool:
        candidate = possible[i]
        known[i] = training_memory(model_of(data, candidate, width), batch_of(data, candidate), device)
        return known[i].resident + around <= budget

    around = _around(data, budget, device)
    if not fits(0):
        raise ValueError(_too_little(data, known[0], budget, device, width))
    fit, over = 0, len(possible)
    while over - fit > 1:
        middle = (fit + over) // 2
        fit, over = (middle, over) if fits(middle) else (fit, middle)
    beyond = (possible[over], known[over]) if over < len(possible) else None
    return Plan(data, possible[fit], width, known[fit], budget, device, beyond)


def _around(data: Fingerprint, budget: int, device: Device) -> int:
    return int((1 - USABLE) * budget) if device == "gpu" else _LIBRARIES + data.decoded


def _too_little(data: Fingerprint, least: TrainingMemory, budget: int, device: Device, width: int) -> str:
    needed = least.resident / USABLE if device == "gpu" else least.resident + _around(data, 0, device)
    parts = ""
    if device == "cpu":
        kept = " and decoded files (see cache)" if data.decoded else ""
        parts = f", of which libraries{kept} take {amount(_around(data, 0, device))}"
    return (
        f"memory must be at least {amount(needed, up=True)} for the smallest patch of these files with "
        f"{width} channels at the first level{parts}, got {amount(budget)}"
    )


def _absolute(options: DataOptions) -> DataOptions:
    """With paths that hold in any folder."""
    paths = {name: getattr(options, name) for name in DataOptions.paths}
    return replace(options, **{k: None if v is None else v.absolute() for k, v in paths.items()})


def _axes(values: Sequence[int]) -> str:
    """As a flag has it: 2, or per axis 1x2x2."""
    return "x".join(map(str, values)) if len(set(values)) > 1 else str(values[0])
