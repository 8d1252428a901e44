"""The page of reasons of a plan."""

from collections.abc import Iterator, Sequence
from math import prod
from typing import TYPE_CHECKING

from ..data.errors import count, shown
from ..data.formats.format import times
from ..defaults import channels_for
from ..writing import amount
from .models import model_of
from .patches import BATCHES, MOST, Candidate
from .topology import COARSE, LEAST

if TYPE_CHECKING:
    from .planner import Plan

__all__ = ["reasons"]

_NAMED = 12  # classes


def reasons(plan: "Plan") -> str:
    """What was chosen and why, a paragraph for each thing."""
    parts = [_files(plan), _patch(plan), _levels(plan), _batch(plan), _memory(plan), _work(plan)]
    lines = [line for part in parts for line in part]
    width = max(len(name) for name, _ in lines)
    return "\n".join(f"{name.ljust(width)}  {text}".rstrip() for name, text in lines)


def _files(plan: "Plan") -> Iterator[tuple[str, str]]:
    data = plan.data
    files = f"{count(data.files, 'file')} of {data.spec.kind}, {count(data.examples, 'example')}"
    yield "data", f"{shown(data.source)}: {files}, {count(data.spec.channels, 'channel')}; {data.task}"
    share = "the median" if data.spec.kind == "audio" else "nine in ten are no smaller"
    yield "", f"size {times(data.shape)} ({share}), spacing {_steps(data.spacing)}"
    for text in data.why:
        yield "", text
    if data.spec.range is not None:
        low, high = data.spec.range
        of = " in a typical file: each has its own percentiles" if data.spec.percentiles else ""
        yield "", f"values {low:.6g} to {high:.6g} become -1 to 1{of}"
    yield from _classes(plan)


def _classes(plan: "Plan") -> Iterator[tuple[str, str]]:
    data = plan.data
    if data.classes is None or not data.counts:
        return
    total, names = max(sum(data.counts), 1), data.classes.split(", ")
    some = [f"{n} {c / total:.2%}" for n, c in zip(names[:_NAMED], data.counts[:_NAMED], strict=True)]
    yield "classes", ", ".join(some) + (" ..." if len(names) > _NAMED else "")
    if plan.class_weights is not None:
        yield "", "weighted by the inverse square root of how often they are there, as some are rare"
    elif data.maps:
        each = min(data.counts) / total * plan.choice.entries
        yield (
            "",
            (
                f"no weights: Dice does not depend on how frequent a class is. A mean batch has {each:.3g} "
                "positions of the rarest"
            ),
        )


def _patch(plan: "Plan") -> Iterator[tuple[str, str]]:
    data, choice = plan.data, plan.choice
    if data.options.size is not None:
        yield "patch", f"{times(choice.size)}, as asked"
        return
    kind = "whole files, resized" if data.whole else "random crops of equal extent along every axis"
    yield "patch", f"{times(choice.size)}: {kind}, as far as files go; multiples of the strides"
    full = [n == MOST * t for n, t in zip(choice.size, choice.topology.total, strict=True)]
    if any(full):
        axes = _listed([i for i, is_full in enumerate(full) if is_full])
        yield "", f"{axes}: at most {MOST} entries at the coarsest level, which blocks do not see beyond"
    yield from _next(plan)


def _next(plan: "Plan") -> Iterator[tuple[str, str]]:
    if plan.beyond is None:
        time = "" if plan.steps is None else ", or the time,"
        yield "", f"nothing larger to show: it is as large as the files and the network{time} allow"
        return
    candidate, memory = plan.beyond
    larger = f"{_of(candidate)} would take {amount(memory.resident + plan.around)}"
    yield "", f"the next larger one, {larger}"


def _levels(plan: "Plan") -> Iterator[tuple[str, str]]:
    network, data = plan.network, plan.data
    yield "channels", f"{' '.join(map(str, network['channels']))}: doubled with every level, up to 8 times"
    strides = ", ".join(times(s) for s in network["strides"]) or "none"
    yield "strides", f"{strides}: halved while {LEAST} entries are left (quartered in 1-D)"
    coarse = [i for i, s in enumerate(data.spacing) if s >= COARSE * min(data.spacing)]
    if coarse:
        kernels = ", ".join(times(k) for k in network["kernel_size"])
        late = f"down-sampled and convolved once the others have caught up (kernels {kernels})"
        yield "", f"{_listed(coarse)} coarse, at least {COARSE} times the finest spacing: {late}"


def _batch(plan: "Plan") -> Iterator[tuple[str, str]]:
    more = f"more, up to {BATCHES[-1]}, once the patch is as large as it may be"
    more += "" if plan.steps is None else " and there is time for many steps"
    yield "batch", f"{plan.choice.batch}: two, and {more}"
    if plan.data.options.size is not None:
        yield from _next(plan)


def _memory(plan: "Plan") -> Iterator[tuple[str, str]]:
    total = amount(plan.memory.resident + plan.around)
    yield "memory", f"about {total} of {amount(plan.budget)}: training {amount(plan.memory.resident)}"
    if plan.device == "gpu":
        yield "", f"and a tenth of the budget, {amount(plan.around)}, for what the GPU keeps for itself"
        return
    decoded = f", of which decoded files {amount(plan.data.decoded)}" * bool(plan.data.decoded)
    yield "", f"and around it {amount(plan.around)}{decoded}; the rest is libraries"


def _work(plan: "Plan") -> Iterator[tuple[str, str]]:
    shape = plan.choice.batch, plan.data.spec.channels, *plan.choice.size
    model = model_of(plan.data, plan.choice, plan.width)
    flops = 3 * model.model.summary(shape).flops
    each = f"{flops / 1e12:.3g} TFLOP and {prod(shape):,} entries"
    if plan.steps is None:
        yield "work", f"about {each} a step: time is no part of the plan"
        return
    yield "work", f"about {each} a step, {plan.pace:.2g} s here, so {plan.steps} steps in that time"
    usual = channels_for(len(plan.choice.size), plan.device == "gpu")[0]
    if plan.width < usual:
        yield "", f"{plan.width} channels at first, not {usual}, for more steps with so large a patch"


def _of(candidate: Candidate) -> str:
    return f"{candidate.batch} x {times(candidate.size)}"


def _steps(spacing: Sequence[float]) -> str:
    return " x ".join(f"{s:.4g}" for s in spacing)


def _listed(axes: Sequence[int]) -> str:
    """Axes in words, counted from 0."""
    if len(axes) == 1:
        return f"axis {axes[0]} is" if axes else ""
    return f"axes {', '.join(map(str, axes))} are"
