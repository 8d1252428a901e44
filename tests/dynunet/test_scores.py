"""Evaluation of predictions: figures beside those computed by hand from the files that predict writes."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from dynunet.data import FolderDataset
from dynunet.evaluation import data_of_run, evaluate

from .target_writers import SIZE, TINY, VALUES, folder, label_map, run, scan_of, table, untrained, write


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures, their targets, and a run of each task."""
    root = folder(tmp_path_factory.mktemp("data"), 2, number=6)
    for task, targets in {"seg": "masks", "class": "classes.csv", "values": "values.csv"}.items():
        how = ("--targets", root / targets, "--size", 8, "--out", root / task, *TINY)
        run("train", root / "scans", *how)
    return root


def other(root: Path) -> Path:
    """Pictures of other sizes, whose last class is in none of them."""
    for i in range(3):
        labels = label_map(2, 10 + i, VALUES[:2])[: 13 + i]
        write(root / "scans" / f"{i}.png", scan_of(labels, i))
        write(root / "masks" / f"{i}.png", labels)
    lines = {"classes": ["file,label"], "values": ["file,age,size"]}
    for i in range(3):
        lines["classes"].append(f"{i}.png,cat")
        lines["values"].append(f"{i}.png,{7 * i},{i}")
    for name, rows in lines.items():
        (root / f"{name}.csv").write_text("\n".join(rows))
    return root


def test_overlaps(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    here = other(tmp_path)
    how = ("--targets", here / "masks", "--device", "cpu", "--out", here / "figures.csv")
    run("evaluate", data / "seg", here / "scans", *how)
    said = capsys.readouterr().out
    run("predict", data / "seg", here / "scans", "--out", here / "out", "--device", "cpu")
    lines, means = table(here / "figures.csv"), {}
    for i in range(3):
        found, truth = (np.asarray(Image.open(here / kind / f"{i}.png")) for kind in ("out", "masks"))
        for value in VALUES:
            both, total = (
                ((found == value) & (truth == value)).sum(),
                (found == value).sum() + (truth == value).sum(),
            )
            dice = 2 * both / total if total else float("nan")
            line = next(n for n in lines if n["file"].endswith(f"{i}.png") and n["class"] == str(value))
            assert float(line["dice"]) == pytest.approx(dice, abs=1e-4, nan_ok=True)
            means.setdefault(value, []).append(dice)
    found = evaluate(
        data / "seg", data_of_run(data / "seg", here / "scans", targets=here / "masks"), device="cpu"
    )
    for value in VALUES:
        mean = np.nanmean(means[value]) if np.isfinite(means[value]).any() else float("nan")
        assert found.figures[f"Dice {value}"] == pytest.approx(mean, nan_ok=True)
    assert "0 of 3" in said
    assert str(found) in said


@pytest.mark.parametrize("rank", [1, 2, 3, 4])
def test_distances(rank: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Between the surfaces in the files of targets and of predictions, where a class is in both of them."""
    root = folder(tmp_path, rank)
    dataset = FolderDataset(root / "scans", targets=root / "masks", size=SIZE[rank])
    model = untrained(root / "seg", dataset)
    run("predict", model, root / "scans", "--out", root / "out", "--device", "cpu")
    capsys.readouterr()
    how = ("--targets", root / "masks", "--device", "cpu", "--out", root / "figures.csv")
    run("evaluate", model, root / "scans", "--distances", *how)
    said, lines, all_found = capsys.readouterr().out, table(root / "figures.csv"), []
    steps = (1.5, 2.0, 3.0) if rank == 3 else (1.0,) * rank
    for path in sorted((root / "masks").rglob("*.*")):
        name = path.name.partition(".")[0]
        found, truth = read_map(next((root / "out").rglob(f"{name}.*"))), read_map(path)
        for value in VALUES:
            line = next(
                n for n in lines if n["class"] == str(value) and f"{path.name.split('.')[0]}." in n["file"]
            )
            expected = float("nan")
            if (found == value).any() and (truth == value).any():
                expected = by_all_pairs(found == value, truth == value, steps)
            assert float(line["hd95"]) == pytest.approx(expected, abs=1e-4, nan_ok=True)
            all_found.append((value, expected))
    for value in VALUES:
        defined = [d for v, d in all_found if v == value and d == d]
        mean = np.mean(defined) if defined else float("nan")
        row = next(line.split() for line in said.splitlines() if line.startswith(f"{value} "))
        assert float(row[3]) == pytest.approx(mean, abs=1e-4, nan_ok=True)
        assert row[4:7] == [str(len(defined)), "of", "4"]


def read_map(path: Path) -> np.ndarray:
    """Of the format of a path, with axes in the file's order; volumes have spacings along these."""
    if path.suffix == ".npy":
        return np.load(path)
    image: Any = Image.open(path) if path.suffix == ".png" else nib.load(path)
    return np.asarray(image if path.suffix == ".png" else image.dataobj)


def by_all_pairs(a: np.ndarray, b: np.ndarray, steps: tuple[float, ...]) -> float:
    """The Hausdorff distance at 95 % from the distances of all pairs of places on the surfaces."""
    edges = []
    for x in (a, b):
        inside = np.pad(x, 1)
        within = [np.roll(inside, shift, axis) for axis in range(x.ndim) for shift in (-1, 1)]
        edges.append(np.argwhere(inside & ~np.logical_and.reduce(within)) * steps)
    pairs = np.linalg.norm(edges[0][:, None] - edges[1][None], axis=-1)
    return max(np.percentile(pairs.min(axis), 95) for axis in (0, 1))


def test_distances_are_of_label_maps(data: Path) -> None:
    with pytest.raises(ValueError, match="distances are of label maps"):
        evaluate(data / "class", device="cpu", distances=True)


def test_a_class_that_is_nowhere_has_no_dice(data: Path, tmp_path: Path) -> None:
    blank = np.zeros((12, 12), np.uint8)
    write(tmp_path / "scans" / "a.png", blank)
    write(tmp_path / "masks" / "a.png", blank)
    dataset = data_of_run(data / "seg", tmp_path / "scans", targets=tmp_path / "masks")
    figures = evaluate(data / "seg", dataset, device="cpu").figures
    found = {value for value in VALUES[1:] if figures[f"Dice {value}"] == 0}  # predicted, though in no target
    assert all(np.isnan(figures[f"Dice {value}"]) for value in set(VALUES[1:]) - found)
    assert figures[f"Dice {VALUES[0]}"] > 0


def test_accuracy(data: Path, tmp_path: Path) -> None:
    here = other(tmp_path)
    how = ("--targets", here / "classes.csv", "--device", "cpu", "--out", here / "figures.csv")
    run("evaluate", data / "class", here / "scans", *how)
    lines = table(here / "figures.csv")
    assert [line["target"] for line in lines] == ["cat"] * 3
    dataset = data_of_run(data / "class", here / "scans", targets=here / "classes.csv")
    figures = evaluate(data / "class", dataset, device="cpu").figures
    assert figures["accuracy"] == np.mean([line["label"] == "cat" for line in lines])
    assert np.isnan(figures["recall dog"])


def test_errors_of_values(data: Path, tmp_path: Path) -> None:
    here = other(tmp_path)
    run("evaluate", data / "values", here / "scans", "--targets", here / "values.csv", "--device", "cpu",
        "--out", here / "figures.csv")  # fmt: skip
    run("predict", data / "values", here / "scans", "--out", here / "out", "--device", "cpu")
    found = np.array([[float(n["age"]), float(n["size"])] for n in table(here / "out" / "predictions.csv")])
    error = found - np.array([[0, 0], [7, 1], [14, 2]])
    dataset = data_of_run(data / "values", here / "scans", targets=here / "values.csv")
    figures = evaluate(data / "values", dataset, device="cpu").figures
    assert figures["MAE age"] == pytest.approx(np.abs(error[:, 0]).mean(), rel=1e-4)
    assert figures["RMSE size"] == pytest.approx(np.sqrt((error[:, 1] ** 2).mean()), rel=1e-4)


@pytest.mark.parametrize("task", ["seg", "class", "values"])
def test_what_was_held_out(data: Path, task: str, capsys: pytest.CaptureFixture[str]) -> None:
    run("evaluate", data / task, "--device", "cpu")
    assert "1, held out from training" in capsys.readouterr().out
