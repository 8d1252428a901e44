"""``dynunet plan`` on small files of every rank: a config that trains, and reasons beside it."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from dynunet.planning import plan
from tests.dynunet.target_writers import RANKS, folder, run

TRAIN = "--steps 2 --num-blocks 1 --sample-every 0 --no-tensorboard --cpu --validation 0".split()


@pytest.mark.parametrize("rank", RANKS)
def test_a_plan_trains(rank: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Label maps in odd ranks, new data in even ones; the plan goes to the standard output or to a file."""
    root, data = folder(tmp_path, rank), ["--spatial-dims", rank]
    data += ["--targets", root / "masks"] if rank % 2 else []
    budget = ["--memory", "1GB", "--width", 4, "--device", "cpu"]
    capsys.readouterr()
    run("plan", root / "scans", *data, *budget)
    said = capsys.readouterr()
    flags = json.loads(said.out)
    assert flags["source"] == str(root / "scans")
    assert len(flags["size"]) == rank
    assert all(word in said.err for word in ("patch", "strides", "batch", "memory", "of 1 GB"))
    (tmp_path / "plan.json").write_text(said.out)
    run("train", "--config", tmp_path / "plan.json", *TRAIN, "--out", tmp_path / "run")
    record = json.loads((tmp_path / "run/run.json").read_text())
    assert {name: record["flags"][name] for name in flags} == flags


def test_plans_of_coarse_and_unlike_volumes(tmp_path: Path) -> None:
    """Files of other spacings are resampled to the median; the coarse axis is strided last."""
    for i, step in enumerate((4.0, 4.0, 6.0)):
        values = np.random.default_rng(i).normal(size=(20, 24, 9)).astype(np.float32)
        nib.save(nib.Nifti1Image(values, np.diag([1, 1, step, 1])), tmp_path / f"{i}.nii")
    found = plan(tmp_path, "1GB", width=4)
    assert found.data.spacing == (1, 1, 4)
    assert found.flags()["spacing"] == [1, 1, 4]
    assert found.flags()["strides"][0] == "2x2x1"
    assert found.flags()["kernel_size"][0] == "3x3x1"
    assert "axis 2 is coarse" in str(found)


def test_a_plan_for_some_hours(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scans = folder(tmp_path, 2) / "scans"
    capsys.readouterr()
    run("plan", scans, "--memory", "1GB", "--hours", 0.001, "--device", "cpu")
    said = capsys.readouterr()
    flags = json.loads(said.out)
    assert flags["channels"][0] < 32
    assert f"so {flags['steps']} steps in that time" in said.err


def test_errors_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scans = folder(tmp_path, 2) / "scans"
    for words, expected in (
        ((scans, "--memory", "1MB"), "--memory must be at least"),
        ((scans, "--memory", "lots"), "--memory must be an amount such as 8GB or 512MiB, got 'lots'"),
        ((scans, "--memory", "1GB", "--width", 0), "--width must be at least 1, got 0"),
        ((scans, "--memory", "1GB", "--hours", 0), "--hours must be positive and finite, got 0"),
        ((tmp_path / "none", "--memory", "1GB"), "source: there is no file or folder"),
        ((scans, "--memory", "1GB", "--size", 8, 8, 8), "size must be"),
    ):
        capsys.readouterr()
        with pytest.raises(SystemExit) as error:
            run("plan", *words, "--device", "cpu")
        assert error.value.code == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1, lines
        assert expected in lines[0]


def test_the_plan_in_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scans = folder(tmp_path, 2) / "scans"
    capsys.readouterr()
    run("plan", scans, "--memory", "1GB", "--width", 4, "--size", 8, "--out", tmp_path / "plan.json")
    assert "8x8, as asked" in capsys.readouterr().out
    assert json.loads((tmp_path / "plan.json").read_text())["size"] == [8, 8]
