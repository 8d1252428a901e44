"""The studio in a real browser: design, training, stop, resume, sampling, download; the gate runs one."""

import os
import shlex
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from safetensors.torch import load_file

from dynunet.cli.main import main
from dynunet.training.background import process_of, stop

from .data_writers import RNG, nii, npy, png, wav
from .studio_page import Browser, served, skip_without_a_browser, until
from .trainers import assert_same

_SMALL = "--channels 4 8 --num-groups 2 --sample-every 0 --validate-every 0 --no-tensorboard --cpu".split()


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


def samples_are_seen_and_downloaded(root: Path, browser: Browser, downloads: Path, suffix: str) -> None:
    """Of the run that began last, on the Use tab."""
    browser.tab("use")
    for name, value in {"num": 2, "steps": 2}.items():
        browser.type(name, str(value))
    browser.press("use")
    for picture in ("overview", "result"):
        until(lambda name=picture: browser.all(f"[data-picture='{name}'] img"), "the samples are seen")
    browser.press("download")
    sample = root / f"results/runs-data-sample/sample-0{suffix}"
    downloaded = downloads / sample.name
    until(lambda: downloaded.exists() and downloaded.read_bytes() == sample.read_bytes(), "the download")
    browser.check()


@pytest.mark.browser
@pytest.mark.usefixtures("without_the_curve")
def test_design_train_reload_stop_resume_sample(root: Path, browser: Browser, tmp_path: Path) -> None:
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
    browser.open()
    browser.reads("python", r"channels=\(4, 8\).* num_groups=2")

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

    # Use it: samples are there to be looked at, and to be downloaded in the format of the data.
    samples_are_seen_and_downloaded(root, browser, tmp_path / "downloads", ".png")

    whole = root / "whole"
    line[line.index("--out") + 1] = str(whole)
    main(line[1:])
    assert_same(*(load_file(folder / "model.safetensors") for folder in (run, whole)))


# At other numbers of axes, and what is not in the common way


def written(folder: Path, dims: int) -> str:
    """Six files of data, and the suffix of new ones."""
    for i in range(6):
        if dims == 1:
            wav(folder / f"{i}.wav", 512)
        elif dims == 3:
            nii(folder / f"{i}.nii.gz", RNG.normal(size=(6, 5, 4)).astype(np.float32))
        else:
            npy(folder / f"{i}.npy", RNG.normal(size=(4,) * dims).astype(np.float32))
    return {1: ".wav", 3: ".nii.gz"}.get(dims, ".npy")


@pytest.mark.browser
@pytest.mark.parametrize("dims", [1, 3, 4, 5])
def test_every_number_of_axes(root: Path, browser: Browser, tmp_path: Path, dims: int) -> None:
    suffix = written(root / "data", dims)
    browser.choose("spatial_dims", f"{dims}-D")
    browser.reads("python", rf"UNet\({dims}, 1")  # the form is made anew
    browser.type("channels", "4 8")
    browser.type("size", "8")
    browser.type("num_groups", "2")
    browser.reads("python", rf"UNet\({dims}, 1, channels=\(4, 8\)")
    browser.reads("figures", r"^[\d,]+ parameters")

    browser.tab("data")
    browser.type("folder", "data")
    browser.reads("report", "5 to train on, 1 held out")
    until(lambda: browser.all("[data-picture='example'] img"), "the example is seen")
    assert len(browser.all("[data-axis]")) == (dims if dims > 2 else 0)
    assert len(browser.all("audio")) == (dims == 1)

    browser.tab("train")
    browser.unfold("Training")
    for name, value in {"steps": 6, "batch-size": 2, "log-every": 2, "sample-every": 3}.items():
        browser.type(name, str(value))
    browser.reads("train-command", "--channels 4 8")
    browser.press("start")
    browser.reads("status", "finished")
    browser.reads("sample", "samples after step 6")

    samples_are_seen_and_downloaded(root, browser, tmp_path / "downloads", suffix)
    assert len(browser.all("[data-axis]")) == (dims if dims > 2 else 0)


@pytest.mark.browser
def test_what_is_painted_is_made_anew_and_nothing_else(root: Path, browser: Browser) -> None:
    written(root / "data", 1)
    main(["train", str(root / "data"), "--out", str(root / "run"), "--size", "512", "--steps", "1", *_SMALL])
    browser.tab("use")
    browser.choose("action", "Inpaint")
    browser.type("file or folder", "data/0.wav")
    until(lambda: browser.all("[data-paint] img"), "the file is seen")
    browser.drag("[data-paint] img", (0.2, 0.5), (0.3, 0.5))
    browser.type("steps", "1")
    browser.type("resamplings", "1")
    browser.press("use")
    result = root / "results/run-inpaint/0.wav"
    until(result.exists, "the result")
    before, after = (soundfile.read(path, dtype="int16")[0] for path in (root / "data/0.wav", result))
    changed = np.flatnonzero(before != after)
    assert 0.15 * 512 < changed[0] < 0.25 * 512
    assert 0.25 * 512 < changed[-1] < 0.35 * 512


@pytest.mark.browser
def test_the_end_of_the_studio_ends_no_training_and_another_takes_it_over(root: Path, tmp_path: Path) -> None:
    skip_without_a_browser()
    written(root / "data", 1)
    with served(root) as address:
        browser = Browser(address, tmp_path)
        browser.tab("train")
        browser.type("source", "data")
        browser.unfold("Training")
        for name, value in {"steps": 100000, "batch-size": 2, "log-every": 2, "sample-every": 0}.items():
            browser.type(name, str(value))
        browser.press("start")
        run = root / "runs/data"
        until(lambda: logged(run) > 0, "the run trains")
        browser.close()
    rows = logged(run)
    until(lambda: logged(run) > rows, "the run trains on")
    with served(root) as address:
        browser = Browser(address, tmp_path)
        browser.tab("train")
        browser.press("stop")
        browser.reads("status", "stopped")
        browser.close()
    assert process_of(run) is None


@pytest.mark.browser
def test_pages_do_not_disturb_each_other_and_names_are_only_text(root: Path, browser: Browser) -> None:
    evil = "<img src=x onerror=document.title='evil'>"
    (root / evil).mkdir()
    wav(root / evil / "<b>0.wav", 64)
    (root / evil / "<script>document.title='evil'<script>.png").write_bytes(b"nothing")
    browser.type("channels", "4 8")
    browser.reads("python", r"channels=\(4, 8\)")
    first = browser.driver.current_window_handle
    browser.driver.switch_to.new_window("window")
    browser.open()
    browser.type("channels", "2 4 6")
    browser.reads("python", r"channels=\(2, 4, 6\)")
    browser.tab("data")
    browser.type("folder", evil)
    browser.reads("report", "1 file")
    browser.open()
    browser.reads("python", r"channels=\(2, 4, 6\)")
    browser.driver.switch_to.window(first)
    browser.open()
    browser.reads("python", r"channels=\(4, 8\)")
    browser.tab("data")
    assert browser.driver.title == "dynunet studio"
    browser.check()
