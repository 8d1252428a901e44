"""Training: compared with a loop written out in plain torch; its data, pictures and options."""

import csv
import io
import json
import math
import multiprocessing
import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from dynunet import Diffusion, plotting
from dynunet.diffusion.noise import hashed
from dynunet.training import Trainer, TrainOptions
from dynunet.training.options import chosen
from dynunet.training.order import Stream, schedule
from dynunet.training.record import RUN, read_record
from dynunet.training.state import Checkpoints

from .trainers import Gaps, Random, assert_same, data, model, trainer, unet, weights

pytestmark = pytest.mark.usefixtures("without_the_curve")
LOSS_CURVE = plotting.loss_curve


# The loop


def test_it_is_the_loop_written_out(tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "steps": 30,
        "warmup": 2,
        "clip": 0.5,
        "weight_decay": 0.1,
        "ema": 0.9,
        "accumulate": 2,
    }
    trained = trainer(tmp_path / "run", Random(), **options).fit()

    diffusion = model()
    average = weights(diffusion)
    optimizer = torch.optim.AdamW(diffusion.parameters(), weight_decay=0.1, fused=True)
    stream = Stream(Random(), 0)
    for step in range(30):
        warm, rest = (step + 1) / 3, (1 + math.cos(math.pi * (step - 2) / 28)) / 2
        optimizer.param_groups[0]["lr"] = 1e-2 * (warm if step < 2 else rest)
        entries = torch.zeros((), dtype=torch.int64)
        for part in range(2):
            numbers = range(8 * step + 4 * part, 8 * step + 4 * part + 4)
            items = [stream[n][1] for n in numbers]
            batch = {name: torch.stack([item[name] for item in items]) for name in items[0]}
            chance = stream.chance(numbers, torch.device("cpu"))
            torch.manual_seed(hashed(0, "step", step, part, 0))
            total, count = diffusion.loss_sum(**batch, **chance)
            total.backward()
            entries += count
        for parameter in diffusion.parameters():
            assert parameter.grad is not None
            parameter.grad *= 1 / entries
        nn.utils.clip_grad_norm_(diffusion.parameters(), 0.5)
        optimizer.step()
        optimizer.zero_grad()
        decay = min(0.9, (1 + step) / (10 + step)) if step else 0
        for name, value in diffusion.state_dict().items():
            if value.is_floating_point():
                average[name].lerp_(value, 1 - decay)
            else:
                average[name].copy_(value)
    assert_same(weights(trained), average)


def test_it_learns_and_writes_down_what_it_did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plotting, "loss_curve", LOSS_CURVE)
    rows: list[Any] = []
    diffusion = unet()
    made = trainer(
        tmp_path / "run",
        data(3),
        diffusion=diffusion,
        validation=data(3),
        validate_every=20,
        steps=120,
        ema=0.9,
        log_every=20,
        save_every=50,
        callbacks=[lambda step, row: rows.append((step, dict(row)))],
    ).fit()
    assert not made.training
    assert made is not diffusion
    assert_same(Diffusion.from_pretrained(tmp_path / "run"), made)
    with (tmp_path / "run" / "log.csv").open(newline="") as file:
        logged = list(csv.DictReader(file))
    assert [int(r["step"]) for r in logged] == [step for step, _ in rows] == [20, 40, 60, 80, 100, 120]
    assert float(logged[-1]["loss"]) == rows[-1][1]["loss"] < 0.85 * float(logged[0]["loss"])
    assert float(logged[-1]["validation_loss"]) < 0.9 * float(logged[0]["validation_loss"])
    written = json.loads((tmp_path / "run" / "run.json").read_text())
    assert written["options"]["steps"] == 120
    assert written["seed"] == 0
    assert written["versions"]["torch"] == torch.__version__.split("+")[0] or written["versions"]["torch"]
    assert written["finished"] >= written["started"]
    assert (tmp_path / "run" / "loss.png").stat().st_size > 1000

    validated = {int(r["step"]): float(r["validation_loss"]) for r in logged}
    best = min(validated, key=lambda step: validated[step])
    assert set(Checkpoints(tmp_path / "run" / "checkpoints").steps()) >= {best, 120}
    Diffusion.from_pretrained(tmp_path / "run" / "checkpoints" / f"step-{best:08d}")


def test_the_validation_loss_is_that_of_the_average_with_the_same_noise_each_time(tmp_path: Path) -> None:
    made = trainer(
        tmp_path / "run", validation=Random(), validate_every=8, validation_samples=9, steps=8
    ).fit()
    stream = Stream(Random(), 0)
    with (tmp_path / "run" / "log.csv").open(newline="") as file:
        logged = float(list(csv.DictReader(file))[-1]["validation_loss"])
    total, entries = 0.0, 0
    for numbers in (range(4), range(4, 8), [8]):
        items = [stream[n][1] for n in numbers]
        batch = {name: torch.stack([item[name] for item in items]) for name in items[0]}
        count = int(batch["mask"].sum())
        total += made.loss(**batch, **stream.chance([*numbers], torch.device("cpu"))).item() * count
        entries += count
    assert logged == pytest.approx(total / entries, rel=1e-5)


class Own(Diffusion):
    """A loss of its own, without its sum: here one that no count of entries gives."""

    def loss(self, x0: Tensor, **options: Any) -> Tensor:
        return super().loss(x0, **options) ** 2


@pytest.mark.parametrize("cls", [Diffusion, Own])
def test_a_step_is_the_same_however_its_samples_are_divided(tmp_path: Path, cls: type[Diffusion]) -> None:
    def course(batch_size: int) -> list[tuple[float, ...]]:
        out = tmp_path / f"{batch_size}"
        torch.manual_seed(0)
        options: dict[str, Any] = {"log_every": 1, "validate_every": 1, "validation": Gaps(), "clip": 0.3}
        options |= {"validation_samples": 8, "batch_size": batch_size, "accumulate": 8 // batch_size}
        trainer(out, Gaps(), diffusion=cls(unet().model), steps=3, **options).fit()
        with (out / "log.csv").open(newline="") as file:
            names = "loss", "gradient_norm", "validation_loss"
            return [tuple(float(row[name]) for name in names) for row in csv.DictReader(file)]

    whole = course(8)
    stream = Stream(Gaps(), 0)
    for batch_size in (1, 2, 4):
        divided = course(batch_size)
        if cls is Diffusion:
            assert divided == [pytest.approx(row, rel=1e-5) for row in whole]
        else:  # then it is the mean of the batches, as the first step shows
            torch.manual_seed(0)
            diffusion = cls(unet().model)
            losses = []
            for first in range(0, 8, batch_size):
                numbers = range(first, first + batch_size)
                items = [stream[n][1] for n in numbers]
                batch = {name: torch.stack([item[name] for item in items]) for name in items[0]}
                losses.append(diffusion.loss(**batch, **stream.chance(numbers, torch.device("cpu"))).item())
            assert divided[0][0] == pytest.approx(sum(losses) / len(losses), rel=1e-5)


def test_the_global_generator_is_as_it_was(tmp_path: Path) -> None:
    run, diffusion = tmp_path / "run", model()
    torch.manual_seed(5)
    trainer(run, Random(), diffusion=diffusion, steps=2, workers=1).fit()
    assert not multiprocessing.active_children()
    after = torch.rand(3)
    torch.manual_seed(5)
    assert torch.equal(after, torch.rand(3))


@pytest.mark.parametrize("seed", [2**63, 2**64 - 1])
def test_any_seed_is_written_down(seed: int, tmp_path: Path) -> None:
    trainer(tmp_path, steps=1, seed=seed).fit()
    assert read_record(tmp_path / RUN)["seed"] == seed


def test_items_of_all_kinds(tmp_path: Path) -> None:
    labelled = TensorDataset(data(), torch.arange(10) % 3)
    trainer(tmp_path / "a", labelled, diffusion=unet(num_classes=3), steps=2, sample_every=2).fit()
    trainer(tmp_path / "b", TensorDataset(data()), steps=2).fit()
    trainer(tmp_path / "c", [*data().numpy()], steps=2, precision="bf16").fit()
    trainer(
        tmp_path / "d", [{"x0": x, "cond": x} for x in data()], diffusion=unet(cond_channels=1), steps=2
    ).fit()
    for wrong in ([{"x": 1}], [3], [(1, 2, 3)]):
        with pytest.raises(TypeError, match="items of dataset must be"):
            trainer(tmp_path / "e", wrong, overwrite=True, steps=1).fit()


def test_pictures_show_condition_estimate_and_truth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Tensor] = []
    shown: list[tuple[Any, ...]] = []

    def pictures(x: Tensor, path: Path, sample_rate: Any, columns: Any, labels: Any) -> None:
        drawn.append(x)
        shown.append((sample_rate, columns, *labels))

    monkeypatch.setattr(plotting, "pictures", pictures)
    items = [{"x0": x, "cond": torch.cat([x + 1, x]), "mask": x > 0} for x in data()]
    options: dict[str, Any] = {"steps": 4, "sample_every": 2, "num_samples": 2, "sample_args": {"steps": 1}}
    trainer(tmp_path / "run", items, diffusion=unet(cond_channels=2), **options).fit()
    names = sorted(path.name for path in (tmp_path / "run" / "samples").iterdir())
    assert names == ["step-00000002.png", "step-00000004.png"]
    first, x = drawn
    assert x.shape == (6, 1, 8)
    assert torch.equal(x[0::3][x[2::3] > 0], x[2::3][x[2::3] > 0] + 1)
    assert torch.isnan(x[2::3]).any()
    assert torch.equal(first[0::3], x[0::3])
    assert not torch.equal(first[1::3], x[1::3])

    coordinates = unet(cond_channels=2)
    coordinates.data = {"restoration": None, "sample_rate": 8000}
    trainer(tmp_path / "other", items, diffusion=coordinates, **options).fit()
    assert torch.equal(drawn[-1], x[1::3])
    assert shown == [(None, 3, *("given", "estimate", "truth") * 2)] * 2 + [(8000, None)] * 2


def test_what_is_not_installed_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import sys

    from dynunet.training import run

    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr(run, "find_spec", lambda name: None)
    trainer(tmp_path / "run", steps=4, sample_every=1, tensorboard=True).fit()
    said = capsys.readouterr().err
    assert said.count("no pictures of samples") == 1
    assert said.count("tensorboard is not installed") == 1
    monkeypatch.setitem(sys.modules, "accelerate", None)
    monkeypatch.setitem(sys.modules, "accelerate.state", None)
    with pytest.raises(ImportError, match=r"pip install 'dynunet\[train\]'"):
        trainer(tmp_path / "other", steps=4).fit()


def test_tensorboard_has_the_rows_of_the_log(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    trainer(tmp_path / "run", steps=4, tensorboard=True).fit()
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    assert [e.step for e in events.Scalars("loss")] == [2, 4]


def test_tensorboard_has_the_pictures(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    options = {"sample_every": 2, "sample_args": {"steps": 1}, "num_samples": 2}
    trainer(tmp_path / "run", steps=4, tensorboard=True, **options).fit()
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    seen = events.Images("samples")
    assert [e.step for e in seen] == [2, 4]
    with Image.open(tmp_path / "run/samples/step-00000004.png") as drawn:
        with Image.open(io.BytesIO(seen[1].encoded_image_string)) as image:
            assert np.array_equal(np.asarray(image), np.asarray(drawn.convert("RGB")))


def test_the_device_is_one_that_is_there(tmp_path: Path) -> None:
    trainer(tmp_path / "run", steps=1, device="cpu").fit()
    assert json.loads((tmp_path / "run/run.json").read_text())["device"] == "cpu"
    for name in ("cuda:77", "nowhere", "meta"):
        with pytest.raises(ValueError, match=f"device must be one of this machine, got '{name}': "):
            trainer(tmp_path / "other", steps=1, device=name).fit()
    with pytest.raises(ValueError, match="device must be left out with cpu, got 'cuda'"):
        trainer(tmp_path / "other", device="cuda", cpu=True)
    with pytest.raises(TypeError, match="device must be a name, such as 'cuda:1', got 1"):
        trainer(tmp_path / "other", device=1)
    assert not (tmp_path / "other").exists()


# The order of the samples


def test_accelerate_keeps_nothing_of_a_run_for_the_next(tmp_path: Path) -> None:
    """It would take the device of the first run for that of all."""
    from accelerate.state import AcceleratorState, PartialState

    trainer(tmp_path / "run", steps=1).fit()
    assert not AcceleratorState._shared_state
    assert not PartialState._shared_state


def test_an_epoch_has_each_item_once_in_an_order_of_its_own() -> None:
    stream = Stream(range(13), 0)
    epochs = [[stream.index(13 * e + i) for i in range(13)] for e in (0, 1)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(13))
    assert epochs[0] != epochs[1]
    assert epochs[0] != [Stream(range(13), 1).index(i) for i in range(13)]
    assert stream.index(40) == Stream(range(13), 0).index(40)


def test_a_step_has_the_same_samples_however_they_are_divided() -> None:
    def step(batch_size: int, accumulate: int, processes: int) -> list[Counter[int]]:
        parts = [list(schedule(range(2, 5), batch_size, accumulate, processes, p)) for p in range(processes)]
        return [
            Counter(n for own in parts for batch in own[i * accumulate : (i + 1) * accumulate] for n in batch)
            for i in range(3)
        ]

    assert step(12, 1, 1) == [Counter(range(12 * i, 12 * i + 12)) for i in (2, 3, 4)]
    for division in [(6, 2, 1), (6, 1, 2), (2, 3, 2), (1, 2, 6)]:
        assert step(*division) == step(12, 1, 1), division


def test_workers_read_the_same_samples() -> None:
    def read_all(workers: int) -> list[Any]:
        torch.manual_seed(workers)
        return list(Stream(Random(), 3).batches([[0, 1, 2], [9, 8]], workers))

    for (n1, b1), (n2, b2) in zip(read_all(0), read_all(2), strict=True):
        assert n1 == n2
        assert all(torch.equal(b1[name], b2[name]) for name in ("x0", "mask"))


def test_times_are_spread_evenly_over_any_samples_in_sequence() -> None:
    for start, count in [(0, 16), (1000, 7), (10**9, 100)]:
        chance = Stream(range(3), 5).chance(range(start, start + count), torch.device("cpu"))
        q = chance["quantiles"].sort().values
        gaps = torch.cat([q[1:] - q[:-1], (q[:1] + 1 - q[-1:])])
        assert gaps.max() < 2.7 / count, (start, count)
        assert 0 < q[0] < q[-1] < 1


# Options


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("steps", 0, ValueError),
        ("batch_size", 1.5, TypeError),
        ("lr", 0, ValueError),
        ("lr", math.nan, ValueError),
        ("ema", 1, ValueError),
        ("clip", 0, ValueError),
        ("precision", "fp32", ValueError),
        ("decay", "linear", ValueError),
        ("loss", "l3", ValueError),
        ("workers", -1, ValueError),
        ("weight_decay", "much", TypeError),
        ("tf32", "on", TypeError),
    ],
)
def test_wrong_options_are_named(name: str, value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=rf"^{name} must be"):
        TrainOptions(**{name: value})


def test_wrong_arguments_are_named(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"no argument 'batchsize'; did you mean 'batch_size'\?"):
        Trainer(model(), data(), tmp_path, batchsize=4)
    with pytest.raises(TypeError, match=r"model must have a method loss, got a Small"):
        Trainer(model().model, data(), tmp_path)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"dataset must have at least one item"):
        Trainer(model(), data(0), tmp_path)
    with pytest.raises(TypeError, match=r"dataset must have a length and items by number, got generator"):
        Trainer(model(), (x for x in data()), tmp_path)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"must have parameters to train"):
        trainer(tmp_path / "run", diffusion=Diffusion(lambda x, t: x)).fit(1)


def test_the_learning_rate_rises_and_falls() -> None:
    options = chosen(TrainOptions(steps=1000, warmup=50, lr=1.0), None, (8,))
    rates = [options.learning_rate(step) for step in range(1000)]
    assert rates.index(max(rates)) == 50
    assert max(rates) == 1
    assert rates[:50] == pytest.approx([(i + 1) / 51 for i in range(50)])
    assert rates[525] == pytest.approx(0.5)
    assert 0 < rates[-1] < 1e-5
    assert chosen(TrainOptions(steps=20, warmup=500, lr=1.0), None, (8,)).learning_rate(2) == 1
    constant = TrainOptions(steps=20, warmup=0, lr=1.0, decay="constant")
    assert chosen(constant, None, (8,)).learning_rate(19) == 1


@pytest.mark.parametrize(
    ("channels", "size", "lr", "batch"),
    [
        (32, (8, 8), 2e-3, 64),
        (64, (28, 28), 1e-3, 32),
        (320, (64, 64), 2e-4, 16),
        (4, (4096,), 4e-3, 16),  # not above .004
        (None, (5, 5, 5, 5), 2e-4, 32),
        (None, (), 2e-4, 64),
    ],
)
def test_rate_and_batch_where_none_are_given(
    channels: int | None, size: tuple[int, ...], lr: float, batch: int
) -> None:
    made = chosen(TrainOptions(steps=7), channels, size)
    assert (made.lr, made.batch_size, made.steps) == (pytest.approx(lr), batch, 7)
    given = chosen(TrainOptions(lr=3.0, batch_size=2), channels, size)
    assert (given.lr, given.batch_size) == (3.0, 2)


def test_units_of_the_data_are_those_of_the_model(tmp_path: Path) -> None:
    class WithUnits(Random):
        units = {"kind": "audio", "sample_rate": 8000}  # noqa: RUF012

        def validation(self) -> Random:
            return Random()

    made = trainer(tmp_path / "run", WithUnits(), validate_every=2)
    assert isinstance(made.validation, Random)
    made.fit(2)
    assert Diffusion.from_pretrained(tmp_path / "run").data == {"kind": "audio", "sample_rate": 8000}


def test_a_folder_that_checkpoints_cannot_be_read_from_is_refused(tmp_path: Path) -> None:
    out = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    with pytest.raises(ValueError, match=r"out must be a path in UTF-8, got .*caf\\xe9"):
        trainer(out).fit(1)
