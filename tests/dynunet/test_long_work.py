"""Work that takes long: what is shown meanwhile, the memory that it takes, what an interruption leaves."""

import re
import subprocess
import sys
import tracemalloc
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from dynunet import Diffusion, Trainer, UNet, generation, progress
from dynunet.cli import main
from dynunet.cli.train import Train
from dynunet.data import FolderDataset
from dynunet.diffusion import windows
from dynunet.generation import generate
from dynunet.progress import Interrupted
from dynunet.restoration import restore

SMALL: dict[str, Any] = {"channels": (2, 4), "num_groups": 2, "num_blocks": 1, "time_embedding": True}


def model(kind: str, **more: Any) -> Diffusion:
    """An untrained model of recordings to restore, or of images."""
    if kind == "images":
        data = {"kind": "images", "spatial_dims": 2, "channels": 1, "size": [8, 8], "stored": "uint8"}
        return Diffusion(UNet(2, 1, **SMALL), data=data | more)
    data = {
        "kind": "audio", "spatial_dims": 1, "channels": 1, "size": [4096], "sample_rate": 8000,
        "cond_channels": 1, "restoration": {"coloured": True, "snr": [0, 10], "level": 0.25},
    }  # fmt: skip
    return Diffusion(UNet(1, 1, cond_channels=1, strides=4, **SMALL), prediction="sample", data=data | more)


def lines(capsys: pytest.CaptureFixture[str], start: str) -> list[str]:
    return [line for line in capsys.readouterr().err.splitlines() if line.startswith(start)]


@pytest.mark.parametrize("overlap", [0, 3, 7])
def test_windows_of_a_long_axis_share_their_weights(overlap: int) -> None:
    ((first, weights),) = windows._axes(torch.zeros(1, 1, 10_000), 8, overlap)
    assert len(first) == len(weights) > 1200
    assert len({id(w) for w in weights}) <= 20
    total = torch.zeros(10_000, dtype=torch.float64)
    for start, weight in zip(first, weights, strict=True):
        total[start : start + 8] += weight
    torch.testing.assert_close(total, torch.ones_like(total), rtol=1e-6, atol=1e-6)


MEASURE = """
import resource, sys
from dynunet import restoration
from dynunet.restoration import restore
restoration._PART = 2**18
for minutes in (1, 7):
    restore(sys.argv[1] + "/run", f"{sys.argv[1]}/{minutes}.wav", sys.argv[1] + "/out", device="cpu")
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="has no record of the most memory used")
def test_memory_does_not_grow_with_a_recording(tmp_path: Path) -> None:
    model("audio", size=[16384]).save_pretrained(tmp_path / "run")
    for minutes in (1, 7):
        noise = 0.1 * np.random.default_rng(0).standard_normal(minutes * 60 * 8000)
        soundfile.write(tmp_path / f"{minutes}.wav", noise, 8000)
    command = [sys.executable, "-c", MEASURE, str(tmp_path)]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    short, long = (int(line) for line in said.splitlines() if line.isdecimal())
    assert (long - short) / (6 * 60 * 8000 * 4) < 0.5  # copies in single precision


def test_progress_is_shown_within_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    soundfile.write(tmp_path / "long.wav", 0.1 * np.ones(100_000), 8000)
    monkeypatch.setattr(progress, "_SECONDS", 0.0)
    restore(model("audio"), tmp_path / "long.wav", tmp_path / "out")
    said = lines(capsys, "windows: ")
    assert len(said) > 3
    assert re.match(r"windows: \d of 9, 00:\d\d so far, ", said[1])
    restore(model("audio"), tmp_path / "long.wav", tmp_path / "quiet", progress=False)
    assert capsys.readouterr().err == ""


def test_millions_of_samples_are_made_one_batch_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved, write = [], generation.save

    def interrupted(path: Path, *args: Any, **options: Any) -> None:
        if len(saved) == 5:
            raise KeyboardInterrupt
        write(path, *args, **options)
        saved.append(path.name)

    monkeypatch.setattr(generation, "save", interrupted)
    ask: dict[str, Any] = {"num": 10**7, "steps": 1, "batch_size": 3, "progress": False}
    drawn = model("images")
    tracemalloc.start()
    for part in (0, 1):
        saved.clear()
        with pytest.raises(Interrupted, match=rf"{5 * (part + 1)} of 10000000 samples in "):
            generate(drawn, tmp_path / "out", **ask)
        assert saved == [f"sample-{5 * part + i:07d}.png" for i in range(5)]
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [f"sample-{i:07d}.png" for i in range(10)]


def test_a_folder_of_samples_is_data(tmp_path: Path) -> None:
    made = generate(model("images"), tmp_path / "out", num=3, steps=1, progress=False)
    assert made.picture == tmp_path / "out-overview.png"
    assert (tmp_path / "out-overview.png").is_file()
    assert FolderDataset(tmp_path / "out", split="all").paths == [*made.files]


def test_looking_for_files_is_shown_off_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for i in range(5):
        np.save(tmp_path / f"{i}.npy", np.arange(6.0))
    monkeypatch.setattr(progress, "_SECONDS", 0.0)
    FolderDataset(tmp_path)
    said = capsys.readouterr().err
    assert re.search(r"^finding files: \d, 00:00 so far$", said, re.M)
    assert re.search(r"^looking at files: \d of 5, ", said, re.M)
    assert re.search(r"^measuring values: \d of 5, ", said, re.M)


def test_thousands_of_files_that_vanish_are_not_all_named(tmp_path: Path) -> None:
    for i in range(15):
        np.save(tmp_path / f"{i:02d}.npy", np.arange(6.0))
    data = FolderDataset(tmp_path, split="all", cache=0)
    for i in range(14):
        (tmp_path / f"{i:02d}.npy").unlink()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        data[0]
    assert len(said) == 10
    assert str(said[-1].message).endswith("further ones are not named")
    assert len(data.failed) == 14


def test_of_other_files_the_commonest_suffixes_are_named(tmp_path: Path) -> None:
    for i in range(15):
        (tmp_path / f"a.s{i:02d}").touch()
        (tmp_path / f"b.s{i:02d}").touch() if i == 14 else None
    np.save(tmp_path / "0.npy", np.arange(6.0))
    report = FolderDataset(tmp_path, split="all").report()
    named = ", ".join(f"1 .s{i:02d}" for i in range(9))
    assert report.endswith(f"16 files of formats that are not read: {named}, 2 .s14, and others")


def test_a_warning_is_a_line_of_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "0.npy", np.arange(6.0))

    def warn(self: Train) -> None:
        warnings.warn("0.npy is skipped:\n it is gone", RuntimeWarning, stacklevel=2)

    monkeypatch.setattr(Train, "run", warn)
    before = warnings.showwarning
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        main(["train", str(tmp_path), "--out", str(tmp_path / "run")])
    assert capsys.readouterr().err == "warning: 0.npy is skipped: it is gone\n"
    assert warnings.showwarning is before


def test_a_run_says_which_scale_of_16_bits_it_was_begun_with(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for i in range(4):
        pixels = np.random.default_rng(i).integers(0, 1024, (8, 8), dtype=np.uint16)
        Image.fromarray(pixels).save(tmp_path / f"data/{i}.png")
    small = {"batch_size": 2, "sample_every": 0, "tensorboard": False, "cpu": True, "progress": False}

    def train(steps: int, **scale: Any) -> Any:
        data = FolderDataset(tmp_path / "data", split="all", **scale)
        trainer = Trainer(Diffusion(UNet(2, 1, **SMALL)), data, tmp_path / "run", steps=steps, **small)
        return trainer.fit(resume=True)

    train(2, value_range=(0, 65535))  # as all were before the bits that are used were found
    with pytest.raises(ValueError, match=r"data set with value_range=\(0, 65535\)\)"):
        train(3)
    assert train(3, value_range=(0, 65535)).data["range"] is None
