"""Masks of spectrograms: against NumPy's Fourier transform, and at any rank and size."""

from math import prod
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


def network(
    spatial_dims: int,
    channels: int = 1,
    power: float = 1.0,
    patch_size: tuple[int, int] | None = None,
    **options: Any,
) -> SpectralMask:
    axes = spatial_dims + (patch_size is not None)
    options |= {"channels": (4, 6), "num_groups": 2, "num_blocks": 1}
    unet = filled(UNet(axes, channels * prod(patch_size or (1, BINS)), **options))
    return SpectralMask(unet, N_FFT, HOP, power, patch_size).double()


def signals(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def masked(unet: nn.Module, signal: np.ndarray, patch_size: tuple[int, int] | None = None) -> np.ndarray:
    """``(C, T)`` through the network, by windows that are cut out one by one and added up again."""
    channels, size = signal.shape
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(N_FFT) / N_FFT)
    padded = np.pad(signal, ((0, 0), (N_FFT // 2, N_FFT)))
    starts = range(0, HOP * (size // HOP) + 1, HOP)
    spectra = np.stack(
        [np.fft.rfft(window * padded[:, i : i + N_FFT]) for i in starts], -1
    )  # (C, F, windows)
    heard, number = 0.5 * np.log(np.abs(spectra) + 1e-2), len(starts)
    if patch_size is None:
        made = _sigmoid(unet(torch.from_numpy(heard).reshape(1, channels * BINS, number)))
        mask = made.reshape(heard.shape)
    else:
        w, h = patch_size
        silent = np.full((1, channels * w * h, -(-number // w), -(-BINS // h)), 0.5 * np.log(1e-2))
        given, mask = silent, np.empty_like(heard)
        places = [*np.ndindex(heard.shape)]
        there = [(0, (c * w + t % w) * h + f % h, t // w, f // h) for c, f, t in places]
        for place, at in zip(places, there, strict=True):
            given[at] = heard[place]
        made = _sigmoid(unet(torch.from_numpy(given)))
        for place, at in zip(places, there, strict=True):
            mask[place] = made[at]
    out, weight = np.zeros_like(padded), np.zeros(padded.shape[1])
    for i, spectrum in zip(starts, np.moveaxis(mask * spectra, -1, 0), strict=True):
        out[:, i : i + N_FFT] += window * np.fft.irfft(spectrum, N_FFT)
        weight[i : i + N_FFT] += window**2
    inside = slice(N_FFT // 2, N_FFT // 2 + size)
    return out[:, inside] / weight[inside]


def _sigmoid(out: Tensor) -> np.ndarray:
    return 1 / (1 + np.exp(-3 * out.detach().numpy()))


@pytest.mark.parametrize("patch_size", [None, (1, 1), (2, 4), (3, BINS)])
@pytest.mark.parametrize(("channels", "size"), [(1, 1), (1, 37), (2, 64)])
def test_the_signal_of_the_masked_spectra(
    channels: int, size: int, patch_size: tuple[int, int] | None
) -> None:
    made, x = network(1, channels, patch_size=patch_size), signals(2, channels, size)
    expected = np.stack([masked(made.model, each.numpy(), patch_size) for each in x])
    np.testing.assert_allclose(made(x).detach().numpy(), expected, atol=1e-12)
    np.testing.assert_allclose(
        made(signals(1, 1, 1).expand_as(x), cond=x).detach().numpy(), expected, atol=1e-12
    )


@pytest.mark.parametrize("patch_size", [None, (2, 3)])
def test_masks_to_a_power_once_it_is_trained(patch_size: tuple[int, int] | None) -> None:
    made, x = network(1, power=2.0, patch_size=patch_size), signals(1, 1, 40)
    head: Any = made.model.head[-1]
    nn.init.zeros_(head.weight)
    nn.init.constant_(head.bias, 0.1)
    mask = 1 / (1 + np.exp(-0.3))
    torch.testing.assert_close(made(x), mask * x)
    torch.testing.assert_close(made.eval()(x), mask**2 * x)


@settings(max_examples=20)
@given(
    sizes=st.sampled_from([(1,), (40,), (3, 37), (2, 1, 33)]),
    patch_size=st.sampled_from([None, (1, 1), (2, 3), (5, BINS)]),
    hop=st.integers(1, N_FFT // 2),
)
def test_the_unet_gets_what_is_said(
    sizes: tuple[int, ...], patch_size: tuple[int, int] | None, hop: int
) -> None:
    options: dict[str, Any] = {"channels": (2,), "num_groups": 1, "num_blocks": 1, "causal": False}
    made, given = SpectralMask.with_unet(len(sizes), 2, N_FFT, hop, 1.0, patch_size, **options), []
    made.model.register_forward_pre_hook(lambda _, x: given.append(x[0].shape))
    made(torch.randn(1, 2, *sizes))
    assert given[0] == (1, made.model.in_channels, *made.unet_size(sizes))


@pytest.mark.parametrize("patch_size", [None, (2, 2)])
@pytest.mark.parametrize("sizes", [(1,), (50,), (3, 21), (2, 3, 18), (2, 1, 2, 9)])
def test_a_mask_of_ones_changes_nothing_at_any_rank(
    sizes: tuple[int, ...], patch_size: tuple[int, int] | None
) -> None:
    made, x = network(len(sizes), 2, patch_size=patch_size), signals(2, 2, *sizes)
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
        ({"patch_size": (1, 10)}, r"patch_size\[1\] must be at most n_fft // 2 \+ 1, 9, got 10"),
        ({"patch_size": (0, 3)}, r"patch_size\[0\] must be at least 1, got 0"),
        ({"patch_size": 3}, "patch_size must be two numbers, of windows and of frequencies, got 3"),
        ({"patch_size": (1, 3)}, "an axis more than the signals, of frequencies, got spatial_dims 1"),
        (
            {"patch_size": (2, 4), "model": UNet(2, 4, channels=(4,))},
            r"8 for every channel.* prod\(patch_size\), got 4 and 4",
        ),
        (
            {"patch_size": (1, 4), "model": UNet(2, 4, channels=(4,), causal=True)},
            "not be causal along its last axis, of frequencies",
        ),
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
    patch_size=st.sampled_from([None, (1, 1), (2, 3), (3, 2)]),
    lookahead=st.integers(0, 3),
    lengths=st.lists(st.integers(0, 20), min_size=1, max_size=4).filter(any),
)
def test_a_signal_in_parts(
    sizes: tuple[int, ...], n_fft: int, patch_size: tuple[int, int] | None, lookahead: int, lengths: list[int]
) -> None:
    axes, size = len(sizes), prod(patch_size or (n_fft // 2 + 1,))
    along = [i == axes - 1 for i in range(axes + (patch_size is not None))]
    options: dict[str, Any] = {"num_blocks": 1, "num_groups": 2, "causal": along}
    options["lookahead"] = [lookahead if here else 0 for here in along]
    unet = filled(UNet(len(along), 2 * size, channels=(4, 6), **options))
    made, x = SpectralMask(unet, n_fft, max(1, n_fft // 3), 1.0, patch_size).eval(), signals(1, 2, *sizes)
    stream = Stream(made)
    torch.testing.assert_close(in_parts(stream, x, lengths), made(x), rtol=1e-9, atol=1e-9)
    stream.reset()
    given = out = 0
    for part in x.split(1, -1):  # each sample as soon as it is known
        given, out = given + 1, out + stream(part).shape[-1]
        assert out >= given - stream.lookahead


@pytest.mark.parametrize(("patch_size", "ahead"), [(None, 20), ((2, 3), 30)])
def test_no_output_depends_on_what_comes_later(patch_size: tuple[int, int] | None, ahead: int) -> None:
    axes = 1 if patch_size is None else 2
    options: dict[str, Any] = {"causal": [True, False][:axes], "lookahead": [1, 0][:axes]}
    options |= {"num_blocks": 1, "num_groups": 2}
    unet = filled(UNet(axes, prod(patch_size or (9,)), channels=(4, 6), **options))
    made, x = SpectralMask(unet, 16, 5, 1.0, patch_size), signals(1, 1, 90).requires_grad_()
    assert made.lookaheads == (ahead,)
    latest = 0
    for at in range(30, 50):
        (gradient,) = torch.autograd.grad(made(x)[0, 0, at], x)
        assert gradient[0, 0, at + ahead + 1 :].eq(0).all()
        latest = max(latest, int(gradient[0, 0].nonzero().max()) - at)
    assert latest >= ahead - 1  # the window's last entry is weighted by nearly nothing


def test_what_cannot_stream_is_refused() -> None:
    with pytest.raises(ValueError, match="none is: build the network with causal=True"):
        Stream(network(1).eval())
    with pytest.raises(ValueError, match="its windows are along the last axis, so not along axis 0"):
        Stream(network(2, causal=(True, False), norm="layer").eval())


@pytest.mark.parametrize("patch_size", [None, (2, 4)])
def test_sound_is_restored_as_it_comes(patch_size: tuple[int, int] | None, tmp_path: Path) -> None:
    """As from a file, but for the level, which here is that of training."""
    soundfile.write(tmp_path / "a.wav", signals(3000).numpy() / 4, 8000)
    data = FolderDataset(tmp_path / "a.wav", coloured=True, size=256, validation=0)
    options: dict[str, Any] = {"channels": (4, 6), "num_blocks": 1, "norm": "layer", "causal": True}
    masks = SpectralMask.with_unet(1, 1, N_FFT, HOP, 1.0, patch_size, **options)
    filled(masks.model)
    model = Diffusion(masks.float(), prediction="sample", data=data.units).eval()
    live, x = LiveSound(model, 8000), signals(1, 3000).numpy()
    parts = [live(x[:, i : i + 170]) for i in range(0, 3000, 170)]
    found = np.concatenate([*parts, live(x[:, :0], ended=True)], 1)
    noisy = torch.from_numpy(x).float()[None]
    expected = model.sample((1, 1, 3000), 1, cond=noisy, progress=False)[0].numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)
    further = 0 if patch_size is None else HOP
    assert live.latency == pytest.approx((N_FFT - 1 + further) / 8000)
