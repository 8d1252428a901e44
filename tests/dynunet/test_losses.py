"""Predictions, weightings and losses against closed forms on Gaussian data, without Monte Carlo.

An expectation of a quadratic over data and noise that are independent Gaussians is the plain mean over
the four points ``mean +- std`` and ``+- 1`` (Gauss-Hermite quadrature of two points).
"""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dynunet import Diffusion
from dynunet.diffusion.losses import (
    ERRORS,
    LOSSES,
    LogNormal,
    MinSNR,
    Weighting,
    WithSpectra,
    draw_quantiles,
    huber,
    l1,
    l2,
    loss_sum,
    mean_loss,
)
from dynunet.diffusion.predictions import PREDICTIONS, EDMPrediction, Prediction
from dynunet.diffusion.schedules import EDM, SCHEDULES, Cosine, Flow, Linear

MEAN, STD = 0.7, 0.4
each_prediction = pytest.mark.parametrize("prediction", PREDICTIONS.values(), ids=PREDICTIONS)
each_weighting = pytest.mark.parametrize("weighting", LOSSES.values(), ids=map(str, LOSSES))
each_schedule = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)


def float64(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def quadrature(mean: float, std: float) -> tuple[Tensor, Tensor]:
    """Data and noise ``(4, 1, 1)`` whose mean of any quadratic is its expectation."""
    x0 = mean + std * float64([-1, -1, 1, 1])
    return x0.view(4, 1, 1), float64([-1, 1, -1, 1]).view(4, 1, 1)


@each_prediction
@each_schedule
@given(t=st.floats(0, 1), seed=st.integers(0, 99))
def test_predictions_recover_the_data_at_all_times(
    prediction: Prediction, schedule: Any, t: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    x0, noise = (torch.randn(7, generator=generator, dtype=torch.float64) for _ in range(2))
    alpha, sigma = schedule(float64(t))
    target = prediction.target(x0, noise, alpha, sigma)
    assert target.isfinite().all()
    out = prediction.denoised(target, alpha * x0 + sigma * noise, alpha, sigma)
    if prediction == PREDICTIONS["epsilon"]:  # the noise says ever less about the data as alpha falls
        if alpha == 0:
            assert out.eq(0).all()
            return
        torch.testing.assert_close(out, x0, rtol=0, atol=1e-14 * (1 + (sigma / alpha).item()))
    else:
        torch.testing.assert_close(out, x0, rtol=1e-12, atol=2e-12)


@each_prediction
@each_schedule
@pytest.mark.parametrize("t", [0.0, 1.0])
def test_predictions_at_both_ends(prediction: Prediction, schedule: Any, t: float) -> None:
    """At sigma = 0 the data is x / alpha whatever the network says, unless it predicts the data itself."""
    alpha, sigma = schedule(float64(t))
    x, output = float64([0.3, -2.0]), float64([5.0, 7.0])
    out = prediction.denoised(output, x, alpha, sigma)
    assert out.isfinite().all()
    assert prediction.scaled(x, alpha, sigma).isfinite().all()
    if t == 0:
        assert torch.equal(out, output if prediction == PREDICTIONS["sample"] else x)


@each_prediction
@given(alpha=st.floats(0.01, 2), sigma=st.floats(0.01, 50))
def test_gains_are_the_derivatives(prediction: Prediction, alpha: float, sigma: float) -> None:
    """Predictions are affine in the output: a unit step is the derivative, of x_0 and of the noise."""
    a, s = float64(alpha), float64(sigma)
    data, noise = prediction.gains(a, s)
    x = float64(0.3)
    low, high = (prediction.denoised(float64(o), x, a, s) for o in (0.0, 1.0))
    assert data.item() == pytest.approx(abs(high - low).item(), rel=1e-9)
    assert noise.item() == pytest.approx(
        abs((x - a * high) / s - (x - a * low) / s).item(), rel=1e-9, abs=1e-9
    )


@each_prediction
@each_schedule
def test_gains_at_both_ends_are_never_nan(prediction: Prediction, schedule: Any) -> None:
    for gain in prediction.gains(*schedule(float64([0.0, 1.0]))):
        assert not gain.isnan().any()


@given(sigma=st.floats(0.002, 80), sigma_data=st.floats(0.1, 3))
def test_edm_is_table_1(sigma: float, sigma_data: float) -> None:
    """Karras et al. 2022, table 1 and eq. 7, with y = x_0 + sigma n."""
    prediction = EDMPrediction(sigma_data)
    one, s = float64(1.0), float64(sigma)
    total = sigma**2 + sigma_data**2
    c_skip, c_out = sigma_data**2 / total, sigma * sigma_data / math.sqrt(total)
    y, f, x0, noise = 1.3, -0.4, 0.8, (1.3 - 0.8) / sigma
    denoised = prediction.denoised(float64(f), float64(y), one, s).item()
    assert denoised == pytest.approx(c_skip * y + c_out * f, rel=1e-12)
    assert prediction.scaled(float64(y), one, s).item() == pytest.approx(y / math.sqrt(total), rel=1e-12)
    target = prediction.target(float64(x0), float64(noise), one, s).item()
    assert target == pytest.approx((x0 - c_skip * y) / c_out, rel=1e-8, abs=1e-8)


@given(log_sigma=st.floats(-9, 6), sigma_data=st.floats(0.1, 3))
@pytest.mark.parametrize("family", [EDM(), Cosine(), Flow()], ids=["edm", "cosine", "flow"])
def test_edm_loss_of_a_zero_network_is_1(family: Any, log_sigma: float, sigma_data: float) -> None:
    """At every noise level, in every family of schedules; also after the weighting, which is then 1."""
    alpha, sigma = family.scales(float64(-2 * log_sigma))
    prediction, weighting = EDMPrediction(sigma_data), LogNormal(sigma_data=sigma_data)
    x0, noise = quadrature(0.0, sigma_data)
    target = prediction.target(x0, noise, alpha, sigma)
    loss = mean_loss(torch.zeros_like(x0), target, weighting.weight(alpha, sigma, prediction))
    assert loss.item() == pytest.approx(1, abs=1e-12)


@each_prediction
@each_weighting
@each_schedule
@pytest.mark.parametrize("t", [1e-4, 0.1, 0.5, 0.9, 0.999])
def test_the_minimiser_is_the_closed_form_denoiser(
    prediction: Prediction, weighting: Weighting, schedule: Any, t: float
) -> None:
    """The expected loss of the network ``slope x + offset`` is quadratic: one Newton step is its minimum."""
    alpha, sigma = schedule(float64(t))
    x0, noise = quadrature(MEAN, STD)
    x = alpha * x0 + sigma * noise
    scaled = prediction.scaled(x, alpha, sigma)
    target = prediction.target(x0, noise, alpha, sigma)
    weight = weighting.weight(alpha, sigma, prediction)
    assert 0 < weight < float("inf")

    def loss(parameters: Tensor) -> Tensor:
        return mean_loss(parameters[0] * scaled + parameters[1], target, weight / weight.detach())

    start = torch.zeros(2, dtype=torch.float64)
    hessian = torch.autograd.functional.hessian(loss, start)
    gradient = torch.autograd.functional.jacobian(loss, start)
    assert isinstance(hessian, Tensor)
    assert isinstance(gradient, Tensor)
    slope, offset = -torch.linalg.solve(hessian, gradient)
    out = prediction.denoised(slope * scaled + offset, x, alpha, sigma)
    expected = MEAN + alpha * STD**2 / (alpha**2 * STD**2 + sigma**2) * (x - alpha * MEAN)
    tolerance = 1e-9 * max(1.0, (sigma / alpha).item())  # what epsilon's division by alpha amplifies
    torch.testing.assert_close(out, expected, rtol=1e-9, atol=tolerance)


@each_prediction
@given(alpha=st.floats(0.01, 2), sigma=st.floats(0.01, 50), output=st.floats(-3, 3))
def test_weightings_are_the_same_objective_for_every_prediction(
    prediction: Prediction, alpha: float, sigma: float, output: float
) -> None:
    """w (output - target)^2 equals the paper's weight times the squared error of x_0."""
    a, s, x0, noise = map(float64, (alpha, sigma, 0.7, -1.2))
    snr = (alpha / sigma) ** 2
    target = prediction.target(x0, noise, a, s)
    error = prediction.denoised(float64(output), a * x0 + s * noise, a, s) - x0
    level = sigma / alpha
    for weighting, of_data in [
        (LOSSES["snr"], snr),
        (LOSSES["min_snr"], min(snr, 5.0)),
        (MinSNR(gamma=0.3), min(snr, 0.3)),
        (LOSSES["edm"], (level**2 + 0.25) / (level * 0.5) ** 2),
    ]:
        got = weighting.weight(a, s, prediction) * (output - target) ** 2
        expected = of_data * error**2
        torch.testing.assert_close(got, expected, rtol=1e-7, atol=1e-9 * (1 + of_data))


@pytest.mark.parametrize("t", [0.0, 1.0])
def test_common_weights_at_both_ends(t: float) -> None:
    """Hang et al. 2023: min(SNR, 5) / SNR for the noise, min(SNR, 5) / (SNR + 1) for v, in the limits."""
    scales = Cosine()(float64(t))
    limits = {"epsilon": 0.0 if t == 0 else 1.0, "v_prediction": 0.0, "sample": 5.0 if t == 0 else 0.0}
    for name, expected in limits.items():
        assert LOSSES["min_snr"].weight(*scales, PREDICTIONS[name]).item() == expected
        assert LOSSES[None].weight(*scales, PREDICTIONS[name]).item() == 1
    assert LOSSES["snr"].weight(*scales, PREDICTIONS["epsilon"]).item() == 1


@each_weighting
@given(n=st.integers(1, 40), seed=st.integers(0, 999))
def test_times_are_stratified(weighting: Weighting, n: int, seed: int) -> None:
    """One time per interval of equal probability, reproducible, inside [0, 1]."""
    schedule = EDM()
    t = weighting.times(draw_quantiles(n, torch.Generator().manual_seed(seed)), schedule)
    again = weighting.times(draw_quantiles(n, torch.Generator().manual_seed(seed)), schedule)
    assert torch.equal(t, again)
    assert t.shape == (n,)
    probability = t
    if isinstance(weighting, LogNormal):
        log_level = schedule(probability)[1].log()
        probability = torch.special.ndtr((log_level + 1.2) / 1.2)
    grid = probability.sort().values * n - torch.arange(n)
    assert (grid - grid[0]).abs().max() < 1e-3
    assert -1e-3 < grid[0] < 1 + 1e-3


@pytest.mark.parametrize("schedule", [*SCHEDULES.values(), lambda t: (1 - t, t)])
def test_log_normal_levels_with_any_schedule(schedule: Any) -> None:
    """The median level is exp(-1.2) = 0.30 and the quartiles lie 0.674 standard deviations from it."""
    t = LogNormal().times(draw_quantiles(4000, torch.Generator().manual_seed(0)), schedule)
    alpha, sigma = schedule(t.double())
    quartiles = (sigma / alpha).log().quantile(float64([0.25, 0.5, 0.75]))
    torch.testing.assert_close(quartiles, -1.2 + 1.2 * float64([-0.67449, 0, 0.67449]), rtol=0, atol=2e-3)


@given(error=st.floats(-5, 5))
def test_elementwise_losses(error: float) -> None:
    output, target = float64([error + 1.5]), float64([1.5])
    assert l1(output, target).item() == pytest.approx(abs(error), abs=1e-12)
    assert l2(output, target).item() == pytest.approx(error**2, abs=1e-12)
    expected = 0.5 * error**2 if abs(error) <= 1 else abs(error) - 0.5
    assert huber(output, target).item() == pytest.approx(expected, abs=1e-12)


spatial = st.lists(st.integers(1, 4), min_size=1, max_size=4)


OF_ENTRIES = {name: loss for name, loss in ERRORS.items() if not isinstance(loss, WithSpectra)}


@pytest.mark.parametrize("loss", OF_ENTRIES.values(), ids=OF_ENTRIES)
@given(sizes=spatial, seed=st.integers(0, 99), shared=st.booleans())
def test_masked_loss_is_the_mean_over_the_entries_that_count(
    loss: Any, sizes: list[int], seed: int, shared: bool
) -> None:
    generator = torch.Generator().manual_seed(seed)
    shape = (3, 2, *sizes)
    output, target = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    weight = torch.rand((3, *(1,) * (len(shape) - 1)), generator=generator, dtype=torch.float64)
    mask = torch.rand((3, 1 if shared else 2, *sizes), generator=generator) < 0.5
    mask[1] = False  # a sample without any entry
    full = mask.expand(shape)
    target = torch.where(full, target, float("nan"))
    output.requires_grad_()
    got = mean_loss(output, target, weight, mask, loss)
    (gradient,) = torch.autograd.grad(got, output)

    kept = [i.tolist() for i in full.nonzero()]
    total = 0.0
    expected_gradient = torch.zeros_like(output)
    for index in kept:
        i = tuple(index)
        entry = output[i].detach().requires_grad_()
        value = weight[index[0]].squeeze() * loss(entry, target[i]) / len(kept)
        (expected_gradient[i],) = torch.autograd.grad(value, entry)
        total += value.item()
    assert got.item() == pytest.approx(total, abs=1e-12)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-12, atol=1e-12)


@given(sizes=spatial)
def test_mask_of_everything_is_no_mask(sizes: list[int]) -> None:
    output, target = torch.randn(2, 1, *sizes).double(), torch.randn(2, 1, *sizes).double()
    everything = torch.ones(2, 1, *(1,) * len(sizes), dtype=torch.bool)
    torch.testing.assert_close(mean_loss(output, target, mask=everything), mean_loss(output, target))
    nothing = mean_loss(output.requires_grad_(), target, mask=~everything)
    (gradient,) = torch.autograd.grad(nothing, output)
    assert nothing == 0
    assert gradient.eq(0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("loss", OF_ENTRIES)
@each_prediction
@each_weighting
def test_the_loss_of_half_precision_data_is_added_up_in_single(
    weighting: Weighting, prediction: Prediction, loss: str, dtype: torch.dtype
) -> None:
    """As of the same numbers in float32, to the rounding of the network's output alone."""
    x0 = (2 * torch.randn(4, 1, 20_000, generator=torch.Generator().manual_seed(0))).to(dtype)
    options: dict[str, Any] = {"quantiles": float64([0.003, 0.4, 0.6, 0.997]), "loss": loss}

    def figures(x: Tensor, mask: Tensor | None) -> tuple[Tensor, ...]:
        scale = torch.ones((), requires_grad=True)
        diffusion = Diffusion(lambda x, t: scale * x.round(), prediction=prediction, loss_weighting=weighting)
        generator = [torch.Generator().manual_seed(i) for i in range(4)]
        total = diffusion.loss(x, mask=mask, generator=generator, **options)
        return total.detach(), *torch.autograd.grad(total, scale)

    for mask in (None, torch.ones_like(x0, dtype=torch.bool), x0 > 0):
        for got, expected in zip(figures(x0, mask), figures(x0.float(), mask), strict=True):
            assert got.dtype == torch.float32
            assert got.isfinite()
            torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def test_a_sum_in_half_precision_goes_beyond_its_range() -> None:
    output, target = torch.full((1, 1, 70_000), 300.0).half(), torch.zeros(1, 1, 70_000).half()
    for mask in (None, torch.ones_like(output, dtype=torch.bool)):
        assert mean_loss(output, target, mask=mask) == 90_000


@given(sizes=spatial, parts=st.integers(1, 3), seed=st.integers(0, 99))
def test_sums_and_counts_of_parts_add_up(sizes: list[int], parts: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    shape = (3, 2, *sizes)
    output, target = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    mask = torch.rand(shape, generator=generator) < 0.5
    chunks = zip(output.chunk(parts), target.chunk(parts), mask.chunk(parts), strict=True)
    sums = [loss_sum(o, t, mask=m) for o, t, m in chunks]
    total, count = (sum(values) for values in zip(*sums, strict=True))
    assert count == mask.sum()
    torch.testing.assert_close(total / max(count, 1), mean_loss(output, target, mask=mask))


def test_bad_arguments_are_refused() -> None:
    x = torch.zeros(2, 1, 4)
    bad: Any = x
    for error, pattern, call in [
        (TypeError, "mask must be a bool tensor.*got dtype torch.float32", lambda: mean_loss(x, x, mask=bad)),
        (TypeError, "mask must be a bool tensor.*got int", lambda: mean_loss(x, x, mask=1)),  # type: ignore[arg-type]
        (
            ValueError,
            r"mask must have the axes of the data, \(2, 1, 4\)",
            lambda: mean_loss(x, x, mask=x[0] > 0),
        ),
        (ValueError, r"got \(2, 1, 3\)", lambda: mean_loss(x, x, mask=x[..., :3] > 0)),
        (ValueError, "gamma must be positive and finite, got 0", lambda: MinSNR(0)),
        (ValueError, "std must be positive and finite, got -1", lambda: LogNormal(std=-1)),
        (ValueError, "sigma_data must be positive and finite, got 0", lambda: LogNormal(sigma_data=0)),
        (ValueError, "sigma_data must be positive and finite, got 0", lambda: EDMPrediction(0)),
    ]:
        with pytest.raises(error, match=pattern):
            call()


def test_edm_weight_of_an_edm_network_is_1_along_a_schedule() -> None:
    alpha, sigma = Linear()(torch.linspace(0, 1, 11, dtype=torch.float64))
    weight = LOSSES["edm"].weight(alpha, sigma, PREDICTIONS["edm"])
    torch.testing.assert_close(weight, torch.ones_like(weight), rtol=1e-12, atol=0)


def spectra(signal: Any, size: int) -> Any:
    """Of ``(T,)`` in Hann windows of power 1, a quarter of them apart, the first around the first entry."""
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)
    window /= np.sqrt(np.square(window).sum())
    padded = np.pad(signal, size // 2)
    starts = range(0, len(padded) - size + 1, size // 4)
    return np.stack([np.fft.rfft(window * padded[i : i + size]) for i in starts])


@pytest.mark.parametrize("sizes", [(1,), (700,), (2, 300), (2, 1, 2, 40)])
def test_distance_of_spectra(sizes: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    output, target = (torch.randn(2, 2, *sizes, generator=generator, dtype=torch.float64) for _ in range(2))
    mask = torch.rand(2, 1, *sizes, generator=generator) < 0.8
    mask[0] = True
    weight = float64([0.5, 2.0]).view(2, *(1,) * (output.ndim - 1))
    shown = [torch.where(mask, x, 0).flatten(1, -2).numpy() for x in (output, target)]
    expected, entries = 0.0, mask.expand_as(output).flatten(1).sum(1).tolist()
    for n in range(2):
        distances = []
        for size in (128, 256, 512):
            x, y = (np.stack([spectra(row, size) for row in signals[n]]) for signals in shown)
            a, b = (np.maximum(np.abs(z), 1e-4) for z in (x, y))
            both = np.abs(x * a**-0.7 - y * b**-0.7) ** 2
            distances.append((0.7 * (a**0.3 - b**0.3) ** 2 + 0.3 * both).mean())
        expected += weight.flatten()[n].item() * np.mean(distances) * entries[n]
    of_entries, count = loss_sum(output, torch.where(mask, target, torch.nan), weight, mask, l1)
    total, same = loss_sum(output, torch.where(mask, target, torch.nan), weight, mask, WithSpectra(l1))
    assert (total - of_entries).item() == pytest.approx(expected, rel=1e-9)
    assert count == same == sum(entries)
    loss = WithSpectra(l2, sizes=(8, 4))
    point = output[..., :5].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: loss_sum(x, target[..., :5], loss=loss)[0], point)


def test_spectra_are_of_the_sample() -> None:
    """So a model that predicts something else is refused."""
    with pytest.raises(ValueError, match=r"loss must be of entries unless prediction is \"sample\""):
        Diffusion(lambda x, t: x).loss(torch.zeros(1, 1, 9), loss="l1+stft")
