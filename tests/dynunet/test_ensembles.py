"""Summaries and metrics of ensembles against NumPy, scoringrules, loops and laws of chance."""

import importlib
import math
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dynunet import summarize
from dynunet.metrics import coverage, crps, rank_histogram, spread_skill

scoringrules: Any = importlib.import_module("scoringrules")


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@st.composite
def ensembles(draw: st.DrawFn, least: int = 2, most: int = 8) -> tuple[Tensor, Tensor, Tensor]:
    """Samples of any rank, a target and a mask; of few values, so that there are ties, or of many."""
    shape = [draw(st.integers(1, 3)), draw(st.integers(1, 2)), *draw(st.lists(st.integers(1, 4), max_size=4))]
    m, seed = draw(st.integers(least, most)), draw(st.integers(0, 2**16))
    values = drawn(m + 1, *shape, seed=seed)
    if draw(st.booleans()):
        values = values.round()
    return values[1:], values[0], drawn(*shape, seed=seed + 1) > -0.5


# Summaries -----------------------------------------------------------------------


@given(ensembles(most=40), st.floats(0.01, 0.99))
def test_a_summary_is_that_of_numpy(case: tuple[Tensor, Tensor, Tensor], level: float) -> None:
    samples, m = case[0], len(case[0])
    mean, std = summarize(samples, level=None)
    torch.testing.assert_close(mean, torch.from_numpy(np.mean(samples.numpy(), 0)))
    torch.testing.assert_close(std, torch.from_numpy(np.std(samples.numpy(), 0, ddof=1)))
    if (1 - level) / 2 * (m + 1) < 1:
        with pytest.raises(ValueError, match=f"samples must be at least .* for level {level:g}, got {m}"):
            summarize(samples, level)
        return
    ends = np.quantile(samples.numpy(), [(1 - level) / 2, (1 + level) / 2], axis=0, method="weibull")
    for got, expected in zip(summarize(samples, level), (mean, std, *ends), strict=True):
        torch.testing.assert_close(got, torch.as_tensor(expected))


@pytest.mark.parametrize(("level", "least"), [(0.5, 3), (0.8, 9), (0.9, 19), (0.95, 39), (0.99, 199)])
def test_the_fewest_samples_of_a_level_give_their_extremes(level: float, least: int) -> None:
    samples = drawn(least, 2, 1, 3)
    _, _, low, high = summarize(samples, level)
    torch.testing.assert_close(torch.stack([low, high]), torch.stack([samples.amin(0), samples.amax(0)]))
    with pytest.raises(ValueError, match=f"at least {least} for level {level:g}, got {least - 1}"):
        summarize(samples[1:], level)


@pytest.mark.parametrize(("m", "level"), [(19, 0.9), (32, 0.9), (9, 0.5), (3, 0.4)])
def test_an_interval_of_few_samples_covers_as_often_as_it_says(m: int, level: float) -> None:
    draws = drawn(m + 1, 1, 40_000).exp()  # skewed
    _, _, low, high = summarize(draws[1:], level)
    assert coverage(low, high, draws[0]).item() == pytest.approx(level, abs=0.01)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_summary_has_the_precision_of_the_samples(dtype: torch.dtype) -> None:
    samples = drawn(20, 2, 1, 5).to(dtype)
    for got, expected in zip(summarize(samples), summarize(samples.double()), strict=True):
        assert got.dtype == dtype
        torch.testing.assert_close(got, expected.to(dtype))


def test_a_sample_that_is_nan_makes_an_entry_nan_and_no_other() -> None:
    samples = drawn(19, 1, 2)
    samples[3, 0, 0] = torch.nan
    assert [value.isnan().tolist() for value in summarize(samples)] == [[[True, False]]] * 4


def test_no_answers_have_no_figures() -> None:
    samples, target = torch.zeros(19, 0, 1, 3), torch.zeros(0, 1, 3)
    mean, std, low, high = summarize(samples)
    assert mean.shape == std.shape == low.shape == high.shape == target.shape
    for figure in crps(samples, target), spread_skill(samples, target), coverage(low, high, target):
        assert figure.shape == (0,)
    assert rank_histogram(samples, target).tolist() == [0] * 20


# Scores --------------------------------------------------------------------------


@given(ensembles())
def test_the_score_is_that_of_scoringrules_and_of_loops(case: tuple[Tensor, Tensor, Tensor]) -> None:
    samples, target, mask = case
    m = len(samples)
    loops = torch.zeros_like(target)
    for x in samples:
        loops += (x - target).abs() / m
    for x, other in product(samples, repeat=2):
        loops -= (x - other).abs() / (2 * m * (m - 1))
    peer = scoringrules.crps_ensemble(
        target.numpy(), samples.numpy(), m_axis=0, estimator="fair", backend="numpy"
    )
    torch.testing.assert_close(torch.from_numpy(np.asarray(peer)), loops)
    torch.testing.assert_close(crps(samples, target), loops.flatten(1).mean(1))
    expected = torch.stack([row[where].mean() for row, where in zip(loops, mask, strict=True)])
    torch.testing.assert_close(crps(samples, target, mask), expected, equal_nan=True)


@given(ensembles(), st.floats(0.1, 10), st.floats(-1e3, 1e3))
@settings(max_examples=20)
def test_laws_of_the_score_and_the_ratio(
    case: tuple[Tensor, Tensor, Tensor], scale: float, shift: float
) -> None:
    samples, target, mask = case
    score, ratio = crps(samples, target, mask), spread_skill(samples, target, mask)
    for sign in (1, -1):
        moved = crps(sign * scale * samples + shift, sign * scale * target + shift, mask)
        torch.testing.assert_close(moved, scale * score, equal_nan=True, atol=1e-10, rtol=1e-7)
    torch.testing.assert_close(crps(samples.flip(0), target, mask), score, equal_nan=True)
    longer = samples.unsqueeze(-1), target.unsqueeze(-1), mask.unsqueeze(-1)
    torch.testing.assert_close(crps(*longer), score, equal_nan=True)
    torch.testing.assert_close(spread_skill(*longer), ratio, equal_nan=True)


@pytest.mark.parametrize("m", [2, 3, 20])
def test_the_score_of_few_samples_is_that_of_their_law(m: int) -> None:
    """For a Gaussian y = 0.3 away from the mean: Gneiting and Raftery 2007, eq. 21."""
    samples = 2 * drawn(m, 1, 200_000) + 1.0
    z = 0.3 / 2
    density, below = math.exp(-(z**2) / 2) / math.sqrt(2 * math.pi), (1 + math.erf(z / math.sqrt(2))) / 2
    expected = 2 * (z * (2 * below - 1) + 2 * density - 1 / math.sqrt(math.pi))
    assert crps(samples, torch.full((1, 200_000), 1.3)).item() == pytest.approx(expected, abs=0.02)


def test_the_score_is_exact_far_from_zero() -> None:
    """In single precision, for temperatures in kelvin of a spread of hundredths."""
    samples, target = 0.01 * drawn(8, 1, 50), 0.01 * drawn(1, 50, seed=1)
    far = (280 + samples).float(), (280 + target).float()
    exact = crps(*(x.double() for x in far))
    torch.testing.assert_close(crps(*far).double(), exact, rtol=1e-6, atol=0)


@given(ensembles())
def test_the_ratio_is_its_formula(case: tuple[Tensor, Tensor, Tensor]) -> None:
    samples, target, mask = case
    m = len(samples)
    for n, ratio in enumerate(spread_skill(samples, target, mask)):
        x, y = samples[:, n, mask[n]].numpy(), target[n, mask[n]].numpy()
        if not y.size:
            assert ratio.isnan()
            continue
        error = np.mean((x.mean(0) - y) ** 2)
        if error > 1e-20:
            expected = np.sqrt((m + 1) / m * np.mean(x.var(0, ddof=1)) / error)
            assert ratio.item() == pytest.approx(expected)


@pytest.mark.parametrize("m", [2, 5, 30])
def test_the_ratio_of_a_calibrated_ensemble_is_one_whatever_its_size(m: int) -> None:
    draws = 0.3 * drawn(m + 1, 1, 40_000) + drawn(1, 40_000, seed=1)
    assert spread_skill(draws[1:], draws[0]).item() == pytest.approx(1, abs=0.02)
    assert spread_skill(draws[1:], draws[0] + 0.3).item() < 0.9


@pytest.mark.parametrize("figure", [crps, spread_skill])
def test_gradients(figure: Any) -> None:
    samples, target, mask = drawn(4, 2, 1, 5), drawn(2, 1, 5, seed=1), drawn(2, 1, 5, seed=2) > -0.5
    inputs = samples.requires_grad_(), target.requires_grad_()
    assert torch.autograd.gradcheck(lambda *x: figure(*x, mask), inputs)
    filled = samples.detach().where(mask, torch.nan).requires_grad_()
    figure(filled, target.detach(), mask).sum().backward()
    assert filled.grad is not None
    assert (filled.grad.isfinite() & (mask | (filled.grad == 0))).all()


# Intervals and ranks ---------------------------------------------------------------


@given(ensembles())
def test_coverage_is_a_share_of_the_entries_that_count(case: tuple[Tensor, Tensor, Tensor]) -> None:
    samples, target, mask = case
    low, high = samples.amin(0), samples.amax(0)
    got = coverage(low, high, target, mask)
    for n, value in enumerate(got):
        ends = (x[n, mask[n]].tolist() for x in (low, target, high))
        inside = [lo <= y <= hi for lo, y, hi in zip(*ends, strict=True)]
        assert value.item() == pytest.approx(np.mean(inside)) if inside else value.isnan()


def test_coverage_by_intervals_without_end_or_unknown() -> None:
    far, target = torch.full((1, 3), torch.inf), torch.tensor([[0.0, 1.0, -torch.inf]])
    assert coverage(-far, far, target).item() == 1
    assert coverage(torch.zeros(1, 3), far, target).item() == pytest.approx(2 / 3)
    for place in range(3):
        values = [torch.zeros(1, 2), torch.ones(1, 2), torch.zeros(1, 2)]
        values[place] = torch.tensor([[torch.nan, 0.0]])
        assert coverage(*values).isnan()


@given(ensembles(least=1))
def test_ranks_are_counted_by_loops(case: tuple[Tensor, Tensor, Tensor]) -> None:
    samples, target, mask = case
    counts = np.zeros(len(samples) + 1, dtype=int)
    slack = np.zeros(len(samples) + 1, dtype=int)  # how many may have a rank up to k
    for index in np.ndindex(*target.shape):
        if mask[index]:
            x, y = samples[(slice(None), *index)], target[index]
            counts[int((x < y).sum())] += 1
            slack[int((x <= y).sum())] += 1
    got = rank_histogram(samples, target, mask, torch.Generator().manual_seed(1))
    assert got.sum() == mask.sum()
    # Ties lie anywhere from the lowest to the highest rank they may have.
    assert (got.cumsum(0).numpy() <= counts.cumsum()).all()
    assert (got.cumsum(0).numpy() >= slack.cumsum()).all()


def test_ranks_of_a_calibrated_ensemble_are_as_likely() -> None:
    draws = drawn(5, 1, 50_000)
    share = rank_histogram(draws[1:], draws[0]) / 50_000
    torch.testing.assert_close(share, torch.full((5,), 0.2), atol=0.01, rtol=0)
    narrow = rank_histogram(0.3 * draws[1:], draws[0])
    assert narrow[0] > 2 * narrow[2] < narrow[4]


def test_ties_are_broken_at_random_and_again_alike() -> None:
    samples, target = torch.zeros(3, 1, 40_000), torch.zeros(1, 40_000)
    first, again = (rank_histogram(samples, target, None, torch.Generator().manual_seed(s)) for s in (1, 1))
    assert torch.equal(first, again)
    torch.testing.assert_close(first / 40_000, torch.full((4,), 0.25), atol=0.01, rtol=0)


@given(ensembles())
@settings(max_examples=20)
def test_entries_that_do_not_count_may_be_anything(case: tuple[Tensor, Tensor, Tensor]) -> None:
    samples, target, mask = case
    other = samples.where(mask, torch.nan), target.where(mask, 1e9)
    for figure in (crps, spread_skill):
        torch.testing.assert_close(
            figure(*other, mask), figure(samples, target, mask), equal_nan=True, rtol=0, atol=0
        )
    ends = samples.amin(0).where(mask, torch.nan), samples.amax(0).where(mask, torch.nan)
    got = coverage(*ends, other[1], mask)
    expected = coverage(samples.amin(0), samples.amax(0), target, mask)
    torch.testing.assert_close(got, expected, equal_nan=True, rtol=0, atol=0)
    counts = [rank_histogram(*x, mask, torch.Generator().manual_seed(0)) for x in (other, (samples, target))]
    assert torch.equal(*counts)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_metrics_have_the_precision_of_the_samples(dtype: torch.dtype) -> None:
    samples, target = drawn(4, 2, 1, 5).to(dtype), drawn(2, 1, 5, seed=1).to(dtype)
    wanted = torch.promote_types(dtype, torch.float32)
    figures = crps(samples, target), spread_skill(samples, target), coverage(samples[0], samples[1], target)
    assert [figure.dtype for figure in figures] == [wanted] * 3
    assert crps(samples, torch.zeros(2, 1, 5, dtype=torch.int16)).dtype == wanted


X, Y = torch.zeros(2, 1, 3), torch.zeros(1, 3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: summarize(torch.zeros(2, 3, dtype=torch.int64)), "samples.*floating-point.*torch.int64"),
        (lambda: summarize(X[:1], None), r"two samples at least, got shape \(1, 1, 3\)"),
        (lambda: summarize(X, 1.0), "level must be above 0 and below 1, got 1.0"),
        (lambda: summarize(X, 0.9), "samples must be at least 19 for level 0.9, got 2"),
        (lambda: crps(X[:1], Y), r"m at least 2.*\(1, 1, 3\) and \(1, 3\)"),
        (lambda: crps(X, torch.zeros(1, 4)), r"\(2, 1, 3\) and \(1, 4\)"),
        (lambda: crps(X.to(torch.complex64), Y), "samples must be a real tensor, got dtype torch.complex64"),
        (lambda: crps(X, Y, torch.ones(1, 4, dtype=torch.bool)), r"mask must have the axes of.*\(1, 4\)"),
        (lambda: coverage(Y, torch.zeros(1, 4), Y), r"high must have the shape of target, \(1, 3\), got"),
        (lambda: rank_histogram(X, Y * torch.nan), "must not be NaN where they count"),
        (lambda: rank_histogram(X[:0], Y), "m at least 1"),
    ],
)
def test_bad_arguments_are_refused(call: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        call()
