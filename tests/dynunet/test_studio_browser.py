"""The studio in a real browser: design, training, stop, resume, sampling, download; one case by default."""

import os
import shlex
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from dynunet.cli.main import main
from dynunet.training.background import process_of, stop

from .data_writers import RNG, png
from .studio_page import Browser, served, skip_without_a_browser, until
from .trainers import assert_same


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


@pytest.fixture
def browser(root: Path, tmp_path: Path) -> Iterator[Browser]:
    skip_without_a_browser()
    (tmp_path / "downloads").mkdir()
    with served(root) as address:
        page = Browser(address, tmp_path / "downloads")
        try:
            yield page
        finally:
            page.close()
            for folder in root.glob("runs/*"):
                if process_of(folder) is not None:
                    stop(folder)


def logged(folder: Path) -> int:
    text = (folder / "log.csv").read_text() if (folder / "log.csv").exists() else ""
    return len(text.splitlines()) - 1


@pytest.mark.usefixtures("without_the_curve")
def test_design_train_reload_stop_resume(root: Path, browser: Browser) -> None:
    for i in range(6):
        png(root / "data" / f"{i}.png", RNG.integers(0, 256, (8, 8, 3), dtype=np.uint8))

    # Design: the network is drawn anew, and what is wrong is said as the constructor says it.
    browser.type("channels", "4 8")
    browser.reads("python", r"channels=\(4, 8\)")
    browser.type("strides", "2 2")
    browser.reads("problem", "strides must be one value or have one for each of 1 transitions")
    browser.type("strides", "2")
    browser.type("num_groups", "2")
    browser.reads("figures", r"^[\d,]+ parameters")
    assert "4 channels" in browser.text("drawing")
    assert "--channels 4 8" in browser.reads("command", "--num-groups 2")

    # Train with it: closing the page in between changes nothing, nor does stopping and going on.
    browser.tab("train")
    browser.type("source", "data")
    browser.unfold("Training")
    values = {"steps": 160, "batch-size": 2, "log-every": 10, "sample-every": 0, "validate-every": 0}
    for name, value in values.items():
        browser.type(name, str(value))
    browser.switch("tensorboard")
    line = shlex.split(browser.reads("train-command", "--no-tensorboard --spatial-dims 2 --channels 4 8"))
    run = root / "runs" / "data"
    browser.press("start")
    browser.open()
    browser.tab("train")
    browser.reads("status", "starting|training")
    until(lambda: logged(run) > 0, "the run trains")
    process = process_of(run)
    assert process is not None
    os.kill(process.pid, signal.SIGSTOP)  # until this slow browser has asked it to stop
    browser.press("stop")
    browser.reads("status", "stopping")
    os.kill(process.pid, signal.SIGCONT)
    browser.reads("status", "stopped")
    browser.reads("words", "stopped and saved")
    assert 0 < logged(run) < 16
    browser.press("resume")
    browser.reads("status", "finished")
    browser.check()

    whole = root / "whole"
    line[line.index("--out") + 1] = str(whole)
    main(line[1:])
    assert_same(*(load_file(folder / "model.safetensors") for folder in (run, whole)))
