"""Names on the Hub wherever the folder of a run is taken, without a network."""

import json
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled

from dynunet.cli import main
from dynunet.evaluation import data_of_run
from dynunet.generation import generate
from dynunet.runs import spec_of_run

from .test_saved_runs import opened

SMALL = "--steps 2 --batch-size 2 --cpu --no-tensorboard --sample-every 0 --validation-samples 2".split()


@pytest.fixture(name="hub")
def _hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Repositories by name, and the folders of files that the models were trained on."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    found = {}
    for name in ("voice", "digits"):
        (tmp_path / name).mkdir()
        found[f"me/{name}"], found[name] = opened(name, tmp_path / name)

    def fetch(repository: str, *, allow_patterns: list[str]) -> str:
        if repository not in found:
            raise LocalEntryNotFoundError("An error\nhappened")
        folder = tmp_path / "cache" / repository
        folder.mkdir(parents=True, exist_ok=True)
        for file in allow_patterns:
            (folder / file).write_bytes((found[repository] / file).read_bytes())
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    return found


def run(*words: object) -> None:
    main([str(word) for word in words])


def test_commands_take_a_name_on_the_hub(hub: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    run("sample", "me/digits", "--num", 2, "--steps", 1, "--out", "samples")
    assert len([*Path("samples").iterdir()]) == 2
    run("denoise", "me/voice", hub["voice"], "--out", "clean")
    assert len([*Path("clean").rglob("*.wav")]) == 6
    run("inpaint", "me/digits", Path("samples"), "--mask", "samples", "--steps", 1, "--out", "filled")
    run("evaluate", "me/voice", hub["voice"], "--num", 3)
    assert "SI-SDR" in capsys.readouterr().out
    run("train", hub["digits"], "--from", "me/digits", "--labels", "folder", "--out", "run", *SMALL)
    assert json.loads(Path("run/run.json").read_text())["flags"]["from"] == "me/digits"
    run("train", "--resume", "run", "--steps", 3)


def test_functions_take_a_name_on_the_hub(hub: dict[str, Path]) -> None:
    assert len(generate("me/digits", "out", num=1, steps=1, progress=False).files) == 1
    assert spec_of_run("me/digits") == spec_of_run(hub["me/digits"])
    assert data_of_run("me/voice", hub["voice"]).units == data_of_run(hub["me/voice"], hub["voice"]).units
    with pytest.raises(ValueError, match="source must be given: me/voice holds a model alone"):
        data_of_run("me/voice")


@pytest.mark.parametrize("error", [LocalEntryNotFoundError("a\nb"), OfflineModeIsEnabled("c\nd")])
def test_what_is_not_on_the_hub_is_said_in_one_line(
    hub: dict[str, Path], error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def fetch(*args: Any, **options: Any) -> str:
        raise error

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    Path("here").mkdir()
    for words, reason in (
        (
            ("sample", "me/none", "--out", "x"),
            "run: there is no folder me/none, and from the Hub: it cannot be",
        ),
        (
            ("train", hub["digits"], "--from", "me/none", "--out", "y"),
            "run: there is no folder me/none, and",
        ),
        (
            ("evaluate", "nowhere"),
            "run must be the folder of a run, got nowhere, which is none, nor owner/name",
        ),
        (
            ("denoise", "here/none", "z", "--out", "x"),
            "run must be the folder of a run, got here/none, which is none, nor owner/name on the Hub: it "
            "was not looked for there, because here is on this machine",
        ),
        (("sample", "a/b/c", "--out", "x"), "run must be the folder of a run, got a/b/c, which is none"),
    ):
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            run(*words)
        assert ended.value.code == 2
        said = capsys.readouterr().err.splitlines()
        assert len(said) == 1
        assert said[0].startswith(f"dynunet {words[0]}: {reason}")
