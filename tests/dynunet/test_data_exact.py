"""What is made anew is put into a file's own grid, channels, rate and numbers; all else stays, to the bit.

The files are written and compared by the formats' own libraries.
"""

import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import soundfile as sf
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dynunet.data import FolderDataset, load, save
from dynunet.data.channel_mapping import channel_mapping
from dynunet.data.errors import UnreadableError
from dynunet.data.loading import load_gaps, marks_of
from dynunet.data.saving import check_result, write
from dynunet.data.spec import DataSpec

RNG = np.random.default_rng(0)


def pcm(subtype: str, channels: int, rate: int, suffix: str = ".wav") -> "Kind":
    def make(path: Path) -> None:
        x = RNG.integers(-(2**31), 2**31, (90, channels), dtype=np.int64).astype(np.int32)
        sf.write(path, x, rate, subtype)

    def numbers(path: Path) -> np.ndarray:
        info, whole = sf.info(path), subtype not in ("FLOAT", "DOUBLE")
        assert (info.samplerate, info.channels, info.subtype) == (rate, channels, subtype)
        return sf.read(path, dtype="int32" if whole else "float64", always_2d=True)[0].T

    def mask(path: Path, marked: np.ndarray) -> None:
        sf.write(path.with_suffix(".wav"), marked[0].astype(np.float32), rate, "FLOAT")

    return Kind(suffix, (1, 90), make, numbers, mask)


def image(mode: str, suffix: str = ".png", orientation: int = 1, **options: Any) -> "Kind":
    channels = {"1": 1, "L": 1, "I;16": 1, "LA": 2, "RGB": 3, "RGBA": 4}[mode]

    def make(path: Path) -> None:
        pixels = RNG.integers(0, 256, (12, 10, channels), dtype=np.uint8)
        made = Image.fromarray(pixels[..., 0] if channels == 1 else pixels)
        if mode == "1":
            made = made.convert("1")
        elif mode == "I;16":
            made = Image.fromarray(RNG.integers(0, 65536, (12, 10), dtype=np.uint16))
        if orientation > 1:
            made.getexif()[0x0112] = orientation
            options["exif"] = made.getexif()
        made.save(path, **options)

    def numbers(path: Path) -> np.ndarray:
        with Image.open(path) as there:
            assert there.mode == mode
            assert there.getexif().get(0x0112, 1) == orientation
            assert there.info.get("icc_profile") == options.get("icc_profile")
            return np.moveaxis(np.atleast_3d(np.asarray(there)), -1, 0)

    def mask(path: Path, marked: np.ndarray) -> None:
        made = Image.fromarray(marked[0].astype(np.uint8) * 255)
        made.getexif()[0x0112] = orientation
        made.save(path.with_suffix(".png"), exif=made.getexif())

    return Kind(suffix, (1, 12, 10), make, numbers, mask)


TURNED = np.array([[0, 2, 0, 5], [-3, 0, 0, 7], [0, 0, 1.5, -4], [0, 0, 0, 1.0]])


def volume(dtype: Any, suffix: str = ".nii", shape: Any = (6, 5, 4), slope: Any = (None, None)) -> "Kind":
    def make(path: Path) -> None:
        made = nib.Nifti1Image(_any_numbers(dtype, shape), TURNED)
        made.header.set_slope_inter(*slope)
        nib.save(made, path)

    def numbers(path: Path) -> np.ndarray:
        there: Any = nib.load(path)
        assert there.get_data_dtype() == dtype
        np.testing.assert_array_equal(there.affine, TURNED)
        assert (there.dataobj.slope, there.dataobj.inter) == (np.float32(slope[0] or 1), slope[1] or 0)
        return np.asanyarray(there.dataobj.get_unscaled())[None]

    def mask(path: Path, marked: np.ndarray) -> None:
        nib.save(nib.Nifti1Image(marked[0].astype(np.uint8), TURNED), path.with_suffix(".nii"))

    return Kind(suffix, (1, *shape), make, numbers, mask)


def array(dtype: Any, suffix: str = ".npy") -> "Kind":
    def make(path: Path) -> None:
        x = _any_numbers(dtype, (7, 6))
        np.save(path, x) if suffix == ".npy" else np.savez(path, field=x, labels=np.arange(7))

    def numbers(path: Path) -> np.ndarray:
        there = np.load(path)
        if suffix == ".npz":
            np.testing.assert_array_equal(there["labels"], np.arange(7))
            there = there["field"]
        assert there.dtype == dtype
        return there[None]

    return Kind(suffix, (1, 7, 6), make, numbers, lambda path, m: np.save(path.with_suffix(".npy"), m[0]))


def _any_numbers(dtype: Any, shape: tuple[int, ...]) -> np.ndarray:
    if np.dtype(dtype).kind == "f":
        return RNG.normal(size=shape).astype(dtype)
    if np.dtype(dtype).kind == "b":
        return RNG.random(shape) > 0.5
    limits = np.iinfo(dtype)
    return RNG.integers(limits.min, limits.max, shape, dtype=dtype, endpoint=True)


@dataclass
class Kind:
    suffix: str
    shape: tuple[int, ...]  # (1, *spatial) as its own library sees it
    make: Callable[[Path], None]
    numbers: Callable[[Path], np.ndarray]
    mask: Callable[[Path, np.ndarray], None]


# A kind of file, and how a model of it reads it: on its own grid, or on another.
KINDS: dict[str, tuple[Kind, dict[str, Any]]] = {
    **{f"wav {s} {c}": (pcm(s, c, 8000), {}) for s in ("PCM_U8", "PCM_16", "PCM_24") for c in (1, 2)},
    **{f"wav {s}": (pcm(s, 1, 8000), {}) for s in ("PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW")},
    "flac of a higher rate": (pcm("PCM_24", 2, 44100, ".flac"), {"sample_rate": 8000}),
    "wav of a lower rate": (pcm("PCM_16", 1, 8000), {"sample_rate": 22050}),
    "aiff of a higher rate": (pcm("PCM_16", 2, 48000, ".aiff"), {"sample_rate": 16000}),
    **{f"png {m}": (image(m), {}) for m in ("1", "L", "LA", "RGB", "RGBA", "I;16")},
    **{f"resized {m}": (image(m), {"size": (4, 4), "resize": True}) for m in ("L", "RGBA", "I;16")},
    "enlarged": (image("RGB"), {"size": (20, 30), "resize": True}),
    **{f"turned {n}": (image("L", orientation=n), {}) for n in (2, 5, 6, 8)},
    "png with a profile": (image("RGB", icc_profile=b"of colours"), {}),
    "tif": (image("RGB", ".tif"), {}),
    "tif of 16 bits": (image("I;16", ".tiff"), {}),
    "bmp": (image("RGB", ".bmp"), {}),
    **{f"nii {t.__name__}": (volume(t), {}) for t in (np.uint8, np.int16, np.int32, np.float32, np.float64)},
    "nii with a slope": (volume(np.int16, slope=(0.3, -7.0)), {}),
    "floats with a slope": (volume(np.float32, slope=(0.3, -7.0)), {}),
    "nii.gz at another spacing": (volume(np.int16, ".nii.gz"), {"spacing": 2.3}),
    "nii at a finer spacing": (volume(np.float32), {"spacing": 1.0}),
    "nii in time": (volume(np.int16, shape=(5, 4, 3, 2)), {}),
    **{
        f"npy {t.__name__}": (array(t), {})
        for t in (bool, np.uint8, np.int64, np.uint64, np.float16, np.float64)
    },
    "npz beside labels": (array(np.float32, ".npz"), {}),
}


FEW = settings(max_examples=max(settings().max_examples // 20, 3))  # of each of many kinds


@pytest.mark.parametrize("kind", KINDS)
@FEW
@given(data=st.data())
def test_what_is_not_marked_stays_to_the_bit(kind: str, data: st.DataObject) -> None:
    of, options = KINDS[kind]
    with TemporaryDirectory() as folder:
        path, to = Path(folder, f"a{of.suffix}"), Path(folder, f"b{of.suffix}")
        of.make(path)
        before = of.numbers(path)
        marked = np.zeros(of.shape, bool)
        start = [data.draw(st.integers(0, n - 1)) for n in of.shape]
        size = [data.draw(st.integers(1, 3)) for _ in of.shape]
        marked[tuple(slice(a, a + s) for a, s in zip(start, size, strict=True))] = True
        mask = Path(folder, "mask.any")
        of.mask(mask, marked)
        mask = next(p for p in Path(folder).glob("mask.*"))
        units = DataSpec.of(FolderDataset(path, **options).units)
        channels = data.draw(st.sampled_from(sorted({1, units.channels})))
        units = replace(units, channels=channels)
        loaded, holes = load_gaps(path, units, marks_of(mask, units))
        check_result(to, units, loaded.source, exact=True)
        assert holes.sum() == marked.sum() * len(before), "the mask is taken on the grid of the file"
        assert loaded.mask is not None
        assert not loaded.mask.all(), "the model has something to fill in"

        write(to, torch.full_like(loaded.x, -0.9), units, loaded.source, holes)
        after = of.numbers(to)
        marked = np.broadcast_to(marked, before.shape)
        np.testing.assert_array_equal(after[~marked], before[~marked])
        write(to, torch.full_like(loaded.x, 0.9), units, loaded.source, holes, overwrite=True)
        other = of.numbers(to)
        np.testing.assert_array_equal(other[~marked], before[~marked])
        kept = int(loaded.source.channels.file[1] > loaded.source.channels.given[1])  # opacity
        colours = slice(len(marked) - kept)
        assert (other[colours] > after[colours])[marked[colours]].all(), "the answer reaches all of it"


GAPS: dict[str, tuple[Kind, str, dict[str, Any]]] = {
    "wav of a higher rate": (pcm("FLOAT", 2, 44100), "nan", {"sample_rate": 8000}),
    "wav of a lower rate": (pcm("DOUBLE", 1, 8000), "nan", {"sample_rate": 11025}),
    "wav": (pcm("FLOAT", 1, 8000), "0.125", {}),
    "nii at another spacing": (volume(np.float32), "nan", {"spacing": 2.3}),
    "nii": (volume(np.int16), "-32768", {}),
    "npy": (array(np.float64), "-1e30", {}),
    "png": (image("L"), "255", {"size": (5, 5), "resize": True}),
}


@pytest.mark.parametrize("kind", GAPS)
def test_what_is_missing_is_filled_in_and_all_else_stays_to_the_bit(kind: str, tmp_path: Path) -> None:
    of, missing, options = GAPS[kind]
    path, to = tmp_path / f"a{of.suffix}", tmp_path / f"b{of.suffix}"
    of.make(path)
    before = of.numbers(path)
    marked = np.zeros(before.shape, bool)
    marked[..., 2:4] = True
    marked[:, -1] = True
    before = np.where(marked, before.dtype.type(float(missing)), before)
    units = DataSpec.of(FolderDataset(path, **options).units)
    if of.suffix == ".wav":
        sf.write(path, before.T, sf.info(path).samplerate, sf.info(path).subtype)
    elif of.suffix == ".nii":
        nib.save(nib.Nifti1Image(before[0], TURNED), path)
    elif of.suffix == ".png":
        Image.fromarray(before[0]).save(path)
    else:
        np.save(path, before[0])
    units = replace(units, missing=missing)
    marked |= before == before.dtype.type(float(missing)) if missing != "nan" else marked
    loaded, holes = load_gaps(path, units)
    assert loaded.mask is not None
    assert not loaded.mask.all()
    write(to, torch.full_like(loaded.x, 0.5), units, loaded.source, holes)
    after = of.numbers(to)
    np.testing.assert_array_equal(after[~marked], before[~marked])
    assert np.isfinite(after).all()
    assert (after[marked] != before[marked]).all()


CHANNELS = {
    "audio": (pcm("PCM_16", 1, 8000), pcm("PCM_16", 2, 8000), pcm("PCM_16", 3, 8000)),
    "images": (image("L"), image("LA"), image("RGB"), image("RGBA")),
}
ACCEPTED = {  # channels of the file and the model, where nothing would be lost
    "audio": {(1, 1), (1, 2), (1, 3), (1, 4), (2, 1), (2, 2), (3, 1), (3, 3)},
    "images": {(f, m) for f in (1, 2, 3, 4) for m in (1, 2, 3, 4)},
}


@pytest.mark.parametrize("kind", CHANNELS)
@pytest.mark.parametrize("model", [1, 2, 3, 4])
def test_a_file_keeps_its_channels_whatever_those_of_the_model(kind: str, model: int, tmp_path: Path) -> None:
    """A model that changes nothing gives every file back; where it could not, it is refused."""
    for count, of in enumerate(CHANNELS[kind], start=1):
        path, to = tmp_path / f"{count}{of.suffix}", tmp_path / f"{count}-back{of.suffix}"
        of.make(path)
        units = {**FolderDataset(path).units, "channels": model}
        if (count, model) not in ACCEPTED[kind]:
            with pytest.raises(ValueError, match=f"it has {count} channels and the model {model}"):
                load(path, units, mix=False)
            continue
        loaded = load(path, units, mix=False)
        assert loaded.x.shape[-1 - units["spatial_dims"]] == model
        save(to, loaded.x, units, loaded.source)
        np.testing.assert_array_equal(of.numbers(to), of.numbers(path))


def test_channels_are_given_one_by_one_and_opacity_not_at_all(tmp_path: Path) -> None:
    of = image("RGBA")
    of.make(tmp_path / "a.png")
    units = {**FolderDataset(tmp_path).units, "channels": 1}
    loaded = load(tmp_path / "a.png", units, mix=False)
    pixels = of.numbers(tmp_path / "a.png")
    seen = pixels[3:] > 0
    np.testing.assert_allclose(loaded.x[:, 0], np.where(seen, pixels[:3], 255) / 127.5 - 1, atol=1e-6)
    save(tmp_path / "b.png", -loaded.x, units, loaded.source)
    negative = np.concatenate([np.where(seen, 255 - pixels[:3], pixels[:3]), pixels[3:]])
    np.testing.assert_array_equal(of.numbers(tmp_path / "b.png"), negative)


def test_python_users_may_mix_channels_as_training_files_are(tmp_path: Path) -> None:
    for of, mixed in ((pcm("FLOAT", 2, 8000), np.mean), (image("RGBA"), None)):
        path, to = tmp_path / f"a{of.suffix}", tmp_path / f"b{of.suffix}"
        of.make(path)
        units = FolderDataset(path, channels=1).units
        loaded = load(path, units)
        assert loaded.x.shape == (1, *of.shape[1:])
        save(to, loaded.x, units, loaded.source)
        again = load(to, units).x
        np.testing.assert_allclose(again, loaded.x, atol=0.01)
        with pytest.raises(ValueError, match="only needs a result with the channels of the source, got 1"):
            save(tmp_path / f"c{of.suffix}", loaded.x, units, loaded.source, only=loaded.x > 0)
        if mixed is not None:
            np.testing.assert_allclose(again[0], mixed(of.numbers(path), 0), atol=1e-6)


@given(st.sampled_from(["audio", "images", "volumes", "arrays"]), *[st.integers(1, 5)] * 3)
def test_nothing_is_lost_of_what_is_accepted(kind: str, file: int, given: int, answer: int) -> None:
    values = RNG.normal(size=(file, 3))
    try:
        channels = channel_mapping(kind, file, given, answer)
    except UnreadableError:
        return
    views = channels.split(values, 9.0)
    assert views.shape == (channels.views, given, 3)
    seen = views.reshape(-1, 3)
    opacity = kind == "images" and file in (2, 4)
    for channel in values[: file - opacity]:
        assert (seen == channel).all(1).any()
    result = channels.join(RNG.normal(size=(channels.views, answer, 3)), values)
    assert len(result) == channels.results
    if given == answer:
        assert len(result) == file
        np.testing.assert_allclose(channels.join(views, values), values)
    if opacity and not (kind == "images" and answer in (2, 4)):
        np.testing.assert_array_equal(result[-1], values[-1])


def test_what_training_does_not_see_is_reported(tmp_path: Path) -> None:
    deep_colours(tmp_path / "a.png")
    assert "lost      in 1 file, its 16 bits of each colour become 8" in FolderDataset(tmp_path).report()


def test_what_a_result_does_not_have_of_its_file_is_said(tmp_path: Path) -> None:
    pcm("PCM_16", 1, 44100).make(tmp_path / "a.wav")
    units = FolderDataset(tmp_path / "a.wav", sample_rate=8000).units
    assert "what is above 4000 Hz is lost" in load(tmp_path / "a.wav", units).lost[0]
    image("L").make(tmp_path / "a.png")
    units = FolderDataset(tmp_path / "a.png", size=4, resize=True).units
    assert "what is finer than the model's size, 4x4, is lost" in load(tmp_path / "a.png", units).lost[0]
    assert not load(tmp_path / "a.png", {**units, "resize": False}).lost


def deep_colours(path: Path) -> None:
    """16 bits of each colour, which pillow can neither write nor read."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + name + data + zlib.crc32(name + data).to_bytes(4, "big")

    head = (5).to_bytes(4, "big") + (4).to_bytes(4, "big") + bytes([16, 2, 0, 0, 0])
    rows = b"".join(b"\0" + RNG.bytes(5 * 6) for _ in range(4))
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + parts)


@pytest.mark.parametrize(
    ("make", "name", "to", "why"),
    [
        (image("RGB", ".jpg").make, "a.jpg", "b.jpg", "changes all around it"),
        (image("RGB").make, "a.png", "b.jpg", "changes all around it"),
        (deep_colours, "a.png", "b.png", "its 16 bits of each colour become 8"),
        (image("I;16").make, "a.png", "b.bmp", r"holds what is in the file as it is \(uint16\)"),
        (pcm("FLOAT", 1, 8000).make, "a.wav", "b.flac", "as it is"),
        (pcm("PCM_24", 1, 8000).make, "a.wav", "b.ogg", "changes all around it"),
        (image("RGBA").make, "a.png", "b.txt", "must end with"),
    ],
)
def test_formats_that_cannot_hold_a_file_as_it_is_are_refused(
    make: Any, name: str, to: str, why: str, tmp_path: Path
) -> None:
    make(tmp_path / name)
    units = DataSpec.of(FolderDataset(tmp_path).units)
    loaded, _ = load_gaps(tmp_path / name, units)
    with pytest.raises(ValueError, match=why):
        check_result(tmp_path / to, units, loaded.source, exact=True)


@pytest.mark.parametrize("name", ["a.jpg", "a.ogg"])
def test_the_answer_to_a_file_of_a_changing_format_has_what_is_read_of_it(name: str, tmp_path: Path) -> None:
    """A jpg becomes a png, a sound of floats."""
    path, to = tmp_path / name, tmp_path / ("b.png" if name.endswith("jpg") else "b.wav")
    (image("RGB").make if name.endswith("jpg") else pcm("VORBIS", 1, 8000).make)(path)
    units = DataSpec.of(FolderDataset(path).units)
    loaded, _ = load_gaps(path, units)
    check_result(to, units, loaded.source, exact=True)
    holes = np.zeros((1, units.channels, *loaded.source.header.shape), bool)
    holes[..., 2:5] = True
    write(to, torch.full_like(loaded.x, 0.7), units, loaded.source, holes)
    if name.endswith("jpg"):
        before, after = (np.asarray(Image.open(p)).transpose(2, 0, 1) for p in (path, to))
    else:
        before, after = (sf.read(p, dtype="float32", always_2d=True)[0].T for p in (path, to))
    np.testing.assert_array_equal(after[~holes[0]], before[~holes[0]])
    assert (after[holes[0]] != before[holes[0]]).any()


@pytest.mark.parametrize("value", [1, 2, 255])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "uint16"])
def test_a_mask_of_two_values_marks_the_greater_one(value: int, mode: str, tmp_path: Path) -> None:
    Image.fromarray(RNG.integers(0, 255, (6, 5), dtype=np.uint8)).save(tmp_path / "a.png")
    marked = RNG.integers(0, 2, (6, 5)).astype(np.uint8)
    mask = Image.fromarray(marked.astype(np.uint16) * value if mode == "uint16" else marked * np.uint8(value))
    if mode == "RGBA":
        mask = mask.convert(mode)
        mask.putalpha(Image.fromarray(marked * 255))  # drawn on nothing
    elif mode == "RGB":
        mask = mask.convert(mode)
    mask.save(tmp_path / "mask.png")
    units = FolderDataset(tmp_path / "a.png").units
    _, holes = load_gaps(
        tmp_path / "a.png", DataSpec.of(units), marks_of(tmp_path / "mask.png", DataSpec.of(units))
    )
    np.testing.assert_array_equal(holes[0, 0], marked)
