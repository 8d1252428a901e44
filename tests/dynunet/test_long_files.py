"""Long recordings are restored part by part, to what they would be as a whole."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

from dynunet import Diffusion, UNet, restoration
from dynunet.data.loading import load
from dynunet.data.long_files import LongFile
from dynunet.diffusion.noise import PlacedNoise
from dynunet.progress import Interrupted
from dynunet.restoration import restore

WINDOW = 64


def model(channels: int = 1, restores: bool = True, **more: Any) -> Diffusion:
    """A network of chance, which every entry of its windows matters to."""
    torch.manual_seed(0)
    unet = UNet(
        1, channels, cond_channels=channels * restores, channels=(4, 8), num_groups=2, num_blocks=1,
        time_embedding=True,
    )  # fmt: skip
    for parameter in unet.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    learned = {"coloured": True, "snr": [0, 10], "level": 0.25} if restores else None
    data = {
        "kind": "audio", "spatial_dims": 1, "channels": channels, "size": [WINDOW], "sample_rate": 8000,
        "cond_channels": channels * restores, "restoration": learned,
    }  # fmt: skip
    return Diffusion(unet, prediction="sample", data=data | more)


def recording(path: Path, frames: int, channels: int = 1, rate: int = 8000, subtype: str = "PCM_16") -> Path:
    x = np.random.default_rng(0).uniform(-0.5, 0.5, (frames, channels))
    x[: frames // 2] *= 0.1  # a part is not as loud as the whole
    soundfile.write(path, x, rate, subtype)
    return path


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restoration, "_PART", 500)


def as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other way, with the same noise."""
    monkeypatch.setattr(LongFile, "of", lambda *_: None)
    run = restoration._Sampling._run

    def placed(self: Any, do: Any, x: Tensor, noise: Any = None) -> Tensor:
        return run(self, do, x, PlacedNoise(self.seed))

    monkeypatch.setattr(restoration._Sampling, "_run", placed)


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize(
    ("file", "frames", "options"),
    [
        ({}, 5000, {}),
        ({}, 5000, {"steps": 3, "overlap": 20}),
        ({"channels": 2}, 4001, {"steps": 2, "overlap": 0}),
        ({"rate": 16000, "subtype": "FLOAT"}, 9001, {}),
        ({"rate": 11025, "subtype": "PCM_24"}, 20_000, {"steps": 2}),
        ({"rate": 6000, "subtype": "FLOAT"}, 4997, {"window": 96, "overlap": 24}),
    ],
)
def test_by_parts_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: Any, frames: int, options: Any
) -> None:
    source, name = recording(tmp_path / "a.wav", frames, **file), "a.wav" if file else "a.flac"
    found, parts = [], []
    read = LongFile.read
    monkeypatch.setattr(LongFile, "read", lambda self, part: parts.append(part) or read(self, part))
    for way in "parts", "whole":
        if way == "whole":
            as_a_whole(monkeypatch)
        restore(model(), source, tmp_path / way / name, progress=False, **options)
        found.append(soundfile.read(tmp_path / way / name, always_2d=True)[0])
        assert len(parts) > 3
    assert found[0].shape == (frames, file.get("channels", 1))
    one = {"FLOAT": 2e-5, "PCM_24": 2e-5}.get(file.get("subtype"), 1.01 / 2**15)
    assert np.abs(found[0]).max() > 0.01
    np.testing.assert_allclose(found[0], found[1], rtol=0, atol=one)


@pytest.mark.usefixtures("small_parts")
def test_white_noise_and_stereo_by_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = recording(tmp_path / "a.wav", 5000, channels=2, subtype="FLOAT")
    ways = []
    for way in "parts", "whole":
        if way == "whole":
            as_a_whole(monkeypatch)
        restore(model(2, restores=False), source, tmp_path / way, sigma=0.2, steps=2, progress=False)
        ways.append(soundfile.read(tmp_path / way / "a.wav")[0])
    np.testing.assert_allclose(*ways, rtol=0, atol=2e-5)


def test_a_part_is_read_as_in_the_whole(tmp_path: Path) -> None:
    spec: Any = model().data
    path = recording(tmp_path / "a.wav", 5000, rate=11025)
    whole = load(path, spec, mix=False)
    file = LongFile.of(path, restoration.DataSpec.of(spec), tmp_path / "b.wav", 1000)
    assert file is not None
    assert file.scales[0].high == pytest.approx(whole.source.scales[0].high, rel=1e-9)
    for part in file.parts(700, 100, 64, 48):
        torch.testing.assert_close(file.read(part), whole.x[:, part.first : part.last])


@pytest.mark.usefixtures("small_parts")
def test_a_gap_is_refused_wherever_it_is(tmp_path: Path) -> None:
    x = np.zeros(5000, np.float32)
    x[-10] = np.nan
    soundfile.write(tmp_path / "a.wav", x, 8000, "FLOAT")
    restored = restore(model(), tmp_path / "a.wav", tmp_path / "out", progress=False)
    assert "NaN or infinite" in restored.failed[tmp_path / "a.wav"]


@pytest.mark.usefixtures("small_parts")
def test_an_interruption_leaves_no_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, parts = LongFile.read, []

    def interrupted(self: LongFile, part: Any) -> Tensor:
        parts.append(part)
        if len(parts) == 3:
            raise KeyboardInterrupt
        return read(self, part)

    monkeypatch.setattr(LongFile, "read", interrupted)
    source = recording(tmp_path / "a.wav", 5000)
    with pytest.raises(Interrupted, match="0 of 1 file restored"):
        restore(model(), source, tmp_path / "out", progress=False)
    assert list((tmp_path / "out").iterdir()) == []


def test_noise_of_a_place() -> None:
    whole, part = PlacedNoise(3), PlacedNoise(3, 70_000)
    draws = [(whole(torch.Size([2, 1, 300_000])), part(torch.Size([2, 1, 130_000]))) for _ in range(2)]
    for of_all, of_part in draws:
        assert torch.equal(of_all[..., 70_000:200_000], of_part)
    x = draws[1][0]
    assert abs(x.mean()) < 0.01
    assert abs(x.std() - 1) < 0.01
    assert not torch.equal(x, PlacedNoise(3)(x.shape)), "another draw"
    assert not torch.equal(x[..., :65_536], x[..., 65_536:131_072])


@pytest.mark.usefixtures("small_parts")
def test_a_format_without_parts_is_written_at_the_end(tmp_path: Path) -> None:
    source = recording(tmp_path / "a.wav", 5000, subtype="FLOAT")
    for name in ("b.wav", "b.npy"):
        restore(model(), source, tmp_path / name, progress=False)
    np.testing.assert_array_equal(
        np.load(tmp_path / "b.npy").ravel(), soundfile.read(tmp_path / "b.wav", dtype="float32")[0]
    )
