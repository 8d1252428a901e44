"""The folder of a run: what is its own and what is not, who may write there, and a disk that is full."""

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dynunet import Diffusion
from dynunet.training import TrainingError
from dynunet.training.folder import check_folder, locked
from dynunet.training.state import Checkpoints
from dynunet.writing import DiskFull, replacing, write_text, written

from .trainers import assert_same, data, stopped, trainer

pytestmark = pytest.mark.usefixtures("without_the_curve")


def contents(folder: Path) -> dict[str, bytes | None]:
    """Every file and folder below, links by what they point to, but for the lock."""

    def content(path: Path) -> bytes | None:
        if path.is_symlink():
            return os.fsencode(os.readlink(path))
        return path.read_bytes() if path.is_file() else None

    return {str(p.relative_to(folder)): content(p) for p in folder.rglob("*") if p.name != ".lock"}


def replaced(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to("/nowhere")


def linked(path: Path) -> None:
    target = path.parent.parent / "elsewhere"
    target.mkdir()
    (target / "step-00000001.png").write_bytes(b"precious")
    path.symlink_to(target)


PRECIOUS: dict[str, Callable[[Path], Any]] = {
    "thesis/chapter.txt": lambda path: path.write_text("all of it"),
    "notes.txt": lambda path: path.write_text("mine"),
    "empty/of/mine": lambda path: path.mkdir(),
    "samples/mine.png": lambda path: path.write_bytes(b"png"),
    "samples/step-00000004.png/inside": lambda path: path.write_bytes(b"png"),
    "checkpoints/step-00000004/notes.txt": lambda path: path.write_text("mine"),
    "checkpoints/step-00000004/config.json/inside": lambda path: path.write_text("mine"),
    "checkpoints/best/model.safetensors": lambda path: path.write_bytes(b"mine"),
    "checkpoints/.step-00000004/mine": lambda path: path.write_bytes(b"mine"),
    "tensorboard/mine": lambda path: path.write_bytes(b"mine"),
    "data/0.npy": lambda path: path.write_bytes(b"mine"),
    "loss.png.bak": lambda path: path.write_bytes(b"mine"),
    ".tmp-mine": lambda path: path.write_bytes(b"mine"),
    "deeper/run.json": lambda path: path.write_text("{}"),
    "loss.png": replaced,
    "samples": linked,
}


@pytest.mark.parametrize("name", PRECIOUS)
def test_a_run_with_anything_else_in_its_folder_is_not_overwritten(tmp_path: Path, name: str) -> None:
    trainer(tmp_path / "run", steps=1).fit()
    path = tmp_path / "run" / name
    if path.parent.is_file():
        path.parent.unlink()
    path.parent.mkdir(parents=True, exist_ok=True)
    PRECIOUS[name](path)
    before = contents(tmp_path)
    with pytest.raises(ValueError, match=r"which no run wrote") as caught:
        trainer(tmp_path / "run", steps=1, overwrite=True).fit()
    assert name.split("/")[0] in str(caught.value)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("record", ['{"x": 1}', "[]", "not JSON", '{"options": {}, "flags": {}}'])
def test_a_folder_whose_record_is_not_of_a_run_is_left_alone(tmp_path: Path, record: str) -> None:
    (tmp_path / "thesis").mkdir()
    for name in ("log.csv", "config.json", "model.safetensors", "thesis/run.json"):
        (tmp_path / name).write_text("precious")
    (tmp_path / "run.json").write_text(record)
    before = contents(tmp_path)
    for resume in (False, True):
        with pytest.raises(ValueError, match=r"run\.json"):
            trainer(tmp_path, steps=1, overwrite=True).fit(resume=resume)
        assert contents(tmp_path) == before


def test_all_that_a_run_wrote_is_replaced_also_through_a_link(tmp_path: Path) -> None:
    options: dict[str, Any] = {"sample_every": 1, "sample_args": {"steps": 1}, "tensorboard": True}
    stopped(tmp_path / "run", 4, steps=8, **options)
    for killed in (".step-00000009", "damaged-00000001"):
        shutil.copytree(tmp_path / "run/checkpoints/step-00000000", tmp_path / "run/checkpoints" / killed)
    (tmp_path / "run/.tmp-123-0123abcd.json").write_text("half")
    (tmp_path / "link").symlink_to(tmp_path / "run")
    made = trainer(tmp_path / "link", steps=1, overwrite=True).fit()
    assert (tmp_path / "link").is_symlink()
    assert_same(Diffusion.from_pretrained(tmp_path / "run"), made)
    assert Checkpoints(tmp_path / "run/checkpoints").steps() == [0, 1]
    left = {path.split("/")[0] for path in contents(tmp_path / "run")}
    model = {"config.json", "model.safetensors", "README.md"}
    assert left == {"run.json", "log.csv", "loss.png", "checkpoints", *model}


# Resuming without a checkpoint


@pytest.mark.parametrize("gone", ["checkpoints", "checkpoints and model", "checkpoints and log"])
def test_a_trained_run_without_checkpoints_is_not_begun_anew(tmp_path: Path, gone: str) -> None:
    run = tmp_path / "run"
    trainer(run, steps=4).fit()
    shutil.rmtree(run / "checkpoints")
    if "model" in gone:
        (run / "model.safetensors").unlink()
    if "log" in gone:
        (run / "log.csv").unlink()
    before = contents(run)
    for _ in range(2):
        with pytest.raises(ValueError, match=r"must have a checkpoint that is whole to be resumed, got none"):
            trainer(run, steps=8).fit(resume=True)
        assert contents(run) == before


def test_nor_is_one_whose_checkpoints_are_all_damaged_at_the_second_try(tmp_path: Path) -> None:
    run = tmp_path / "run"
    trainer(run, steps=4).fit()
    for step in (0, 4):
        (run / f"checkpoints/step-{step:08d}/state.pt").write_bytes(b"half")
    model = (run / "model.safetensors").read_bytes()
    for _ in range(3):
        with pytest.raises(ValueError, match=r"must have a checkpoint that is whole"):
            trainer(run, steps=4).fit(resume=True)
    assert (run / "model.safetensors").read_bytes() == model


def test_there_is_no_model_before_the_first_step(tmp_path: Path) -> None:
    stopped(tmp_path / "run", 2, steps=4)
    assert not (tmp_path / "run/model.safetensors").exists()
    (tmp_path / "run/log.csv").unlink()
    shutil.rmtree(tmp_path / "run/checkpoints")
    assert_same(trainer(tmp_path / "run").fit(4, resume=True), trainer(tmp_path / "whole").fit(4))


def test_fewer_steps_than_are_done_are_refused(tmp_path: Path) -> None:
    trainer(tmp_path / "run", steps=4).fit()
    before = contents(tmp_path / "run")
    with pytest.raises(ValueError, match=r"steps must be at least the 4 that are done already .*got 3"):
        trainer(tmp_path / "run", steps=3).fit(resume=True)
    assert contents(tmp_path / "run") == before


def test_data_that_mean_something_else_are_refused(tmp_path: Path) -> None:
    class Scaled(list[Any]):
        def __init__(self, high: float) -> None:
            super().__init__(data())
            self.units = {"kind": "arrays", "range": [0.0, high]}

    trainer(tmp_path / "run", Scaled(1.0), steps=2).fit()
    with pytest.raises(ValueError, match=r"diffusion\.data\.range=\[0\.0, 2\.0\] instead of \[0\.0, 1\.0\]"):
        trainer(tmp_path / "run", Scaled(2.0), steps=4).fit(resume=True)
    trainer(tmp_path / "run", Scaled(1.0), steps=4).fit(resume=True)


# One process at a time


HOLDS = """
import sys
from filelock import FileLock
lock = FileLock(sys.argv[1])
lock.acquire(timeout=0)
print("held", flush=True)
sys.stdin.read()
"""


def test_a_second_process_is_refused_by_one_line(tmp_path: Path) -> None:
    run, pipe = tmp_path / "run", subprocess.PIPE
    command = [sys.executable, "-c", HOLDS, str(run / ".lock")]

    def other(step: int, row: Any) -> None:
        with pytest.raises(ValueError, match="another process is training"), locked(run):
            pass
        assert "Timeout" in subprocess.run(command, capture_output=True, text=True, check=False).stderr

    trainer(run, steps=2, callbacks=[other]).fit()
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(ValueError, match="another process") as refused:
            trainer(run, steps=1, overwrite=True).fit()
        process.communicate("")
    assert str(refused.value) == f"out: another process is training in {run}; wait until it has ended"
    trainer(run, steps=4).fit(resume=True)


def test_a_run_that_does_not_begin_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="items of dataset"):
        trainer(tmp_path / "new", ["x"], steps=1, save_every=1).fit()
    with pytest.raises(ZeroDivisionError), locked(tmp_path / "other"):
        raise ZeroDivisionError
    assert not (tmp_path / "other").exists()


# A full disk


class Full:
    """A disk that takes some more files."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, files: int) -> None:
        self.left = files
        original = os.fsync

        def fsync(handle: int) -> None:
            self.left -= 1
            if self.left < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            original(handle)

        monkeypatch.setattr(os, "fsync", fsync)


def test_a_full_disk_ends_training_with_one_line_and_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, ended = 0, False
    while not ended:
        run = tmp_path / f"{files}"
        with monkeypatch.context() as patch:
            full = Full(patch, files)
            try:
                trainer(run, steps=8).fit()
                ended = True
            except TrainingError as error:
                told = str(error)
                assert "could not be written: No space left on device; " in told
                assert "are free" in told
                assert full.left < 0
        assert not [*run.rglob(".tmp-*"), *run.rglob(".step-*")]
        trainer(run, steps=8).fit(resume=True)
        files += 5
    assert files > 20


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534"),
        AssertionError(),
        Exception("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
    ids=["torch", "soundfile", "safetensors"],
)
def test_whatever_a_library_says_of_a_full_disk_it_is_called_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    file = tmp_path / "result.npy"
    file.write_bytes(b"before")

    def write(path: Path, error: Exception) -> None:
        assert path.suffix == ".npy"
        path.write_bytes(b"half")
        raise error

    with pytest.raises(type(error), match=r"^other$"), replacing(file) as (temporary,):
        write(temporary, type(error)("other"))  # there is room
    assert contents(tmp_path) == {"result.npy": b"before"}

    Full(monkeypatch, 0)
    rule = r"result\.npy could not be written: No space left on device; it takes about 3 MB, and .* free"
    with pytest.raises(DiskFull, match=rule), replacing(file, needs=3_000_000) as (temporary,):
        write(temporary, error)
    assert contents(tmp_path) == {"result.npy": b"before"}


def test_files_and_folders_that_are_whole_replace_older_ones(tmp_path: Path) -> None:
    long = tmp_path / ("x" * 248 + ".json")
    write_text(long, "one")
    with replacing(long, tmp_path / "b.nii.gz") as (a, b):
        assert b.name.endswith(".nii.gz")
        a.write_text("two")
        b.write_text("three")
        assert long.read_text() == "one\n"
    assert contents(tmp_path) == {long.name: b"two", "b.nii.gz": b"three"}
    (tmp_path / "part/of").mkdir(parents=True)
    with pytest.raises(KeyboardInterrupt), written(tmp_path / "new", [tmp_path / "part"]):
        raise KeyboardInterrupt
    assert {*contents(tmp_path)} == {long.name, "b.nii.gz"}


def test_a_log_that_is_damaged_loses_what_is_no_row(tmp_path: Path) -> None:
    trainer(tmp_path / "run", steps=4, log_every=1).fit()
    log = tmp_path / "run/log.csv"
    rows = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join([*rows[:3], b"\0\0\0\n", b"9" * 5000 + b"\n", b"4,0.5\n", rows[3], b"5,0.1,"]))
    trainer(tmp_path / "run", steps=4, log_every=1).fit(resume=True)
    assert log.read_bytes() == b"".join(rows[:4])
    assert "resumed" in json.loads((tmp_path / "run/run.json").read_text())


def test_a_folder_that_another_process_of_the_run_has_begun(tmp_path: Path) -> None:
    """Each of several processes checks it, and the first writes there meanwhile."""
    for name in (".lock", ".process", "output.txt", ".tmp-17-0123abcd"):
        (tmp_path / name).touch()
        check_folder(tmp_path, resume=False, overwrite=False)
    (tmp_path / "mine").touch()
    with pytest.raises(ValueError, match="out must be a new or empty folder"):
        check_folder(tmp_path, resume=False, overwrite=False)
