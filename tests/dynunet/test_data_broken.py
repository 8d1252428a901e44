"""Files as people have them: each broken or odd one is named, counted and skipped, and training goes on."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dynunet.data import SUFFIXES, DataOptions, FolderDataset, find, load

from .data_writers import Write, flac, idx, jpg, nii, npy, png, truncated, wav


def stereo(path: Path) -> None:
    wav(path, channels=2)


def one_pixel(path: Path) -> None:
    png(path, np.zeros((1, 1, 3), np.uint8))


def cifar(path: Path) -> None:
    path.write_bytes(bytes(3073 * 4))


def filled(value: float) -> Write:
    return lambda path: nii(path, np.full((9, 8, 7), value, np.float32))


# What is written, as which file, among which good ones, and what the report says of it.
BROKEN: dict[str, tuple[Write, Write, str, str, dict[str, Any]]] = {
    "truncated wav": (wav, truncated(wav), "b.wav", "truncated", {"size": 100}),
    "truncated flac": (wav, truncated(flac), "b.flac", "", {"size": 100}),
    "empty wav": (wav, Path.touch, "b.wav", "empty (0 bytes)", {"size": 100}),
    "zero-length audio": (wav, lambda p: wav(p, 0), "b.wav", "zero length", {"size": 100}),
    "text named wav": (wav, lambda p: p.write_text("not audio"), "b.wav", "Error", {"size": 100}),
    "6 channels": (stereo, lambda p: wav(p, channels=6), "b.wav", "6 channels", {"size": 9}),
    "truncated png": (png, truncated(png), "b.png", "", {}),
    "png without its end": (png, truncated(png, 0.98), "b.png", "", {}),
    "truncated jpg": (png, truncated(jpg), "b.jpg", "truncated", {"size": 10}),
    "empty png": (png, Path.touch, "b.png", "empty (0 bytes)", {}),
    "1-pixel image": (png, one_pixel, "b.png", "1x1", {"size": 8}),
    "1-pixel image, no size": (png, one_pixel, "b.png", "1x1", {}),
    "all-NaN volume": (nii, filled(np.nan), "b.nii.gz", "all of its", {}),
    "all-NaN volume, NaN missing": (nii, filled(np.nan), "b.nii", "nothing but", {"missing": "nan"}),
    "constant volume": (nii, filled(1), "b.nii", "all its values are 1", {}),
    "truncated nii": (nii, truncated(nii), "b.nii", "", {}),
    "truncated nii.gz": (nii, truncated(nii), "b.nii.gz", "", {}),
    "empty nii": (nii, Path.touch, "b.nii", "empty", {}),
    "unasked series": (nii, lambda p: nii(p, np.eye(9)[None, None]), "b.nii", "4 axes", {"spatial_dims": 3}),
    "truncated npy": (npy, truncated(npy), "b.npy", "", {}),
    "empty npy": (npy, Path.touch, "b.npy", "empty", {}),
    "no entries": (npy, lambda p: npy(p, np.zeros((0, 5))), "b.npy", "no entries", {}),
    "wrong rank": (npy, lambda p: npy(p, np.zeros((2, 6, 5))), "b.npy", "3 axes, and 2", {"spatial_dims": 2}),
    "objects": (npy, lambda p: np.save(p, np.array([{}]), allow_pickle=True), "b.npy", "", {}),
    "complex": (npy, lambda p: npy(p, np.zeros((6, 5), complex)), "b.npy", "complex128", {}),
    "some NaN": (npy, lambda p: npy(p, np.where(np.eye(6, 5), np.nan, 1)), "b.npy", "NaN", {}),
    "truncated npz": (npy, truncated(lambda p: np.savez(p, np.eye(6, 5))), "b.npz", "npz", {}),
    "ambiguous npz": (npy, lambda p: np.savez(p, a=np.eye(6, 5), b=np.eye(6, 5)), "b.npz", "one array", {}),
    "audio among images": (png, wav, "b.wav", "spatial axes", {}),
    "truncated idx": (idx, lambda p: idx(p, declared=9), "b-idx3-ubyte", "", {}),
    "truncated idx.gz": (idx, truncated(idx), "b-idx3-ubyte.gz", "", {}),
    "no cifar": (cifar, lambda p: p.write_bytes(bytes(99)), "b.bin", "3073", {}),
}
SUFFIX = {
    wav: ".wav",
    stereo: ".wav",
    png: ".png",
    nii: ".nii",
    npy: ".npy",
    idx: "-idx3-ubyte",
    cifar: ".bin",
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_and_odd_files_are_named_and_training_goes_on(case: str, tmp_path: Path) -> None:
    good, broken, name, reason, options = BROKEN[case]
    for i in range(4):
        good(tmp_path / f"good{i}{SUFFIX[good]}")
    broken(tmp_path / name)
    data = FolderDataset(tmp_path, split="all", **options)
    assert [p.name for p in data.skipped] == [name]
    assert reason in data.skipped[tmp_path / name]
    assert name in data.report()
    assert len(data) >= 4
    for i in range(len(data)):
        assert data[i]["x0"].shape == data.shape
        assert data[i]["x0"].isfinite().all()


def test_names_that_are_not_utf8_are_read_and_printed(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path)
    for name in (b"caf\xe9.wav", b"ok1.wav", b"ok2.wav"):
        wav(Path(os.fsdecode(os.path.join(folder, name))))
    Path(os.fsdecode(os.path.join(folder, b"kaputt\xff.wav"))).touch()
    data = FolderDataset(tmp_path, size=50, split="all")
    assert len(data) == 3
    assert "kaputt\\xff.wav: it is empty" in data.report()
    data.report().encode("utf-8")  # can be printed
    for kind, write in {".png": png, ".nii": nii, ".nii.gz": nii, ".npy": npy}.items():
        path = Path(os.fsdecode(os.path.join(folder, b"\xe9" + kind.encode())))
        write(path)
        assert FolderDataset(path)[0]["x0"].isfinite().all(), kind


def test_a_folder_without_data_says_what_was_looked_for(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("none")
    with pytest.raises(ValueError, match=r"\.wav \.flac.*\.png.*\.nii\.gz.*\.npy.*found 1 \.txt"):
        FolderDataset(tmp_path)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        FolderDataset(tmp_path / "nowhere")
    (tmp_path / "a.wav").touch()
    with pytest.raises(ValueError, match=r"none of 1 files can be used:\n.*a\.wav: it is empty"):
        FolderDataset(tmp_path)


def test_find_is_recursive_and_sorted(tmp_path: Path) -> None:
    for name in ("b/z.npy", "a.npy", "b/c/d.npy"):
        npy(tmp_path / name)
    (tmp_path / ".hidden.npy").touch()
    assert [str(p.relative_to(tmp_path)) for p in find(tmp_path)] == ["a.npy", "b/z.npy", "b/c/d.npy"]
    assert set(SUFFIXES) == {"audio", "images", "volumes", "arrays"}


def test_a_file_that_breaks_later_is_warned_of_and_the_next_one_serves(tmp_path: Path) -> None:
    for i in range(4):
        wav(tmp_path / f"{i}.wav", 400)
    data = FolderDataset(tmp_path, size=400, split="all")
    expected = data[2]["x0"]
    (tmp_path / "1.wav").unlink()
    with pytest.warns(RuntimeWarning, match=r"1\.wav is skipped"):
        assert torch.equal(data[1]["x0"], expected)
    assert torch.equal(data[1]["x0"], expected)  # and is warned of once
    assert "1.wav" in data.report()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "size must be at least 1"),
        ({"resize": True}, "resize needs a size"),
        ({"percentiles": (50, 10)}, "percentiles must be finite, low below high"),
        ({"snr": (10, 0)}, "snr must be finite, low at most high"),
        ({"missing": "none"}, "missing must be 'nan' or a number"),
        ({"validation": 1}, "validation must be a share"),
        ({"labels": "name"}, "labels must be one of"),
        ({"spacing": (0,)}, "spacing must be positive"),
        ({"pairs": "x", "coloured": True}, "pairs are degraded already"),
    ],
)
def test_options_that_mean_nothing_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DataOptions(**options)


def test_options_that_do_not_fit_the_files_are_refused(tmp_path: Path) -> None:
    wav(tmp_path / "a.wav")
    wrong: list[dict[str, Any]] = [
        {"spacing": 2},
        {"value_range": (0, 1)},
        {"resize": True, "size": 5},
        {"flips": (1,)},
    ]
    for options in wrong:
        with pytest.raises(ValueError, match=next(iter(options))):
            FolderDataset(tmp_path, **options)
    wav(tmp_path / "b.wav", 500)
    wav(tmp_path / "c.wav", 600)
    with pytest.raises(ValueError, match="size must be given"):
        FolderDataset(tmp_path)
    with pytest.raises(ValueError, match=r"a\.wav cannot be read: it must be one of images"):
        load(tmp_path / "a.wav", {"kind": "images", "spatial_dims": 2, "channels": 1})
