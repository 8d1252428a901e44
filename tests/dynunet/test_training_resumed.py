"""Training that goes on after an interruption, and the folder that it goes on from."""

import csv
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from dynunet import Diffusion
from dynunet.training import loop
from dynunet.training.state import Checkpoints, read

from .trainers import Random, assert_resumes, assert_same, data, model, stopped, trainer

pytestmark = pytest.mark.usefixtures("without_the_curve")


# Resuming


@pytest.mark.parametrize("workers", [0, 1])
def test_a_resumed_run_ends_with_the_same_bits(tmp_path: Path, workers: int) -> None:
    options: dict[str, Any] = {"steps": 14, "validation": data(3), "validate_every": 5, "workers": workers}
    options["log_every"] = 3  # some checkpoints are between rows
    assert_resumes(tmp_path, 10, **options)
    logs = []
    for name in ("whole", "run"):
        with (tmp_path / name / "log.csv").open(newline="") as file:
            logs.append([(r["step"], r["loss"], r["validation_loss"], r["lr"]) for r in csv.DictReader(file)])
    assert logs[0] == logs[1]
    assert len(json.loads((tmp_path / "run" / "run.json").read_text())["resumed"]) == 1


def test_the_best_so_far_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    losses = iter([1.0, 3.0, 2.0])
    monkeypatch.setattr(loop, "validate", lambda engine, stream: {"validation_loss": next(losses)})
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


NUMBERS: dict[str, Any] = {"fixed": {}, "best": None, "seconds": 0.0, "sums": [0.0, 0.0, 0]}


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
            checkpoints.save(step, {"model": diffusion.state_dict()}, diffusion, NUMBERS, best=1)
        left = after
        with monkeypatch.context() as patched:
            for name in ("mkdir", "fsync", "replace", "rename", "unlink", "rmdir"):
                patched.setattr(os, name, cut(name))
            try:
                checkpoints.save(3, {"model": diffusion.state_dict()}, diffusion, NUMBERS, best=3)
                complete = True
            except Killed:
                pass
        found = checkpoints.latest(pytest.fail)
        assert found is not None
        assert found.numbers["step"] in (2, 3), after
        assert all(read(checkpoints.path(step)) for step in checkpoints.steps()), after
        checkpoints.save(4, {"model": diffusion.state_dict()}, diffusion, NUMBERS, best=3)
        assert len([*checkpoints.folder.iterdir()]) <= 3, after
        after += 1
    assert after > 15


def test_no_code_in_a_checkpoint_is_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
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
    trainer(tmp_path / "run", steps=4).fit(resume=True)
    assert not (tmp_path / "owned").exists()
    said = capsys.readouterr().err
    assert "step-00000004 is damaged and passed over" in said
    assert "state.pt must hold tensors and numbers alone" in said
    assert "weights_only" not in said
