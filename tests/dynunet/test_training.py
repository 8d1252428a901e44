"""Training: compared with a loop written out in plain torch, and with itself after interruptions."""

import csv
import json
import math
import multiprocessing
import os
import pickle
import random
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import accelerate
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

from dynunet import Diffusion, UNet, plotting
from dynunet.checkpoints import Checkpoint
from dynunet.training import Interrupted, Trainer, TrainingError, TrainOptions, loop
from dynunet.training.order import Stream, hashed, schedule
from dynunet.training.state import Checkpoints, read

QUIET: dict[str, Any] = {"progress": False, "sample_every": 0, "tensorboard": False, "validate_every": 0}


class Small(Checkpoint, nn.Module):
    """Small, with all there is to keep: dropout, running statistics, a counter."""

    def __init__(self, width: int = 4, gradient_checkpointing: bool = False) -> None:
        super().__init__()
        self.first, self.last = nn.Conv1d(2, width, 3, padding=1), nn.Conv1d(width, 1, 3, padding=1)
        self.norm, self.dropout = nn.BatchNorm1d(width), nn.Dropout(0.1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        x = torch.cat([x, t.to(x)[:, None, None].expand(x.shape)], 1)
        return self.last(self.dropout(torch.relu(self.norm(self.first(x)))))


def model(**options: Any) -> Diffusion:
    torch.manual_seed(0)
    return Diffusion(Small(**options))


def unet(**options: Any) -> Diffusion:
    torch.manual_seed(0)
    return Diffusion(UNet(1, 1, channels=(4, 8), num_blocks=1, num_groups=2, time_embedding=True, **options))


LOSS_CURVE = plotting.loss_curve


@pytest.fixture(autouse=True)
def _without_the_curve(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing it takes longer than most of these runs."""
    monkeypatch.setattr(plotting, "loss_curve", lambda log, path: None)


def data(n: int = 10) -> Tensor:
    return torch.rand(n, 1, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1


def trainer(out: Path, dataset: Any = None, **options: Any) -> Trainer:
    options = {**QUIET, "batch_size": 4, "save_every": 4, "lr": 1e-2, "log_every": 2, **options}
    return Trainer(
        options.pop("diffusion", None) or model(), data() if dataset is None else dataset, out, **options
    )


def weights(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def assert_same(a: Any, b: Any) -> None:
    """The same names and bits."""
    a, b = (weights(m) if isinstance(m, nn.Module) else m for m in (a, b))
    assert a.keys() == b.keys()
    wrong = [name for name in a if not torch.equal(a[name], b[name])]
    assert not wrong, (
        f"{len(wrong)} of {len(a)} differ, first {wrong[0]} by {(a[wrong[0]] - b[wrong[0]]).abs().max()}"
    )


class Random(Dataset[Any]):
    """Random in torch, NumPy and Python."""

    def __len__(self) -> int:
        return 7

    def __getitem__(self, i: int) -> Any:
        noise = 0.1 * torch.randn(1, 8) + 0.1 * float(np.random.rand()) + 0.1 * random.random()
        return {"x0": data()[i] + noise, "mask": torch.rand(1, 8) > 0.2}


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
        for part in range(2):
            numbers = range(8 * step + 4 * part, 8 * step + 4 * part + 4)
            items = [stream[n][1] for n in numbers]
            batch = {name: torch.stack([item[name] for item in items]) for name in items[0]}
            chance = stream.chance(numbers, torch.device("cpu"))
            torch.manual_seed(hashed(0, "step", step, part, 0))
            (diffusion.loss(**batch, **chance) / 2).backward()
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
    total = 0.0
    for numbers in (range(4), range(4, 8), [8]):
        items = [stream[n][1] for n in numbers]
        batch = {name: torch.stack([item[name] for item in items]) for name in items[0]}
        total += made.loss(**batch, **stream.chance([*numbers], torch.device("cpu"))).item() * len(numbers)
    assert logged == pytest.approx(total / 9, rel=1e-5)


def test_the_global_generator_is_as_it_was(tmp_path: Path) -> None:
    run, diffusion = tmp_path / "run", model()
    torch.manual_seed(5)
    trainer(run, Random(), diffusion=diffusion, steps=2, workers=1).fit()
    assert not multiprocessing.active_children()
    after = torch.rand(3)
    torch.manual_seed(5)
    assert torch.equal(after, torch.rand(3))


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
    drawn: dict[str, Tensor] = {}
    shown: list[tuple[Any, Any]] = []

    def pictures(x: Tensor, path: Path, sample_rate: Any, columns: Any) -> None:
        drawn[path.name] = x
        shown.append((sample_rate, columns))

    monkeypatch.setattr(plotting, "pictures", pictures)
    items = [{"x0": x, "cond": torch.cat([x + 1, x]), "mask": x > 0} for x in data()]
    options: dict[str, Any] = {"steps": 4, "sample_every": 2, "num_samples": 2, "sample_args": {"steps": 1}}
    trainer(tmp_path / "run", items, diffusion=unet(cond_channels=2), **options).fit()
    assert [*drawn] == ["step-00000002.png", "step-00000004.png"]
    x = drawn["step-00000004.png"]
    assert x.shape == (6, 1, 8)
    assert torch.equal(x[0::3][x[2::3] > 0], x[2::3][x[2::3] > 0] + 1)
    assert torch.isnan(x[2::3]).any()
    assert torch.equal(drawn["step-00000002.png"][0::3], x[0::3])
    assert not torch.equal(drawn["step-00000002.png"][1::3], x[1::3])

    coordinates = unet(cond_channels=2)
    coordinates.data = {"restoration": None, "sample_rate": 8000}
    trainer(tmp_path / "other", items, diffusion=coordinates, **options).fit()
    assert torch.equal(drawn["step-00000004.png"], x[1::3])
    assert shown == [(None, 3)] * 2 + [(8000, None)] * 2


def test_what_is_not_installed_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import sys

    import dynunet.training.run

    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr(dynunet.training.run, "find_spec", lambda name: None)
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


# The order of the samples


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


# Resuming


class Stop(Exception):
    pass


def stopped(out: Path, at: int, **options: Any) -> None:
    """Break off in the middle, without saving."""

    def stop(step: int, row: Any) -> None:
        if step >= at:
            raise Stop

    with pytest.raises(Stop):
        trainer(out, Random(), callbacks=[stop], **options).fit()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_resumed_run_ends_with_the_same_bits(tmp_path: Path, workers: int) -> None:
    options: dict[str, Any] = {"steps": 14, "validation": data(3), "validate_every": 5, "workers": workers}
    options["log_every"] = 3  # some checkpoints are between rows
    whole = trainer(tmp_path / "whole", Random(), **options).fit()
    stopped(tmp_path / "run", 10, **options)
    torch.manual_seed(99)
    resumed = trainer(tmp_path / "run", Random(), **options).fit(resume=True)
    assert_same(resumed, whole)
    ends = [read(tmp_path / name / "checkpoints" / "step-00000014") for name in ("whole", "run")]
    assert_same(*(end.state["model"] for end in ends))
    logs = []
    for name in ("whole", "run"):
        with (tmp_path / name / "log.csv").open(newline="") as file:
            logs.append([(r["step"], r["loss"], r["validation_loss"], r["lr"]) for r in csv.DictReader(file)])
    assert logs[0] == logs[1]
    assert len(json.loads((tmp_path / "run" / "run.json").read_text())["resumed"]) == 1


def test_the_best_so_far_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    losses = iter([1.0, 3.0, 2.0])
    monkeypatch.setattr(loop, "validation_loss", lambda engine, stream: next(losses))
    options: dict[str, Any] = {"steps": 15, "validation": data(3), "validate_every": 5}
    stopped(tmp_path / "run", 7, **options)
    trainer(tmp_path / "run", Random(), **options).fit(resume=True)
    assert Checkpoints(tmp_path / "run" / "checkpoints").steps() == [5, 12, 15]
    assert read(tmp_path / "run" / "checkpoints" / "step-00000015").numbers["best"] == [5, 1.0]


def test_a_run_that_is_complete_is_returned(tmp_path: Path) -> None:
    first = trainer(tmp_path / "run", steps=4).fit()
    again = trainer(tmp_path / "run", steps=4).fit(resume=True)
    assert_same(again, first)


def test_resume_begins_a_run_where_there_is_none(tmp_path: Path) -> None:
    assert_same(trainer(tmp_path / "a").fit(4, resume=True), trainer(tmp_path / "b").fit(4))


def test_a_run_killed_before_its_first_step_starts_from_the_same_weights(tmp_path: Path) -> None:
    stopped(tmp_path / "run", 2, steps=4)
    assert Checkpoints(tmp_path / "run" / "checkpoints").steps() == [0]
    other = model()
    for p in other.parameters():
        nn.init.normal_(p)
    resumed = trainer(tmp_path / "run", Random(), diffusion=other, steps=4).fit(resume=True)
    assert_same(resumed, trainer(tmp_path / "whole", Random(), steps=4).fit())


def test_options_that_change_the_course_are_refused_by_name(tmp_path: Path) -> None:
    trainer(tmp_path / "run", steps=4).fit()
    with pytest.raises(ValueError, match=r"lr=0.5 instead of 0.01; seed=3 instead of 0"):
        trainer(tmp_path / "run", lr=0.5, seed=3).fit(8, resume=True)
    with pytest.raises(ValueError, match=r"batch_size \* accumulate \* processes=8 instead of 4"):
        trainer(tmp_path / "run", batch_size=8).fit(8, resume=True)
    with pytest.raises(ValueError, match=r"len\(dataset\)=9 instead of 10"):
        trainer(tmp_path / "run", data(9)).fit(8, resume=True)
    with pytest.raises(ValueError, match=r"diffusion.model.width=5 instead of 4"):
        trainer(tmp_path / "run", diffusion=model(width=5)).fit(8, resume=True)
    checked = model(gradient_checkpointing=True)
    longer = trainer(tmp_path / "run", diffusion=checked, batch_size=2, accumulate=2, save_every=3, workers=1)
    assert not longer.fit(8, resume=True).training


# The folder


def test_a_folder_that_is_in_use_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all of it")
    for options in ({}, {"overwrite": True}):
        with pytest.raises(ValueError, match=r"out must be a new or empty folder or that of a run"):
            trainer(tmp_path / "mine", steps=2, **options).fit()
    with pytest.raises(ValueError, match=r"out must be a folder, got the file"):
        trainer(tmp_path / "mine" / "thesis.txt", steps=2).fit()
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "all of it"

    first = trainer(tmp_path / "run", steps=4).fit()
    with pytest.raises(
        ValueError, match=r"holds a run: go on with fit\(resume=True\), or give overwrite=True"
    ):
        trainer(tmp_path / "run", steps=2).fit()
    assert_same(Diffusion.from_pretrained(tmp_path / "run"), first)
    trainer(tmp_path / "run", steps=2, overwrite=True).fit()
    assert Checkpoints(tmp_path / "run" / "checkpoints").steps() == [0, 2]


def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = trainer(tmp_path / "whole", steps=12).fit()
    for name in ("state.pt", "model.safetensors", "state.json"):
        out = tmp_path / name
        trainer(out, steps=8, decay="cosine").fit(12)
        assert Checkpoints(out / "checkpoints").steps() == [8, 12]
        file = out / "checkpoints" / "step-00000012" / name
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
        (out / "checkpoints" / ".step-00000016").mkdir()
        (out / "checkpoints" / ".step-00000016" / "state.pt").write_bytes(b"half")
        assert_same(trainer(out, steps=12).fit(resume=True), whole)
        said = capsys.readouterr().err
        assert "step-00000012 is damaged" in said
        assert "going on from step 8" in said
        assert sorted(p.name for p in (out / "checkpoints").iterdir()) == [
            "damaged-00000012",
            "step-00000008",
            "step-00000012",
        ]
    for step in (8, 12):
        (tmp_path / "state.pt" / "checkpoints" / f"step-{step:08d}" / "state.json").unlink()
    with pytest.raises(
        ValueError, match=r"must have a checkpoint that is whole, got step-00000012 .*step-00000008"
    ):
        trainer(tmp_path / "state.pt", steps=12).fit(resume=True)


def test_the_last_two_checkpoints_and_the_best_are_kept(tmp_path: Path) -> None:
    checkpoints, kept = Checkpoints(tmp_path), []
    for step in range(1, 7):
        checkpoints.save(step, {}, model(), {}, best=1 if step < 5 else 5)
        kept.append(checkpoints.steps())
    assert kept == [[1], [1, 2], [1, 2, 3], [1, 3, 4], [4, 5], [5, 6]]


class Killed(BaseException):
    pass


def test_a_save_that_is_cut_off_anywhere_leaves_a_checkpoint_that_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    diffusion, left = model(), 0

    def cut(name: str) -> Any:
        original = getattr(os, name)

        def operation(*args: Any, **keywords: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                raise Killed
            return original(*args, **keywords)

        return operation

    after, complete = 0, False
    while not complete:
        checkpoints = Checkpoints(tmp_path / str(after))
        for step in (1, 2):
            checkpoints.save(step, {"model": diffusion.state_dict()}, diffusion, {}, best=1)
        left = after
        with monkeypatch.context() as patched:
            for name in ("mkdir", "fsync", "replace", "rename", "unlink", "rmdir"):
                patched.setattr(os, name, cut(name))
            try:
                checkpoints.save(3, {"model": diffusion.state_dict()}, diffusion, {}, best=3)
                complete = True
            except Killed:
                pass
        found = checkpoints.latest(pytest.fail)
        assert found is not None
        assert found.numbers["step"] in (2, 3), after
        assert all(read(checkpoints.path(step)) for step in checkpoints.steps()), after
        checkpoints.save(4, {"model": diffusion.state_dict()}, diffusion, {}, best=3)
        assert len([*checkpoints.folder.iterdir()]) <= 3, after
        after += 1
    assert after > 15


def test_no_code_in_a_checkpoint_is_run(tmp_path: Path) -> None:
    import hashlib

    trainer(tmp_path / "run", steps=4).fit()
    folder = tmp_path / "run" / "checkpoints" / "step-00000004"

    class Evil:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "owned"),)

    torch.save({"model": Evil()}, folder / "state.pt")
    numbers = json.loads((folder / "state.json").read_text())
    numbers["files"]["state.pt"] = hashlib.sha256((folder / "state.pt").read_bytes()).hexdigest()
    (folder / "state.json").write_text(json.dumps(numbers))
    with pytest.raises(pickle.UnpicklingError):
        trainer(tmp_path / "run", steps=4).fit(resume=True)
    assert not (tmp_path / "owned").exists()


# Stops and failures


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_says_how_to_resume(tmp_path: Path, number: signal.Signals, workers: int) -> None:
    def stop(step: int, row: Any) -> None:
        if step == 6:
            readers = multiprocessing.active_children()
            assert len(readers) == workers
            # A terminal and a launcher signal the group.
            assert all(os.getpgid(reader.pid or 0) != os.getpgid(0) for reader in readers)
            os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    options: dict[str, Any] = {"steps": 20, "workers": workers}
    with pytest.raises(
        KeyboardInterrupt, match=rf"{number.name} after step 6 of 20, .*resume=True"
    ) as caught:
        trainer(tmp_path / "run", callbacks=[stop], **options).fit()
    assert isinstance(caught.value, Interrupted)
    assert signal.getsignal(number) is before
    assert Checkpoints(tmp_path / "run" / "checkpoints").steps()[-1] == 6
    resumed = trainer(tmp_path / "run", **options).fit(resume=True)
    assert_same(resumed, trainer(tmp_path / "whole", **options).fit())


def test_a_second_signal_stops_at_once(tmp_path: Path) -> None:
    def stop(step: int, row: Any) -> None:
        if step == 6:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.2)  # another thread may receive it: two at once would count as one
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.2)

    # In the background of a shell SIGINT is ignored, and the second one would be.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt) as caught:
            trainer(tmp_path / "run", callbacks=[stop]).fit(10)
    finally:
        signal.signal(signal.SIGINT, before)
    assert not isinstance(caught.value, Interrupted)
    assert Checkpoints(tmp_path / "run" / "checkpoints").steps() == [0, 4]


class Breaks(nn.Module):
    """A network that fails after some steps."""

    def __init__(self, error: BaseException | float, after: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.error, self.after, self.calls = error, after, 0

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        self.calls += 1
        if self.calls <= self.after:
            return x * self.weight
        if isinstance(self.error, BaseException):
            raise self.error
        return x * self.weight * self.error


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:119] DefaultCPUAllocator: can't allocate memory: you tried"
        ),
    ],
)
def test_out_of_memory_ends_with_advice(tmp_path: Path, error: BaseException) -> None:
    diffusion = Diffusion(Breaks(error, 6))
    with pytest.raises(TrainingError, match=r"batch_size with accumulate .*gradient_checkpointing"):
        trainer(tmp_path / "run", diffusion=diffusion, steps=20).fit()
    assert read(tmp_path / "run" / "checkpoints" / "step-00000004").numbers["step"] == 4


def test_other_errors_are_left_as_they_are(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"^odd$") as caught:
        trainer(tmp_path / "run", diffusion=Diffusion(Breaks(RuntimeError("odd"), 1)), steps=20).fit()
    assert not isinstance(caught.value, TrainingError)


@pytest.mark.parametrize("factor", [math.nan, math.inf, 1e30])
def test_a_loss_that_is_not_finite_ends_with_advice(tmp_path: Path, factor: float) -> None:
    diffusion = Diffusion(Breaks(factor, 6))
    with pytest.raises(TrainingError, match=r"NaN or infinite by step 8.* lower lr.*step-00000004$"):
        trainer(tmp_path / "run", diffusion=diffusion, steps=20, log_every=100, clip=None).fit()
    saved = read(tmp_path / "run" / "checkpoints" / "step-00000004")
    assert saved.state["model"]["model.weight"].isfinite()
    assert Checkpoints(tmp_path / "run" / "checkpoints").steps() == [0, 4]


def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = loop.Engine.step

    def step(self: Any, step: int, *rest: Any) -> Tensor:
        result = original(self, step, *rest)
        if step == 7:
            next(self.diffusion.parameters()).data.fill_(math.nan)
        return result

    monkeypatch.setattr(loop.Engine, "step", step)
    with pytest.raises(TrainingError, match=r"the weights became NaN"):
        trainer(tmp_path / "run", steps=20).fit()
    assert Checkpoints(tmp_path / "run" / "checkpoints").steps() == [0, 4]


class Steep(nn.Module):
    """Its gradient is beyond the range of fp16 until the loss is scaled less."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv1d(1, 1, 1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return 30 * self.layer(x)


def test_a_step_left_out_for_the_range_of_fp16_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Scaled(accelerate.Accelerator):
        """As on a GPU, where alone accelerate scales the loss for fp16."""

        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self.native_amp, self.scaler = True, torch.amp.GradScaler("cpu")
            self.state._mixed_precision = "fp16"

    monkeypatch.setattr(accelerate, "Accelerator", Scaled)

    def fit(name: str, resume: bool = False, **more: Any) -> Diffusion:
        torch.manual_seed(0)
        run = trainer(tmp_path / name, Random(), diffusion=Diffusion(Steep()), steps=12, **more)
        return run.fit(resume=resume)

    def stop(step: int, row: Any) -> None:
        if step == 10:
            raise Stop

    whole = fit("whole")
    with pytest.raises(Stop):
        fit("run", callbacks=[stop])
    scaler = read(tmp_path / "run" / "checkpoints" / "step-00000008").state["scaler"]
    assert 0 < scaler["scale"] < 65536, "no step was left out"
    assert_same(fit("run", resume=True), whole)


def test_fp16_is_refused_on_a_cpu(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"precision must be 'bf16' or 'no' on a CPU, got 'fp16'"):
        trainer(tmp_path / "run", precision="fp16", cpu=True, steps=2).fit()
    trainer(tmp_path / "run", precision="bf16", cpu=True, steps=2).fit()


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
    ],
)
def test_wrong_options_are_named(name: str, value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=rf"^{name} must be"):
        TrainOptions(**{name: value})


def test_wrong_arguments_are_named(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"no argument 'batchsize'; did you mean 'batch_size'\?"):
        Trainer(model(), data(), tmp_path, batchsize=4)
    with pytest.raises(TypeError, match=r"diffusion must be a Diffusion, got Small"):
        Trainer(model().model, data(), tmp_path)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"dataset must have at least one item"):
        Trainer(model(), data(0), tmp_path)
    with pytest.raises(TypeError, match=r"dataset must have a length and items by number, got generator"):
        Trainer(model(), (x for x in data()), tmp_path)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"must have parameters to train"):
        trainer(tmp_path / "run", diffusion=Diffusion(lambda x, t: x)).fit(1)


def test_the_learning_rate_rises_and_falls() -> None:
    options = TrainOptions(steps=1000, warmup=50, lr=1.0)
    rates = [options.learning_rate(step) for step in range(1000)]
    assert rates.index(max(rates)) == 50
    assert max(rates) == 1
    assert rates[:50] == pytest.approx([(i + 1) / 51 for i in range(50)])
    assert rates[525] == pytest.approx(0.5)
    assert 0 < rates[-1] < 1e-5
    assert TrainOptions(steps=20, warmup=500, lr=1.0).learning_rate(2) == 1
    assert TrainOptions(steps=20, warmup=0, lr=1.0, decay="constant").learning_rate(19) == 1


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
    with pytest.raises(ValueError, match=r"out must be a path in UTF-8, got b'.*caf\\xe9'"):
        trainer(out).fit(1)
