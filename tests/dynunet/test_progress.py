"""What is said while something goes on: how long it takes, what is done, where the best is."""

import io
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from dynunet import progress
from dynunet.progress import Bar, duration
from dynunet.training import Trainer, forecast, loop

from .trainers import unet


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def train(out: Path, **options: Any) -> Any:
    data = torch.rand(8, 1, 16) * 2 - 1
    small = {"batch_size": 2, "sample_every": 0, "tensorboard": False, "cpu": True, "steps": 6}
    return Trainer(unet(), data, out, validation=data[:4], **{**small, **options}).fit()


def test_the_time_is_foretold_and_losses_and_the_best_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(forecast, "_SECONDS", 0.0)
    monkeypatch.setattr(forecast, "_LONG", 0.0)
    train(tmp_path / "run", validate_every=2)
    said = capsys.readouterr().err.splitlines()
    foretold = [
        line for line in said if re.fullmatch(r"6 steps take about \d+ seconds? here \(on cpu\)", line)
    ]
    assert len(foretold) == 1
    assert sum("without a GPU: a tenth of the steps" in line for line in said) == 1
    losses = [line for line in said if "validation loss" in line]
    assert [line.split(":")[0] for line in losses] == ["step 2", "step 4", "step 6"]
    best = [line.split(":")[0] for line in losses if line.endswith("the best")][-1]
    assert said[-1].startswith(f"best validation after {best}, kept in {tmp_path / 'run'}")
    assert Path(said[-1].split("kept in ")[1]).is_dir()
    train(tmp_path / "quiet", progress=False)
    assert capsys.readouterr().err == ""


def test_a_first_checkpoint_is_written_soon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(tmp_path / "late")
    monkeypatch.setattr(loop, "_FIRST_SAVE", 0.0)
    train(tmp_path / "soon")
    for name, steps in (
        ("late", ["step-00000000", "step-00000006"]),
        ("soon", ["step-00000001", "step-00000006"]),
    ):
        assert sorted(p.name for p in (tmp_path / name / "checkpoints").iterdir()) == steps


def test_off_a_terminal_there_is_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for seconds, lines in ((0.0, 5), (30.0, 0)):
        monkeypatch.setattr(progress, "_SECONDS", seconds)
        with Bar(total=5, desc="reading") as bar:
            for _ in range(5):
                bar.doing("training")
                bar.update()
                progress.say("something else")
        said = [line for line in capsys.readouterr().err.split("\n") if line.startswith("training")]
        assert len(said) >= lines
        assert all(re.match(r"training: [0-5] of 5, 00:0\d so far", line) for line in said)
        assert bool(said) == bool(lines)


def test_on_a_terminal_the_bar_says_what_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with Bar(total=5, desc="training") as bar:
        bar.doing("validating")
    assert "validating:   0%" in terminal.getvalue()


def test_durations_are_words() -> None:
    expected = {1: "1 second", 89: "89 seconds", 600: "10 minutes", 70920: "19.7 hours", 10**6: "11.6 days"}
    assert {seconds: duration(seconds) for seconds in expected} == expected
