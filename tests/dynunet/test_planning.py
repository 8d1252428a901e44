"""Plans as laws: what fits, what grows, what is down-sampled when; and memory against real runs."""

from dataclasses import replace
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dynunet import Diffusion, Encoder, Supervised, UNet
from dynunet.data import DataOptions
from dynunet.data.spec import DataSpec
from dynunet.planning import Fingerprint, TrainingMemory, plan_for, planner, training_memory
from dynunet.planning.dry_run import Event, _Recorder
from dynunet.planning.heap import Heap
from dynunet.planning.memory import most_in_use
from dynunet.planning.patches import candidates
from dynunet.planning.sizes import memory_size
from dynunet.planning.topology import COARSE, LEAST, topology
from dynunet.writing import amount

SPACINGS = st.sampled_from((0.5, 1.0, 1.0, 1.0, 1.9, 2.0, 3.0, 7.5))


@st.composite
def grids(draw: st.DrawFn, most: int = 300) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Sizes and spacings of one to four axes."""
    n = draw(st.integers(1, 4))
    return (
        tuple(draw(st.integers(1, most)) for _ in range(n)),
        tuple(draw(SPACINGS) for _ in range(n)),
    )


@settings(max_examples=200, deadline=None)
@given(grids())
def test_a_coarse_axis_is_strided_last(grid: tuple[tuple[int, ...], tuple[float, ...]]) -> None:
    """Where an axis is strided, no axis of half its step or less is strided any more, there or later."""
    strides, kernels = topology(*grid)
    step = list(grid[1])
    for at, stride in enumerate(strides):
        for i, s in enumerate(stride):
            fine = [j for j in range(len(step)) if COARSE * step[j] <= step[i]]
            assert s == 1 or all(later[j] == 1 for later in strides[at:] for j in fine)
        finest = min(step)
        assert kernels[at] == tuple(3 if s < COARSE * finest else 1 for s in step)
        assert max(stride) > 1
        step = [d * s for d, s in zip(step, stride, strict=True)]
    assert set(kernels[-1]) == {3}
    left = [n // prod(s[i] for s in strides) for i, n in enumerate(grid[0])]
    assert all(n >= LEAST or n == size for n, size in zip(left, grid[0], strict=True))


@settings(max_examples=200, deadline=None)
@given(grids(), st.booleans())
def test_candidates_grow(grid: tuple[tuple[int, ...], tuple[float, ...]], whole: bool) -> None:
    """Each has more entries than the one before and no shorter axis; strides divide it; files hold it."""
    found = candidates(*grid, whole)
    for candidate in found:
        assert all(n % t == 0 for n, t in zip(candidate.size, candidate.topology.total, strict=True))
        assert all(n <= most for n, most in zip(candidate.size, grid[0], strict=True))
    for before, after in pairwise(found):
        assert before.entries < after.entries
        assert all(b <= a for b, a in zip(before.size, after.size, strict=True))


def made_up(shape: tuple[int, ...], spacing: tuple[float, ...], task: str, cond: int = 0) -> Fingerprint:
    """Facts about files that there are not."""
    spec = DataSpec("arrays", len(shape), 1, cond_channels=cond)
    maps = task in ("segmentation", "regression")
    return Fingerprint(
        Path("nowhere"), DataOptions(), spec, shape, spacing, 5, 5, task, 1 if task == "generation" else 3,
        maps, None, (), False, 0, (),
    )  # fmt: skip


@settings(max_examples=50, deadline=None)
@given(grids(), st.integers(1, 10**10), st.integers(1, 10**10))
def test_a_larger_budget_never_gives_less(
    grid: tuple[tuple[int, ...], tuple[float, ...]], first: int, second: int
) -> None:
    """With a made-up estimate that neither grows steadily nor starts at nothing."""

    def estimated(model: Any, batch: dict[str, Tensor], device: str) -> TrainingMemory:
        each = batch["x0"].numel() * (700 + 500 * (batch["x0"].numel() % 3))
        return TrainingMemory(each, 10**7 + each, 0)

    data, found = made_up(*grid, "generation"), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planner, "training_memory", estimated)
        patch.setattr(planner, "model_of", lambda *_: None)
        for budget in sorted((5 * 10**8 + first, 5 * 10**8 + second)):
            plan = plan_for(data, budget)
            assert plan.memory.resident + plan.around <= budget
            assert plan.beyond is None or plan.beyond[1].resident + plan.around > budget
            found.append(plan.choice)
    assert found[0].entries <= found[1].entries
    assert all(a <= b for a, b in zip(found[0].size, found[1].size, strict=True))


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_a_budget_too_small_names_the_least(device: Any) -> None:
    data = made_up((9, 9), (1.0, 1.0), "segmentation", cond=1)
    with pytest.raises(ValueError, match=r"memory must be at least .* got 1 kB") as error:
        plan_for(data, "1KB", device=device, width=4)
    least = str(error.value).split("at least ")[1].split(" for the smallest")[0]
    found = plan_for(data, least, device=device, width=4)
    assert found.memory.resident + found.around <= memory_size(least)


@settings(max_examples=50, deadline=None)
@given(grids(), st.floats(1e-4, 1e4), st.sampled_from((4e8, 1e9, 1e12)))
def test_a_run_of_some_hours_has_enough_steps(
    grid: tuple[tuple[int, ...], tuple[float, ...]], hours: float, memory: float
) -> None:
    """Patch, number of steps, channels and batch give way in this order, the last one first."""
    data = made_up(*grid, "generation")

    def pace(model: Any, batch: dict[str, Tensor]) -> float:
        return 1e-4 * model * batch["x0"].numel()

    def estimated(model: Any, batch: dict[str, Tensor], device: str) -> TrainingMemory:
        return TrainingMemory(0, 400 * batch["x0"].numel(), 0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planner, "training_memory", estimated)
        patch.setattr(planner, "model_of", lambda data, candidate, width, where="": _Width(width))
        patch.setattr(planner, "seconds_per_step", pace)
        free, timed = plan_for(data, 5e8 + memory), plan_for(data, 5e8 + memory, hours=hours)
        again = plan_for(data, 5e8 + memory, width=timed.width).choice  # what this width has memory for
    assert timed.pace is not None
    assert timed.steps is not None
    assert timed.steps * timed.pace <= max(3600 * hours, timed.pace)
    assert timed.choice.entries <= free.choice.entries
    assert timed.flags()["steps"] == timed.steps
    seconds, possible = 3600 * hours, candidates(*grid)
    few = next(c for c in possible if c.size == again.size)
    if timed.choice.size != again.size:
        assert 1e-4 * timed.width * few.entries * planner.FEWEST > seconds
        assert timed.steps >= planner.FEWEST or timed.choice == possible[0]
    elif timed.choice.batch > few.batch:
        assert timed.steps >= planner.STEPS
    if timed.choice != again:  # the next one is too slow
        steps = planner.STEPS if timed.choice.size == again.size else planner.FEWEST
        larger = possible[possible.index(timed.choice) + 1]
        assert 1e-4 * timed.width * larger.entries * steps > seconds
    if timed.steps < planner.STEPS or timed.choice.batch < min(planner.EXAMPLES, again.batch):
        assert timed.width // 2 < 8
    if timed.width < free.width:
        slow = 2 * timed.width * 1e-4 * planner.EXAMPLES * prod(free.choice.size)
        assert slow * planner.STEPS > seconds


class _Width(int):
    """A model that is nothing but the channels of its first level."""

    def train(self) -> "_Width":
        return self


@pytest.mark.parametrize(
    ("dims", "task"),
    [(1, "generation"), (2, "classification"), (3, "regression"), (4, "segmentation")],
)
def test_steps_are_timed(dims: int, task: str) -> None:
    found = plan_for(made_up((5,) * dims, (1.0,) * dims, task, cond=1), "10GB", width=4, hours=1e-4)
    assert found.pace is not None
    assert 0 < found.pace < 60
    assert "steps in that time" in str(found)


def test_hours_of_a_gpu_are_timed_on_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dynunet.runs.chosen_device", lambda device: torch.device("cpu"))
    with pytest.raises(ValueError, match=r"^hours need steps that are timed on a GPU"):
        plan_for(made_up((5,), (1.0,), "generation"), "10GB", device="gpu", width=4, hours=1.0)


def test_rare_classes_are_weighted() -> None:
    data = made_up((5,), (1.0,), "classification")
    plan = plan_for(data, "1GB", width=4)
    assert plan.class_weights is None
    weights = replace(plan, data=replace(data, counts=(100, 100, 4))).class_weights
    assert weights is not None
    assert weights[0] == weights[1] == pytest.approx(weights[2] / 5, rel=1e-3)
    assert sum(c * w for c, w in zip((100, 100, 4), weights, strict=True)) == pytest.approx(204, rel=1e-3)


# ---- memory


def models(dims: int) -> list[tuple[Any, dict[str, Tensor]]]:
    size = ((4096,), (64, 64), (16, 16, 16), (8, 8, 8, 8))[dims - 1]
    x = torch.randn(2, 1, *size)
    options: dict[str, Any] = {"channels": (8, 16), "num_groups": 4, "num_blocks": 1, "num_heads": 2}
    labels = torch.randint(0, 3, (2, *size))
    recomputed = {**options, "gradient_checkpointing": True, "attention": (None, "axial")}
    attended = {**options, "attention": (None, "axial"), "norm": "rms", "downsample": "max"}
    return [
        (Diffusion(UNet(dims, 1, time_embedding=True, **options)), {"x0": x}),
        (Supervised(UNet(dims, 1, 3, **recomputed)), {"x0": x, "target": labels}),
        (Diffusion(UNet(dims, 1, time_embedding=True, **attended)), {"x0": x}),
        (
            Supervised(Encoder(dims, 1, 3, **options), "classification"),
            {"x0": x, "target": torch.tensor([0, 2])},
        ),
    ]


@pytest.mark.parametrize("dims", [1, 2, 3, 4])
def test_tensors_are_those_of_a_real_step(dims: int) -> None:
    """The same count on the CPU, with numbers."""
    for model, batch in models(dims):
        recorder = _Recorder()
        with recorder:
            given = {name: value.clone() for name, value in batch.items()}
            model.train().loss(**given).backward()
        weights = 4 * sum(p.nbytes for p in model.parameters())
        real = weights + most_in_use(recorder.events)
        # On the meta device a convolution of one channel may lay out its result otherwise, and be copied;
        # and no values are looked at, which takes masks.
        assert 0.99 * real <= training_memory(model, batch).tensors <= 1.12 * real
        assert training_memory(model, batch, "gpu").resident <= training_memory(model, batch).resident


def test_the_model_is_not_changed() -> None:
    model, batch = models(2)[0]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    training_memory(model.eval(), batch)
    assert not model.training
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@st.composite
def histories(draw: st.DrawFn) -> list[Event]:
    """Blocks that are taken and given back, each once."""
    events, there = [], []
    for number in range(draw(st.integers(1, 30))):
        if there and draw(st.booleans()):
            events.append(Event(there.pop(draw(st.integers(0, len(there) - 1))), 0))
        size = draw(st.sampled_from((24, 4000, 10**6, 2 * 10**6, 5 * 10**6, 40 << 20)))
        events.append(Event(number, size, draw(st.booleans())))
        there.append(number)
    return events


@settings(max_examples=100, deadline=None)
@given(histories(), st.sampled_from((0.0, 0.4, 1.0)))
def test_the_heap_holds_what_is_in_use(events: list[Event], taken: float) -> None:
    heap = Heap()
    heap.run(events, taken)
    assert heap.most >= most_in_use(events)
    placed = [(start, size) for start, size in heap._blocks.values() if start is not None]
    parts = sorted([*placed, *heap._starts.items(), *heap._scraps])
    ends = [start + size for start, size in parts]
    assert [start for start, _ in parts] == [0, *ends[:-1]][: len(parts)]  # no overlap, nothing left out
    assert (ends[-1] if ends else 0) == heap._end


def test_gaps_fit_again_unless_scraps_are_taken() -> None:
    size, pair = 10**6, (Event(2, 2 * 10**6, True), Event(2, 0))
    again = [Event(0, 3 * 10**6), Event(0, 0), Event(1, size, True), *pair, Event(3, size, True)]
    again += [Event(1, 0), Event(4, size, True)]
    free, crowded = Heap(), Heap()
    free.run(again, 0.0)
    crowded.run(again, 1.0)
    assert free.most < crowded.most


@pytest.mark.parametrize("text", ["", "8", "GB", "-1GB", "8 GBs", "0MB", "nanGB", 0, float("inf")])
def test_amounts_that_are_none(text: Any) -> None:
    with pytest.raises(ValueError, match="memory must be an amount such as 8GB or 512MiB, got"):
        memory_size(text)


@settings(deadline=None)
@given(st.integers(1, 10**13))
def test_sizes_are_never_shown_too_small(size: int) -> None:
    assert size <= memory_size(amount(size, up=True)) + 1 <= 1.02 * size + 2
