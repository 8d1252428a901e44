"""Raw sound restored as it comes: what the model gives for the whole, at any rate and in any format."""

import subprocess
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dynunet import Diffusion, UNet
from dynunet.cli.main import main
from dynunet.data.formats.audio import resampled
from dynunet.diffusion.noise import PlacedNoise
from dynunet.live import FORMATS, LiveSound, Resampler, RunningLevel, restore_live


def model(lookahead: int = 0, causal: bool = True, level: float | None = None, **more: Any) -> Diffusion:
    torch.manual_seed(0)
    unet = UNet(
        1, 1, cond_channels=1, channels=(4, 8), strides=4, num_groups=2, num_blocks=1, time_embedding=True,
        causal=causal, lookahead=lookahead,
    )  # fmt: skip
    for parameter in unet.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    data = {
        "kind": "audio", "spatial_dims": 1, "channels": 1, "sample_rate": 8000, "cond_channels": 1,
        "restoration": {"coloured": True, "snr": [0, 10]} | ({} if level is None else {"level": level}),
    }  # fmt: skip
    return Diffusion(unet, data=data, **{"prediction": "sample", **more}).eval()


def copying(level: float | None = None) -> Diffusion:
    """A model that gives what it is given."""
    made = model(level=level)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.zero_()
    made.model.forward = lambda x, t, cond: cond  # type: ignore[method-assign]
    return made


def sound(n: int, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(0).uniform(-0.5, 0.5, (channels, n)).astype(np.float32)


@pytest.mark.parametrize("ahead", [0, 7])
@pytest.mark.parametrize(
    ("schedule", "prediction"), [("cosine", "sample"), ("cosine", "flow"), ("bridge", "v_prediction")]
)
def test_live_sound_is_what_the_model_makes_of_the_whole(ahead: int, schedule: str, prediction: str) -> None:
    diffusion, x = model(ahead, schedule=schedule, prediction=prediction), sound(1001)
    live = LiveSound(diffusion, 8000, seed=3)
    cuts = np.split(x, [100, 101, 350, 990], 1)
    parts = [live(part, ended=i == 4) for i, part in enumerate(cuts)]
    whole = diffusion.sample(
        (1, 1, 1001), 1, cond=torch.from_numpy(x)[None], generator=PlacedNoise(3), progress=False
    )
    np.testing.assert_allclose(np.concatenate(parts, 1), whole[0].numpy(), rtol=1e-4, atol=1e-5)
    assert live.latency == ahead / 8000


@pytest.mark.parametrize("format", FORMATS)
def test_formats_are_read_and_written(format: str) -> None:
    form, x = FORMATS[format], sound(50)[0]
    data = form.write(x)
    assert len(data) == 50 * form.width
    error = 0 if format == "f32le" else 2.0 ** -(8 * form.width)
    np.testing.assert_allclose(form.read(data), x, atol=max(error, 1e-9))
    assert form.write(form.read(data)) == data
    if format != "f32le":
        assert form.read(form.write(np.array([2.0, -2.0]))).tolist() == [1 - 2 * error, -1]


@pytest.mark.parametrize("rates", [(1, 2), (160, 441), (441, 160), (2, 3), (1, 1)])
def test_parts_are_resampled_as_the_whole(rates: tuple[int, int]) -> None:
    x, run = sound(3001, 2), Resampler(*rates)
    parts = [run(part, ended=i == 4) for i, part in enumerate(np.split(x, [1, 700, 700, 2995], 1))]
    np.testing.assert_allclose(np.concatenate(parts, 1), resampled(x, *rates, 32, 10.0), atol=1e-6)


def test_the_level_is_of_the_past_and_does_not_depend_on_the_parts() -> None:
    x = sound(30_000)
    x[:, 15_000:] *= 0.3
    whole = RunningLevel(0.25, 1000)(x)
    parts = RunningLevel(0.25, 1000)
    np.testing.assert_allclose(np.concatenate([parts(p) for p in np.split(x, [5, 20_000], 1)], 1), whole)
    assert whole[0, 0] == pytest.approx(1, rel=0.01), "it begins at the level of training"
    now = np.sqrt(np.mean(np.square(x[:, -5000:]))) / 0.25
    assert whole[0, -1] == pytest.approx(now, rel=0.1)


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
@pytest.mark.parametrize("format", ["s16le", "s24le"])
def test_raw_sound_in_stereo(rate: int, format: str) -> None:
    """A copying model: the same samples come out, as many, where the rate is that of the model."""
    form = FORMATS[format]
    tone = np.sin(2 * np.pi * 440 * np.arange(rate // 2) / rate) * 0.5
    given = form.write(np.stack([tone, -tone], 1).reshape(-1))
    out, said = BytesIO(), []
    options: Any = {"rate": rate, "channels": 2, "format": format, "say": said.append}
    count = restore_live(copying(level=0.25), BytesIO(given + b"\0"), out, **options)
    assert count == rate // 2
    assert len(out.getvalue()) == len(given)
    y = form.read(out.getvalue()).reshape(-1, 2)
    np.testing.assert_allclose(y[:, 0], -y[:, 1], atol=1e-4)
    middle = slice(rate // 20, -rate // 20)
    np.testing.assert_allclose(y[middle, 0], tone[middle], atol=2e-3)
    assert "20.0 ms" in said[0] or rate != 8000
    assert "the last 1 bytes are no whole" in said[1]


@pytest.mark.parametrize("rate", [8000, 16000, 44100, 48000])
@pytest.mark.parametrize("hertz", [440, 3000])
def test_a_tone_through_parts_has_no_clicks(rate: int, hertz: int) -> None:
    """Nothing is above -80 dB beside it, at other rates and with levels that change."""
    tone = np.sin(2 * np.pi * hertz * np.arange(2 * rate) / rate)[None] * 0.5
    live = LiveSound(copying(level=0.25), rate)
    out = np.concatenate([live(part) for part in np.array_split(tone, 97, 1)], 1)[0]
    assert len(out) >= 2 * rate - live.latency * rate - 1
    middle = out[rate // 10 : rate // 10 + 3 * rate // 2]
    spectrum = np.abs(np.fft.rfft(middle * np.blackman(len(middle)) ** 2))
    spectrum /= spectrum.max()
    assert spectrum.argmax() == 3 * hertz // 2
    spectrum[3 * hertz // 2 - 50 : 3 * hertz // 2 + 51] = 0
    assert 20 * np.log10(spectrum.max()) < -80


def test_models_that_cannot_be_live_are_refused() -> None:
    for pattern, made, more in [
        ("run must be trained with --causal True to be used live", model(causal=False), {}),
        ("run must restore in one step", model(prediction="epsilon"), {}),
        ("channels must be at least 1, got 0", model(), {"channels": 0}),
        ("format must be one of 's16le'", model(), {"format": "mp3"}),
        ("part must be positive", model(), {"part": 0}),
    ]:
        with pytest.raises(ValueError, match=pattern):
            restore_live(made, BytesIO(), BytesIO(), rate=8000, **more)
    pictures = model()
    pictures.data = {"kind": "images", "spatial_dims": 1, "channels": 1, "cond_channels": 1,
                     "restoration": {"coloured": True}}  # fmt: skip
    with pytest.raises(ValueError, match="run must be of sound to be used live, the model is of images"):
        restore_live(pictures, BytesIO(), BytesIO(), rate=8000)


def test_at_the_prompt(tmp_path: Path) -> None:
    model(5).save_pretrained(tmp_path / "voice")
    given = FORMATS["s16le"].write(sound(1000)[0])
    command = [sys.executable, "-m", "dynunet", "denoise", str(tmp_path / "voice"), "-", "--out", "-"]
    done = subprocess.run([*command, "--rate", "8000"], input=given, capture_output=True, check=True)
    expected = BytesIO()
    restore_live(tmp_path / "voice", BytesIO(given), expected, rate=8000)
    assert done.stdout == expected.getvalue()
    assert b"20.6 ms" in done.stderr


@pytest.mark.parametrize(
    ("flags", "pattern"),
    [
        (["-", "--out", "-"], "--rate must be given for raw samples"),
        (["a.wav", "--out", "b.wav", "--rate", "8000"], "--rate must be given for raw samples"),
        (["-", "--out", "b.wav"], "source and --out must both be - or neither"),
        (["-", "--out", "-", "--rate", "0"], "--rate must be at least 1"),
        (["-", "--out", "-", "--rate", "8000", "--steps", "5"], "--steps must be left out for raw samples"),
    ],
)
def test_flags_that_do_not_go_together(
    flags: list[str], pattern: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["denoise", "runs/voice", *flags])
    assert pattern in capsys.readouterr().err
