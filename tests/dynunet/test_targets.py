"""Targets in a data set: what they become, what is done to them, and what is wrong with them in one line."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from dynunet.data import FolderDataset
from dynunet.data.classes import IGNORED, numbered, one_hot_resized, read_classes
from dynunet.data.errors import UnreadableError

from .target_writers import AFFINE, MAPS, RANKS, SIZE, SUFFIXES, TINY, VALUES, folder, label_map, run, write


@pytest.mark.parametrize("rank", RANKS)
def test_a_crop_of_an_example_and_of_its_target_are_one(rank: int, tmp_path: Path) -> None:
    """The examples have the values of their targets, so that both must be cropped and mirrored alike."""
    for i in range(3):
        labels = label_map(rank, i)
        write(tmp_path / "scans" / f"{i}{SUFFIXES[rank]}", labels)
        write(tmp_path / "masks" / f"{i}{MAPS[rank]}", labels, palette=True)
    how = {"size": SIZE[rank], "flips": range(rank), "targets": tmp_path / "masks", "percentiles": (0, 100)}
    data = FolderDataset(tmp_path / "scans", **how, split="all")
    assert data.classes == {str(value): value for value in VALUES}
    for i in range(6):
        torch.manual_seed(i)
        item = data[i % 3]
        assert item["target"].shape == item["x0"].shape[1:] == (SIZE[rank],) * rank
        assert item["target"].dtype == torch.int64
        scale = item["x0"][0].unique()
        wanted = torch.tensor(VALUES, dtype=torch.float32)[item["target"]]
        slope = (scale.max() - scale.min()) / (wanted.max() - wanted.min()).clamp(min=1)
        torch.testing.assert_close(item["x0"][0], scale.min() + slope * (wanted - wanted.min()))


def test_volumes_are_turned_and_resampled_together(tmp_path: Path) -> None:
    """A scan and a mask whose axes lie in other orders in their files are the same in space."""
    labels = np.kron(label_map(3, 0)[:12, :12, :10], np.ones((2, 2, 2), np.uint8))
    turned = np.ascontiguousarray(labels.transpose(2, 0, 1)[:, ::-1])
    axes = np.array([[0, 1, 0, 0], [0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 1.0]])
    flip = np.array([[1, 0, 0, 0], [0, -1, 0, labels.shape[0] - 1], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    for kind, values, affine in (("scans", labels, AFFINE), ("masks", turned, AFFINE @ axes @ flip)):
        (tmp_path / kind).mkdir()
        nib.save(nib.Nifti1Image(values, affine), tmp_path / kind / "a.nii")
    how = {"targets": tmp_path / "masks", "percentiles": (0, 100)}
    whole = FolderDataset(tmp_path / "scans", **how)[0]
    wanted = torch.tensor(VALUES, dtype=torch.float32)[whole["target"]]
    torch.testing.assert_close(whole["x0"][0], wanted / max(VALUES) * 2 - 1)
    coarse = FolderDataset(tmp_path / "scans", **how, spacing=(4, 3, 6))[0]
    # Boxes of even places are as they were at half their size.
    assert torch.equal(coarse["target"], whole["target"][::2, ::2, ::2])


@given(
    labels=st.lists(st.integers(0, 5), min_size=1, max_size=24),
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    shrink=st.integers(1, 4),
)
def test_resampled_labels_are_labels_of_the_file(labels: list[int], sizes: list[int], shrink: int) -> None:
    values = np.resize(np.array(labels), (1, *sizes)).astype(np.int16) * 40
    for to in (tuple(n * shrink for n in sizes), tuple(max(n // shrink, 1) for n in sizes)):
        found = one_hot_resized(values, to)
        assert found.shape == (1, *to)
        assert set(np.unique(found)) <= set(np.unique(values))
    assert np.array_equal(one_hot_resized(np.full((1, *sizes), 7), to), np.full((1, *to), 7))
    odd = tuple(n * (2 * shrink - 1) for n in sizes)  # the centre of each old entry is that of a new one
    centres = one_hot_resized(values, odd)[:, *(slice(shrink - 1, None, 2 * shrink - 1) for _ in sizes)]
    assert np.array_equal(centres, values)


@given(
    sizes=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    to=st.tuples(st.integers(1, 14), st.integers(1, 14)),
    seed=st.integers(0, 99),
)
def test_resampled_labels_are_those_of_most_of_what_is_there(
    sizes: tuple[int, int], to: tuple[int, int], seed: int
) -> None:
    labels = np.random.default_rng(seed).integers(0, 4, sizes)
    shares = torch.nn.functional.one_hot(torch.from_numpy(labels), 4).permute(2, 0, 1)[None].float()
    shares = torch.nn.functional.interpolate(shares, to, mode="bilinear", antialias=True)[0]
    found = torch.from_numpy(one_hot_resized(labels[None], to))
    assert (shares.gather(0, found)[0] > shares.amax(0) - 1e-4).all()


@given(values=st.lists(st.integers(-300, 300), min_size=2, max_size=9, unique=True), data=st.data())
def test_labels_become_numbers_and_back(values: list[int], data: st.DataObject) -> None:
    ignored = values[-1]
    classes = {f"class {value}": value for value in values[:-1]}
    labels = np.array(data.draw(st.lists(st.sampled_from(values), min_size=1)))
    found = numbered(labels, classes, ignored)
    assert np.array_equal(found == IGNORED, labels == ignored)
    assert np.array_equal(np.array(values[:-1])[found[found >= 0]], labels[labels != ignored])
    other = next(v for v in range(1000) if v not in values)
    with pytest.raises(UnreadableError, match=f"labels {other}, which are none of the classes"):
        numbered(np.append(labels, other), classes, ignored)


def test_names_of_classes(tmp_path: Path) -> None:
    file = tmp_path / "names.json"
    for text, wanted in (
        ('{"background": 0, "liver": 7}', ({"background": 0, "liver": 7}, None)),
        (
            '{"labels": {"background": 0, "liver": 7, "ignore": 9}, "x": 1}',
            ({"background": 0, "liver": 7}, 9),
        ),
        ('{"0": "background", "7": "liver"}', ({"background": 0, "liver": 7}, None)),
        ('["a", "b"]', (("a", "b"), None)),
    ):
        file.write_text(text)
        assert read_classes(file) == wanted
    for text in ("3", "{}", '{"a": 0, "b": 0}', '{"a": [1, 2]}', '["a", "a"]', '{"x": "a"}', '{"a": true}'):
        file.write_text(text)
        with pytest.raises(ValueError, match=r"class_names: .*names\.json must have"):
            read_classes(file)


def test_names_and_what_is_ignored(tmp_path: Path) -> None:
    data = folder(tmp_path, 2)
    (tmp_path / "names.json").write_text('{"ground": 0, "blob": 7, "unseen": 3}')
    how = {"targets": data / "masks", "class_names": tmp_path / "names.json", "size": 8, "split": "all"}
    found = FolderDataset(data / "scans", **how, ignore_index=200)
    assert found.classes == {"ground": 0, "blob": 7, "unseen": 3}
    assert set(torch.cat([found[i]["target"].flatten() for _ in range(5) for i in range(4)]).tolist()) == {
        -1,
        0,
        1,
    }
    assert "unseen (3) 0.0%" in found.report()


def nothing(data: Path) -> None:
    """Nothing is wrong with the files."""


def no_target(data: Path) -> None:
    for path in (data / "masks").rglob("*.png"):
        path.rename(path.with_name(f"x{path.name}"))


def all_masks(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    def both(data: Path) -> None:
        for path in sorted((data / "masks").rglob("*.png")):
            place = path.relative_to(data / "masks").with_suffix("")
            write(path, change(label_map(2, int(place.name))))

    return both


def names_in_json(text: str) -> Callable[[Path], None]:
    def write(data: Path) -> None:
        (data / "names.json").write_text(text)

    return write


WRONG: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "no target": (no_target, "", r"scans/0\.png and 3 more: there is no file of its name in \S*masks"),
    "another shape": (
        all_masks(lambda m: m[1:]), "",
        r"scans/0\.png: its target \S*masks/0\.png has another size: 20x18, not 21x18",
    ),
    "a label of no class": (
        names_in_json('{"a": 0, "b": 7}'), "--class-names names.json",
        r"scans/0\.png: its target \S*masks/0\.png: it has the labels 200, which are none of the classes a",
    ),
    "all ignored": (
        all_masks(lambda m: m * 0 + 9), "--ignore-index 9",
        "targets must have labels that count, got 9 alone",
    ),
    "one class": (all_masks(lambda m: m * 0), "", r"targets must have two classes at least .*, got 0 "),
    "colours": (
        all_masks(lambda m: np.stack([m, m, m // 2], -1)), "",
        r"masks/0\.png and 3 more: its colours are no labels: a label map is grey or has a palette",
    ),
    "maps": (nothing, "--task classification", "task must be 'segmentation' or 'regression' for maps"),
    "two tasks": (nothing, "--labels folder", "targets are labels: leave out labels, or targets"),
    "restoring": (nothing, "--coloured", "targets are for a model that predicts: leave out noise"),
    "a loss of values": (nothing, "--loss l1", r"loss must be one of 'ce', 'dice', 'dice\+ce'"),
    "weights": (nothing, "--class-weights 1 2", r"--class-weights must be one for each class, .* 3, 0"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_said_in_one_line(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    change, flags, words = WRONG[case]
    data = folder(tmp_path, 2)
    change(data)
    monkeypatch.chdir(data)
    how = ["--targets", "masks", "--size", 8, "--out", "run", *TINY]
    with pytest.raises(SystemExit) as error:
        run("train", "scans", *how, *flags.split())
    said = capsys.readouterr().err
    assert error.value.code == 2
    assert any(re.search(words, line) for line in said.splitlines()), said


TABLES: dict[str, tuple[str, str]] = {
    "no columns": ("file\n", "must have a line of names, such as file,label"),
    "a cell too many": ("file,label\n0,a\n2,b,c\n", r"line 3, must have 2 columns, got 3"),
    "twice": ("file,label\n0,a\n0.png,b\n", r"line 3, names 0 again"),
    "no line": ("file,label\nx,a\ny,b\n", r"there is no line for it in \S*labels\.csv"),
    "two columns of words": (
        "file,a,b\n0,x,y\n2,y,z\n",
        "must have one column of labels to classify, got a, b",
    ),
    "one value": (
        "file,age\n0,3\n2,3\ndeep/1,3\n",
        "targets must be different values to train on, got 3 alone",
    ),
    "one class": ("file,label\n0,a\n2,a\n", "targets must have two classes at least"),
}


@pytest.mark.parametrize("case", TABLES)
def test_tables_that_are_wrong(case: str, tmp_path: Path) -> None:
    data, (text, words) = folder(tmp_path, 2), TABLES[case]
    (data / "labels.csv").write_text(text)
    with pytest.raises(ValueError, match=words):
        FolderDataset(data / "scans", targets=data / "labels.csv", size=8)


def test_tables_of_other_separators_and_places(tmp_path: Path) -> None:
    data = folder(tmp_path, 2)
    for text in ("label;file\r\na;0.png\r\nb;deep/1\r\n;2\r\na;deep/3\r\n", "\ufefffile\tlabel\nscans/0\ta\n"
                 "scans/deep/1.png\tb\nscans/deep/3.jpg\ta\n"):  # fmt: skip
        (data / "labels.csv").write_text(text)
        found = FolderDataset(data / "scans", targets=data / "labels.csv", size=8, split="all")
        assert found.classes == ("a", "b")
        assert [int(found[i]["target"]) for i in range(3)] == [0, 1, 0]
        why = next(why for path, why in found.skipped.items() if path.name == "2.png")
        assert why.startswith(("it has no label in the table", "there is no line for it"))


def test_classes_of_numbers_and_of_folders(tmp_path: Path) -> None:
    data = folder(tmp_path, 2)
    (data / "labels.csv").write_text("file,label\n0,10\n2,9\ndeep/1,10\ndeep/3,9\n")
    how = {"targets": data / "labels.csv", "size": 8, "split": "all", "validation": 0}
    values = FolderDataset(data / "scans", **how)
    assert values[0]["target"].tolist() == [1.0]
    assert FolderDataset(data / "scans", **how, task="classification").classes == ("9", "10")
    (data / "scans" / "0.png").rename(data / "scans" / "flat0.png")
    (data / "scans" / "flat").mkdir()
    for path in (data / "scans").glob("*.png"):
        path.rename(data / "scans" / "flat" / path.name)
    folders = FolderDataset(data / "scans", task="classification", size=8, split="all")
    assert folders.classes == ("deep", "flat")
    assert folders.units["classes"] is None
    assert sorted(int(folders[i]["target"]) for i in range(4)) == [0, 0, 1, 1]


def test_values_that_are_missing_do_not_count(tmp_path: Path) -> None:
    fields = np.arange(80, dtype=np.float32).reshape(2, 40)
    for i, field in enumerate(fields):
        write(tmp_path / "x" / f"{i}.npy", field)
        write(tmp_path / "y" / f"{i}.npy", np.where(field % 10 == 3, np.nan, field + 0.5))
    data = FolderDataset(tmp_path / "x", targets=tmp_path / "y", validation=0)
    assert data.units["target"]["task"] == "regression"
    there = (fields + 0.5)[fields % 10 != 3]
    wanted = (fields[0] + 0.5 - there.mean()) / there.std()
    target = data[0]["target"][0]
    assert target.isnan().sum() == 4
    np.testing.assert_allclose(target[~target.isnan()], wanted[fields[0] % 10 != 3], rtol=1e-5)


def test_a_target_that_is_all_ignored_is_left_out(tmp_path: Path) -> None:
    data = folder(tmp_path, 2)
    write(data / "masks" / "0.png", label_map(2, 0) * 0 + 200)
    found = FolderDataset(data / "scans", targets=data / "masks", ignore_index=200, size=8)
    why = "all of it is 200, which is ignored"
    assert [v.endswith(why) for v in found.skipped.values()] == [True]
    assert found.classes == {"0": 0, "7": 7}


def test_resuming_and_beginning_with_another_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = folder(tmp_path, 2)
    how = ["--targets", data / "masks", "--size", 8, "--validation", 0, *TINY]
    run("train", data / "scans", *how, "--out", tmp_path / "whole", "--decay", "constant")
    run("train", data / "scans", *how, "--out", tmp_path / "parts", "--decay", "constant", "--steps", 1)
    run("train", "--resume", tmp_path / "parts", "--steps", 3)
    flags = json.loads((tmp_path / "parts" / "run.json").read_text())["flags"]
    assert flags["targets"] == str(data / "masks")
    whole, parts = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    how = ["--targets", data / "masks", "--size", 8, "--from", tmp_path / "whole", "--steps", 1, "--cpu"]
    run("train", data / "scans", *how, "--out", tmp_path / "more", "--sample-every", 0)
    write(data / "masks" / "0.png", label_map(2, 0, (0, 7, 100)))
    with pytest.raises(SystemExit):
        run("train", data / "scans", *how, "--out", tmp_path / "none")
    assert "is for classes={'0': 0, '7': 7, '200': 200}, and the data have" in capsys.readouterr().err
