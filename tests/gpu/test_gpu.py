"""The script for GPUs: it runs whole on the CPU, loses no row to another, and sees what is wrong."""

import json
import subprocess
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import convnd
import convnd.functional as F
from dynunet import metrics

from . import calls, compare, measuring, supervisor, watching
from .report import Report, table
from .rows import ROOT, Group, Setting

CPU = Setting("cpu", quick=True)


def script(out: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.gpu", "--out", str(out), *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def results(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_fails_and_says_so(tmp_path: Path) -> None:
    done = script(tmp_path)
    assert done.returncode == 1
    assert "no GPU" in done.stdout


def run(tmp_path: Path, group: Group, seconds: float) -> Sequence[dict[str, Any]]:
    with (tmp_path / "log.txt").open("w") as log, Report(tmp_path) as report:
        supervisor.run_groups([group], CPU, seconds, 1, 1, log, report)
    assert report.failed() == any(row["status"] == "failed" for row in report.rows)
    return report.rows


def test_a_row_that_goes_wrong_loses_no_other(tmp_path: Path) -> None:
    rows = run(tmp_path, Group("correctness", "faulty", "rows"), 120)
    assert [(row["name"], row["status"]) for row in rows] == [
        ("good", "ok"),
        ("raises", "failed"),
        ("dies", "failed"),
        ("hangs", "failed"),
        ("skips", "skipped"),
        ("last", "ok"),
    ]
    assert results(tmp_path) == rows
    assert "ArithmeticError: wrong" in rows[1]["error"]
    assert "status 3" in rows[2]["error"]
    assert "| good | ok | 0.5 |" in table(list(rows))


def test_a_group_ends_with_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "GRACE", 0.5)
    (row,) = run(tmp_path, Group("correctness", "faulty", "slow"), 8)
    assert (row["name"], row["status"]) == ("slow", "cut")


@pytest.mark.parametrize("n", calls.RANKS)
def test_every_public_name_has_a_call(n: int) -> None:
    assert set(F.__all__) <= set(calls.functions(n))
    assert {name for name in convnd.__all__ if name.endswith("Nd")} == set(calls.modules(n))
    assert all(found for name, found in calls.functions(n).items() if name in F.__all__)


def test_every_metric_has_a_call() -> None:
    assert {*metrics.__all__, "summarize"} == set(measuring.calls(1))


def wrong(x: Tensor) -> Tensor:
    """Right in float64 alone."""
    return x.square() * (1 if x.dtype == torch.float64 else 1.001)


class WrongGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Tensor:
        return (2 if grad_outputs[0].dtype == torch.float64 else 3) * grad_outputs[0]


@pytest.mark.parametrize("function", [wrong, WrongGradient.apply])
def test_wrong_results_and_gradients_are_seen(function: Any) -> None:
    call = compare.Call("wrong", function, [calls.random(2, 3, 5)])
    with pytest.raises(compare.Mismatch, match="float32"):
        compare.check([call], CPU, [compare.FLOAT32])


def test_a_result_that_is_not_finite_is_no_small_error() -> None:
    good, bad = torch.ones(2), torch.tensor([1.0, float("nan")])
    assert compare.error(bad, good) == compare.error(good, bad) == float("inf")
    assert compare.error(bad, bad) == 0


@pytest.mark.parametrize("name", compare.LAYOUTS)
def test_layouts_keep_the_values(name: str) -> None:
    x = calls.random(2, 3, 4, 5)
    laid_out = compare.LAYOUTS[name](x)
    assert torch.equal(laid_out, x)
    assert laid_out.stride() != x.stride()


def test_a_wait_is_told_with_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """As torch tells it: a warning or an error, from inside the call that waits."""

    def waits_in(x: Tensor, p: float, training: bool) -> Tensor:
        warnings.warn("called a synchronizing CUDA operation", stacklevel=1)
        return x

    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", lambda mode: None)
    monkeypatch.setattr(torch, "feature_dropout", waits_in)
    waits = watching.Waits()
    with watching.watched(Setting("cuda", True), "warn", waits):
        convnd.DropoutNd(1)(torch.ones(1, 1, 1))
    with watching.watched(Setting("cuda", True), "error", waits):
        raise RuntimeError("called a synchronizing CUDA operation")
    assert len(waits.places) == 2
    assert next(iter(waits.places)).startswith("convnd/modules/norm.py:")
