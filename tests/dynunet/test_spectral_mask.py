"""Masks of spectrograms: against NumPy's Fourier transform, and at any rank and size."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from dynunet import Diffusion, FolderDataset, SpectralMask, Stream, UNet, load
from dynunet.live import LiveSound

from .test_streaming import in_parts
from .test_unet import filled

N_FFT, HOP = 16, 4
BINS = N_FFT // 2 + 1


def network(spatial_dims: int, channels: int = 1, power: float = 1.0, **options: Any) -> SpectralMask:
    unet = filled(UNet(spatial_dims, channels * BINS, channels=(4, 6), num_groups=2, num_blocks=1, **options))
    return SpectralMask(unet, N_FFT, HOP, power).double()


def signals(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def masked(unet: nn.Module, signal: np.ndarray, power: float = 1.0) -> np.ndarray:
    """``(C, T)`` through the network, by windows that are cut out one by one and added up again."""
    channels, size = signal.shape
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(N_FFT) / N_FFT)
    padded = np.pad(signal, ((0, 0), (N_FFT // 2, N_FFT)))
    starts = range(0, HOP * (size // HOP) + 1, HOP)
    spectra = np.stack(
        [np.fft.rfft(window * padded[:, i : i + N_FFT]) for i in starts], -1
    )  # (C, F, windows)
    heard = torch.from_numpy(0.5 * np.log(np.abs(spectra) + 1e-2)).reshape(1, channels * BINS, -1)
    mask = 1 / (1 + np.exp(-3 * unet(heard)[0].detach().numpy().reshape(spectra.shape)))
    out, weight = np.zeros_like(padded), np.zeros(padded.shape[1])
    for i, spectrum in zip(starts, np.moveaxis(mask**power * spectra, -1, 0), strict=True):
        out[:, i : i + N_FFT] += window * np.fft.irfft(spectrum, N_FFT)
        weight[i : i + N_FFT] += window**2
    inside = slice(N_FFT // 2, N_FFT // 2 + size)
    return out[:, inside] / weight[inside]


@pytest.mark.parametrize(("channels", "size"), [(1, 1), (1, 37), (2, 64)])
def test_the_signal_of_the_masked_spectra(channels: int, size: int) -> None:
    made, x = network(1, channels), signals(2, channels, size)
    expected = np.stack([masked(made.model, each.numpy()) for each in x])
    np.testing.assert_allclose(made(x).detach().numpy(), expected, atol=1e-12)
    np.testing.assert_allclose(
        made(signals(1, 1, 1).expand_as(x), cond=x).detach().numpy(), expected, atol=1e-12
    )


@pytest.mark.parametrize("sizes", [(1,), (50,), (3, 21), (2, 3, 18), (2, 1, 2, 9)])
def test_a_mask_of_ones_changes_nothing_at_any_rank(sizes: tuple[int, ...]) -> None:
    made, x = network(len(sizes), 2), signals(2, 2, *sizes)
    head: Any = made.model.head[-1]
    nn.init.zeros_(head.weight)
    nn.init.constant_(head.bias, 50.0)
    torch.testing.assert_close(made(x), x)
    nn.init.constant_(head.bias, -50.0)
    assert made(x).abs().max() < 1e-12


def test_it_learns_and_restores_in_a_diffusion_model(tmp_path: Path) -> None:
    made = network(1).float()
    diffusion = Diffusion(made, prediction="sample")
    clean, noisy = signals(2, 1, 80).float(), signals(2, 1, 80).float() + 1
    diffusion.loss(clean, cond=noisy, loss="l1+stft").backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in made.parameters())
    restored = diffusion.sample((2, 1, 80), 1, cond=noisy, progress=False)
    torch.testing.assert_close(restored, made.eval()(noisy))
    diffusion.save_pretrained(tmp_path)
    again = load(tmp_path).sample((2, 1, 80), 1, cond=noisy, progress=False)
    torch.testing.assert_close(again, restored, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"hop_length": 9}, "hop_length must be at most half of n_fft, 8, got 9"),
        ({"n_fft": 15.5}, "n_fft must be an int"),
        ({"power": 0}, "power must be positive.* got 0"),
        ({"model": nn.Identity()}, "model must be a UNet, got Identity"),
        ({"model": UNet(1, 10, channels=(4,))}, "9 for every channel of the signals.* got 10 and 10"),
        ({"model": UNet(1, 9, channels=(4,), time_embedding=True)}, "nothing but signals.*time_embedding"),
    ],
)
def test_what_makes_no_network_is_refused(options: dict[str, Any], rule: str) -> None:
    given: dict[str, Any] = {"model": UNet(1, BINS, channels=(4,)), "n_fft": N_FFT, **options}
    with pytest.raises((ValueError, TypeError), match=rule):
        SpectralMask(**given)


def test_other_signals_are_refused() -> None:
    with pytest.raises(ValueError, match=r"x must be \(N, 1, \*spatial\) with 1 spatial axes, got"):
        network(1)(signals(1, 2, 9))
    with pytest.raises(ValueError, match=r"cond must have the shape of x, \(1, 1, 9\), got \(1, 1, 8\)"):
        network(1)(signals(1, 1, 9), cond=signals(1, 1, 8))


@settings(max_examples=12)
@given(
    sizes=st.sampled_from([(1,), (40,), (61,), (3, 37), (2, 1, 33)]),
    n_fft=st.sampled_from([4, 7, 16]),
    lookahead=st.integers(0, 3),
    lengths=st.lists(st.integers(0, 20), min_size=1, max_size=4).filter(any),
)
def test_a_signal_in_parts(sizes: tuple[int, ...], n_fft: int, lookahead: int, lengths: list[int]) -> None:
    causal, ahead = [False] * (len(sizes) - 1) + [True], [0] * (len(sizes) - 1) + [lookahead]
    options: dict[str, Any] = {"num_blocks": 1, "num_groups": 2, "causal": causal, "lookahead": ahead}
    unet = filled(UNet(len(sizes), 2 * (n_fft // 2 + 1), channels=(4, 6), **options))
    made, x = SpectralMask(unet, n_fft, max(1, n_fft // 3)).eval(), signals(1, 2, *sizes)
    stream = Stream(made)
    torch.testing.assert_close(in_parts(stream, x, lengths), made(x), rtol=1e-9, atol=1e-9)
    assert stream.latency >= n_fft - 1


def test_no_output_depends_on_what_comes_later() -> None:
    options: dict[str, Any] = {"num_blocks": 1, "num_groups": 2, "causal": True, "lookahead": 1}
    made = SpectralMask(filled(UNet(1, 9, channels=(4, 6), **options)), 16, 5)
    x = signals(1, 1, 70).requires_grad_()
    assert made.lookaheads == (20,)
    for at in (0, 31, 40):
        (gradient,) = torch.autograd.grad(made(x)[0, 0, at], x)
        assert gradient[0, 0, at + 21 :].eq(0).all()
        assert gradient[0, 0, : at + 17].ne(0).any()


def test_what_cannot_stream_is_refused() -> None:
    with pytest.raises(ValueError, match="none is: build the network with causal=True"):
        Stream(network(1).eval())
    with pytest.raises(ValueError, match="its windows are along the last axis, so not along axis 0"):
        Stream(network(2, causal=(True, False), norm="layer").eval())


def test_sound_is_restored_as_it_comes(tmp_path: Path) -> None:
    """As from a file, but for the level, which here is that of training."""
    soundfile.write(tmp_path / "a.wav", signals(3000).numpy() / 4, 8000)
    data = FolderDataset(tmp_path / "a.wav", coloured=True, size=256, validation=0)
    unet = filled(UNet(1, BINS, channels=(4, 6), num_blocks=1, num_groups=2, norm="layer", causal=True))
    model = Diffusion(SpectralMask(unet.float(), N_FFT, HOP), prediction="sample", data=data.units).eval()
    live, x = LiveSound(model, 8000), signals(1, 3000).numpy()
    parts = [live(x[:, i : i + 170]) for i in range(0, 3000, 170)]
    found = np.concatenate([*parts, live(x[:, :0], ended=True)], 1)
    noisy = torch.from_numpy(x).float()[None]
    expected = model.sample((1, 1, 3000), 1, cond=noisy, progress=False)[0].numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert live.latency == pytest.approx((N_FFT - 1) / 8000)
