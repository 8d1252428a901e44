"""Files as people have them: each broken or odd one is named, counted and skipped, and training goes on."""

import gzip
import io
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image

from dynunet.data import DataOptions, FolderDataset, find, load, save

from .data_writers import RNG, Write, flac, idx, jpg, nii, npy, png, truncated, wav


def stereo(path: Path) -> None:
    wav(path, channels=2)


def one_pixel(path: Path) -> None:
    png(path, np.zeros((1, 1, 3), np.uint8))


def cifar(path: Path) -> None:
    path.write_bytes(bytes(3073 * 4))


def filled(value: float) -> Write:
    return lambda path: nii(path, np.full((9, 8, 7), value, np.float32))


def film(path: Path) -> None:
    nii(path, RNG.normal(100, 20, (6, 5, 4, 3)).astype(np.float32))


def pixdim(write: Write, axis: int, value: float) -> Write:
    """A volume with another size of its voxels in the header."""

    def both(path: Path) -> None:
        write(path)
        data = bytearray(path.read_bytes())
        data[80 + 4 * axis : 84 + 4 * axis] = np.float32(value).tobytes()
        path.write_bytes(data)

    return both


def bomb(path: Path) -> None:
    """An array of which the header says that it is large; what is behind that is never read."""
    head = io.BytesIO()
    fields = {"descr": "|u1", "fortran_order": False, "shape": (2048, 2**20)}
    np.lib.format.write_array_header_1_0(head, fields)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data.npy", head.getvalue() + bytes(10_000))


def gz_bomb(path: Path) -> None:
    """A volume of which the header says that it is large; what is behind that is never read."""
    image = nib.Nifti1Image(np.zeros((2, 2, 2), np.uint8), np.eye(4))
    image.header.set_data_shape((2000, 1000, 1000))
    path.write_bytes(gzip.compress(image.header.binaryblock + bytes(10_000)))


def turned_tif(path: Path) -> None:
    image = Image.fromarray(np.zeros((12, 10, 3), np.uint8))
    image.getexif()[0x0112] = 6
    image.save(path, exif=image.getexif())


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
    "a pipe": (wav, os.mkfifo, "b.wav", "no regular file", {"size": 100}),
    "a pipe named as a volume": (nii, os.mkfifo, "b.nii.gz", "no regular file", {}),
    "a link to nowhere": (npy, lambda p: p.symlink_to("nowhere"), "b.npy", "leads nowhere", {}),
    "a link to itself": (npy, lambda p: p.symlink_to(p), "b.npy", "cannot be looked at", {}),
    "a link to a device": (wav, lambda p: p.symlink_to("/dev/zero"), "b.wav", "no regular", {"size": 100}),
    "NaN for a spacing": (nii, pixdim(nii, 0, np.nan), "b.nii", "spacing must be finite", {}),
    "no time": (film, pixdim(film, 3, 0), "b.nii", "spacing must be positive", {"spacing": (1, 1, 1, 1)}),
    "npz bomb": (npy, bomb, "b.npz", "it would", {}),
    "nii.gz bomb": (nii, gz_bomb, "b.nii.gz", "it would", {}),
    "idx bomb": (idx, lambda p: idx(p, declared=2**31), "b-idx3-ubyte.gz", "it would", {}),
    "garbled by pillow": (png, turned_tif, "b.tif", "garbles", {}),
    "no cifar": (cifar, lambda p: p.write_bytes(bytes(99)), "b.bin", "3073", {}),
}
SUFFIX = {
    wav: ".wav",
    stereo: ".wav",
    png: ".png",
    nii: ".nii",
    film: ".nii",
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
    said = ""
    try:
        assert load(tmp_path / name, data.units).x.isfinite().all()
    except ValueError as error:
        said = str(error)
    assert not said or name in said, "a new file is refused by its name, or can be used"


# Files that look odd and are read: how each is written, and what is read of it.
def mpo(path: Path) -> np.ndarray:
    """Two views in one jpg, as some cameras have them."""
    views = [np.full((16, 16, 3), value, np.uint8) for value in (200, 20)]
    first, second = map(Image.fromarray, views)
    first.save(path, "MPO", save_all=True, append_images=[second], quality=100)
    return views[0].transpose(2, 0, 1) / 127.5 - 1


def turned(orientation: int) -> Any:
    """A png that says how it is to be turned."""

    def write(path: Path) -> np.ndarray:
        image = Image.fromarray(RNG.integers(0, 256, (4, 6), dtype=np.uint8))
        image.getexif()[0x0112] = orientation
        image.save(path, "PNG", exif=image.getexif())
        rows = np.asarray(image)
        upright = {1: rows, 2: rows[:, ::-1], 3: rows[::-1, ::-1], 4: rows[::-1], 5: rows.T}
        upright |= {6: np.rot90(rows, -1), 7: rows[::-1, ::-1].T, 8: np.rot90(rows)}
        return upright[orientation][None] / 127.5 - 1

    return write


def streamed(size: int) -> Any:
    """A wav whose header was written before anyone knew how long it would be."""

    def write(path: Path) -> np.ndarray:
        x = wav(path)
        data = bytearray(path.read_bytes())
        data[4:8], data[40:44] = size.to_bytes(4, "little"), (size - 36).to_bytes(4, "little")
        path.write_bytes(data)
        return x

    return write


def slow(path: Path) -> np.ndarray:
    return wav(path, rate=1)


ODD: dict[str, tuple[Any, str]] = {
    "views of a camera": (mpo, "a.jpg"),
    **{f"turned, {n}": (turned(n), "a.png") for n in range(1, 9)},
    **{f"streamed, {n}": (streamed(n), "a.wav") for n in (2_000_000_036, 0x7FFFFFFF, 0x80000024, 2**32 - 1)},
    "one sample in a second": (slow, "a.wav"),
}


@pytest.mark.parametrize("case", ODD)
def test_odd_files_are_read(case: str, tmp_path: Path) -> None:
    write, name = ODD[case]
    expected = write(tmp_path / name)
    data = FolderDataset(tmp_path)
    for x in (data[0]["x0"], load(tmp_path / name, data.units).x):
        np.testing.assert_allclose(x, expected, atol=0.02 if name.endswith("jpg") else 1e-4)


def test_a_recording_that_would_become_too_long_is_refused_before_it_is_resampled(tmp_path: Path) -> None:
    wav(tmp_path / "a" / "a.wav", 400, rate=48000)
    wav(tmp_path / "b.wav", 100_000, rate=1)
    units = FolderDataset(tmp_path / "a").units
    with pytest.raises(ValueError, match=r"b\.wav cannot be read: it would"):
        load(tmp_path / "b.wav", units)


def test_names_as_long_as_names_can_be(tmp_path: Path) -> None:
    for suffix, write in {".wav": wav, ".png": png, ".nii.gz": nii, ".npy": npy}.items():
        path = tmp_path / suffix / ("n" * (255 - len(suffix)) + suffix)
        write(path)
        units = FolderDataset(path).units
        loaded = load(path, units)
        (tmp_path / "out").mkdir(exist_ok=True)
        save(tmp_path / "out" / path.name, loaded.x, units, loaded.source)


def test_names_cannot_steer_the_terminal(tmp_path: Path) -> None:
    (tmp_path / "\x1b[31mred\x9b2J\n\u202e.wav").touch()
    wav(tmp_path / "a.wav")
    report = FolderDataset(tmp_path).report()
    assert "\\x1b[31mred\\x9b2J\\n\\u202e.wav: it is empty" in report
    assert all(line.isprintable() for line in report.splitlines())


def record(folder: Path) -> None:
    """As training leaves one in the folder of a run."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(json.dumps({"options": {"steps": 1}, "started": "now"}))


def test_runs_are_left_out_of_what_is_read_and_counted(tmp_path: Path) -> None:
    for i in range(3):
        png(tmp_path / f"{i}.png")
    before = FolderDataset(tmp_path, split="all")
    record(tmp_path / "deep" / "run")
    png(tmp_path / "deep" / "run" / "samples" / "step-1.png")
    png(tmp_path / "mine" / "4.png")
    (tmp_path / "mine" / "run.json").write_text('{"x": 1}')  # of another program
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "run.json").write_bytes(b"\xff" * 9)
    data = FolderDataset(tmp_path, split="all")
    assert [p.name for p in find(tmp_path)] == ["0.png", "1.png", "2.png", "4.png"]
    assert len(data) == len(before) + 1
    assert "left out  1 folder without data\n  deep/run: a run" in data.report()
    assert "left out" not in before.report()
    with pytest.raises(ValueError, match=r"no file to read in .*: a run"):
        find(tmp_path / "deep" / "run")
    assert len(find(tmp_path / "deep" / "run" / "samples")) == 1


@pytest.mark.parametrize("name", [".git", ".ipynb_checkpoints"])
def test_hidden_folders_are_neither_read_nor_classes(name: str, tmp_path: Path) -> None:
    source = tmp_path / ".cache" / "pictures"  # which was asked for by its name
    for kind in ("a", "b", f"b/{name}", name, f"{name}/deep"):
        png(source / kind / "0.png")
    data = FolderDataset(source, labels="folder", split="all")
    assert [str(p.relative_to(source)) for p in find(source)] == ["a/0.png", "b/0.png"]
    assert data.units["classes"] == ["a", "b"]
    assert f"left out  2 folders without data\n  {name}: hidden\n  b/{name}: hidden" in data.report()


def test_a_folder_that_may_not_be_looked_into_is_named(tmp_path: Path, monkeypatch: Any) -> None:
    for kind in ("open", "closed"):
        png(tmp_path / kind / "0.png")
    scandir = os.scandir

    def refusing(path: Any) -> Any:
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    data = FolderDataset(tmp_path)
    assert len(data) == 1
    assert "closed: it cannot be looked into: Permission denied" in data.report()


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
    with pytest.raises(ValueError, match=r"none of 1 file can be used:\n.*a\.wav: it is empty"):
        FolderDataset(tmp_path)


def test_find_is_recursive_and_sorted(tmp_path: Path) -> None:
    for name in ("b/z.npy", "a.npy", "b/c/d.npy"):
        npy(tmp_path / name)
    (tmp_path / ".hidden.npy").touch()
    assert [str(p.relative_to(tmp_path)) for p in find(tmp_path)] == ["a.npy", "b/z.npy", "b/c/d.npy"]


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
    with pytest.raises(ValueError, match=r"a\.wav cannot be read: its name is of audio"):
        load(tmp_path / "a.wav", {"kind": "images", "spatial_dims": 2, "channels": 1})
