"""Consistency tuning against the closed-form consistency function of Gaussian data."""

import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import dynunet
from dynunet import Diffusion, UNet
from dynunet.checkpoints import Checkpoint
from dynunet.diffusion import Consistency
from dynunet.diffusion.distillation import STAGES, before
from dynunet.diffusion.predictions import PREDICTIONS
from dynunet.diffusion.samplers import consistency
from dynunet.diffusion.schedules import SCHEDULES, Cosine
from dynunet.diffusion.spacing import spaced
from dynunet.testing import Gaussian, gaussian_law
from dynunet.training.record import read_flags

from .test_cli_files import ends, run
from .trainers import QUIET, Stop, assert_same

DATA = Gaussian(0.3, 0.5)
SPATIAL = [(5,), (3, 4), (2, 3, 2), (2, 1, 3, 2)]


def scales(schedule: Any, t: Tensor, x: Tensor) -> list[Tensor]:
    return [s.to(x).view(-1, *(1,) * (x.ndim - 1)) for s in schedule(t.double())]


def end(schedule: Any) -> Callable[[Tensor, Tensor], Tensor]:
    """The closed-form consistency function: the standard deviation of x_t becomes that of the data."""

    def exact(x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = scales(schedule, t, x)
        spread = (alpha**2 * DATA.std**2 + sigma**2).sqrt()
        return DATA.mean + DATA.std / spread * (x - alpha * DATA.mean)

    return exact


def network(estimate: Callable[[Tensor, Tensor], Tensor], schedule: Any, prediction: str) -> Any:
    """What a network must output for its estimate of the data to be this."""

    def model(x: Tensor, t: Tensor, **cond: Any) -> Tensor:
        alpha, sigma = (s.clamp(min=1e-12) for s in scales(schedule, t, x))
        x0 = estimate(x, t)
        return PREDICTIONS[prediction].target(x0, (x - alpha * x0) / sigma, alpha, sigma)

    return model


def teacher(schedule: str = "cosine", prediction: str = "sample") -> Diffusion:
    return Diffusion(
        network(DATA.denoiser(SCHEDULES[schedule]), SCHEDULES[schedule], prediction), schedule, prediction
    )


@pytest.mark.parametrize(("schedule", "spatial"), [*zip(SCHEDULES, [*SPATIAL, (4,), (2, 2)], strict=True)])
def test_the_minimiser_of_the_loss_is_the_closed_form(schedule: str, spatial: tuple[int, ...]) -> None:
    """Of the last stage, with an exact teacher, at every noise level: the target is followed to the data.

    The loss is 0 where f(x_t, t) = f(x_r, r) for all t, so that its minimiser takes x_t along its targets.
    """
    student, law = Consistency.of(teacher(schedule), 2), SCHEDULES[schedule]
    seen: list[tuple[Tensor, Tensor]] = []

    def spy(x: Tensor, t: Tensor, **cond: Any) -> Tensor:
        seen.append((x, t))
        return x

    student.model = spy
    generator = torch.Generator().manual_seed(0)
    x0, noise = torch.randn(2, 4, 1, *spatial, generator=generator, dtype=torch.float64)
    at = torch.tensor([0.2, 0.4, 0.6, 0.8], dtype=torch.float64)
    alpha, sigma = scales(law, at, x0)
    start = x = alpha * (DATA.mean + DATA.std * x0) + sigma * noise
    expected = end(law)(start, at)
    while at.max() > 0.2:
        student._target(x0, noise, x, at, {}, 1.0)
        x, at = seen.pop()[0], before(at, law, 1.0)
    torch.testing.assert_close(end(law)(x, at), expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("prediction", ["sample", "v_prediction", "flow", "epsilon"])
def test_the_loss_vanishes_at_the_closed_form_as_steps_get_shorter(schedule: str, prediction: str) -> None:
    student = Consistency.of(teacher(schedule, prediction), 2)
    student.model = network(end(SCHEDULES[schedule]), SCHEDULES[schedule], prediction)
    x0 = DATA.mean + DATA.std * torch.randn(64, 1, 3, 2, generator=torch.Generator().manual_seed(1)).double()

    def loss(progress: float) -> float:
        generator = torch.Generator().manual_seed(2)
        total, count = student.loss_sum(x0, generator=generator, progress=progress)
        return (total / count).item()

    losses = [loss(stage / STAGES) for stage in range(2, STAGES)]
    assert all(b < a / 2.5 for a, b in pairwise(losses)), losses  # of second order


@given(st.floats(0, 1), st.floats(0.001, 0.999))
def test_earlier_times_are_those_of_the_paper(progress: float, t: float) -> None:
    """Geng et al. 2024, with q = 2, k = 8 and b = 1, of noise levels."""
    stage = min(int(progress * STAGES), STAGES - 1) + 2
    alpha, sigma = Cosine()(torch.tensor([t], dtype=torch.float64))
    level = (sigma / alpha).item()
    ratio = max(0.0, 1 - (1 + 8 / (1 + math.exp(level))) / 2**stage)
    then = before(torch.tensor([t], dtype=torch.float64), Cosine(), progress)
    alpha, sigma = Cosine()(then)
    assert (sigma / alpha).item() == pytest.approx(ratio * level, rel=1e-6, abs=1e-12)
    assert then.item() == 0 or ratio > 0


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("steps", [1, 2, 4])
def test_the_sampler_draws_from_the_data_by_their_consistency_function(schedule: str, steps: int) -> None:
    """Exactly: with f in place of the mean every step ends with the law of the data."""
    law = SCHEDULES[schedule]
    times = spaced(law, steps)

    class Exact(Gaussian):
        def denoiser(self, schedule: Any) -> Any:
            return end(schedule)

    mean, variance = gaussian_law(consistency, law, times, Exact(DATA.mean, DATA.std))
    alpha, sigma = (s.item() for s in law(times[:1]))  # what is left of the data there is not in the start
    spread = (alpha**2 * DATA.std**2 + sigma**2) ** 0.5
    missing = alpha * DATA.mean * DATA.std / spread if steps == 1 else 0
    tolerance, share = (1e-9, (sigma / spread) ** 2) if steps == 1 else (0.02, 1.0)
    assert mean == pytest.approx(DATA.mean - missing, abs=tolerance)
    assert variance == pytest.approx(share * float(DATA.std) ** 2, abs=tolerance)


class Gains(Checkpoint, nn.Module):
    """The smallest network for Gaussian data: x times one function of time, and another."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, width), nn.SiLU(), nn.Linear(width, 2))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        t = t.to(x)[:, None]
        a, b = self.net(torch.cat([t, (math.pi / 2 * t).sin(), (math.pi / 2 * t).cos()], 1)).T
        shape = (-1, *(1,) * (x.ndim - 1))
        return a.view(shape) * x + b.view(shape)


def error(model: Diffusion, spatial: tuple[int, ...]) -> float:
    """Of the consistency function, in parts of the standard deviation of the data."""
    generator = torch.Generator().manual_seed(3)
    x0, noise = torch.randn(2, 256, 1, *spatial, generator=generator)
    times = torch.rand(256, generator=generator)
    alpha, sigma = scales(Cosine(), times, noise)
    x = alpha * (DATA.mean + DATA.std * x0) + sigma * noise
    gap = model.predict(x, times) - end(Cosine())(x, times)
    return gap.square().mean().sqrt().item() / float(DATA.std)


def fitted(model: Diffusion, spatial: tuple[int, ...], steps: int, lr: float) -> None:
    """Trained on ever new data, in the time of a few seconds."""
    generator = torch.Generator().manual_seed(4)
    optimizer = torch.optim.Adam(model.parameters(), lr)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        x0 = DATA.mean + DATA.std * torch.randn(128, 1, *spatial, generator=generator)
        told: dict[str, Any] = {"progress": step / steps} if isinstance(model, Consistency) else {}
        optimizer.zero_grad()
        model.loss(x0, generator=generator, **told).backward()
        optimizer.step()
        decay.step()


@pytest.mark.parametrize(("taught", "spatial"), [(True, (3, 4)), (False, (2, 2, 3))])
def test_tuning_finds_the_consistency_function(taught: bool, spatial: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    model = Diffusion(Gains())
    fitted(model, spatial, 200, 2e-2)
    student = Consistency.of(model, 1)
    student.teacher = student.teacher if taught else None
    before_tuning = error(student, spatial)
    fitted(student, spatial, 300, 5e-3)
    assert before_tuning > 0.2
    assert error(student, spatial) < 0.03


def conditional(dims: int) -> Diffusion:
    torch.manual_seed(0)
    options: dict[str, Any] = {"channels": (4,), "num_blocks": 1, "num_groups": 2, "time_embedding": True}
    unet = UNet(dims, 1, num_classes=3, cond_channels=1, dropout=0.2, **options)
    with torch.no_grad():
        for p in unet.parameters():
            p.add_(0.05)
    return Diffusion(unet, "linear", "edm", data={"unit": "K"})


def items(spatial: tuple[int, ...], n: int = 6) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(5)
    x = torch.rand(n, 2, *spatial, generator=generator) * 2 - 1
    return [
        {"x0": a[:1], "cond": a[1:], "class_labels": i % 3, "mask": a[1:] > -0.5} for i, a in enumerate(x)
    ]


@pytest.mark.parametrize("spatial", SPATIAL)
def test_conditions_masks_and_exact_resume_at_any_rank(spatial: tuple[int, ...], tmp_path: Path) -> None:
    model, data = conditional(len(spatial)), items(spatial)
    how: dict[str, Any] = {**QUIET, "batch_size": 3, "lr": 1e-2, "save_every": 2, "log_every": 1}
    how |= {"guidance_scale": 1.5}
    whole = model.distill(data, tmp_path / "whole", 1, train_steps=5, **how)

    def stop(step: int, row: Any) -> None:
        if step == 3:
            raise Stop

    with pytest.raises(Stop):
        model.distill(data, tmp_path / "run", 1, train_steps=5, callbacks=[stop], **how)
    torch.manual_seed(99)
    again = model.distill(data, tmp_path / "run", 1, train_steps=5, resume=True, **how)
    assert_same(whole, again)
    saved = dynunet.load(tmp_path / "run")
    assert_same(saved, whole)
    assert isinstance(saved, Consistency)
    assert (saved.steps, saved.data, saved.prediction) == (1, {"unit": "K"}, model.prediction)
    x, cond = torch.randn(2, 1, *spatial), {"class_labels": 1, "cond": torch.zeros(2, 1, *spatial)}
    seen: list[float] = []
    start = {"generator": torch.Generator().manual_seed(6), "progress": False}
    out = saved.sample(x.shape, callback=lambda step, t, x, x0: seen.append(t), **start, **cond)
    assert seen == [0.0]
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(6))
    sigma = SCHEDULES["linear"](torch.ones(1, dtype=torch.float64))[1].item()
    torch.testing.assert_close(out, saved.predict(sigma * noise, 1.0, **cond))


def test_missing_entries_have_no_influence() -> None:
    student = Consistency.of(conditional(1), 2)
    student.teacher = None
    examples = [dict(item) for item in items((7,))]
    batch = {k: torch.stack([torch.as_tensor(e[k]) for e in examples]) for k in examples[0]}

    def loss(fill: float) -> Tensor:
        x0 = torch.where(batch["mask"], batch["x0"], fill)
        torch.manual_seed(1)
        how: dict[str, Any] = {
            "quantiles": (torch.arange(6) + 0.5) / 6,
            "generator": torch.Generator().manual_seed(2),
        }
        total, count = student.loss_sum(**{**batch, "x0": x0}, **how, progress=0.5)
        assert count == batch["mask"].sum()
        return total

    assert torch.equal(loss(0.0), loss(math.nan))
    whole, network = loss(0.0).item(), cast(nn.Module, student.model)
    more = network.register_forward_hook(  # another error at each time, where nothing counts
        lambda module, given, out: out + 1e3 * given[1].view(-1, 1, 1) * ~batch["mask"]
    )
    assert loss(0.0).item() == pytest.approx(whole, rel=1e-6)
    more.remove()
    loss(0.0).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in student.parameters())


def test_times_come_nearer_as_the_training_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []

    def spy(times: Tensor, schedule: Any, progress: float) -> Tensor:
        seen.append(progress)
        return before(times, schedule, progress)

    monkeypatch.setattr("dynunet.diffusion.distillation.before", spy)
    how: dict[str, Any] = {**QUIET, "batch_size": 2, "validate_every": 4, "validation_samples": 2}
    data = torch.zeros(4, 1, 3)
    Diffusion(Gains()).distill(data, tmp_path, train_steps=4, validation=data, **how)
    assert seen == [0, 0.25, 0.5, 0.75, 1.0], "the last one is of the validation"


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_the_loss_is_finite_at_both_ends(schedule: str, prediction: str) -> None:
    student = Consistency.of(Diffusion(Gains(), schedule, prediction), 2)
    how: dict[str, Any] = {"quantiles": torch.tensor([1e-16, 1 - 1e-16], dtype=torch.float64)}
    for taught in (student.teacher, None):
        student.teacher = taught
        for progress in (0.0, 1.0):
            loss = student.loss(torch.zeros(2, 1, 3), progress=progress, **how)
            loss.backward()
            assert loss.isfinite(), (taught, progress)
            assert all(p.grad is not None and p.grad.isfinite().all() for p in student.parameters())


def test_both_times_have_the_same_dropout() -> None:
    """With the same time twice there is no error, whatever is dropped out."""
    student = Consistency.of(conditional(1), 2).train()
    student.teacher = None
    item = items((7,), 1)[0]
    batch: dict[str, Any] = {k: torch.as_tensor(item[k])[None] for k in ("x0", "cond", "class_labels")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dynunet.diffusion.distillation.before", lambda t, schedule, progress: t.double())
        assert student.loss(**batch, generator=torch.Generator().manual_seed(0)).item() < 1e-8


def test_what_takes_the_mean_is_refused(tmp_path: Path) -> None:
    student = Consistency.of(teacher(), 2)
    x, known = torch.zeros(1, 1, 4), torch.ones(1, 1, 4).bool()
    cases: list[tuple[Any, str, Callable[[], Any]]] = [
        (TypeError, "takes the mean of the data", lambda: student.log_likelihood(x)),
        (TypeError, "takes the mean of the data", lambda: student.inpaint(x, known)),
        (TypeError, "takes the mean of the data", lambda: student.reconstruct(x, lambda x: x)),
        (ValueError, "loss must be left out for a Consistency", lambda: student.loss(x, loss="l1")),
        (ValueError, "steps must be at least 1", lambda: Consistency.of(teacher(), 0)),
        (
            ValueError,
            "guidance_scale is of the teacher",
            lambda: conditional(1).distill(items((4,)), tmp_path, teacher=False, guidance_scale=2.0),
        ),
    ]
    for kind, words, call in cases:
        with pytest.raises(kind, match=words):
            call()


def test_the_command_tunes_a_run_of_files(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "data").mkdir()
    rng = np.random.default_rng(0)
    for i in range(6):
        np.save(tmp_path / f"data/{i}.npy", rng.random((8,)))
    small = "--spatial-dims 1 --channels 4 --num-groups 2 --batch-size 2 --sample-every 0 --no-tensorboard"
    teacher, student = tmp_path / "run", tmp_path / "fast"
    run("train", tmp_path / "data", *small.split(), "--steps", 2, "--cpu", "--out", teacher)
    tune = ("distill", teacher, "--steps", 1, "--device", "cpu", "--out", student)
    run(*tune, "--train-steps", 2)
    run(*tune, "--train-steps", 3, "--resume")
    said = capsys.readouterr()
    assert "going on from step 2 of 3" in said.err
    assert f"tuned: {student}" in said.out
    assert isinstance(dynunet.load(student), Consistency)
    assert read_flags(student / "run.json")["source"] == str(tmp_path / "data")
    run("sample", student, "--num", 2, "--out", tmp_path / "new")
    run("evaluate", student, tmp_path / "data", "--num", 2)
    assert "loss" in capsys.readouterr().out
    ends(2, *tune[:2], "--steps", 0, "--out", tmp_path / "none")
    assert "--steps must be at least 1, got 0" in capsys.readouterr().err
