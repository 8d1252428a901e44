"""No command removes or changes a file that it did not write: random commands over a folder of such files."""

import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import chdir, redirect_stderr, redirect_stdout, suppress
from io import StringIO
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from dynunet import plotting
from dynunet.cli import main

SMALL = """--size 8 --channels 4 --num-blocks 1 --num-groups 2 --batch-size 2 --warmup 0 --cpu
    --validate-every 0 --no-tensorboard""".split()
FLAGS = ["--steps", "1", "--sample-every", "0"]


@pytest.fixture(scope="module", name="template")
def _template(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Data, runs and everything that somebody may have beside and inside of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plotting, "loss_curve", lambda log, path: None)  # drawing takes longer than training
        patch.setattr(plotting, "pictures", lambda x, path, *_, **__: Path(path).write_bytes(b"picture"))
        yield _made(tmp_path_factory.mktemp("template"))


def _made(folder: Path) -> Path:
    generator = np.random.default_rng(0)
    (folder / "data/deeper").mkdir(parents=True)
    for name in ("0.png", "1.png", "2.png", "deeper/3.png"):
        Image.fromarray(generator.integers(0, 256, (8, 9), dtype=np.uint8)).save(folder / "data" / name)
    with chdir(folder):
        main(["train", "data", "--out", "run", *SMALL, *FLAGS])
        main(["train", "data", "--out", "restorer", "--coloured", *SMALL, *FLAGS])
    shutil.copytree(folder / "run", folder / "visited")
    (folder / "visited/notes.txt").write_text("mine")
    with (folder / "visited/README.md").open("a") as card:
        card.write("Mine.")
    Image.fromarray(np.zeros((8, 9), np.uint8)).save(folder / "visited/samples.png")
    shutil.copytree(folder / "data", folder / "visited/data")
    (folder / "project/thesis").mkdir(parents=True)
    model = "config.json", "model.safetensors", "README.md"
    for name in ("thesis/chapter.txt", "log.csv", *model, "samples.png", "0.png"):
        (folder / "project" / name).write_text("precious")
    (folder / "project/run.json").write_text('{"x": 1}')
    shutil.copy(folder / "run/run.json", folder / "run.json")
    (folder / "empty").mkdir()
    (folder / "link").symlink_to("project")
    (folder / "to-run").symlink_to("visited")
    return folder


PLACES = """data data/0.png data/deeper run run/samples run/checkpoints run/model.safetensors restorer
    visited visited/data visited/data/0.png project project/thesis project/0.png empty link to-run . new
    new/0.png run.json""".split()
place = st.sampled_from(PLACES)
overwrite = st.sampled_from([["--overwrite"], []])
# Where there is the most to lose: a run with files of somebody else inside, and what looks like one.
visited = st.sampled_from(["visited", "to-run", "project", "link", "."])


@st.composite
def commands(draw: st.DrawFn) -> list[str]:
    """Words of a command with its flags, most of which make no sense."""
    name = draw(
        st.sampled_from(["train", "train", "resume", "sample", "denoise", "inpaint", "evaluate", "summary"])
    )
    out = ["--out", draw(st.one_of(visited, place))]
    run, source = draw(st.sampled_from(["run", "restorer", draw(place)])), draw(place)
    cpu = ["--device", "cpu"]
    if name == "train":
        extra = draw(
            st.sampled_from([[], ["--coloured"], ["--noise", draw(place)], ["--pairs", draw(place)]])
        )
        return [
            "train",
            draw(st.sampled_from(["data", source])),
            *out,
            *extra,
            *SMALL,
            *FLAGS,
            *draw(overwrite),
        ]
    if name == "resume":
        steps = ["--steps", str(draw(st.integers(1, 3)))]
        extra = draw(st.sampled_from([[], [], out, ["--overwrite"], ["--coloured"], ["--size", "4"]]))
        return ["train", "--resume", run, *steps, *extra]
    if name == "sample":
        return ["sample", run, *out, "--num", "2", "--steps", "1", *cpu, *draw(overwrite)]
    if name == "denoise":
        sigma = draw(st.sampled_from([[], ["--sigma", "0.5"]]))
        return ["denoise", run, source, *out, "--steps", "1", *sigma, *cpu, *draw(overwrite)]
    if name == "inpaint":
        by = draw(st.sampled_from([["--mask", draw(place)], ["--missing", "0"]]))
        return [
            "inpaint",
            run,
            source,
            *out,
            *by,
            "--steps",
            "1",
            "--resamplings",
            "1",
            *cpu,
            *draw(overwrite),
        ]
    if name == "evaluate":
        return ["evaluate", run, source, "--num", "2", "--steps", "1", *cpu]
    return ["summary", "--spatial-dims", "2", "--size", "8", "--channels", "4"]


def hashes(folder: Path) -> dict[str, str]:
    """Of every file and link below, by its name."""
    found = {}
    for path in folder.rglob("*"):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = f"link to {os.readlink(path)}"
        elif path.is_file():
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


MODEL = r"config\.json|model\.safetensors|README\.md"
RUN = re.compile(rf"{MODEL}|run\.json|log\.csv|loss\.png|\.lock|checkpoints/step-.*")


def may_change(command: list[str], path: str) -> bool:
    """Whether a command was told to replace files, and may this one: its own of a run, results by name."""
    given = dict(pairwise(command))
    place = os.path.normpath(given.get("--resume", given.get("--out", "")))
    place = {"to-run": "visited", "link": "project"}.get(place, place)
    if not Path(path).is_relative_to(place):
        return False
    if command[0] == "train":
        run = {"visited"} if "--resume" in command else set()  # it has other files, too
        own = RUN.fullmatch(str(Path(path).relative_to(place))) is not None and path != "visited/README.md"
        return own and place in run | {"run", "restorer"} and bool({"--resume", "--overwrite"} & {*command})
    return "--overwrite" in command and Path(path).suffix == ".png"


def gone(command: list[str], before: dict[str, str], after: dict[str, str]) -> list[str]:
    changed = [path for path in before if after.get(path) != before[path]]
    return [path for path in changed if not may_change(command, path)]


TRAIN = ["train", "data", *SMALL, *FLAGS, "--overwrite"]


@example([[*TRAIN, "--out", "visited"]])
@example([[*TRAIN, "--out", "to-run"]])
@example([[*TRAIN, "--out", "project"]])
@example([[*TRAIN, "--out", "."]])
@example([["train", "visited/data", *TRAIN[2:], "--out", "visited"]])
@example([["train", "--resume", "visited", "--steps", "2"]])
@settings(max_examples=settings().max_examples // 2)
@given(some=st.lists(commands(), min_size=1, max_size=3))
def test_no_command_removes_or_changes_what_it_did_not_write(
    template: Path, tmp_path_factory: pytest.TempPathFactory, some: list[list[str]]
) -> None:
    folder = tmp_path_factory.mktemp("precious")
    shutil.copytree(template, folder, symlinks=True, dirs_exist_ok=True)
    with chdir(folder):
        for command in some:
            before = hashes(folder)
            said = StringIO()
            with redirect_stdout(said), redirect_stderr(said), suppress(SystemExit):
                main(command)
            assert not gone(command, before, hashes(folder)), (command, said.getvalue())
    shutil.rmtree(folder)
