"""Examples out of files: crops, mirroring, resizing, what is missing, labels and what is held out."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dynunet import Diffusion, UNet
from dynunet.data import FolderDataset
from dynunet.data.values import random_place, region_coordinates, resized
from dynunet.diffusion import coordinates

from .data_writers import RNG, npy, png, wav


def ramp(*shape: int) -> np.ndarray:
    """Every entry tells where it is."""
    return np.arange(np.prod(shape), dtype=np.float64).reshape(shape)


def number(x: torch.Tensor, whole: np.ndarray) -> np.ndarray:
    """The entries of a ramp again, from [-1, 1]."""
    return ((x.double() + 1) / 2 * (whole.size - 1)).round().long().numpy()


@given(st.data())
def test_crops_are_anywhere_and_know_where(data: st.DataObject) -> None:
    grid = data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=4), "grid")
    size = [data.draw(st.integers(1, 12), "size") for _ in grid]
    torch.manual_seed(data.draw(st.integers(0, 99), "seed"))
    region = random_place(grid, size)
    for (a, b), n, s in zip(region, grid, size, strict=True):
        assert 0 <= a < b <= n
        assert b - a == min(n, s)
    whole = coordinates((1, 1, *grid))[0]
    part = whole[:, *(slice(a, b) for a, b in region)]
    assert torch.equal(region_coordinates(grid, region), part)


def test_every_place_is_as_likely() -> None:
    torch.manual_seed(0)
    starts = [random_place((12,), (10,))[0][0] for _ in range(3000)]
    counts = np.bincount(starts, minlength=3)
    assert len(counts) == 3
    assert counts.min() > 900


@pytest.mark.parametrize("flips", [(), (0,), (1,), (0, 1)])
def test_mirrored_crops_are_of_the_mirrored_file(tmp_path: Path, flips: tuple[int, ...]) -> None:
    whole = ramp(7, 9)
    npy(tmp_path / "a.npy", whole)
    data = FolderDataset(tmp_path, size=(4, 5), flips=flips, coordinates=True)
    seen = set()
    for seed in range(40):
        torch.manual_seed(seed)
        item = data[0]
        x, at = number(item["x0"][0], whole), item["cond"]
        mirrored = tuple(
            axis for axis in (0, 1) if np.take(x, 0, axis).flat[0] > np.take(x, -1, axis).flat[0]
        )
        seen.add(mirrored)
        turned = np.flip(whole, mirrored) if mirrored else whole
        i = [round(float(at[axis].flatten()[0] + 1) / 2 * (n - 1)) for axis, n in enumerate(whole.shape)]
        np.testing.assert_array_equal(x, turned[i[0] : i[0] + 4, i[1] : i[1] + 5])
    assert len(seen) == 2 ** len(flips)
    assert all(set(m) <= set(flips) for m in seen)


def test_items_depend_on_torchs_seed_alone(tmp_path: Path) -> None:
    for i in range(4):
        wav(tmp_path / f"{i}.wav", 500)
    data = FolderDataset(tmp_path, size=40, coloured=True, noise=tmp_path, flips=(0,), split="all")
    again = FolderDataset(tmp_path, size=40, coloured=True, noise=tmp_path, flips=(0,), split="all")
    for i in range(4):
        torch.manual_seed(5)
        first = data[i]
        torch.manual_seed(5)
        second = again[i]
        assert all(torch.equal(first[k], second[k]) for k in first)
    assert not torch.equal(data[0]["x0"], data[0]["x0"])


@pytest.mark.parametrize("size", [(5, 4), (20, 30), (12, 3), (1, 1)])
def test_resizing_is_pillows_bilinear(size: tuple[int, int]) -> None:
    pixels = RNG.uniform(0, 255, (12, 10)).astype(np.float32)
    expected = np.asarray(Image.fromarray(pixels).resize((size[1], size[0]), Image.Resampling.BILINEAR))
    np.testing.assert_allclose(resized(pixels[None], size)[0], expected, atol=1e-3)


def test_resizing_goes_around_what_is_missing() -> None:
    values = np.ones((1, 8))
    values[0, 4:6] = np.nan
    np.testing.assert_array_equal(resized(values, (4,)), [[1, 1, np.nan, 1]])
    assert not np.isfinite(resized(np.full((2, 3, 4), np.nan), (2, 2))).any()


def test_whole_files_are_resized(tmp_path: Path) -> None:
    whole = png(tmp_path / "a.png")
    item = FolderDataset(tmp_path, size=(6, 20), resize=True)[0]
    expected = [
        np.asarray(Image.fromarray(c.astype(np.float32)).resize((20, 6), 2)) for c in whole.transpose(2, 0, 1)
    ]
    np.testing.assert_allclose(item["x0"], np.stack(expected) / 127.5 - 1, atol=1e-4)


@pytest.mark.parametrize(("missing", "fill"), [("nan", np.nan), ("-1e34", -1e34), (-9999, -9999)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_missing_entries_are_masked(tmp_path: Path, missing: Any, fill: float, dtype: Any) -> None:
    whole = ramp(6, 7).astype(dtype)
    there = RNG.random((6, 7)) > 0.4
    there.flat[[0, -1]] = True
    npy(tmp_path / "a.npy", np.where(there, whole, fill).astype(dtype))
    npy(tmp_path / "nothing.npy", np.full((6, 7), fill, dtype))
    data = FolderDataset(tmp_path, missing=missing)
    assert len(data) == 1
    assert "nothing.npy: it has nothing but missing values" in data.report()
    item = data[0]
    np.testing.assert_array_equal(item["mask"][0], there)
    assert not item["x0"][~item["mask"]].any()
    np.testing.assert_array_equal(number(item["x0"][0], whole)[there], whole[there])

    unet = UNet(2, 1, channels=(4,), num_groups=2, time_embedding=True)
    loss = Diffusion(unet).loss(item["x0"][None], mask=item["mask"][None])
    assert loss.isfinite()


def test_examples_of_a_series_that_are_missing_are_left_out(tmp_path: Path) -> None:
    values = RNG.normal(size=(5, 4, 4))
    values[2] = np.nan
    npy(tmp_path / "a.npy", values)
    data = FolderDataset(tmp_path, series=True, missing="nan", split="all")
    assert len(data) == 4
    assert "1 of 5 examples: it has nothing but missing values" in data.report()


def test_whole_numbers_may_be_missing_too(tmp_path: Path) -> None:
    npy(tmp_path / "a.npy", np.array([[0, 5, 255], [7, 0, 9]], np.uint8))
    item = FolderDataset(tmp_path, missing=0)[0]
    np.testing.assert_array_equal(item["mask"][0], [[False, True, True], [True, False, True]])
    assert item["x0"].max() == 1
    assert item["x0"].min() == -1


def test_crops_have_something_in_them(tmp_path: Path) -> None:
    values = np.full((40, 40), np.nan)
    values[:20, :20] = RNG.normal(size=(20, 20))
    npy(tmp_path / "a.npy", values)
    data = FolderDataset(tmp_path, size=8, missing="nan")
    assert all(data[0]["mask"].any() for _ in range(50))


def test_classes_are_the_top_folders(tmp_path: Path) -> None:
    for name in ("cat/a.png", "cat/deep/b.png", "dog/c.png", "dog/d.png", "none.png"):
        png(tmp_path / name)
    data = FolderDataset(tmp_path, labels="folder", split="all")
    assert data.units["classes"] == ["cat", "dog"]
    assert [int(data[i]["class_labels"]) for i in range(4)] == [0, 0, 1, 1]
    assert data[0]["class_labels"].dtype == torch.int64
    assert "none.png: it is in no sub-folder" in data.report()
    assert FolderDataset(tmp_path, split="all").num_classes is None
    assert "class_labels" not in FolderDataset(tmp_path, split="all")[0]


def files_of(data: FolderDataset | None) -> list[Path]:
    assert data is not None
    return data.paths


@given(share=st.floats(0.01, 0.9), seed=st.integers(0, 5), subjects=st.integers(3, 7))
def test_a_subjects_files_are_on_one_side(
    tmp_path_factory: pytest.TempPathFactory, share: float, seed: int, subjects: int
) -> None:
    root = tmp_path_factory.mktemp("subjects")
    for s in range(subjects):
        for i in range(1 + s % 3):
            npy(root / "all" / f"subject{s}" / "scan" / f"{i}.npy", ramp(3))
    data = FolderDataset(root, validation=share, seed=seed)
    held = {p.parts[-3] for p in files_of(data.validation())}
    trained = {p.parts[-3] for p in files_of(data)}
    assert held
    assert trained
    assert not held & trained
    assert len(held) + len(trained) == subjects
    again = FolderDataset(root, validation=share, seed=seed)
    assert files_of(again.validation()) == files_of(data.validation())


def test_classes_are_held_out_alike(tmp_path: Path) -> None:
    for c, count in {"a": 20, "b": 40}.items():
        for i in range(count):
            npy(tmp_path / c / f"{i}.npy", ramp(3))
    data = FolderDataset(tmp_path, labels="folder")
    held = data.validation()
    assert held is not None
    assert np.bincount([int(held[i]["class_labels"]) for i in range(len(held))]).tolist() == [2, 4]
    assert set(files_of(held)).isdisjoint(files_of(data))
    other = FolderDataset(tmp_path, labels="folder", seed=1)
    assert files_of(other.validation()) != files_of(held)


def test_a_single_array_is_split_by_example(tmp_path: Path) -> None:
    npy(tmp_path / "a.npy", RNG.normal(size=(50, 4)))
    data = FolderDataset(tmp_path / "a.npy", series=True, validation=0.2)
    held = data.validation()
    assert held is not None
    assert (len(data), len(held)) == (40, 10)
    rows = {tuple(held[i]["x0"].flatten().tolist()) for i in range(10)}
    assert rows.isdisjoint({tuple(data[i]["x0"].flatten().tolist()) for i in range(40)})


def test_too_few_files_hold_none_out(tmp_path: Path) -> None:
    for i in range(2):
        npy(tmp_path / f"{i}.npy", ramp(3))
    data = FolderDataset(tmp_path)
    assert data.validation() is None
    assert len(data) == 2
    with pytest.raises(ValueError, match="split='validation' has no example"):
        FolderDataset(tmp_path, split="validation")


def test_nothing_is_held_out_of_all(tmp_path: Path) -> None:
    """A trainer would validate with what it has trained on."""
    for i in range(10):
        npy(tmp_path / f"{i}.npy", ramp(3))
    assert len(FolderDataset(tmp_path).validation() or ()) == 1
    data = FolderDataset(tmp_path, split="all")
    assert len(data) == 10
    assert data.validation() is None


def test_the_range_is_that_of_what_is_trained_on(tmp_path: Path) -> None:
    for i in range(10):
        npy(tmp_path / f"{i}.npy", np.array([0.0, i]))
    (held,) = files_of(FolderDataset(tmp_path, validation=0.1).validation())
    np.save(held, np.array([-50.0, 50]))
    assert FolderDataset(tmp_path, validation=0.1).units["range"] == [0, 8 if held.stem == "9" else 9]
    assert FolderDataset(tmp_path, validation=0).units["range"] == [-50, 50]


def test_indices_are_those_of_a_sequence(tmp_path: Path) -> None:
    for i in range(3):
        npy(tmp_path / f"{i}.npy", np.array([0.0, i]))
    data = FolderDataset(tmp_path, split="all")
    assert torch.equal(data[-1]["x0"], data[2]["x0"])
    with pytest.raises(IndexError, match=r"index must be in \[-3, 3\), got 3"):
        data[3]
