"""Degraded versions of clean files: the noise that was asked for, and pairs that stay pairs."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
import torch
from hypothesis import given
from hypothesis import strategies as st

from dynunet.data import FolderDataset, load, save
from dynunet.data.degradation import coloured_noise, mixed

from .data_writers import RNG, nii, npy, png, wav


def power(x: torch.Tensor) -> float:
    return float((x.double() - x.double().mean()).square().mean())


@given(
    shape=st.lists(st.integers(2, 9), min_size=2, max_size=5),
    snr=st.floats(-20, 40),
    exponent=st.floats(0, 2),
    seed=st.integers(0, 99),
)
def test_noise_is_mixed_at_its_ratio(shape: list[int], snr: float, exponent: float, seed: int) -> None:
    torch.manual_seed(seed)
    clean = torch.randn(*shape) + 3
    noisy = mixed(clean, coloured_noise(shape, exponent), snr)
    ratio = power(clean) / float((noisy - clean).double().square().mean())
    assert 10 * np.log10(ratio) == pytest.approx(snr, abs=0.02)


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0])
def test_the_power_of_coloured_noise_falls_as_its_exponent(dims: int, exponent: float) -> None:
    torch.manual_seed(dims)
    size = {1: 4096, 2: 128, 3: 40}[dims]
    noise = coloured_noise((8, *(size,) * dims), exponent).double()
    power = noise.square().mean(tuple(range(1, dims + 1)))
    torch.testing.assert_close(power, torch.ones(8).double(), rtol=1e-5, atol=0)
    # The spectrum by a plain FFT, in rings of equal frequency, against a line in log-log.
    axes = np.meshgrid(*[np.fft.fftfreq(size)] * dims, indexing="ij")
    frequency = np.sqrt(sum(a**2 for a in axes)).ravel()
    spectrum = (np.abs(np.fft.fftn(noise.numpy(), axes=tuple(range(1, dims + 1)))) ** 2).mean(0).ravel()
    rings = np.geomspace(2 / size, 0.5, 12)
    which = np.digitize(frequency, rings)
    means = np.array([spectrum[which == i].mean() for i in range(1, 12)])
    centres = np.array([frequency[which == i].mean() for i in range(1, 12)])
    slope = np.polyfit(np.log(centres), np.log(means), 1)[0]
    assert slope == pytest.approx(-exponent, abs=0.15)


def test_recorded_noise_is_what_is_added(tmp_path: Path) -> None:
    for i in range(4):
        wav(tmp_path / "clean" / f"{i}.wav", 900, subtype="FLOAT")
    noise = np.sin(np.arange(5000) * 0.3)  # 16 kHz; half of that at 8 kHz
    (tmp_path / "noise").mkdir()
    sf.write(tmp_path / "noise" / "hum.wav", noise * 0.01, 16000, "FLOAT")
    data = FolderDataset(tmp_path / "clean", size=512, noise=tmp_path / "noise", snr=(3, 3))
    assert data.cond_channels == 1
    assert data.units["restoration"] == {"noise": True, "coloured": False, "snr": [3, 3]}
    for i in range(len(data)):
        item = data[i]
        added = item["cond"] - item["x0"]
        spectrum = torch.fft.rfft(added[0] * torch.hann_window(512)).abs()
        assert abs(int(spectrum.argmax()) - round(0.6 / (2 * np.pi) * 512)) <= 1
        assert 10 * np.log10(power(item["x0"]) / power(added)) == pytest.approx(3, abs=0.05)


def test_ratios_are_uniform_and_both_kinds_of_noise_appear(tmp_path: Path) -> None:
    for i in range(3):
        wav(tmp_path / "clean" / f"{i}.wav", 900)
    (tmp_path / "noise").mkdir()
    sf.write(tmp_path / "noise" / "hum.wav", np.sin(np.arange(5000) * 0.3) * 0.1, 8000)
    data = FolderDataset(
        tmp_path / "clean", size=256, noise=tmp_path / "noise", coloured=True, snr=(0, 10), split="all"
    )
    torch.manual_seed(0)
    ratios, tonal = [], 0
    for i in range(300):
        item = data[i % 3]
        added = item["cond"] - item["x0"]
        ratios.append(10 * np.log10(power(item["x0"]) / float(added.square().mean())))
        spectrum = torch.fft.rfft(added[0]).abs().square()
        tonal += bool(spectrum[10:15].sum() > 0.9 * spectrum.sum())
    assert min(ratios) > -0.1
    assert max(ratios) < 10.1
    np.testing.assert_allclose(np.quantile(ratios, [0.25, 0.5, 0.75]), [2.5, 5, 7.5], atol=1)
    assert 110 < tonal < 190


def test_loud_mixtures_do_not_clip(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    sf.write(path, np.clip(RNG.normal(size=2000), -0.999, 0.999), 8000)
    data = FolderDataset(path, size=1000, coloured=True, snr=(0, 0))
    item = data[0]
    assert float(item["cond"].abs().max()) == pytest.approx(1, abs=1e-6)
    assert 10 * np.log10(power(item["x0"]) / power(item["cond"] - item["x0"])) == pytest.approx(0, abs=0.05)


def test_silence_gets_little_noise_and_silent_noise_none(tmp_path: Path) -> None:
    for name in ("clean", "noise"):
        (tmp_path / name).mkdir()
        sf.write(tmp_path / name / "silent.wav", np.zeros(500), 8000)
    quiet = FolderDataset(tmp_path / "clean", size=400, coloured=True, snr=(0, 0))[0]
    assert 10 * np.log10(power(quiet["cond"])) == pytest.approx(-50, abs=0.1)
    item = FolderDataset(tmp_path / "clean", size=400, noise=tmp_path / "noise")[0]
    assert torch.equal(item["cond"], item["x0"])


@pytest.mark.parametrize("write", [png, nii, npy])
def test_any_kind_of_file_is_degraded(tmp_path: Path, write: Any) -> None:
    suffix = {png: ".png", nii: ".nii.gz", npy: ".npy"}[write]
    for i in range(3):
        write(tmp_path / "clean" / f"{i}{suffix}")
        write(tmp_path / "noise" / f"{i}{suffix}")
    kinds: list[dict[str, Any]] = [{"coloured": True}, {"noise": tmp_path / "noise"}]
    for options in kinds:
        data = FolderDataset(tmp_path / "clean", snr=(20, 20), coordinates=True, **options)
        item = data[0]
        c, dims = data.channels, data.units["spatial_dims"]
        assert item["cond"].shape == (c + dims, *data.shape[1:]) == (data.cond_channels, *data.shape[1:])
        assert 10 * np.log10(power(item["x0"]) / power(item["cond"][:c] - item["x0"])) == pytest.approx(
            20, abs=0.3
        )


def test_short_noise_is_repeated_and_padding_stays_empty(tmp_path: Path) -> None:
    wav(tmp_path / "clean" / "short.wav", 50)
    wav(tmp_path / "noise" / "short.wav", 20)
    item = FolderDataset(tmp_path / "clean", size=64, noise=tmp_path / "noise")[0]
    added = (item["cond"] - item["x0"])[0]
    torch.testing.assert_close(added[:20], added[20:40], atol=1e-5, rtol=1e-4)
    assert not item["cond"][:, 50:].any()
    assert not item["x0"][:, 50:].any()
    assert item["mask"].sum() == 50


@pytest.mark.parametrize("write", [wav, png, nii, npy])
def test_pairs_are_cropped_and_mirrored_together(tmp_path: Path, write: Any) -> None:
    suffix = {wav: ".wav", png: ".png", nii: ".nii.gz", npy: ".npy"}[write]
    for i in range(3):
        write(tmp_path / "clean" / "sub" / f"{i}{suffix}")
        (tmp_path / "noisy" / "sub").mkdir(parents=True, exist_ok=True)
        data = (tmp_path / "clean" / "sub" / f"{i}{suffix}").read_bytes()
        (tmp_path / "noisy" / "sub" / f"{i}{suffix}").write_bytes(data)
    write(tmp_path / "clean" / f"alone{suffix}")
    write(tmp_path / "noisy" / f"other{suffix}")
    data = FolderDataset(tmp_path / "clean", size=4, pairs=tmp_path / "noisy", flips=(0,), split="all")
    assert len(data) == 3
    for i in range(12):
        item = data[i % 3]
        assert torch.equal(item["x0"], item["cond"])
    assert f"alone{suffix}: there is no file of its name" in data.report()
    assert f"other{suffix}: there is no clean file of its name" in data.report()


def test_pairs_of_another_size_or_channels(tmp_path: Path) -> None:
    for i in range(3):
        wav(tmp_path / "clean" / f"{i}.wav", 300)
        wav(tmp_path / "noisy" / f"{i}.wav", 300 + 31 * (i == 2), channels=2)
    data = FolderDataset(tmp_path / "clean", size=100, pairs=tmp_path / "noisy", split="all")
    assert len(data) == 2
    assert "2.wav: its pair has another size: 1 x 331, not 1 x 300" in data.report()
    assert (data.channels, data.cond_channels) == (1, 2)
    assert data[0]["cond"].shape == (2, 100)
    with pytest.raises(ValueError, match="pairs must be a folder outside of the source"):
        FolderDataset(tmp_path, size=100, pairs=tmp_path / "noisy")


@pytest.mark.parametrize("more", [-7, 7])
@pytest.mark.parametrize("size", [None, 100, 2000])
def test_recordings_of_a_pair_may_differ_by_some_samples_at_the_end(
    more: int, size: int | None, tmp_path: Path
) -> None:
    for i in range(3):
        x = wav(tmp_path / "clean" / f"{i}.wav", 600)[0]
        longer = np.concatenate([x, np.zeros(7)])
        (tmp_path / "noisy").mkdir(exist_ok=True)
        sf.write(tmp_path / "noisy" / f"{i}.wav", longer[: 600 + more], 8000, "PCM_16")
    data = FolderDataset(tmp_path / "clean", size=size, pairs=tmp_path / "noisy", split="all")
    assert len(data) == 3
    torch.manual_seed(0)
    for i in range(9):
        item = data[i % 3]
        torch.testing.assert_close(item["x0"], item["cond"], atol=1e-4, rtol=0)
        assert item["x0"].shape == (1, size or 600 + min(more, 0))
    assert f"its pair has 7 samples {'more' if more > 0 else 'less'} at the end" in data.report()


def test_a_clean_volume_is_on_the_scale_of_its_pair(tmp_path: Path) -> None:
    clean = nii(tmp_path / "clean" / "a.nii")
    noisy = nii(tmp_path / "noisy" / "a.nii", clean * 2 + 5)
    item = FolderDataset(tmp_path / "clean", pairs=tmp_path / "noisy")[0]
    low, high = np.percentile(noisy, (0.5, 99.5))
    for name, values in (("x0", clean), ("cond", noisy)):
        np.testing.assert_allclose(item[name][0], 2 * (values - low) / (high - low) - 1, rtol=1e-4, atol=1e-4)


def test_at_one_level_loudness_does_not_matter(tmp_path: Path) -> None:
    """A recording ten times louder gives the same item and the same input; written back, it is as loud."""
    speech = RNG.uniform(-0.05, 0.05, 400)
    for name, factor in (("quiet", 1.0), ("loud", 10.0)):
        (tmp_path / name).mkdir()
        sf.write(tmp_path / name / "a.wav", factor * speech, 8000, "FLOAT")
    both = [
        FolderDataset(tmp_path / name, 1, split="all", coloured=True, level=0.25)
        for name in ("quiet", "loud")
    ]
    items = []
    for dataset in both:
        torch.manual_seed(0)
        items.append(dataset[0])
    for name in ("x0", "cond"):
        torch.testing.assert_close(items[0][name], items[1][name], rtol=1e-4, atol=1e-5)
    assert float(items[0]["cond"].square().mean().sqrt()) == pytest.approx(0.25, rel=1e-5)
    assert both[0].units["restoration"]["level"] == 0.25

    quiet, loud = (load(tmp_path / name / "a.wav", both[0].units) for name in ("quiet", "loud"))
    torch.testing.assert_close(quiet.x, loud.x, rtol=1e-4, atol=1e-5)
    assert float(quiet.x.square().mean().sqrt()) == pytest.approx(0.25, rel=1e-5)
    save(tmp_path / "again.wav", loud.x, both[0].units, like=loud.source)
    np.testing.assert_allclose(sf.read(tmp_path / "again.wav")[0], 10 * speech, atol=1e-6)


def test_a_level_is_of_audio_that_is_to_be_restored(tmp_path: Path) -> None:
    npy(tmp_path / "a.npy", RNG.uniform(-1, 1, 40))
    with pytest.raises(ValueError, match=r"level is of audio, and the files are arrays, got 0\.25"):
        FolderDataset(tmp_path, 1, split="all", coloured=True, level=0.25)
    with pytest.raises(ValueError, match=r"level needs noise, coloured, pairs or self_supervised, got 0\.25"):
        FolderDataset(tmp_path, 1, level=0.25)
    with pytest.raises(ValueError, match=r"level must be positive and finite, got -1\.0"):
        FolderDataset(tmp_path, 1, level=-1.0, coloured=True)
