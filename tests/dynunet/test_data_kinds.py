"""Each kind of file is read right: values, axes, units, labels."""

import gzip
import pickle
import re
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from dynunet.data import FolderDataset, load, save

from .data_writers import RNG, nii, npy, png, wav


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
@pytest.mark.parametrize("channels", [1, 2])
def test_audio_is_read_as_it_is(tmp_path: Path, subtype: str, channels: int) -> None:
    x = wav(tmp_path / "a.wav", 300, channels, subtype=subtype)
    data = FolderDataset(tmp_path)
    assert data.shape == (channels, 300)
    rtol = {"PCM_16": 2**-15, "PCM_24": 2**-23, "FLOAT": 1e-7}[subtype]
    np.testing.assert_allclose(data[0]["x0"], x, rtol=0, atol=rtol)
    assert data.units["stored"] == subtype
    assert data.units["sample_rate"] == 8000


def test_other_channels_of_audio_are_mixed_or_copied(tmp_path: Path) -> None:
    x = wav(tmp_path / "stereo.wav", 300, 2)
    np.testing.assert_allclose(FolderDataset(tmp_path, channels=1)[0]["x0"][0], x.mean(0), atol=1e-4)
    (tmp_path / "stereo.wav").unlink()
    x = wav(tmp_path / "mono.wav", 300, 1)
    np.testing.assert_allclose(FolderDataset(tmp_path, channels=2)[0]["x0"], [x[0], x[0]], atol=1e-4)


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 44100])
def test_a_crop_of_resampled_audio_is_that_part_of_all_of_it(tmp_path: Path, rate: int) -> None:
    from scipy.signal import resample_poly

    x = wav(tmp_path / "a.wav", 9000, 2, rate, "FLOAT")
    whole = resample_poly(x.astype(np.float32), 8000, rate, axis=1)
    lazy, cached = (
        FolderDataset(tmp_path, sample_rate=8000, size=200, coordinates=True, cache=gb) for gb in (0, 1)
    )
    for i in range(20):
        item = (lazy if i % 2 else cached)[0]
        start = round(float(item["cond"][0, 0] + 1) / 2 * (whole.shape[1] - 1))
        np.testing.assert_allclose(item["x0"], whole[:, start : start + 200], atol=2e-6)


def test_short_audio_is_padded_and_does_not_count_there(tmp_path: Path) -> None:
    x = wav(tmp_path / "a.wav", 30)
    wav(tmp_path / "b.wav", 500)
    data = FolderDataset(tmp_path, size=100, split="all")
    short, long = data[0], data[1]
    np.testing.assert_allclose(short["x0"][:, :30], x, atol=1e-4)
    assert not short["x0"][:, 30:].any()
    assert short["mask"][:, :30].all()
    assert not short["mask"][:, 30:].any()
    assert long["mask"].all()


GREY = RNG.integers(0, 256, (12, 10), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (12, 10, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("pixels", "mode", "expected"),
    [
        (GREY, None, GREY[None] / 127.5 - 1),
        (GREY.astype(np.uint16) * 257, None, GREY[None] / 127.5 - 1),
        (COLOUR, None, COLOUR.transpose(2, 0, 1) / 127.5 - 1),
        (COLOUR, "RGBA", np.concatenate([COLOUR.transpose(2, 0, 1), np.full((1, 12, 10), 255)]) / 127.5 - 1),
        (GREY, "LA", np.stack([GREY, np.full((12, 10), 255)]) / 127.5 - 1),
        (GREY > 127, None, np.where(GREY > 127, 1.0, -1.0)[None]),
    ],
    ids=["grey", "16 bits", "RGB", "RGBA", "LA", "1 bit"],
)
def test_images_by_bit_depth_and_mode(
    tmp_path: Path, pixels: np.ndarray, mode: str | None, expected: Any
) -> None:
    png(tmp_path / "a.png", pixels, mode)
    np.testing.assert_allclose(FolderDataset(tmp_path)[0]["x0"], expected, atol=1e-6)


@pytest.mark.parametrize("bits", [1, 8, 10, 12, 14, 16])
def test_of_16_bits_those_that_are_used_become_the_range(tmp_path: Path, bits: int) -> None:
    most = 2**bits - 1
    pixels = RNG.integers(0, most + 1, (4, 6, 5), dtype=np.uint16)
    pixels[:, 0, 0] = most
    for i, image in enumerate(pixels):
        png(tmp_path / f"{i}.png", image)
    data = FolderDataset(tmp_path, split="all")
    np.testing.assert_allclose(data[1]["x0"][0], pixels[1] / most * 2 - 1, atol=1e-6)
    assert f"0 becomes -1, {most} becomes 1" in data.report()
    assert (f"of the 16 bits of a file {bits} are used" in data.report()) == (bits < 16)
    x = load(tmp_path / "1.png", data.units)
    torch.testing.assert_close(x.x, data[1]["x0"])
    save(tmp_path / "b.png", x.x, data.units)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "b.png")), pixels[1])
    asked = FolderDataset(tmp_path, split="all", value_range=(0, 65535))
    assert asked.units["range"] is None
    np.testing.assert_allclose(asked[1]["x0"][0], pixels[1] / 32767.5 - 1, atol=1e-6)


def test_images_have_the_range_that_is_asked_for_and_of_other_files_the_full_scale(tmp_path: Path) -> None:
    for i in range(3):
        png(tmp_path / f"{i}.png", GREY)
    png(tmp_path / "deep.png", GREY.astype(np.uint16) * 257)
    data = FolderDataset(tmp_path, split="all", value_range=(0, 100))
    np.testing.assert_allclose(data[0]["x0"][0], GREY / 50 - 1, atol=1e-6)
    np.testing.assert_allclose(data[3]["x0"][0], GREY / 127.5 - 1, atol=1e-6)
    assert "100 becomes 1, as asked" in data.report()
    with pytest.raises(ValueError, match="value_range is of images without opacity"):
        FolderDataset(tmp_path, channels=2, value_range=(0, 100))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "tRNS"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_colours_that_nobody_sees_are_not_read(tmp_path: Path, mode: str, channels: int) -> None:
    """Two pictures that look alike, but for what is under their transparent half, are read alike."""
    seen = Image.fromarray(np.where(COLOUR < 128, 10, 200).astype(np.uint8))
    for n, hidden in enumerate(((255, 0, 0), (0, 80, 255))):
        image = seen.copy()
        image.paste(hidden, (0, 0, 5, 12))
        file = tmp_path / f"{n}.png"
        if mode == "tRNS":
            image.save(file, transparency=hidden)
            continue
        if mode == "P":
            image = image.quantize(16)
            image.save(file, transparency=image.getpixel((0, 0)))
            continue
        image.putalpha(Image.fromarray(np.repeat([[0] * 5 + [255] * 5], 12, 0).astype(np.uint8)))
        image.convert(mode).save(file)
    data = FolderDataset(tmp_path, split="all", channels=channels)
    a, b = data[0]["x0"], data[1]["x0"]
    torch.testing.assert_close(a, b)
    colours = a[: channels - 1] if channels in (2, 4) else a
    assert (colours[:, :, :5] == 1).all()
    assert not (colours[:, :, 5:] == 1).any()
    if channels in (2, 4):
        assert (a[-1, :, :5] == -1).all()
        assert (a[-1, :, 5:] == 1).all()
    for path, x in zip(data.paths, (a, b), strict=True):
        torch.testing.assert_close(load(path, data.units).x, x)


@pytest.mark.parametrize("suffix", [".webp", ".gif"])
def test_other_images_are_read(tmp_path: Path, suffix: str) -> None:
    for i in range(3):
        Image.fromarray(GREY).convert("RGB").save(tmp_path / f"{i}{suffix}", lossless=True)
    data = FolderDataset(tmp_path, split="all", channels=1)
    np.testing.assert_allclose(data[0]["x0"][0], GREY / 127.5 - 1, atol=1 / 127)
    with pytest.raises(ValueError, match="path must end with one of"):
        save(tmp_path / f"new{suffix}", data[0]["x0"], data.units)


def test_palettes_become_colours(tmp_path: Path) -> None:
    few = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)[RNG.integers(0, 3, (6, 5))]
    Image.fromarray(few).quantize(4).save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert image.mode == "P"
    np.testing.assert_allclose(
        FolderDataset(tmp_path)[0]["x0"], few.transpose(2, 0, 1) / 127.5 - 1, atol=1e-6
    )
    grey = FolderDataset(tmp_path, channels=1)[0]["x0"]
    expected = np.asarray(Image.fromarray(few).convert("L")) / 127.5 - 1
    np.testing.assert_allclose(grey[0], expected, atol=0.02)


def test_most_images_decide_the_channels(tmp_path: Path) -> None:
    for i in range(3):
        png(tmp_path / f"{i}.png", COLOUR)
    png(tmp_path / "grey.png", GREY)
    data = FolderDataset(tmp_path, split="all")
    assert data.channels == 3
    assert "1 file converted" in data.report()
    np.testing.assert_allclose(data[3]["x0"], np.stack([GREY] * 3) / 127.5 - 1, atol=1e-6)


def test_rotated_photographs_are_upright(tmp_path: Path) -> None:
    image = Image.fromarray(np.repeat(np.repeat(COLOUR, 8, 0), 8, 1))
    exif = image.getexif()
    exif[0x0112] = 6  # the camera was turned
    image.save(tmp_path / "a.jpg", exif=exif, quality=100)
    data = FolderDataset(tmp_path)
    assert data.shape == (3, 80, 96)
    upright = np.asarray(image.rotate(-90, expand=True)).transpose(2, 0, 1) / 127.5 - 1
    assert (data[0]["x0"].numpy() - upright).std() < 0.3  # what JPEG loses


def test_volumes_are_in_canonical_orientation_and_their_own_scale(tmp_path: Path) -> None:
    values = RNG.normal(100, 20, (9, 8, 7)).astype(np.float32)
    affine = np.array([[0, 2, 0, 0], [-3, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    for name in ("a.nii", "b.nii.gz"):
        nii(tmp_path / name, values, affine)
    data = FolderDataset(tmp_path, percentiles=(5, 95), split="all")
    canonical = nib.as_closest_canonical(nib.Nifti1Image(values, affine)).get_fdata()
    low, high = np.percentile(values, (5, 95))
    for item in (data[0], data[1]):
        np.testing.assert_allclose(
            item["x0"][0], 2 * (canonical - low) / (high - low) - 1, rtol=1e-4, atol=1e-5
        )
    assert "2x3x1" in data.report()


def test_a_volume_that_is_nearly_all_background_has_its_full_range(tmp_path: Path) -> None:
    values = np.zeros((20, 20, 20), np.float32)
    values[3, 4, 5] = 8
    nii(tmp_path / "a.nii", values)
    x = FolderDataset(tmp_path)[0]["x0"]
    assert (x.min(), x.max(), x[0, 3, 4, 5]) == (-1, 1, 1)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_four_axes_are_spatial_or_a_series(tmp_path: Path, suffix: str) -> None:
    values = nii(tmp_path / f"a{suffix}", RNG.integers(0, 900, (5, 4, 3, 6)).astype(np.int16))
    assert FolderDataset(tmp_path).shape == (1, 5, 4, 3, 6)
    series = FolderDataset(tmp_path, series=True, split="all")
    assert len(series) == 6
    low, high = np.percentile(values, (0.5, 99.5))
    expected = 2 * (values[..., 4] - low) / (high - low) - 1
    np.testing.assert_allclose(series[4]["x0"][0], expected, rtol=1e-4, atol=1e-5)
    assert FolderDataset(tmp_path, channel_axis=3).shape == (6, 5, 4, 3)


def test_a_scaled_nifti_is_in_its_units(tmp_path: Path) -> None:
    image = nib.Nifti1Image(RNG.integers(0, 1000, (6, 5, 4)).astype(np.int16), np.eye(4))
    image.header.set_slope_inter(0.5, 10)
    nib.save(image, tmp_path / "a.nii")
    stored = nib.load(tmp_path / "a.nii").get_fdata()  # pyright: ignore[reportAttributeAccessIssue]
    data = FolderDataset(tmp_path, value_range=(0, 510))
    np.testing.assert_allclose(data[0]["x0"][0], stored / 255 - 1, atol=1e-5)


def test_spacing_resamples_volumes(tmp_path: Path) -> None:
    x, y, z = np.meshgrid(np.arange(12) + 0.5, (np.arange(10) + 0.5) * 2, np.arange(8) + 0.5, indexing="ij")
    affine = np.diag([1, 2, 1, 1.0])
    nii(tmp_path / "a.nii", (x + y + z).astype(np.float32), affine)
    data = FolderDataset(tmp_path, spacing=2, value_range=(0, 40), split="all")
    assert data.shape == (1, 6, 10, 4)
    i, j, k = np.meshgrid(*((np.arange(n) + 0.5) * 2 for n in (6, 10, 4)), indexing="ij")
    inner = (0, slice(1, -1), slice(1, -1), slice(1, -1))  # a plane stays one, but for the ends
    np.testing.assert_allclose((data[0]["x0"][inner] + 1) * 20, (i + j + k)[inner[1:]], atol=1e-3)
    with pytest.raises(ValueError, match="spacing must be one number or one for each of 3 axes"):
        FolderDataset(tmp_path, spacing=(1, 1))


@pytest.mark.parametrize("rank", [1, 2, 3, 4, 5])
def test_arrays_of_any_rank(tmp_path: Path, rank: int) -> None:
    shape = (3, 4, 5, 2, 3)[:rank]
    values = [RNG.normal(size=shape) for _ in range(3)]
    for i, v in enumerate(values):
        np.save(tmp_path / f"{i}.npy", v) if i else np.savez(tmp_path / "0.npz", v)
    data = FolderDataset(tmp_path, validation=0)
    assert data.shape == (1, *shape)
    low, high = np.min(values), np.max(values)
    for i in range(3):
        expected = 2 * (values[i] - low) / (high - low) - 1
        np.testing.assert_allclose(data[i]["x0"][0], expected, atol=1e-6)
    np.testing.assert_allclose(data.units["range"], [low, high])
    if rank > 1:
        last = FolderDataset(tmp_path, channel_axis=-1, validation=0)
        np.testing.assert_array_equal(last[1]["x0"], data[1]["x0"][0].movedim(-1, 0))
        assert last.units["spatial_dims"] == rank - 1
        series = FolderDataset(tmp_path, series=True, validation=0)
        assert len(series) == 9
        np.testing.assert_array_equal(series[4]["x0"][0], data[1]["x0"][0, 1])


def test_npy_files_are_read_in_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = npy(tmp_path / "a.npy", RNG.normal(size=(64, 64, 64)).astype(np.float32))
    data = FolderDataset(tmp_path, size=4, coordinates=True)
    made = []
    original = np.array
    monkeypatch.setattr(np, "array", lambda *a, **k: made.append(original(*a, **k)) or made[-1])
    item = data[0]
    assert max(m.size for m in made) == 4**3
    start = [round(float(c.flatten()[0] + 1) / 2 * 63) for c in item["cond"]]
    part = values[tuple(slice(s, s + 4) for s in start)]
    low, high = values.min(), values.max()
    np.testing.assert_allclose(item["x0"][0], 2 * (part - low) / (high - low) - 1, atol=1e-5)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_files_with_labels_and_their_split(tmp_path: Path, suffix: str) -> None:
    opened = gzip.open if suffix else open
    pixels, labels = (
        RNG.integers(0, 256, (7, 4, 3), dtype=np.uint8),
        np.array([1, 0, 2, 2, 1, 0, 3], np.uint8),
    )
    for name, part in {"train": slice(0, 5), "t10k": slice(5, 7)}.items():
        head = bytes([0, 0, 8, 3]) + b"".join(n.to_bytes(4, "big") for n in pixels[part].shape)
        with opened(tmp_path / f"{name}-images-idx3-ubyte{suffix}", "wb") as file:
            file.write(head + pixels[part].tobytes())
        with opened(tmp_path / f"{name}-labels-idx1-ubyte{suffix}", "wb") as file:
            file.write(bytes([0, 0, 8, 1]) + len(labels[part]).to_bytes(4, "big") + labels[part].tobytes())
    data = FolderDataset(tmp_path, labels="file")
    held = data.validation()
    assert held is not None
    assert (len(data), len(held), data.num_classes) == (5, 2, 4)
    for dataset, first in ((data, 0), (held, 5)):
        for i in range(len(dataset)):
            item = dataset[i]
            np.testing.assert_allclose(item["x0"][0], pixels[first + i] / 127.5 - 1, atol=1e-6)
            assert item["class_labels"] == labels[first + i]
    (tmp_path / f"train-labels-idx1-ubyte{suffix}").unlink()
    assert "its labels" in next(iter(FolderDataset(tmp_path, labels="file", validation=0).skipped.values()))


def test_cifar_batches(tmp_path: Path) -> None:
    rows = RNG.integers(0, 256, (4, 3073), dtype=np.uint8)
    rows[:, 0] = [3, 9, 0, 3]
    (tmp_path / "data_batch_1.bin").write_bytes(rows[:3].tobytes())
    (tmp_path / "test_batch.bin").write_bytes(rows[3:].tobytes())
    data = FolderDataset(tmp_path, labels="file")
    assert len(data) == 3
    assert data.units["classes"][3] == "cat"
    np.testing.assert_allclose(data[1]["x0"], rows[1, 1:].reshape(3, 32, 32) / 127.5 - 1, atol=1e-6)
    assert data[1]["class_labels"] == 9


def test_npz_with_labels(tmp_path: Path) -> None:
    images, labels = RNG.integers(0, 17, (10, 8, 8), dtype=np.uint8), np.arange(10) % 3
    np.savez(tmp_path / "digits.npz", images=images, labels=labels)
    data = FolderDataset(tmp_path / "digits.npz", labels="file", value_range=(0, 16), split="all")
    assert data.shape == (1, 8, 8)
    assert [int(data[i]["class_labels"]) for i in range(10)] == labels.tolist()
    np.testing.assert_allclose(data[7]["x0"][0], images[7] / 8 - 1, atol=1e-6)


def test_a_dataset_can_be_sent_to_workers(tmp_path: Path) -> None:
    for i in range(6):
        nii(tmp_path / f"{i}.nii.gz", RNG.normal(size=(20, 20, 20)).astype(np.float32))
    data = FolderDataset(tmp_path, size=4, coordinates=True)
    data[0]
    sent = pickle.dumps(data)
    assert len(sent) < 20_000, "no decoded file travels"
    torch.manual_seed(1)
    expected = data[0]
    torch.manual_seed(1)
    assert torch.equal(pickle.loads(sent)[0]["x0"], expected["x0"])
    loader = torch.utils.data.DataLoader(data, batch_size=2, num_workers=1)
    assert next(iter(loader))["x0"].shape == (2, 1, 4, 4, 4)


def mp3(path: Path, samples: int = 30_000) -> None:
    tone = 0.3 * np.sin(np.arange(samples) / 5)
    soundfile.write(path, tone + 0.05 * RNG.standard_normal(samples), 16000, format="MP3")


def test_mp3_is_read_the_same_in_parts_and_restored_as_wav(tmp_path: Path) -> None:
    for i in range(3):
        mp3(tmp_path / f"{i}.mp3")
    data = FolderDataset(tmp_path, size=1000, split="all")
    with soundfile.SoundFile(tmp_path / "0.mp3") as file:
        whole = file.read(dtype="float32")
    crop = data[0]["x0"][0].numpy()
    parts = np.lib.stride_tricks.sliding_window_view(whole, 1000)
    assert np.abs(parts - crop).max(1).min() < 1e-6
    loaded = load(tmp_path / "0.mp3", data.units)
    np.testing.assert_array_equal(loaded.x[0], whole)
    save(tmp_path / "out.wav", loaded.x, data.units, like=loaded.source)
    np.testing.assert_allclose(soundfile.read(tmp_path / "out.wav")[0], whole, atol=1e-6)
    with pytest.raises(ValueError, match=r"path must end with one of \.wav"):
        save(tmp_path / "out.mp3", loaded.x, data.units, like=loaded.source)


def test_mp3_that_cannot_be_read_is_skipped_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(3):
        soundfile.write(tmp_path / f"{i}.wav", RNG.standard_normal(3000) / 9, 16000)
    mp3(tmp_path / "cut.mp3")
    (tmp_path / "cut.mp3").write_bytes((tmp_path / "cut.mp3").read_bytes()[:2000])
    mp3(tmp_path / "whole.mp3")
    data = FolderDataset(tmp_path, size=1000, split="all")
    assert len(data) == 4
    assert "truncated: 2000 of " in data.skipped[tmp_path / "cut.mp3"]
    monkeypatch.setattr(soundfile, "available_formats", lambda: {"WAV": "WAV"})
    data = FolderDataset(tmp_path, size=1000, split="all")
    assert len(data) == 3
    assert re.match(r"libsndfile .* reads no mp3 .*: save it as flac", data.skipped[tmp_path / "whole.mp3"])
