"""Files reconstructed from measurements by a network of chance: every result has what was measured."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import soundfile
import torch
from nibabel.affines import apply_affine
from PIL import Image
from scipy import ndimage

from dynunet import Diffusion, UNet, reconstruction
from dynunet.cli import main
from dynunet.measured import Measured
from dynunet.progress import Interrupted
from dynunet.reconstruction import reconstruct

RNG = np.random.default_rng(0)
FEW: dict[str, Any] = {"num": 3, "steps": 2, "progress": False}


def model(kind: str, dims: int, channels: int = 1, **more: Any) -> Diffusion:
    torch.manual_seed(0)
    unet = UNet(
        dims,
        channels,
        channels=(4, 8),
        num_groups=2,
        num_blocks=1,
        time_embedding=True,
        padding_mode="replicate",
    )
    for parameter in unet.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    data = {"kind": kind, "spatial_dims": dims, "channels": channels, "range": [10, 50]}
    return Diffusion(unet, data=data | more)


def smooth(*shape: int) -> np.ndarray:
    return 30 + 8 * ndimage.gaussian_filter(RNG.normal(size=shape), 1).astype(np.float32) * 3


def samples(out: Path, pattern: str, read: Any) -> np.ndarray:
    return np.stack([read(path) for path in sorted(out.glob(pattern))])


def volume(path: Path) -> np.ndarray:
    image: Any = nib.load(path)
    return np.asarray(image.dataobj)


def means(x: np.ndarray, factors: tuple[int, ...]) -> np.ndarray:
    for axis, factor in enumerate(factors):
        x = np.stack([x.take(range(i, x.shape[axis], factor), axis) for i in range(factor)]).mean(0)
    return x


@pytest.mark.parametrize(("dims", "factors"), [(1, (4,)), (2, (2, 3)), (3, (1, 1, 2)), (4, (2, 1, 1, 2))])
def test_averages_of_every_rank(tmp_path: Path, dims: int, factors: tuple[int, ...]) -> None:
    y = smooth(*(5, 4, 6, 4)[:dims])
    np.save(tmp_path / "y.npy", y)
    found = reconstruct(
        model("arrays", dims), tmp_path / "y.npy", tmp_path / "out", Measured(downsample=factors), **FEW
    )
    assert found.done == 1
    every = samples(tmp_path / "out", "y-sample-*.npy", np.load)
    assert len(every) == 3
    assert every[0].shape == tuple(n * f for n, f in zip(y.shape, factors, strict=True))
    assert not np.allclose(every[0], every[1])
    rounding = 4 * np.finfo(np.float32).eps * np.abs(every).max()
    for x in (*every, np.load(tmp_path / "out" / "y.npy")):
        np.testing.assert_allclose(means(x, factors), y, rtol=0, atol=rounding)
    np.testing.assert_allclose(np.load(tmp_path / "out" / "y.npy"), every.mean(0), rtol=0, atol=rounding)
    np.testing.assert_allclose(
        np.load(tmp_path / "out" / "y-std.npy"), every.std(0, ddof=1), rtol=1e-3, atol=1e-4
    )


def test_thick_slices_lie_where_they_were(tmp_path: Path) -> None:
    """The axes of the file are in another order than those of the network, and one is reversed."""
    affine = np.array([[0, 0, -2, 40], [1, 0, 0, -3], [0, 4, 0, 7], [0, 0, 0, 1]], float)
    y = smooth(6, 4, 5)
    nib.save(nib.Nifti1Image(y, affine), tmp_path / "y.nii.gz")
    diffusion = model("volumes", 3, spacing=[2, 1, 1])
    # Along the second axis of the file, the third one of the network.
    reconstruct(diffusion, tmp_path / "y.nii.gz", tmp_path / "out", Measured(downsample=(1, 1, 4)), **FEW)
    for name in ("y", "y-std", "y-sample-1", "y-sample-3"):
        image: Any = nib.load(tmp_path / "out" / f"{name}.nii.gz")
        assert image.shape == (6, 16, 5)
        np.testing.assert_allclose(image.header.get_zooms(), (1, 1, 2), rtol=1e-6)
        places = apply_affine(
            image.affine, np.stack(np.meshgrid(*map(np.arange, image.shape), indexing="ij"), -1)
        )
        own = apply_affine(affine, np.stack(np.meshgrid(*map(np.arange, y.shape), indexing="ij"), -1))
        np.testing.assert_allclose(places.reshape(6, 4, 4, 5, 3).mean(2), own, atol=1e-4)
        if name != "y-std":
            np.testing.assert_allclose(means(np.asarray(image.dataobj), (1, 4, 1)), y, rtol=1e-5)


def test_a_grid_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(smooth(6, 4, 5), np.diag([1, 1, 4, 1])), tmp_path / "y.nii")
    found = reconstruct(
        model("volumes", 3, spacing=[1, 1, 1]), tmp_path / "y.nii", tmp_path / "out",
        Measured(downsample=(1, 1, 2)), **FEW,
    )  # fmt: skip
    (why,) = found.failed.values()
    assert "6x4x10 entries, and on the grid of the model it has 6x4x20: downsample must be the ratio" in why


def test_gaps_in_pictures_are_filled_and_all_else_stays(tmp_path: Path) -> None:
    x = RNG.integers(0, 255, (8, 8, 3), dtype=np.uint8)
    mask = np.zeros((8, 8), np.uint8)
    mask[2:5, 3:7] = 255
    Image.fromarray(x).save(tmp_path / "x.png")
    Image.fromarray(mask).save(tmp_path / "mask.png")
    diffusion = model("images", 2, 3, range=None, stored="uint8")
    reconstruct(diffusion, tmp_path / "x.png", tmp_path / "out", Measured(mask=tmp_path / "mask.png"), **FEW)
    every = samples(tmp_path / "out", "x-sample-*.png", lambda path: np.asarray(Image.open(path)))
    for found in (*every, np.asarray(Image.open(tmp_path / "out" / "x.png"))):
        assert np.array_equal(found[mask == 0], x[mask == 0])
    assert (every[0] != every[1]).any()
    std = np.load(tmp_path / "out" / "x-std.npy")
    assert std.shape == (3, 8, 8)
    assert (std[:, mask == 0] == 0).all()
    assert (std[:, mask != 0] > 0).all()


def test_clipped_stereo_is_declipped_by_a_model_of_one_channel(tmp_path: Path) -> None:
    x = np.clip(smooth(400, 2) / 30 - 1, -0.3, 0.3)
    soundfile.write(tmp_path / "x.wav", x, 8000, "FLOAT")
    y = soundfile.read(tmp_path / "x.wav", dtype="float32")[0]
    diffusion = model("audio", 1, range=None, sample_rate=8000, size=[64])
    reconstruct(diffusion, tmp_path / "x.wav", tmp_path / "out", Measured(clip=0.3), **FEW)
    every = samples(tmp_path / "out", "x-sample-*.wav", lambda path: soundfile.read(path, dtype="float32")[0])
    for found in every:
        inside = np.abs(y) < 0.3
        np.testing.assert_array_equal(found[inside], y[inside])
        assert (np.sign(y[~inside]) * found[~inside] >= np.float32(0.3)).all()
    assert np.load(tmp_path / "out" / "x-std.npy").shape == (2, 400)


def test_a_blur_without_unit_sum_and_an_average_of_it(tmp_path: Path) -> None:
    kernel = np.array([[0.1, 0.2, 0.1], [0.3, 0.6, 0.3], [0.1, 0.2, 0.1]])
    truth = smooth(8, 12)
    y = means(ndimage.convolve(truth, kernel, mode="constant"), (2, 2))
    np.save(tmp_path / "kernel.npy", kernel)
    np.save(tmp_path / "y.npy", y)
    measured = Measured(blur=tmp_path / "kernel.npy", padding="zeros", downsample=2)
    reconstruct(model("arrays", 2), tmp_path / "y.npy", tmp_path / "out", measured, **FEW)
    for found in samples(tmp_path / "out", "y-sample-*.npy", np.load):
        again = means(ndimage.convolve(found, kernel, mode="constant"), (2, 2))
        np.testing.assert_allclose(again, y, rtol=3e-3)


def test_coefficients_of_a_volume(tmp_path: Path) -> None:
    truth = smooth(6, 8, 4)
    mask = RNG.random((6, 8, 4)) < 0.5
    (tmp_path / "in").mkdir()
    np.save(tmp_path / "in" / "y.npy", np.fft.fftn(truth, norm="ortho"))
    np.save(tmp_path / "mask.npy", mask)
    diffusion = model("volumes", 3, spacing=[1, 1, 1], step=[1, 1, 1])
    reconstruct(diffusion, tmp_path / "in", tmp_path / "out", Measured(fourier=tmp_path / "mask.npy"), **FEW)
    every = samples(tmp_path / "out", "y-sample-*.nii.gz", volume)
    for found in every:
        both = mask & np.roll(np.flip(mask), 1, (0, 1, 2))  # of real data, others are known by symmetry
        np.testing.assert_allclose(
            np.fft.fftn(found, norm="ortho")[both], np.fft.fftn(truth, norm="ortho")[both], atol=0.02
        )
    assert np.load(tmp_path / "out" / "y-std.npy").shape == (1, 6, 8, 4)


def test_noise_alone_and_windows(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    np.save(tmp_path / "in" / "y.npy", smooth(40))
    how: dict[str, Any] = {**FEW, "window": 16, "overlap": 4}
    diffusion, noisy = model("arrays", 1), Measured(noise_std=2.0)
    assert reconstruct(diffusion, tmp_path / "in", tmp_path / "a", noisy, **how).done == 1
    assert reconstruct(diffusion, tmp_path / "in", tmp_path / "a", noisy, **how).kept == 1
    first = np.load(tmp_path / "a" / "y-sample-1.npy")
    fewer: dict[str, Any] = {**how, "num": 2, "overwrite": True}
    assert reconstruct(diffusion, tmp_path / "in", tmp_path / "a", noisy, **fewer).done == 1
    assert not (tmp_path / "a" / "y-sample-3.npy").exists()
    np.testing.assert_allclose(np.load(tmp_path / "a" / "y-sample-1.npy"), first, rtol=1e-5)
    assert reconstruct(diffusion, tmp_path / "in", tmp_path / "b", noisy, **{**how, "num": 1}).done == 1
    assert not (tmp_path / "b" / "y-std.npy").exists()


def test_nothing_of_the_user_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("y", "y-sample-1", "z"):
        (tmp_path / "in").mkdir(exist_ok=True)
        np.save(tmp_path / "in" / f"{name}.npy", smooth(16))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "z-std.npy").write_text("mine")
    diffusion, noisy = model("arrays", 1), Measured(noise_std=2.0)
    found = reconstruct(diffusion, tmp_path / "in", tmp_path / "out", noisy, **FEW)
    why = {path.stem: text for path, text in found.failed.items()}
    assert "y-sample-1.npy, beside its mean, would be the result for another file" in why["y"]
    assert "z-std.npy exists" in why["z"]
    assert (tmp_path / "out" / "z-std.npy").read_text() == "mine"
    assert (found.done, len(why)) == (1, 2)

    # An interruption leaves nothing of a file.
    monkeypatch.setattr(reconstruction, "_write_std", interrupted)
    with pytest.raises(Interrupted):
        reconstruct(diffusion, tmp_path / "in", tmp_path / "new", noisy, **{**FEW, "num": 2})
    assert not list((tmp_path / "new").iterdir())


def interrupted(*_: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "one of missing, mask, downsample, blur, clip, fourier and noise_std"),
        ({"missing": "nan", "clip": 1.0}, "missing and clip exclude each other"),
        ({"mask": "m", "blur": "k"}, "mask and downsample or blur exclude each other"),
        ({"clip": (1, 0)}, "clip must be one positive number, or low below high"),
        ({"clip": -1.0}, "clip must be one positive number, or low below high"),
        ({"downsample": 0}, "downsample must be at least 1, got 0"),
        ({"noise_std": -1}, "noise_std must be in"),
        ({"noise_std": float("inf")}, "noise_std must be"),
        ({"blur": "k", "padding": "mirror"}, "padding must be one of"),
    ],
)
def test_what_cannot_have_been_measured(options: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Measured(**options)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"downsample": (1, 2, 3)}, "downsample must be one number or one for each of 2 axes"),
        ({"blur": "kernel.npy"}, "kernel must have one axis for each of the 2 spatial axes"),
        ({"blur": "kernel.png"}, "must be an array"),
        ({"missing": "nan"}, "nothing is missing"),
        ({"fourier": "kernel.npy"}, "must have 2 spatial axes"),
        ({"fourier": "small.npy"}, "fourier must have the size of"),
    ],
)
def test_what_does_not_fit_a_file_is_named(tmp_path: Path, options: Any, says: str) -> None:
    (tmp_path / "in").mkdir()
    np.save(tmp_path / "in" / "y.npy", smooth(8, 8))
    np.save(tmp_path / "kernel.npy", np.ones(3))
    np.save(tmp_path / "small.npy", np.ones((4, 4)))
    options = {k: tmp_path / v if "." in str(v) else v for k, v in options.items()}
    found = reconstruct(model("arrays", 2), tmp_path / "in", tmp_path / "out", Measured(**options), **FEW)
    (why,) = (found.failed | found.passed_over).values()
    assert says in why


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model("arrays", 1).save_pretrained(tmp_path / "run")
    np.save(tmp_path / "y.npy", smooth(8))
    flags = ["--downsample", "2", "--num", "2", "--steps", "1", "--out", str(tmp_path / "out")]
    main(["reconstruct", str(tmp_path / "run"), str(tmp_path / "y.npy"), *flags])
    assert "1 of 1 file reconstructed" in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "y.npy", "y-std.npy", "y-sample-1.npy", "y-sample-2.npy",
    }  # fmt: skip
    with pytest.raises(SystemExit):
        main(["reconstruct", str(tmp_path / "run"), "x", "--out", "y"])
    assert "must say how the files were measured" in capsys.readouterr().err
