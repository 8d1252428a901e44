"""What is read and written again is the file: values, grid, affine, rate, depth."""

import gc
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import soundfile as sf
import torch
from PIL import Image

from dynunet.data import SUFFIXES, FolderDataset, load, save
from dynunet.data.spec import DataSpec
from dynunet.writing import DiskFull

from .data_writers import RNG, nii, npy, png, wav


def units_of(source: Path, **options: Any) -> dict[str, Any]:
    return FolderDataset(source, **options).units


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
@pytest.mark.parametrize("channels", [1, 2])
def test_audio_comes_back_exactly(tmp_path: Path, subtype: str, channels: int) -> None:
    wav(tmp_path / "a.wav", 300, channels, 22050, subtype)
    units = units_of(tmp_path)
    loaded = load(tmp_path / "a.wav", units)
    save(tmp_path / "b.wav", loaded.x, units, loaded.source)
    before, after = (sf.info(tmp_path / name) for name in ("a.wav", "b.wav"))
    assert (after.samplerate, after.channels, after.frames, after.subtype) == (22050, channels, 300, subtype)
    assert before.subtype == subtype
    old, new = (sf.read(tmp_path / name)[0] for name in ("a.wav", "b.wav"))
    np.testing.assert_allclose(new, old, rtol=0, atol={"PCM_32": 2**-24, "DOUBLE": 2**-24}.get(subtype, 0))


def test_resampled_audio_comes_back_at_its_rate_and_length(tmp_path: Path) -> None:
    tone = 0.5 * np.sin(np.arange(4001) * 2 * np.pi * 300 / 44100)
    sf.write(tmp_path / "a.wav", tone, 44100, "PCM_24")
    units = units_of(tmp_path, sample_rate=16000)
    loaded = load(tmp_path / "a.wav", units)
    assert loaded.x.shape == (1, 1452)
    save(tmp_path / "b.flac", loaded.x, units, loaded.source)
    back, rate = sf.read(tmp_path / "b.flac")
    assert (rate, len(back), sf.info(tmp_path / "b.flac").subtype) == (44100, 4001, "PCM_24")
    np.testing.assert_allclose(back[300:-300], tone[300:-300], atol=2e-3)


def test_loud_audio_is_limited_not_wrapped(tmp_path: Path) -> None:
    wav(tmp_path / "a.wav", 100)
    units = units_of(tmp_path)
    save(tmp_path / "b.wav", torch.tensor([[2.0, -2.0, 0.5]]), units)
    np.testing.assert_allclose(sf.read(tmp_path / "b.wav")[0], [1, -1, 0.5], atol=2**-15)


GREY = RNG.integers(0, 256, (12, 10), dtype=np.uint8)


@pytest.mark.parametrize(
    "pixels",
    [
        GREY,
        RNG.integers(0, 65536, (12, 10), dtype=np.uint16),
        np.stack([GREY] * 3, -1),
        np.stack([GREY] * 4, -1),
    ],
    ids=["grey", "16 bits", "RGB", "RGBA"],
)
def test_images_come_back_exactly(tmp_path: Path, pixels: np.ndarray) -> None:
    png(tmp_path / "a.png", pixels)
    units = units_of(tmp_path)
    loaded = load(tmp_path / "a.png", units)
    save(tmp_path / "b.png", loaded.x, units, loaded.source)
    with Image.open(tmp_path / "b.png") as image:
        np.testing.assert_array_equal(np.asarray(image), pixels)
    save(tmp_path / "new.png", loaded.x * 3, units)  # beyond the range
    with Image.open(tmp_path / "new.png") as image:
        assert np.asarray(image).dtype == pixels.dtype


def test_resized_images_come_back_at_their_size(tmp_path: Path) -> None:
    smooth = np.add.outer(np.arange(40), np.arange(30)).astype(np.uint8)
    png(tmp_path / "a.png", smooth)
    units = units_of(tmp_path, size=(20, 15), resize=True)
    loaded = load(tmp_path / "a.png", units)
    assert loaded.x.shape == (1, 20, 15)
    save(tmp_path / "b.png", loaded.x, units, loaded.source)
    with Image.open(tmp_path / "b.png") as image:
        np.testing.assert_allclose(np.asarray(image).astype(int), smooth.astype(int), atol=2)


AFFINES = {
    "identity": np.eye(4),
    "turned": np.array([[0, 2, 0, 5], [-3, 0, 0, 7], [0, 0, 1.5, -4], [0, 0, 0, 1.0]]),
    "flipped": np.array([[-1, 0, 0, 0], [0, 0, 2, 0], [0, -1, 0, 9], [0, 0, 0, 1.0]]),
}


@pytest.mark.parametrize("affine", AFFINES)
@pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.float32])
@pytest.mark.parametrize("shape", [(6, 5, 4), (6, 5, 4, 1), (6, 5, 4, 3)])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_volumes_come_back_on_their_own_grid(
    tmp_path: Path, affine: str, dtype: Any, shape: tuple[int, ...], suffix: str
) -> None:
    values = RNG.integers(0, 200, shape).astype(dtype)
    path, back = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    nii(path, values, AFFINES[affine])
    for options in [{}] + [{"series": True}, {"channel_axis": 3}] * (shape[3:] == (3,)):
        units = units_of(path, **options)
        loaded = load(path, units)
        assert loaded.x.shape[-4:-1] != loaded.x.shape[-3:]
        save(back, loaded.x, units, loaded.source, overwrite=True)
        image: Any = nib.load(back)
        assert image.shape == shape
        assert image.get_data_dtype() == dtype
        np.testing.assert_array_equal(image.affine, AFFINES[affine])
        np.testing.assert_allclose(image.get_fdata(), values, atol=1e-4 if dtype == np.float32 else 0)


def test_volumes_keep_slope_and_header(tmp_path: Path) -> None:
    image = nib.Nifti1Image(RNG.integers(0, 1000, (6, 5, 4)).astype(np.int16), np.eye(4))
    image.header.set_slope_inter(0.25, -3)
    image.header["descrip"] = b"a scan"
    nib.save(image, tmp_path / "a.nii")
    units = units_of(tmp_path)
    loaded = load(tmp_path / "a.nii", units)
    save(tmp_path / "b.nii", loaded.x, units, loaded.source)
    old, new = (nib.load(tmp_path / name) for name in ("a.nii", "b.nii"))
    assert (new.dataobj.slope, new.dataobj.inter) == (0.25, -3)  # pyright: ignore[reportAttributeAccessIssue]
    assert bytes(new.header["descrip"]).startswith(b"a scan")  # pyright: ignore
    np.testing.assert_array_equal(new.get_fdata(), old.get_fdata())  # pyright: ignore


def test_volumes_at_another_spacing_come_back_on_their_own(tmp_path: Path) -> None:
    x, y, z = np.meshgrid(np.arange(16), np.arange(12), np.arange(10), indexing="ij")
    values = (100 + x * 3 + y * 2 + z).astype(np.float32)
    nii(tmp_path / "a.nii", values, AFFINES["turned"])
    units = units_of(tmp_path, spacing=3.0)
    loaded = load(tmp_path / "a.nii", units)
    assert loaded.x.shape == (1, 8, 16, 5)
    save(tmp_path / "b.nii", loaded.x, units, loaded.source)
    back: Any = nib.load(tmp_path / "b.nii")
    assert back.shape == values.shape
    inner = (slice(2, -2),) * 3
    np.testing.assert_allclose(back.get_fdata()[inner], values[inner], atol=0.1)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64])
@pytest.mark.parametrize("options", [{}, {"channel_axis": -1}, {"series": True}])
def test_arrays_come_back_exactly(tmp_path: Path, dtype: Any, options: dict[str, Any]) -> None:
    values = npy(tmp_path / "a.npy", RNG.integers(0, 200, (5, 4, 3)).astype(dtype))
    units = units_of(tmp_path, **options)
    loaded = load(tmp_path / "a.npy", units)
    for name in ("b.npy", "b.npz"):
        save(tmp_path / name, loaded.x, units, loaded.source)
    back = np.load(tmp_path / "b.npy")
    assert back.dtype == dtype
    np.testing.assert_allclose(back, values, atol=0 if np.issubdtype(dtype, np.integer) else 2e-5)
    np.testing.assert_array_equal(np.load(tmp_path / "b.npz")["data"], back)


@pytest.mark.parametrize(("write", "suffix"), [(npy, ".npy"), (nii, ".nii")])
def test_what_was_missing_is_missing_again(tmp_path: Path, write: Any, suffix: str) -> None:
    values = RNG.normal(size=(6, 5, 4)).astype(np.float32)
    values[2:4] = -1e10
    values[0, 0, 0] = np.nan
    write(tmp_path / f"a{suffix}", values)
    units = units_of(tmp_path, missing="-1e10")
    loaded = load(tmp_path / f"a{suffix}", units)
    assert loaded.mask is not None
    np.testing.assert_array_equal(loaded.mask[0], np.isfinite(values) & (values != np.float32(-1e10)))
    save(tmp_path / f"b{suffix}", loaded.x, units, loaded.source)
    back: Any = np.load(tmp_path / "b.npy") if suffix == ".npy" else nib.load(tmp_path / "b.nii").get_fdata()  # pyright: ignore
    np.testing.assert_allclose(back, values, rtol=1e-4, atol=1e-5)


def test_new_results_are_in_the_units_of_the_training_files(tmp_path: Path) -> None:
    npy(tmp_path / "arrays" / "a.npy", np.array([[10.0, 30.0]]))
    save(tmp_path / "new.npy", torch.tensor([[[-1.0, 0.0, 1.0]]]), units_of(tmp_path / "arrays"))
    np.testing.assert_allclose(np.load(tmp_path / "new.npy"), [[10, 20, 30]])
    nii(tmp_path / "scans" / "a.nii", affine=np.diag([2, 2, 3, 1.0]))
    units = units_of(tmp_path / "scans", percentiles=(0, 100))
    low, high = units["range"]
    save(tmp_path / "new.nii.gz", torch.tensor([-1.0, 1.0]).expand(1, 3, 4, 2), units)
    image: Any = nib.load(tmp_path / "new.nii.gz")
    np.testing.assert_allclose(image.get_fdata()[0, 0], [low, high], rtol=1e-5)
    np.testing.assert_allclose(image.header.get_zooms(), [2, 2, 3])


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int16", "float32", "float64"])
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_new_arrays_have_the_numbers_and_the_range_of_those_of_training(
    dtype: str, suffix: str, tmp_path: Path
) -> None:
    x = np.array([[0, 1] if dtype == "bool" else [3, 100]]).astype(dtype)
    npy(tmp_path / "in" / "a.npy", x) if suffix == ".npy" else np.savez(tmp_path / "a.npz", x=x)
    units = units_of(tmp_path / "in" if suffix == ".npy" else tmp_path / "a.npz")
    save(tmp_path / f"new{suffix}", torch.tensor([[[-2.0, -1.0, 1.0, 3.0]]]), units)
    made = np.load(tmp_path / f"new{suffix}")
    made = made if suffix == ".npy" else made["data"]
    whole = np.dtype(dtype).kind in "biu"
    assert made.dtype == (dtype if whole else "float32")
    if whole:
        np.testing.assert_array_equal(made[0], [x.min(), x.min(), x.max(), x.max()])


def test_nothing_is_overwritten_and_no_half_file_is_left(tmp_path: Path) -> None:
    npy(tmp_path / "a.npy", np.array([[1.0, 2.0]]))
    units = units_of(tmp_path)
    with pytest.raises(FileExistsError, match="overwrite would"):
        save(tmp_path / "a.npy", torch.zeros(1, 1, 2), units)
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), [[1, 2]])
    with pytest.raises(ValueError, match="path must end with one of"):
        save(tmp_path / "a.txt", torch.zeros(1, 1, 2), units)
    with pytest.raises(ValueError, match="path must be of a format with 2 spatial axes"):
        save(tmp_path / "b.wav", torch.zeros(1, 1, 2), units)
    with pytest.raises(ValueError, match="1 to 4 channels"):
        save(tmp_path / "b.png", torch.zeros(7, 1, 2), units)
    with pytest.raises(ValueError, match=r"x must be \(C, \*spatial\)"):
        save(tmp_path / "b.npy", torch.zeros(1, 2), units)
    loaded = load(tmp_path / "a.npy", units)
    with pytest.raises(ValueError, match="of what was read"):
        save(tmp_path / "b.npy", torch.zeros(1, 1, 3), units, loaded.source)
    assert [p.name for p in tmp_path.iterdir()] == ["a.npy"]


@contextmanager
def full_disk() -> Iterator[None]:
    """No file may grow beyond 1000 bytes, nor may one that the tests report to."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(
    "name", [*(f"a.{s}" for s in "wav flac ogg aiff png jpg tif bmp nii nii.gz npy npz".split())]
)
def test_nothing_is_left_of_what_does_not_fit_on_the_disk(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dims = 1 if name.endswith(SUFFIXES["audio"]) else 2
    kind = next(k for k, suffixes in SUFFIXES.items() if name.endswith(suffixes))
    units = DataSpec(kind, dims, 1, sample_rate=8000, stored="PCM_16" * (dims == 1), range=(0.0, 1.0))
    (tmp_path / name).write_bytes(b"old")
    x = torch.rand(1, *(40_000,) if dims == 1 else (200, 200)) * 2 - 1
    words = rf"{name} could not be written: .*it takes about .*B, and .* free"
    with pytest.raises(DiskFull, match=words), full_disk():
        save(tmp_path / name, x, units, overwrite=True)
    gc.collect()  # what is still open would complain when it is closed
    assert [p.name for p in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_bytes() == b"old"
    assert capsys.readouterr().err == ""


def test_only_a_regular_file_is_replaced(tmp_path: Path) -> None:
    npy(tmp_path / "a.npy")
    units = units_of(tmp_path)
    (tmp_path / "folder.npy").mkdir()
    (tmp_path / "link.npy").symlink_to(tmp_path / "a.npy")
    (tmp_path / "nowhere.npy").symlink_to(tmp_path / "nothing")
    before = (tmp_path / "a.npy").read_bytes()
    for name in ("folder.npy", "link.npy", "nowhere.npy"):
        for overwrite in (False, True):
            with pytest.raises(FileExistsError, match="no regular file"):
                save(tmp_path / name, torch.zeros(1, 6, 5), units, overwrite=overwrite)
    assert (tmp_path / "link.npy").is_symlink()
    assert (tmp_path / "a.npy").read_bytes() == before


def test_units_survive_json(tmp_path: Path) -> None:
    import json

    for i in range(3):
        nii(tmp_path / "clean" / f"{i}.nii")
    data = FolderDataset(
        tmp_path / "clean", size=4, spacing=2.0, coloured=True, coordinates=True, missing="nan"
    )
    units = json.loads(json.dumps(data.units))
    assert units == data.units
    direct, through = (load(tmp_path / "clean" / "0.nii", u) for u in (data.units, units))
    assert torch.equal(direct.x, through.x)
    with pytest.raises(ValueError, match=r"units must have no field but .*, got 'other'"):
        load(tmp_path / "clean" / "0.nii", {**units, "other": 1})


def test_only_what_is_asked_for_is_written(tmp_path: Path) -> None:
    """On a grid of its own, too: a volume read at another spacing keeps every value that was not new."""
    values = RNG.uniform(100, 200, (12, 10, 8)).astype(np.float32)
    values[4:8, 4:7, 3:6] = np.nan
    nii(tmp_path / "a" / "a.nii.gz", values, np.diag([1.0, 1, 1, 1]))
    dataset = FolderDataset(tmp_path / "a", 3, spacing=(2.0,), missing="nan", split="all")
    loaded = load(tmp_path / "a" / "a.nii.gz", dataset.units)
    assert loaded.mask is not None
    filled = torch.where(loaded.mask, loaded.x, 0.5)
    units = {**dataset.units, "missing": None}
    save(tmp_path / "b.nii.gz", filled, units, like=loaded.source, only=~loaded.mask)
    written = np.asarray(nib.load(tmp_path / "b.nii.gz").dataobj)  # pyright: ignore[reportAttributeAccessIssue]
    assert np.isfinite(written).all()
    np.testing.assert_allclose(written[:2], values[:2], rtol=1e-6)
    np.testing.assert_allclose(written[:, :, :1], values[:, :, :1], rtol=1e-6)
    missing_alone = torch.zeros_like(loaded.mask)
    save(tmp_path / "d.nii.gz", filled, units, like=loaded.source, only=missing_alone)
    written = np.asarray(nib.load(tmp_path / "d.nii.gz").dataobj)  # pyright: ignore[reportAttributeAccessIssue]
    there = np.isfinite(values)
    np.testing.assert_allclose(written[there], values[there], rtol=1e-6)
    assert np.isfinite(written).all()
    with pytest.raises(ValueError, match="only must have the shape of x"):
        save(tmp_path / "c.nii.gz", filled, units, like=loaded.source, only=~loaded.mask[:, 1:])
