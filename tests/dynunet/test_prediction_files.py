"""What predict does to folders of files: results are whole, in the values of the files, and made once."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from dynunet.data import FolderDataset
from dynunet.prediction import Predictor, predict

from .target_writers import folder, label_map, run, scan_of, untrained, write
from .test_cli_files import Interrupt, contents, ends


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = folder(tmp_path_factory.mktemp("data"), 2)
    untrained(root / "seg", FolderDataset(root / "scans", targets=root / "masks", size=8))
    untrained(root / "class", FolderDataset(root / "scans", targets=root / "classes.csv", size=8))
    untrained(root / "values", FolderDataset(root / "scans", targets=root / "values.csv", size=8))
    return root


def test_interrupted_maps(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ("predict", data / "seg", data / "scans", "--probabilities", "--device", "cpu", "--out")
    run(*command, tmp_path / "whole")
    for after in range(4):
        monkeypatch.setattr("os.replace", Interrupt(after))
        ends(130, *command, tmp_path / f"{after}")
        monkeypatch.undo()
        whole = contents(tmp_path / "whole")
        part = contents(tmp_path / f"{after}")
        assert len(part) == after
        assert all(whole[name] == made for name, made in part.items())
        run(*command, tmp_path / f"{after}")
        assert contents(tmp_path / f"{after}") == whole


@pytest.mark.parametrize("task", ["class", "values"])
def test_interrupted_tables(task: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ("predict", data / task, data / "scans", "--device", "cpu", "--out")
    run(*command, tmp_path / "whole.csv")
    outputs, calls = Predictor.outputs, []

    def stopped(self: Predictor, path: Path) -> Any:
        calls.append(path)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return outputs(self, path)

    monkeypatch.setattr(Predictor, "outputs", stopped)
    ends(130, *command, tmp_path / "part.csv")
    lines = (tmp_path / "whole.csv").read_text().splitlines(keepends=True)
    assert (tmp_path / "part.csv").read_text() == "".join(lines[:3])
    run(*command, tmp_path / "part.csv")
    assert len(calls) == 5  # only those that were missing
    assert (tmp_path / "part.csv").read_text() == "".join(lines)


def test_probabilities_are_added_to_labels_that_are_there(data: Path, tmp_path: Path) -> None:
    first = predict(data / "seg", data / "scans", tmp_path / "out", device="cpu", progress=False)
    labels = contents(tmp_path / "out")
    again = predict(
        data / "seg", data / "scans", tmp_path / "out", device="cpu", progress=False, probabilities=True
    )
    assert (first.done, again.done) == (4, 4)
    assert labels.items() <= contents(tmp_path / "out").items()
    found = np.load(tmp_path / "out" / "0-probabilities.npy")
    labels = np.asarray(Image.open(tmp_path / "out" / "0.png"))
    assert np.array_equal(np.array([0, 7, 200])[found.argmax(0)], labels)


@pytest.mark.parametrize(
    ("name", "result"),
    [("a.jpg", "a.png"), ("a.png", "a.png"), ("a.tif", "a.tif"), ("a.bmp", "a.png"), ("A.JPEG", "A.png")],
)
def test_labels_go_into_formats_that_keep_them(name: str, result: str, data: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    Image.fromarray(scan_of(label_map(2, 0), 0)).save(tmp_path / "in" / name)
    predict(data / "seg", tmp_path / "in", tmp_path / "out", device="cpu", progress=False)
    assert [path.name for path in (tmp_path / "out").iterdir()] == [result]
    image = Image.open(tmp_path / "out" / result)
    assert image.mode == "P"  # of the label maps of training
    assert (image.getpalette() or [])[21:24] == [7, 248, 3]
    assert set(np.unique(np.asarray(image))) <= {0, 7, 200}


def test_large_labels(tmp_path: Path) -> None:
    """Values beyond a byte, in volumes whose masks are stored as floating point, as many are."""
    for i in range(3):
        labels = label_map(3, i)
        write(tmp_path / "scans" / f"{i}.nii", scan_of(labels, i).astype(np.int16))
        write(tmp_path / "masks" / f"{i}.nii.gz", np.where(labels == 7, -3, labels * 300.0))
    dataset = FolderDataset(tmp_path / "scans", targets=tmp_path / "masks", spacing=(4, 3, 3))
    assert dataset.classes == {"-3": -3, "0": 0, "60000": 60000}
    run_folder = untrained(tmp_path / "run", dataset)
    predict(run_folder, tmp_path / "scans", tmp_path / "out", device="cpu", progress=False)
    image: Any = nib.load(tmp_path / "out" / "0.nii")
    assert image.get_data_dtype() == np.int32
    assert image.shape == label_map(3, 0).shape
    assert set(np.unique(image.dataobj)) <= {-3, 0, 60000}


def test_wrong_use(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, said in {
        (
            "predict",
            data / "class",
            data / "scans",
            "--out",
            tmp_path / "o",
            "--window",
            4,
        ): "--window must be left",
        (
            "predict",
            data / "values",
            data / "scans",
            "--out",
            tmp_path / "o",
            "--probabilities",
        ): "are of classes",
        (
            "denoise",
            data / "seg",
            data / "scans",
            "--out",
            tmp_path / "o",
        ): "of another kind .* dynunet predict",
        ("evaluate", data / "seg", data / "scans"): "targets must be given",
        (
            "evaluate",
            data / "seg",
            data / "scans",
            "--targets",
            data / "classes.csv",
        ): "must be a folder of maps",
        ("evaluate", data / "seg", "--targets", data / "masks"): "give their folder, too",
    }.items():
        ends(2, *words)
        assert re.search(said, capsys.readouterr().err), words
    (tmp_path / "o.csv").write_text("file,other\n")
    ends(2, "predict", data / "class", data / "scans", "--out", tmp_path / "o.csv")
    assert re.search(r"o\.csv must have the columns file, label, p\(cat\), p\(dog\)", capsys.readouterr().err)


def test_evaluation_names_what_has_no_target(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for i in range(3):
        write(tmp_path / "scans" / f"{i}.png", scan_of(label_map(2, i), i))
        write(tmp_path / "masks" / f"{i}.png", label_map(2, i)[:, i // 2 :])
    (tmp_path / "masks" / "1.png").unlink()
    ends(1, "evaluate", data / "seg", tmp_path / "scans", "--targets", tmp_path / "masks", "--device", "cpu")
    said = capsys.readouterr()
    assert re.search(r"skipped: \S*scans/1\.png: there is no file of its name in \S*masks", said.err)
    assert re.search(r"scans/2\.png: its target \S*masks/2\.png has another size: 21x17, not 21x18", said.err)
    assert "2 files skipped" in said.out


MEASURE = """
import resource, sys
import nibabel, torch, dynunet.prediction
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
dynunet.prediction.predict(*sys.argv[1:], device="cpu", window=32, overlap=0, progress=False)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


def test_memory_is_that_of_windows_and_of_one_file(tmp_path: Path) -> None:
    size = 96
    x = np.random.default_rng(0).integers(0, 200, (size,) * 3).astype(np.uint8)
    for i in range(3):
        write(tmp_path / "scans" / f"{i}.nii", np.roll(x, i, 0))
        write(tmp_path / "masks" / f"{i}.nii", (np.roll(x, i, 0) > 100).astype(np.uint8))
    dataset = FolderDataset(tmp_path / "scans", targets=tmp_path / "masks", size=32)
    model = untrained(tmp_path / "run", dataset)
    command = [sys.executable, "-c", MEASURE, model, tmp_path / "scans", tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    whole = 4 * size**3 / 2**20  # float32, in MB
    assert float(done.stdout.split()[-1]) < 40 * whole
