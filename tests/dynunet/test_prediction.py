"""Targets on the command line: every task is trained and predicted in 1 to 4 dimensions."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image

import dynunet
from dynunet.data import load
from dynunet.defaults import LABEL_MAPS

from .target_writers import AFFINE, MAPS, RANKS, SIZE, SUFFIXES, TINY, VALUES, folder, run, table


def values(path: Path) -> np.ndarray:
    if path.suffix == ".png":
        return np.asarray(Image.open(path))
    if path.suffix == ".npy":
        return np.load(path)
    image: Any = nib.load(path)
    np.testing.assert_array_equal(image.affine, AFFINE)
    return np.asarray(image.dataobj)


@pytest.mark.parametrize("rank", RANKS)
def test_segmentation(rank: int, tmp_path: Path) -> None:
    data, out = folder(tmp_path, rank), tmp_path / "out"
    how = ("--targets", data / "masks", "--size", SIZE[rank], "--out", tmp_path / "run", *TINY)
    run("train", data / "scans", *how)
    model = dynunet.load(tmp_path / "run")
    assert model.task == "segmentation"
    assert model.classes == {str(value): value for value in VALUES}
    run("predict", tmp_path / "run", data / "scans", "--out", out, "--probabilities", "--device", "cpu")
    for place in ("0", "deep/1"):
        mine = values(out / f"{place}{MAPS[rank]}")
        assert mine.dtype == np.uint8
        # The same by hand: what the network makes of the file, in the files' values and order of axes.
        x = load(data / "scans" / f"{place}{SUFFIXES[rank]}", model.data).x.unsqueeze(0)
        whole = model.predict(x, window=SIZE[rank], probabilities=True)[0].numpy()
        if rank == 3:  # canonical order, from the file's own, AFFINE
            whole = whole.transpose(0, 2, 1, 3)[:, :, ::-1]
        np.testing.assert_array_equal(mine, np.array(VALUES)[whole.argmax(0)])
        found = np.load(out / f"{place}-probabilities.npy")
        np.testing.assert_allclose(found, whole, rtol=0, atol=1e-6)


@pytest.mark.parametrize("rank", RANKS)
def test_classification(rank: int, tmp_path: Path) -> None:
    data = folder(tmp_path, rank)
    how = ("--targets", data / "classes.csv", "--size", SIZE[rank], "--out", tmp_path / "run", *TINY)
    run("train", data / "scans", *how)
    model = dynunet.load(tmp_path / "run")
    assert (model.task, list(model.classes)) == ("classification", ["cat", "dog"])
    run("predict", tmp_path / "run", data / "scans", "--out", tmp_path / "out", "--device", "cpu")
    lines = table(tmp_path / "out" / "predictions.csv")
    places = ("0", "2", "deep/1", "deep/3")
    assert [line["file"] for line in lines] == [f"{place}{SUFFIXES[rank]}" for place in places]
    x = load(data / "scans" / lines[2]["file"], model.data).x.unsqueeze(0)
    wanted = model.predict(x, probabilities=True)[0]
    found = torch.tensor([float(lines[2]["p(cat)"]), float(lines[2]["p(dog)"])])
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=0)
    assert lines[2]["label"] == ["cat", "dog"][int(wanted.argmax())]


@pytest.mark.parametrize("rank", RANKS)
def test_regression_of_values(rank: int, tmp_path: Path) -> None:
    data = folder(tmp_path, rank)
    how = ("--targets", data / "values.csv", "--size", SIZE[rank], "--out", tmp_path / "run", *TINY)
    run("train", data / "scans", *how, "--validation", 0)
    model = dynunet.load(tmp_path / "run")
    assert model.task == "regression"
    run("predict", tmp_path / "run", data / "scans", "--out", tmp_path / "out.csv", "--device", "cpu")
    lines = table(tmp_path / "out.csv")
    assert list(lines[0]) == ["file", "age", "size"]
    x = load(data / "scans" / lines[0]["file"], model.data).x.unsqueeze(0)
    ages = np.arange(4) * 10.0
    wanted = ages.mean() + ages.std() * float(model.predict(x)[0, 0])
    assert float(lines[0]["age"]) == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("rank", RANKS)
def test_regression_of_maps(rank: int, tmp_path: Path) -> None:
    data, out = folder(tmp_path, rank), tmp_path / "out"
    how = ("--targets", data / "fields", "--task", "regression", "--size", SIZE[rank], *TINY)
    run("train", data / "scans", *how, "--validation", 0, "--out", tmp_path / "run")
    model = dynunet.load(tmp_path / "run")
    run("predict", tmp_path / "run", data / "scans", "--out", out, "--device", "cpu")
    places = ("0", "2", "deep/1", "deep/3")
    fields = np.concatenate([values(data / "fields" / f"{p}{MAPS[rank]}").ravel() for p in places])
    mean, deviation = fields.mean(dtype=np.float64), fields.std(dtype=np.float64)
    x = load(data / "scans" / f"0{SUFFIXES[rank]}", model.data).x.unsqueeze(0)
    whole = mean + deviation * model.predict(x, window=SIZE[rank])[0, 0].double().numpy()
    mine = values(out / f"0{MAPS[rank]}")
    if rank == 3:
        whole = whole.transpose(1, 0, 2)[:, ::-1]
    if rank == 2:
        whole = whole.round().clip(0, 255)
    assert mine.dtype == (np.uint8 if rank == 2 else np.float32)
    np.testing.assert_allclose(mine, whole, rtol=1e-4, atol=1e-3 * deviation)


def test_label_maps_have_a_network_of_their_own(tmp_path: Path) -> None:
    """Where nothing is said of its design; values to regress keep their level, which that norm forgets."""
    generator = np.random.default_rng(0)
    for i in range(4):
        for name, made in {
            "in": generator.normal(size=(8, 8)),
            "labels": generator.integers(0, 2, (8, 8)),
            "values": generator.normal(size=(8, 8)),
        }.items():
            (tmp_path / name).mkdir(exist_ok=True)
            np.save(tmp_path / name / f"{i}.npy", made)

    def options(name: str, targets: str, *flags: str) -> dict[str, Any]:
        out = tmp_path / name
        run("train", tmp_path / "in", "--targets", tmp_path / targets, *TINY, *flags, "--out", out)
        return dynunet.load(out).model.config

    design = options("a", "labels")
    assert {name: design[name] for name in LABEL_MAPS} == LABEL_MAPS
    usual = dynunet.UNet(2, 1).config
    for other in (options("b", "labels", "--block", "residual"), options("c", "values")):
        assert {name: other[name] for name in LABEL_MAPS} == {name: usual[name] for name in LABEL_MAPS}
