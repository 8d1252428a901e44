"""Channels in files of their own: as if they were in one, matched with targets by the name of the case."""

import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dynunet.data import DataOptions, FolderDataset
from dynunet.evaluation import data_of_run, evaluate
from dynunet.prediction import predict

from .target_writers import MAPS, RANKS, SIZE, SUFFIXES, TINY, label_map, run, scan_of, untrained, write
from .test_cli_files import ends

NAMES = {"ends": ("_0000", "_0001"), "folders": ("T1/", "T2/")}


def place(root: Path, names: tuple[str, ...], channel: int, case: str, suffix: str) -> Path:
    """The file of a channel."""
    name = names[channel]
    return root / f"{name}{case}{suffix}" if name.endswith("/") else root / f"{case}{name}{suffix}"


def folder(root: Path, rank: int, names: tuple[str, ...], gain: int = 1) -> Path:
    """``scans`` of two channels, ``one`` and ``two`` with each of them alone, and ``masks``."""
    for i in range(4):
        labels, case = label_map(rank, i), f"deep/{i}" if i % 2 else f"{i}"
        write(root / "masks" / f"{case}{MAPS[rank]}", labels)
        for channel, alone in enumerate(("one", "two")):
            values = scan_of(labels // (1 + channel), 10 * channel + i)
            values = values.astype(np.int32) * gain if channel and gain != 1 else values
            write(place(root / "scans", names, channel, case, SUFFIXES[rank]), values)
            write(root / alone / f"{case}{SUFFIXES[rank]}", values)
    return root


def dataset(source: Path, **how: Any) -> FolderDataset:
    return FolderDataset(source, targets=source.parent / "masks", split="all", **how)


@pytest.mark.parametrize("kind", [*NAMES])
@pytest.mark.parametrize("rank", RANKS)
def test_channels_are_those_of_their_files(rank: int, kind: str, tmp_path: Path) -> None:
    names = NAMES[kind]
    how: dict[str, Any] = {"size": SIZE[rank]} | ({"value_range": (0, 255)} if rank > 2 else {})
    root = folder(tmp_path, rank, names)
    data = dataset(root / "scans", channel_files=names, **how)
    assert data.channels == 2
    assert not data.skipped
    alone = [dataset(root / name, **how) for name in ("one", "two")]
    order = {path.name.partition(".")[0]: i for i, path in enumerate(alone[0].paths)}
    for i, path in enumerate(data.paths):
        same = order[path.name.partition(".")[0].removesuffix("_0000")]
        items = []
        for each, index in ((data, i), (alone[0], same), (alone[1], same)):
            torch.manual_seed(i)  # the same crop
            items.append(each[index])
        assert torch.equal(items[0]["x0"], torch.cat([items[1]["x0"], items[2]["x0"]]))
        assert torch.equal(items[0]["target"], items[1]["target"])
    torch.manual_seed(0)
    again = pickle.loads(pickle.dumps(data))[1]["x0"]
    torch.manual_seed(0)
    assert torch.equal(again, data[1]["x0"])


@pytest.mark.parametrize("kind", [*NAMES])
@pytest.mark.parametrize("rank", RANKS)
def test_predictions_have_the_name_of_the_case(rank: int, kind: str, tmp_path: Path) -> None:
    names = NAMES[kind]
    root = folder(tmp_path, rank, names)
    data = dataset(root / "scans", channel_files=names, size=SIZE[rank])
    model = untrained(root / "run", data)
    said = predict(model, root / "scans", root / "out", device="cpu", progress=False)
    assert (said.done, said.failed) == (4, {})
    cases = {path.relative_to(root / "masks") for path in (root / "masks").rglob("*.*")}
    assert {path.relative_to(root / "out") for path in (root / "out").rglob("*.*")} == cases
    held = data_of_run(model, root / "scans", targets=root / "masks")
    assert len(held) == 4
    assert np.isfinite(evaluate(model, held, device="cpu").figures["Dice 0"])
    one = place(root / "scans", names, 0, "0", SUFFIXES[rank])
    predict(model, one, root / "single", device="cpu", progress=False)
    made = (root / "single" / f"0{MAPS[rank]}").read_bytes()
    assert made == (root / "out" / f"0{MAPS[rank]}").read_bytes()


def test_each_volume_has_its_own_scale(tmp_path: Path) -> None:
    """A channel in other units is the same to the network, in training and after."""
    found = []
    for gain in (1, 1000):
        root = folder(tmp_path / str(gain), 3, NAMES["ends"], gain)
        data = dataset(root / "scans", channel_files=NAMES["ends"], size=4)
        torch.manual_seed(0)
        found.append(data[0]["x0"])
        model = untrained(root / "run", data)
        predict(model, root / "scans", root / "out", device="cpu", progress=False)
    torch.testing.assert_close(*found, atol=1e-4, rtol=1e-4)
    first, second = ((tmp_path / gain / "out" / "0.nii.gz").stat().st_size for gain in ("1", "1000"))
    assert abs(first - second) < 0.2 * first


def test_what_does_not_belong_together_is_named(tmp_path: Path) -> None:
    root = folder(tmp_path, 3, NAMES["ends"])
    scans = root / "scans"
    (scans / "0_0001.nii.gz").unlink()
    write(scans / "2_0001.nii.gz", np.zeros((5, 6, 7), np.uint8))
    (scans / "deep" / "1_0000.nii.gz").unlink()
    shutil.copy(root / "one" / "2.nii.gz", scans / "other.nii.gz")
    skipped = dataset(scans, channel_files=NAMES["ends"], size=4).skipped
    reasons = {path.name: why for path, why in skipped.items()}
    assert "0_0001.nii.gz cannot be read: it is not there" in reasons["0_0000.nii.gz"]
    assert "2_0001.nii.gz has another size: 6x5x7, not " in reasons["2_0000.nii.gz"]
    assert "no first channel beside it" in reasons["1_0001.nii.gz"]
    assert reasons["1_0001.nii.gz"].endswith("1_0000.nii.gz")
    assert reasons["other.nii.gz"] == "it is none of the channels _0000 _0001"


@pytest.mark.parametrize("names", [("_0",), ("_0", "_0"), ("_0", "T1/"), ("", "_1"), ("/", "T1/")])
def test_bad_names_are_refused(names: tuple[str, ...], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="channel_files must be two ends of names at least"):
        DataOptions(targets=tmp_path, channel_files=names)
    with pytest.raises(ValueError, match="channel_files are of models that predict targets"):
        DataOptions(channel_files=("_0000", "_0001"))


def test_from_training_to_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = folder(tmp_path, 2, NAMES["ends"])
    how = ("--channel-files", "_0000", "_0001", "--targets", root / "masks")
    run("train", root / "scans", *how, "--size", 8, "--out", root / "run", *TINY)
    run("predict", root / "run", root / "scans", "--out", root / "out", "--device", "cpu")
    run("evaluate", root / "run", "--device", "cpu")
    run("evaluate", root / "run", root / "scans", "--targets", root / "masks", "--device", "cpu")
    assert "4, all there are" in capsys.readouterr().out
    assert (root / "out" / "deep" / "1.png").is_file()
    (root / "scans" / "0_0001.png").unlink()
    ends(1, "predict", root / "run", root / "scans", "--out", root / "again", "--device", "cpu")
    assert "0_0001.png cannot be read: it is not there" in capsys.readouterr().err
