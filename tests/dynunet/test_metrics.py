"""Figures of quality against closed forms and SciPy."""

import numpy as np
import pytest
import scipy.linalg
import torch
from torchmetrics.functional.image import structural_similarity_index_measure

from dynunet.metrics import frechet_distance, psnr, si_sdr, snr, ssim


def test_frechet_distance_equals_the_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(200, 5, generator=generator, dtype=torch.float64) @ torch.randn(
        5, 5, generator=generator, dtype=torch.float64
    )
    b = 1 + torch.randn(100, 5, generator=generator, dtype=torch.float64)
    ca, cb = np.cov(a.numpy().T), np.cov(b.numpy().T)
    root = np.real(np.asarray(scipy.linalg.sqrtm(ca @ cb)))
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum().item() + np.trace(ca + cb - 2 * root)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-8)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-6)


def test_bad_features_are_refused() -> None:
    with pytest.raises(ValueError, match="same D and at least two rows"):
        frechet_distance(torch.zeros(1, 2), torch.zeros(5, 2))


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("dims", [1, 2, 3, 4])
def test_ratios_are_those_of_their_formulas(dims: int) -> None:
    target, noise = drawn(3, 2, *(6,) * dims), drawn(3, 2, *(6,) * dims, seed=1)
    estimate = 0.5 * target + 0.1 * noise
    for n in range(3):
        s, e = target[n].numpy().ravel(), estimate[n].numpy().ravel()
        assert snr(estimate, target)[n] == pytest.approx(10 * np.log10(s @ s / ((s - e) @ (s - e))))
        assert psnr(estimate, target, 3.0)[n] == pytest.approx(10 * np.log10(9 / np.mean((s - e) ** 2)))
        scaled = (s @ e) / (s @ s) * s
        expected = 10 * np.log10(scaled @ scaled / ((scaled - e) @ (scaled - e)))
        assert si_sdr(estimate, target)[n] == pytest.approx(expected)


def test_si_sdr_does_not_depend_on_scale_nor_with_zero_mean_on_an_offset() -> None:
    target = drawn(2, 1, 100)
    estimate = target + 0.1 * drawn(2, 1, 100, seed=1)
    torch.testing.assert_close(si_sdr(7 * estimate, target), si_sdr(estimate, target))
    shifted = si_sdr(estimate + 5, target, zero_mean=True)
    torch.testing.assert_close(shifted, si_sdr(estimate, target, zero_mean=True))
    assert (si_sdr(estimate + 5, target) < 0).all()


def test_noise_orthogonal_to_the_signal_has_its_level_as_si_sdr() -> None:
    t = torch.arange(1000) / 1000
    signal, noise = torch.sin(40 * torch.pi * t), torch.cos(40 * torch.pi * t)
    assert si_sdr((signal + 0.1 * noise)[None, None], signal[None, None]).item() == pytest.approx(
        20, abs=1e-3
    )


@pytest.mark.parametrize("figure", [snr, si_sdr, psnr, ssim])
@pytest.mark.parametrize("dims", [1, 2, 4])
def test_entries_that_do_not_count_change_nothing(figure, dims: int) -> None:
    target, estimate = drawn(2, 1, *(8,) * dims), drawn(2, 1, *(8,) * dims, seed=1)
    mask = drawn(2, 1, *(8,) * dims, seed=2) > -0.5
    other = estimate.where(mask, torch.nan), target.where(mask, 1e9)
    torch.testing.assert_close(figure(*other, mask=mask), figure(estimate, target, mask=mask))
    every = torch.ones_like(mask)
    torch.testing.assert_close(figure(estimate, target, mask=every), figure(estimate, target))
    mask[1] = False
    assert figure(estimate, target, mask=mask).isnan().tolist() == [False, True]


@pytest.mark.parametrize("figure", [snr, si_sdr, psnr])
def test_entries_that_count_are_as_if_there_were_no_others(figure) -> None:
    target, estimate = drawn(2, 1, 40), drawn(2, 1, 40, seed=1)
    mask = (torch.arange(40) < 25).view(1, 1, 40)
    options = {"zero_mean": True} if figure is si_sdr else {}
    cut = figure(estimate[..., :25], target[..., :25], **options)
    torch.testing.assert_close(figure(estimate, target, mask=mask, **options), cut)


def test_samples_have_figures_of_their_own() -> None:
    target, estimate = drawn(4, 2, 20, 20), drawn(4, 2, 20, 20, seed=1)
    for figure in (snr, si_sdr, psnr, ssim):
        each = torch.cat([figure(e[None], t[None]) for e, t in zip(estimate, target, strict=True)])
        torch.testing.assert_close(figure(estimate, target), each)


@pytest.mark.parametrize("shape", [(2, 1, 20, 17), (2, 3, 12, 16), (2, 2, 9, 10, 11)])
def test_ssim_is_that_of_torchmetrics(shape: tuple[int, ...]) -> None:
    target = drawn(*shape)
    estimate = target + 0.5 * drawn(*shape, seed=1)
    known = structural_similarity_index_measure(estimate, target, data_range=2.0, reduction="none")
    torch.testing.assert_close(ssim(estimate, target), known, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("dims", [1, 4])
def test_ssim_of_other_ranks_is_that_of_copies_along_new_axes(dims: int) -> None:
    lines = drawn(2, 1, 14), drawn(2, 1, 14, seed=1)
    a, b = (x.unsqueeze(-1).expand(2, 1, 14, 9) for x in lines)
    expected = structural_similarity_index_measure(a, b, data_range=2.0, reduction="none")
    a, b = (x.reshape(2, 1, 14, *(1,) * (dims - 1)).expand(2, 1, 14, *(7,) * (dims - 1)) for x in lines)
    torch.testing.assert_close(ssim(a, b), expected, atol=1e-6, rtol=1e-6)


def test_what_is_equal_is_perfect() -> None:
    x = drawn(2, 1, 16, 16)
    assert psnr(x, x).isposinf().all()
    torch.testing.assert_close(ssim(x, x), torch.ones(2, dtype=torch.float64))
    assert (snr(x, x) > 100).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: snr(torch.zeros(2, 1, 8), torch.zeros(2, 1, 9)), r"alike.*\(2, 1, 8\) and \(2, 1, 9\)"),
        (lambda: psnr(torch.zeros(8), torch.zeros(8)), r"\(N, C, \*spatial\)"),
        (lambda: psnr(torch.zeros(1, 1, 8), torch.zeros(1, 1, 8), 0), "data_range must be positive.*got 0"),
        (lambda: ssim(torch.zeros(1, 1, 8, 5), torch.zeros(1, 1, 8, 5)), "more than 5 entries"),
        (lambda: ssim(torch.zeros(1, 1, 8), torch.zeros(1, 1, 8), sigma=-1), "sigma must be positive"),
    ],
)
def test_bad_arguments_are_refused(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
