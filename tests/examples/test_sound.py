"""Voices: where somebody speaks, and what was damaged."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from scipy.linalg import toeplitz
from scipy.signal import lfilter
from torch import Tensor, nn

from dynunet import Diffusion
from dynunet.metrics import si_sdr

pytest.importorskip("tyro")
pytest.importorskip("matplotlib")

import _denoisers
import _repair
import _spectral
import _strangers
import _voices


def test_speech_is_where_there_is_power() -> None:
    clean = torch.zeros(1, 4000)
    clean[:, 1000:3000] = torch.randn(2000)
    found = _voices.speaking(clean, 1000)
    assert found[1000:3000].all()
    assert not found[:985].any()  # half a frame before it
    assert not found[3015:].any()
    rows = [(clean, clean + noise * torch.randn(1, 4000)) for noise in (0.05, 0.1)]
    detect = _voices.threshold(rows, 1000)
    assert min(_voices.shares(detect(rows[0][1]), found)) > 0.95
    assert _voices.shares(torch.ones(4000, dtype=torch.bool), found) == (1, 0)


def test_sines_are_repaired_by_their_own_model() -> None:
    time = torch.arange(1200) / 8000
    waves = [torch.sin(2 * torch.pi * f * time + f) for f in (211.0, 440.0, 1330.0)]
    clean = 0.2 * torch.stack([waves[0] + waves[1], waves[1] + waves[2]]).unsqueeze(1)
    for damage, least in ((_repair.with_gaps(clean, 8000), 30), (_repair.clipped(clean), 15)):
        for repair in (_repair.cubic, _repair.autoregressive):
            found = repair(damage)
            assert torch.equal(found.where(~damage.wrong, 0), damage.y.where(~damage.wrong, 0))
            if damage.kind == "clipped":
                assert (found.abs() >= damage.limit)[damage.wrong].all()
                assert abs(damage.wrong.float().mean().item() - _repair.CLIPPED) < 0.01
        assert si_sdr(_repair.autoregressive(damage), damage.clean).min() > least
    slow = _repair.clipped(0.2 * waves[0].view(1, 1, -1))
    assert si_sdr(_repair.cubic(slow), slow.clean).min() > 60  # 34 as it is


def test_crops_of_speech_are_heard() -> None:
    x = torch.zeros(1, 3000)
    x[:, 1000:2000] = torch.randn(1000)
    for _ in range(5):
        assert _repair.crop(x, 300).square().mean().sqrt() > _repair.LEVEL / 2
    item = _repair.Speech([x], 300)[0]
    assert item["x0"].shape == (1, 300)
    assert item["x0"].isfinite().all()
    assert 0.5 < item["spectrum"].mean() / item["x0"].square().mean() < 2


def test_spectrum_is_that_of_the_model() -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 40_000)
    a = np.array([1, -1.2, 0.8])
    x = np.asarray(lfilter([1], a, noise))
    found, power = _spectral.model_of(x, 2)
    np.testing.assert_allclose(found, a, atol=0.02)
    np.testing.assert_allclose(power, 0.01, rtol=0.02)
    rows = _spectral.spectrum(torch.from_numpy(x[:1024]).view(1, 1, -1), 8)
    assert rows.shape == (1, 1025)
    np.testing.assert_allclose(rows.mean(), np.square(x[:1024]).mean(), rtol=0.02)
    largest = np.argmin(np.abs(np.fft.rfft(a, 2048)))
    assert abs(rows.argmax().item() - largest) < 40


def test_wiener_is_the_estimate_of_least_error() -> None:
    torch.manual_seed(0)
    white, x, y = torch.full((2, 33), 0.25), torch.randn(2, 1, 32), torch.randn(2, 1, 32)
    sigma = torch.tensor([0.5, 1.0]).view(2, 1, 1)
    estimate, error = _spectral.wiener(x, white, sigma)
    torch.testing.assert_close(estimate, x * 0.25 / (0.25 + sigma**2))
    torch.testing.assert_close(error**2, 0.25 * sigma**2 / (0.25 + sigma**2))
    coloured = torch.linspace(-4, 2, 257).exp().expand(64, -1)
    both = torch.fft.irfft(coloured.sqrt().unsqueeze(1) * torch.fft.rfft(torch.randn(64, 1, 512)))
    clean = both[..., :256]
    noisy, level = clean + 0.7 * torch.randn_like(clean), torch.full((64, 1, 1), 0.7)
    found, error = _spectral.wiener(noisy, coloured, level)
    assert abs((found - clean).square().mean().sqrt() / error[0, 0, 0] - 1) < 0.03
    for off in (0.8, 1.25):  # less noise than there is, and more
        assert (_spectral.wiener(noisy, coloured, off * level)[0] - clean).square().mean() > (
            found - clean
        ).square().mean()
    scale = 0.5 * torch.ones(2, 1, 1)
    there, back = (_spectral.wiener(v, coloured[:2, ::8], scale)[0] for v in (x, y))
    torch.testing.assert_close((there * y).sum(), (x * back).sum())


class Same(nn.Module):
    """A network that gives back what it sees of the noisy recording."""

    def forward(self, x: Tensor, t: Tensor, *, features: Tensor) -> Tensor:
        assert features.shape == (len(x), _spectral.BANDS)
        assert ((t >= 0) & (t <= 1)).all()
        return x[:, : _spectral.FOLD]


def test_correction_is_of_the_size_of_the_error_and_has_no_derivative_outside_training() -> None:
    torch.manual_seed(0)
    model, spectra = _spectral.Refined(Same()), torch.rand(2, 129) + 0.1
    x = torch.randn(2, 1, 128, requires_grad=True)
    t = torch.tensor([0.3, 0.7])
    sigma = _spectral.SCHEDULE(t.double())[1].float().view(2, 1, 1)
    estimate, error = _spectral.wiener(x, spectra, sigma)
    std = (spectra.mean(1).view(2, 1, 1) + sigma**2).sqrt()
    v = torch.randn_like(x)
    (linear,) = torch.autograd.grad(estimate, x, v, retain_graph=True)
    for training, more in ((True, 1), (False, 0)):
        found = model.train(training)(x, t, spectrum=spectra)
        torch.testing.assert_close(found, estimate + error * x / std)
        (gradient,) = torch.autograd.grad(found, x, v)
        torch.testing.assert_close(gradient, linear + more * error / std * v)


def test_two_opposite_samples_have_the_mean_of_a_gaussian_model() -> None:
    halves = _spectral.opposite(torch.Size((6, 1, 5)))
    torch.testing.assert_close(halves[:3], -halves[3:])
    length, sigma = 96, 1e-3
    a = np.poly([0.97 * np.exp(0.5j), 0.97 * np.exp(-0.5j), 0.9 * np.exp(1.7j), 0.9 * np.exp(-1.7j)]).real
    power = 1e-3 / np.abs(np.fft.rfft(a, 2 * length)) ** 2
    lags = np.fft.irfft(power)[:length]
    covariance = toeplitz(lags) + sigma**2 * np.eye(length)
    clean = np.linalg.cholesky(covariance) @ np.random.default_rng(0).normal(size=length)
    wrong = np.zeros(length, dtype=bool)
    wrong[44:52] = True
    right = np.linalg.solve(covariance[np.ix_(~wrong, ~wrong)], clean[~wrong])
    exact = torch.from_numpy(covariance[np.ix_(wrong, ~wrong)] @ right).float()
    y, gap = torch.from_numpy(clean).float().view(1, 1, -1), torch.from_numpy(wrong).view(1, 1, -1)
    damage = _repair.Damage("gaps", y.where(~gap, 0), y, gap)

    class Nothing(Same):
        def forward(self, x: Tensor, t: Tensor, *, features: Tensor) -> Tensor:
            return 0 * super().forward(x, t, features=features)

    model = Diffusion(_spectral.Refined(Nothing()), _spectral.SCHEDULE, "sample").eval()
    spectra = torch.from_numpy(power).float().unsqueeze(0)
    torch.manual_seed(0)
    samples = _repair.drawn(model, damage, spectra, num_samples=2, steps=20)
    assert torch.equal(samples.where(~gap, 0), damage.y.expand(2, -1, -1, -1))
    error = (samples.mean(0)[gap] - exact).norm() / exact.norm()
    assert error < 0.03
    assert (samples[0][gap] - exact).norm() / exact.norm() > 2 * error


def test_what_is_judged_by_was_not_learnt_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each file has a frequency of its own, by which it is found again."""
    monkeypatch.setattr(_strangers, "_MADE", 5)
    time, rng = np.arange(12_000) / 8000, np.random.default_rng(0)

    def tones(name: str, first: int) -> Path:
        (tmp_path / name).mkdir()
        for i in range(9):
            tone = 0.3 * np.sin(2 * np.pi * (first + 40 * i) * time) + 1e-3 * rng.standard_normal(len(time))
            soundfile.write(tmp_path / name / f"{i}.wav", tone, 8000)
        return tmp_path / name

    def frequencies(rows: list[Tensor]) -> set[int]:
        peaks = [np.abs(np.fft.rfft(x[0, :8000].numpy())).argmax() for x in rows]
        return {int(peak) for peak in peaks}

    folders = tones("voices", 200), tones("strangers", 1000), tones("noises", 2000)
    data = _strangers.speech(*folders, tmp_path / "run", 8000, sample_rate=8000, snr=(10.0, 20.0))
    learnt = frequencies([item["x0"] for item in (data.pairs[i] for i in range(len(data.pairs)))])
    assert len(data.pairs) == len(learnt) == 8
    known, strangers = data.tests["voices it learnt"], data.tests["strangers"]
    assert frequencies([clean for clean, _ in known]).isdisjoint(learnt)
    assert frequencies([clean for clean, _ in strangers]) == {1000 + 40 * i for i in range(9)}
    for clean, noisy in known + strangers:
        ratio = 10 * (clean.square().mean() / (noisy - clean).square().mean()).log10()
        assert 9.9 < ratio < 20.1
    kinds = len(list((tmp_path / "run" / "noise" / "judge").glob("*.wav")))
    assert kinds == 9
    again = _strangers.speech(*folders, tmp_path / "run", 8000, sample_rate=8000, snr=(10.0, 20.0))
    assert all(torch.equal(a[1], b[1]) for a, b in zip(again.tests["strangers"], strangers, strict=True))


def test_methods_are_compared_on_the_same_recordings(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for installed in ("others", "perceptual"):
        monkeypatch.setattr(_denoisers, installed, lambda sample_rate: {})
    clean = torch.sin(torch.arange(8000) / 5)[None] * (torch.arange(8000) % 2000 > 800)
    noisy = clean + 0.1 * torch.randn(1, 8000, generator=torch.Generator().manual_seed(0))

    def network(x: Tensor) -> Tensor:
        return clean + 0.01 * (x - clean) if x.shape == clean.shape else x

    figures = _denoisers.compare(network, {"strangers": [(clean, noisy)]}, 8000, 0.02)
    assert float(figures["gain, strangers"]) == pytest.approx(40, abs=0.1)
    rows = {line.split()[0]: line.split() for line in capsys.readouterr().out.splitlines() if line.strip()}
    assert rows["network"][-2:] == ["20", "ms"]
    assert rows["wiener"][-1] == "whole"
    assert float(rows["network"][1]) == pytest.approx(float(rows["noisy"][1]) + 40, abs=0.1)
