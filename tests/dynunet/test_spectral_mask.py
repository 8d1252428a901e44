"""Masks of spectrograms: against NumPy's Fourier transform, and at any rank and size."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dynunet import Diffusion, SpectralMask, UNet, load

from .test_unet import filled

N_FFT, HOP = 16, 4
BINS = N_FFT // 2 + 1


def network(spatial_dims: int, channels: int = 1, **options: Any) -> SpectralMask:
    unet = filled(UNet(spatial_dims, channels * BINS, channels=(4, 6), num_groups=2, num_blocks=1, **options))
    return SpectralMask(unet, N_FFT, HOP).double()


def signals(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def masked(unet: nn.Module, signal: np.ndarray) -> np.ndarray:
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
    for i, spectrum in zip(starts, np.moveaxis(mask * spectra, -1, 0), strict=True):
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
        ({"model": nn.Identity()}, "model must be a UNet, got Identity"),
        ({"model": UNet(1, 10, channels=(4,))}, "9 for every channel of the signals.* got 10 and 10"),
        ({"model": UNet(1, 9, channels=(4,), time_embedding=True)}, "nothing but signals.*time_embedding"),
        ({"model": UNet(1, 9, channels=(4,), norm="layer", causal=True)}, "must not be causal"),
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
