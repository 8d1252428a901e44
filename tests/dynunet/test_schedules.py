"""Schedules against the formulas of their papers, the laws of a log-SNR and diffusers' tables."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dynunet.diffusion.bridges import BRIDGES
from dynunet.diffusion.rescaling import shifted, zero_terminal_snr
from dynunet.diffusion.schedules import (
    EDM,
    SCHEDULES,
    Cosine,
    Discrete,
    Flow,
    Linear,
    ScaledLinear,
    Schedule,
    Sigmoid,
    as_schedule,
)

DDPM = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)
inf = float("inf")


def warped_flow(t: Tensor) -> tuple[Tensor, Tensor]:
    """A callable of a user, without log-SNR or inverse."""
    return 1 - t**2, t**2


def all_schedules() -> dict[str, Schedule]:
    plain = {
        **SCHEDULES,
        "linear_constant": Linear(5.0, 5.0),
        "linear_strong": Linear(0.1, 100.0),
        "scaled_linear_steep": ScaledLinear(1e-3, 9.0),
        "sigmoid_asymmetric": Sigmoid(-3.0, 1.0, 0.7),
        "edm_narrow": EDM(0.02, 20.0, 3.0),
        "ddpm_table": Discrete(DDPM),
        "small_table": Discrete([0.9, 0.2]),
    }
    zero = {f"zero({k})": zero_terminal_snr(s) for k, s in plain.items() if not isinstance(s, EDM)}
    both = plain | zero
    moved = {f"shifted({k})": shifted(s, 3.0) for k, s in both.items()}
    nested = {
        "shifted(shifted(zero(linear)))": shifted(shifted(zero_terminal_snr(Linear()), 0.2), 0.5),
        "zero(shifted(linear))": zero_terminal_snr(shifted(Linear(), 0.5)),
    }
    return {**both, **moved, **nested, **BRIDGES, "callable": as_schedule(warped_flow)}


ALL = all_schedules()
each_schedule = pytest.mark.parametrize("name", ALL)
times = st.lists(st.floats(0, 1), min_size=1, max_size=8)


def float64(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


@each_schedule
@given(values=times)
def test_time_inverts_log_snr(name: str, values: list[float]) -> None:
    schedule, t = ALL[name], float64(values)
    torch.testing.assert_close(schedule.time(schedule.log_snr(t)), t, rtol=0, atol=1e-10)


@each_schedule
@given(share=st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_log_snr_inverts_time(name: str, share: list[float]) -> None:
    schedule = ALL[name]
    # Near an end where the log-SNR is infinite, the rounding of t itself is a large change of it.
    low = schedule.log_snr(float64(1.0)).item()
    low = low if low > -inf else -8.0
    log_snr = low + (16 - low) * float64(share)
    torch.testing.assert_close(schedule.log_snr(schedule.time(log_snr)), log_snr, rtol=0, atol=1e-10)


@each_schedule
@given(values=times)
def test_log_snr_is_that_of_the_scales_and_falls(name: str, values: list[float]) -> None:
    schedule, t = ALL[name], float64(sorted(values))
    alpha, sigma = schedule(t)
    log_snr = schedule.log_snr(t)
    assert alpha.isfinite().all()
    assert sigma.isfinite().all()
    # The law is alpha^2 = SNR sigma^2, compared where neither side underflows or cancels.
    known = (sigma > 1e-6) & (alpha > 1e-6)
    ratio = (alpha / sigma).log() * 2
    torch.testing.assert_close(ratio[known], log_snr[known], rtol=1e-10, atol=1e-10)
    later = t.diff() > 1e-6
    assert (log_snr.diff()[later] < 0).all(), f"{name}: {t.tolist()} -> {log_snr.tolist()}"


@each_schedule
def test_ends_of_time(name: str) -> None:
    """Clean data at t = 0 exactly; a log-SNR beyond an end is that end's time, and scales(l) are l's."""
    schedule = ALL[name]
    alpha, sigma = schedule(float64([0.0, 1.0]))
    assert (alpha[0], sigma[0]) == (1, 0)
    assert schedule.log_snr(float64(0.0)) == inf
    assert schedule.time(float64([inf, -inf])).tolist() == [0, 1]
    assert schedule.time(float64([1e6, -1e6])).tolist() == pytest.approx([0, 1], abs=1e-12)
    middle = float64(0.7)
    for got, expected in zip(schedule.scales(schedule.log_snr(middle)), schedule(middle), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)


@each_schedule
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_any_shape_and_the_dtype_of_time(name: str, dtype: torch.dtype) -> None:
    schedule = ALL[name]
    t = torch.linspace(0, 1, 6, dtype=dtype)
    flat = schedule(t)
    for shape in [(), (6,), (2, 3), (1, 3, 2, 1)]:
        part = t[:1].reshape(()) if shape == () else t.reshape(shape)
        for got, expected in zip(schedule(part), flat, strict=True):
            assert (got.shape, got.dtype) == (torch.Size(shape), dtype)
            torch.testing.assert_close(got.flatten(), expected[: part.numel()])
        log_snr = schedule.log_snr(part)
        assert schedule.time(log_snr).shape == log_snr.shape == torch.Size(shape)
        assert schedule.time(log_snr).dtype == log_snr.dtype == dtype


def scales(schedule: Schedule, t: float) -> tuple[float, float]:
    alpha, sigma = schedule(float64(t))
    return alpha.item(), sigma.item()


@given(t=st.floats(0.01, 1))
def test_formulas_of_the_papers(t: float) -> None:
    """alpha and sigma as printed; integrals of beta by the midpoint rule, which is exact to O(h^2)."""

    def decayed(beta: Any) -> float:
        h = t / 4000
        return math.exp(-0.5 * h * math.fsum(beta((i + 0.5) * h) for i in range(4000)))

    def sigmoid(u: float) -> float:
        return 1 / (1 + math.exp(-u))

    linear = decayed(lambda s: 0.1 + s * 19.9)
    scaled = decayed(lambda s: (0.85**0.5 + s * (12**0.5 - 0.85**0.5)) ** 2)
    jabri = math.sqrt((sigmoid(3) - sigmoid(6 * t - 3)) / (sigmoid(3) - sigmoid(-3)))
    for schedule, alpha in [
        (Linear(), linear),
        (ScaledLinear(), scaled),
        (Sigmoid(), jabri),
        (Cosine(), math.cos(math.pi * t / 2)),
    ]:
        expected = (alpha, math.sqrt(1 - alpha**2))
        assert scales(schedule, t) == pytest.approx(expected, abs=1e-6), schedule
    assert scales(Flow(), t) == (1 - t, t)


def test_edm_times_are_the_paper_s_steps() -> None:
    """Karras et al. 2022, eq. 5: evenly spaced times down to sigma_min's, then 0."""
    steps, low, high, rho = 18, 0.002, 80.0, 7.0
    sigmas = [
        (high ** (1 / rho) + i / (steps - 1) * (low ** (1 / rho) - high ** (1 / rho))) ** rho
        for i in range(steps)
    ]
    t = EDM().time(-2 * float64(sigmas).log())
    torch.testing.assert_close(t, torch.linspace(1, 1e-3, steps, dtype=torch.float64), rtol=0, atol=1e-12)
    alpha, sigma = EDM()(t)
    assert alpha.eq(1).all()
    torch.testing.assert_close(sigma, float64(sigmas), rtol=1e-12, atol=0)
    assert scales(EDM(), 0.0) == (1, 0)
    assert scales(EDM(), 0.5e-3)[1] == pytest.approx(0.001)


@pytest.mark.parametrize("name", ["linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid"])
def test_tables_equal_diffusers(name: str) -> None:
    diffusers = pytest.importorskip("diffusers")
    table = diffusers.DDPMScheduler(beta_schedule=name).alphas_cumprod.double()
    schedule = Discrete(table)
    t = torch.arange(1, 1001, dtype=torch.float64) / 1000
    alpha, sigma = schedule(t)
    torch.testing.assert_close(alpha**2, table, rtol=1e-11, atol=1e-14)
    torch.testing.assert_close(sigma**2, 1 - table, rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("name", ["linear", "scaled_linear"])
def test_zero_terminal_snr_of_a_table_equals_diffusers(name: str) -> None:
    module = pytest.importorskip("diffusers.schedulers.scheduling_ddim")
    plain = module.DDIMScheduler(beta_schedule=name)
    rescaled = module.rescale_zero_terminal_snr(plain.betas.double())
    schedule = zero_terminal_snr(Discrete(torch.cumprod(1 - plain.betas.double(), 0)))
    alpha, _ = schedule(torch.arange(1, 1001, dtype=torch.float64) / 1000)
    torch.testing.assert_close(alpha**2, torch.cumprod(1 - rescaled, 0), rtol=1e-9, atol=1e-14)


def test_continuous_schedules_are_the_limit_of_the_tables() -> None:
    t = torch.linspace(0.1, 1, 10, dtype=torch.float64)
    root = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64)
    for schedule, table in [(Linear(), DDPM), (ScaledLinear(), torch.cumprod(1 - root**2, 0))]:
        torch.testing.assert_close(schedule(t)[0], Discrete(table)(t)[0], rtol=0, atol=2e-3)


def test_a_table_is_linear_in_log_snr_between_entries() -> None:
    schedule = Discrete([0.9, 0.5, 0.1])
    log_snr = [math.log(a / (1 - a)) for a in (0.9, 0.5, 0.1)]
    got = schedule.log_snr(float64([1.25 / 3, 2.5 / 3])).tolist()
    expected = [0.75 * log_snr[0] + 0.25 * log_snr[1], 0.5 * log_snr[1] + 0.5 * log_snr[2]]
    assert got == pytest.approx(expected, abs=1e-12)
    alpha, sigma = scales(schedule, 0.5 / 3)
    assert (sigma / alpha) ** 2 == pytest.approx(0.5 * 0.1 / 0.9), "the noise grows linearly from clean data"
    alpha, sigma = scales(Discrete([0.9, 0.5, 0.0]), 2.5 / 3)
    assert alpha / sigma == pytest.approx(0.5), "the signal falls linearly to nothing"
    assert schedule == Discrete(float64([0.9, 0.5, 0.1])), "tables compare and hash by value"
    assert hash(schedule) == hash(Discrete(float64([0.9, 0.5, 0.1])))


@pytest.mark.parametrize("name", [n for n in ALL if n.startswith("zero(")])
def test_zero_terminal_snr_is_exact(name: str) -> None:
    schedule = ALL[name]
    for dtype in (torch.float32, torch.float64):
        for t in (torch.ones((), dtype=dtype), torch.ones(37, dtype=dtype)):
            alpha, sigma = schedule(t)
            assert alpha.eq(0).all()
            assert sigma.eq(1).all()
            assert schedule.log_snr(t).eq(-inf).all()


@given(values=times)
def test_zero_terminal_snr_is_algorithm_1(values: list[float]) -> None:
    """Lin et al. 2024: sqrt(alpha-bar) minus its last, times first / (first - last); variance stays 1."""
    t = float64(values)
    for schedule in (Linear(), ScaledLinear(), shifted(Linear(), 0.5)):
        last = schedule(float64(1.0))[0]
        alpha, sigma = zero_terminal_snr(schedule)(t)
        torch.testing.assert_close(alpha, (schedule(t)[0] - last) / (1 - last), rtol=1e-9, atol=1e-13)
        torch.testing.assert_close(alpha**2 + sigma**2, torch.ones_like(t), rtol=0, atol=1e-14)


def test_what_ends_in_noise_or_is_not_shifted_stays_as_it_is() -> None:
    for schedule in (Cosine(), Sigmoid(), Flow(), zero_terminal_snr(Linear()), *BRIDGES.values()):
        assert zero_terminal_snr(schedule) is schedule
    assert shifted(Linear(), 1.0) == Linear()


@given(t=st.floats(0.01, 0.99), shift=st.floats(0.1, 10))
def test_shift(t: float, shift: float) -> None:
    for name, schedule in SCHEDULES.items():
        alpha, sigma = scales(schedule, t)
        got_alpha, got_sigma = scales(shifted(schedule, shift), t)
        assert got_sigma / got_alpha == pytest.approx(shift * sigma / alpha, rel=1e-9), name
        if name == "flow":  # Esser et al. 2024, eq. 23
            moved = shift * t / (1 + (shift - 1) * t)
            assert (got_alpha, got_sigma) == pytest.approx((1 - moved, moved), abs=1e-12)
        elif name == "edm":
            assert got_alpha == 1
        else:
            assert got_alpha**2 + got_sigma**2 == pytest.approx(1, abs=1e-12)


def test_bad_arguments_are_refused() -> None:
    for error, pattern, call in [
        (ValueError, "with beta_min <= beta_max.*got 3 and 2", lambda: Linear(3, 2)),
        (ValueError, "beta_min and beta_max must be positive", lambda: ScaledLinear(0, 2)),
        (ValueError, "tau must be positive, got 0", lambda: Sigmoid(tau=0)),
        (ValueError, r"end must be above start \(3\), got 1", lambda: Sigmoid(3, 1)),
        (ValueError, "sigma_min must be positive and below sigma_max", lambda: EDM(2, 1)),
        (ValueError, "rho must be positive, got -1", lambda: EDM(rho=-1)),
        (ValueError, "at least 2 values, got shape", lambda: Discrete([0.5])),
        (ValueError, "alphas_cumprod must fall strictly", lambda: Discrete([0.5, 0.5])),
        (ValueError, "alphas_cumprod must fall strictly", lambda: Discrete([1.0, 0.5])),
        (ValueError, "alphas_cumprod must fall strictly", lambda: Discrete([0.5, float("nan")])),
        (ValueError, "shift must be positive and finite, got 0", lambda: shifted(Linear(), 0)),
        (ValueError, "shift must be positive and finite, got inf", lambda: shifted(Linear(), inf)),
        (ValueError, r"alpha\^2 \+ sigma\^2 = 1.*got EDM", lambda: zero_terminal_snr(EDM())),
        (TypeError, "schedule must be a callable", lambda: as_schedule("linear")),  # type: ignore[arg-type]
        (TypeError, "schedule must be a Schedule", lambda: shifted(warped_flow, 2)),  # type: ignore[arg-type]
        (TypeError, "schedule must be a Schedule", lambda: zero_terminal_snr(as_schedule(warped_flow))),
    ]:
        with pytest.raises(error, match=pattern):
            call()
