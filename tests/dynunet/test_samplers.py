"""Samplers against exact solutions, closed recurrences, and the published code of other libraries."""

import importlib
import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

from dynunet import Diffusion
from dynunet.diffusion.rescaling import shifted, zero_terminal_snr
from dynunet.diffusion.samplers import ddim, ddpm, dpmpp_2m, dpmpp_2m_sde, euler, heun, unipc
from dynunet.diffusion.schedulers import from_scheduler
from dynunet.diffusion.schedules import EDM, SCHEDULES, Cosine, Discrete, Flow, Linear
from dynunet.diffusion.spacing import SPACINGS, spaced
from dynunet.testing import Gaussian, GaussianMixture, gaussian_law, probability_flow

diffusers: Any = importlib.import_module("diffusers")  # its classes are loaded lazily, unknown to pyright
# diffusers hands tensors to numpy.
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:__array_wrap__ must accept:DeprecationWarning"),
]

DATA = Gaussian(mean=0.7, std=0.4)
MIXTURE = GaussianMixture(
    torch.tensor([[-1.0, 0.3], [0.8, 0.9], [0.4, -1.1]], dtype=torch.float64),
    [0.3, 0.2, 0.4],
    [0.3, 0.3, 0.4],
)
DETERMINISTIC: dict[str, Any] = {
    "ddim": ddim,
    "euler": euler,
    "heun": heun,
    "dpmpp_2m": dpmpp_2m,
    "unipc": unipc,
}
RUNS: list[tuple[Any, dict[str, float]]] = [
    (ddpm, {}),
    (ddim, {}),
    (ddim, {"eta": 0.5}),
    (ddim, {"eta": 1.0}),
    (euler, {}),
    (heun, {}),
    (heun, {"churn": 6.0}),
    (dpmpp_2m, {}),
    (dpmpp_2m_sde, {}),
    (dpmpp_2m_sde, {"eta": 0.4}),
]


def noise_like(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def scales(schedule: Any, t: float) -> tuple[float, float]:
    alpha, sigma = schedule(torch.tensor(t, dtype=torch.float64))
    return alpha.item(), sigma.item()


# Convergence ---------------------------------------------------------------------

INTERVAL = EDM(sigma_min=0.02, sigma_max=20.0)  # spaced with rho 7


@pytest.fixture(scope="module")
def median_error() -> Callable[[Any, int], float]:
    """The median error over samples of the mixture, at sigma = 0.02 from sigma = 20."""
    x, denoise = 20 * noise_like(400, 2), MIXTURE.denoiser(INTERVAL)
    stop = spaced(INTERVAL, 9, "karras")[-2].item()
    exact = probability_flow(denoise, x, INTERVAL, 1.0, stop, steps=800)

    def error(sampler: Any, steps: int) -> float:
        times = spaced(INTERVAL, steps + 1, "karras")[:-1]
        assert scales(INTERVAL, times[-1].item())[1] == pytest.approx(0.02)
        return (sampler(denoise, x, INTERVAL, times) - exact).norm(dim=1).median().item()

    return error


@pytest.mark.parametrize(
    ("sampler", "order"),
    [
        (ddim, 1),
        (euler, 1),
        (heun, 2),
        (dpmpp_2m, 2),
        (partial(unipc, order=1), 2),
        (unipc, 3),
        (partial(unipc, order=3), 4),
    ],
)
def test_convergence_order(sampler: Any, order: int, median_error: Any) -> None:
    steps = [80, 160, 320]
    errors = [median_error(sampler, n) for n in steps]
    slope = math.log(errors[0] / errors[-1]) / math.log(steps[-1] / steps[0])
    assert slope == pytest.approx(order, abs=0.15), errors


def test_unipc_has_a_fraction_of_the_error_of_dpmpp_2m(median_error: Any) -> None:
    assert median_error(unipc, 40) <= median_error(dpmpp_2m, 40) / 4


def test_few_steps_of_dpmpp_2m_are_as_good_as_many_of_ddim(median_error: Any) -> None:
    assert median_error(dpmpp_2m, 20) <= median_error(ddim, 90)


def test_the_reference_is_the_exact_flow() -> None:
    schedule, x = Linear(), noise_like(5, 3)
    out = probability_flow(DATA.denoiser(schedule), x, schedule, 0.9, 0.05, steps=400)
    torch.testing.assert_close(out, DATA.flow(x, schedule, 0.9, 0.05), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("schedule", [*SCHEDULES.values(), lambda t: (torch.cos(math.pi / 2 * t), t)])
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("name", DETERMINISTIC)
def test_error_falls_from_end_to_end_of_every_schedule(schedule: Any, spacing: str, name: str) -> None:
    """From pure noise to clean data, where the log-SNR is infinite, on Gaussian data."""
    sampler, x = DETERMINISTIC[name], scales(schedule, 1.0)[1] * noise_like(20, 2, seed=3)
    exact = DATA.flow(x, schedule, 1.0, 0.0)
    errors = []
    for steps in (1, 10, 40, 160):
        out = sampler(DATA.denoiser(schedule), x, schedule, spaced(schedule, steps, spacing))
        errors.append((out - exact).abs().max().item())
    # The last step to sigma = 0 starts at the schedule's r(0.001) at the earliest with karras and log_snr.
    floor = 0.003
    assert all(later < max(earlier, floor) for earlier, later in pairwise(errors)), errors
    assert errors[3] < errors[1] / 4, errors


# Closed laws ---------------------------------------------------------------------


def closed_law(
    schedule: Any, times: list[float], sampler: Any, options: dict[str, float]
) -> tuple[float, float]:
    """Mean and variance by the moments of z = x - a m, from each paper's step, for data of N(m, v).

    There the estimate is m + g z with g = a v / (a^2 v + s^2), and every step leaves z = 0 where it is. The
    state is z and, for the multistep methods, the previous g z: a linear map A a step, plus noise.
    """
    m, v = float(DATA.mean), float(DATA.std) ** 2

    def gain(a: float, s: float) -> float:
        return a * v / (a**2 * v + s**2)

    levels = [scales(schedule, t) for t in times]
    eta = options.get("eta", 1.0 if sampler in (ddpm, dpmpp_2m_sde) else 0.0)
    growth = 1 + min(options.get("churn", 0.0) / (len(times) - 1), math.sqrt(2) - 1)
    mean = torch.tensor([-levels[0][0] * m, 0.0], dtype=torch.float64)
    cov = torch.diag(torch.tensor([levels[0][1] ** 2, 0.0], dtype=torch.float64))
    h_last = math.inf
    for (a, s), (b, q) in pairwise(levels):
        if growth > 1 and a > 0:  # Karras et al. 2022, algorithm 2, up to the end of the schedule
            t = schedule.time(torch.tensor(-2 * math.log(s / a * growth), dtype=torch.float64))
            c, d = scales(schedule, t.item())
            if c > 0:
                mean, cov = mean * (c / a), cov * (c / a) ** 2
                cov[0, 0] += d**2 - (c / a * s) ** 2
                a, s = c, d
        g, before, fresh = gain(a, s), 0.0, 0.0
        slope = (1 - a * g) / s
        if sampler in (ddpm, ddim):  # Song et al. 2021, eq. 12 and 16
            fresh = eta**2 * (q / s) ** 2 * (s**2 - (a / b * q) ** 2)
            move = b * g + math.sqrt(max(q**2 - fresh, 0)) * slope
        elif sampler is euler or (sampler is heun and q == 0):
            move = b * g + q * slope
        elif sampler is heun and a * q > 0 and s / a <= 3 * q / b:
            # Karras et al. 2022, algorithm 1, in z / a over s / a
            full = b / a + (q - b * s / a) * slope
            slope_there = (1 - b * gain(b, q)) / q * full
            move = b / a + (q - b * s / a) * (slope + slope_there) / 2
        elif sampler is heun:  # the integral of a slope that deviates by c / r^2, from r' to infinity
            full = b * g + q * slope
            slope_there = (1 - b * gain(b, q)) / q * full
            move = full - q * (slope_there - slope)
        else:  # Lu et al. 2022, with r_0 = h_last / h
            h = math.log(b * s / (q * a)) if q > 0 and a > 0 else math.inf
            decay = math.exp(-eta * h) if eta else 1.0
            reach = b * (1 - decay * math.exp(-h))
            second = h / (2 * h_last) if math.isfinite(h) else 0.0
            move = q / s * decay + reach * (1 + second) * g
            before = -reach * second
            fresh = q**2 * (1 - decay**2)
            h_last = h
        step = torch.tensor([[move, before], [g, 0.0]], dtype=torch.float64)
        mean, cov = step @ mean, step @ cov @ step.T
        cov[0, 0] += fresh
    return mean[0].item() + levels[-1][0] * m, cov[0, 0].item()


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.parametrize("steps", [1, 2, 7, 30])
@pytest.mark.parametrize(("sampler", "options"), RUNS)
def test_mean_and_variance_on_gaussian_data(sampler: Any, options: Any, steps: int, schedule: Any) -> None:
    times = spaced(schedule, steps)
    mean, variance = gaussian_law(sampler, schedule, times, DATA, max_draws=2 * steps + 1, **options)
    expected_mean, expected_variance = closed_law(schedule, times.tolist(), sampler, options)
    assert mean == pytest.approx(expected_mean, rel=1e-10, abs=1e-10)
    assert variance == pytest.approx(expected_variance, rel=1e-10, abs=1e-10)


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.parametrize(("sampler", "options"), RUNS)
def test_the_law_approaches_that_of_the_data(sampler: Any, options: Any, schedule: Any) -> None:
    mean, variance = gaussian_law(sampler, schedule, spaced(schedule, 250), DATA, max_draws=501, **options)
    assert mean == pytest.approx(0.7, abs=0.02)
    assert math.sqrt(variance) == pytest.approx(0.4, abs=0.02)


def squared_cosine(steps: int) -> Discrete:
    """Nichol and Dhariwal 2021, eq. 17, with beta at most 0.999: at the end alpha is tiny, not 0."""

    def curve(t: float) -> float:
        return math.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2

    betas = [min(1 - curve((i + 1) / steps) / curve(i / steps), 0.999) for i in range(steps)]
    return Discrete((1 - torch.tensor(betas, dtype=torch.float64)).cumprod(0))


FEW_STEPS: dict[str, Any] = {
    **SCHEDULES,
    "squared cosine": squared_cosine(1000),
    "short squared cosine": squared_cosine(100),
    "zero terminal SNR": zero_terminal_snr(Linear()),
    "shifted": shifted(Linear(), 0.3),
    "callable": lambda t: (torch.cos(math.pi / 2 * t), torch.sin(math.pi / 2 * t)),  # 6e-17 at the end
}


@pytest.mark.parametrize("name", FEW_STEPS)
@pytest.mark.parametrize(("sampler", "options"), [(f, o) for f, o in RUNS if "churn" not in o])
def test_few_steps_do_not_overshoot(sampler: Any, options: Any, name: str) -> None:
    """Few steps give too narrow a law; none is to be much wider than the data."""
    for steps in (2, 4, 10):
        for spacing in SPACINGS:
            times = spaced(FEW_STEPS[name], steps, spacing)
            mean, variance = gaussian_law(
                sampler, FEW_STEPS[name], times, DATA, max_draws=2 * steps + 1, **options
            )
            case = f"{steps} steps, {spacing}: mean {mean}, std {math.sqrt(variance)}"
            assert abs(mean - 0.7) < 0.36, case
            assert 0 <= math.sqrt(variance) < 1.2 * 0.4, case


# Identities ----------------------------------------------------------------------


@given(st.sampled_from(list(SCHEDULES.values())), st.integers(1, 4), st.integers(1, 9), st.integers(0, 99))
def test_equal_samplers(schedule: Any, rank: int, steps: int, seed: int) -> None:
    x = noise_like(2, 1, *(2,) * rank, seed=seed)
    times, denoise = spaced(schedule, steps), DATA.denoiser(schedule)

    def run(sampler: Any, **options: float) -> Tensor:
        return sampler(denoise, x, schedule, times, torch.Generator().manual_seed(seed), **options)

    close: dict[str, Any] = {"rtol": 1e-9, "atol": 1e-9}
    torch.testing.assert_close(run(ddim, eta=1.0), run(ddpm), **close)
    torch.testing.assert_close(run(euler), run(ddim), **close)
    torch.testing.assert_close(run(dpmpp_2m_sde, eta=0.0), run(dpmpp_2m), **close)
    torch.testing.assert_close(run(heun, churn=0.0), run(heun), **close)
    if steps == 1:
        torch.testing.assert_close(run(dpmpp_2m_sde), run(ddpm), **close)


@pytest.mark.parametrize("schedule", [Linear(), Cosine(), Flow(), Flow.__call__.__get__(Flow())])
@pytest.mark.parametrize(("sampler", "options"), RUNS)
def test_scaling_changes_nothing(sampler: Any, options: Any, schedule: Any) -> None:
    """The same denoiser in variance-exploding form, alpha = 1, gives the same x / alpha."""

    def exploding(t: Tensor) -> tuple[Tensor, Tensor]:
        alpha, sigma = schedule(t)
        return torch.ones_like(alpha), sigma / alpha

    times = torch.linspace(0.95, 0.0, 13, dtype=torch.float64)
    x = 3 * noise_like(6, 2, seed=2)

    def run(schedule: Any) -> Tensor:
        start = scales(schedule, 0.95)[0] * x
        generator = torch.Generator().manual_seed(0)
        return sampler(MIXTURE.denoiser(schedule), start, schedule, times, generator, **options)

    torch.testing.assert_close(run(exploding), run(schedule), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.parametrize(("sampler", "options"), RUNS)
def test_the_last_step_returns_the_estimate(sampler: Any, options: Any, schedule: Any, dtype: Any) -> None:
    seen: list[Tensor] = []

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        assert t.shape == (3,)
        assert t.dtype == torch.promote_types(dtype, torch.float32)
        seen.append(torch.tanh(x))
        return seen[-1]

    reached: list[tuple[int, float]] = []
    x = (scales(schedule, 1.0)[1] * noise_like(3, 2)).to(dtype)
    out = sampler(
        denoise, x, schedule, spaced(schedule, 5), None, lambda i, t, x, x0: reached.append((i, t)), **options
    )
    assert torch.equal(out, seen[-1])
    assert reached == [(i, pytest.approx(1 - (i + 1) / 5, abs=1e-15)) for i in range(5)]


def test_churn_adds_noise_only_in_its_range() -> None:
    schedule, times = EDM(), spaced(EDM(), 10)
    x, denoise = 80 * noise_like(4, 2), MIXTURE.denoiser(schedule)
    plain = heun(denoise, x, schedule, times)
    assert torch.equal(heun(denoise, x, schedule, times, churn=5.0, churn_range=(90.0, 100.0)), plain)
    assert not torch.allclose(heun(denoise, x, schedule, times, churn=5.0), plain)


# Other libraries' code -----------------------------------------------------------


@pytest.mark.parametrize("eta", [0.0, 1.0, 0.3])
def test_k_diffusions_formula(eta: float) -> None:
    """sample_dpmpp_2m and, with noise, sample_dpmpp_2m_sde (midpoint) as k-diffusion publishes them."""
    schedule, times = EDM(), spaced(EDM(), 12, "karras")
    sigmas, denoise = schedule(times)[1].tolist(), MIXTURE.denoiser(EDM())
    x = start = 80 * noise_like(5, 2)
    noise = noise_like(12, 5, 2, seed=1)
    old, h_last = None, 0.0
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, times[i].expand(5))
        if sigma_next == 0:
            x = denoised
            break
        h = math.log(sigma) - math.log(sigma_next)
        if eta == 0:
            d = denoised
            if old is not None:
                r = h_last / h
                d = (1 + 1 / (2 * r)) * denoised - (1 / (2 * r)) * old
            x = (sigma_next / sigma) * x - math.expm1(-h) * d
        else:
            x = sigma_next / sigma * math.exp(-eta * h) * x - math.expm1(-h - eta * h) * denoised
            if old is not None:
                x = x + 0.5 * -math.expm1(-h - eta * h) * (h / h_last) * (denoised - old)
            x = x + noise[i] * sigma_next * math.sqrt(-math.expm1(-2 * eta * h))
        old, h_last = denoised, h
    draws = iter(noise)
    out = dpmpp_2m_sde(denoise, start, schedule, times, lambda shape: next(draws), eta=eta)
    torch.testing.assert_close(out, x, rtol=1e-10, atol=1e-10)
    if eta == 0:
        assert torch.equal(dpmpp_2m(denoise, start, schedule, times), out)


# Their default table, in their precision.
TRAINED = Discrete((1 - torch.linspace(1e-4, 0.02, 1000)).cumprod(0).double())
PLAIN: dict[str, Any] = {"clip_sample": False, "timestep_spacing": "trailing"}
SDE: dict[str, Any] = {"algorithm_type": "sde-dpmsolver++", "timestep_spacing": "trailing"}
ODE: dict[str, Any] = {"timestep_spacing": "trailing"}
EXPLODING = ("Euler", "Heun", "EDM")


def epsilon_at(x: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """Estimate and noise of the exact denoiser at scales, without any schedule."""
    x0 = MIXTURE.denoiser(lambda t: (alpha.double().expand(len(x)), sigma.double().expand(len(x))))(
        x, x[:, 0]
    )
    return x0, (x - alpha * x0) / sigma


def by_hand(scheduler: Any, steps: int, noise: Tensor, **options: Any) -> list[Tensor]:
    """x / |(alpha, sigma)| at the start and after every step of a scheduler's own loop, as users write it."""
    name = type(scheduler).__name__
    scheduler.set_timesteps(steps)

    def scales_at(k: int) -> tuple[Tensor, Tensor]:
        one, zero = torch.ones(()), torch.zeros(())
        if k == len(scheduler.timesteps):
            return one, zero
        if name in ("DDPMScheduler", "DDIMScheduler"):
            power = scheduler.alphas_cumprod[scheduler.timesteps[k]]
            return power.sqrt(), (1 - power).sqrt()
        sigma = scheduler.sigmas[k]
        if name.startswith("Flow"):
            return 1 - sigma, sigma
        if name.startswith(EXPLODING):
            return one, sigma
        return (1 + sigma**2).rsqrt(), sigma * (1 + sigma**2).rsqrt()

    alpha, sigma = scales_at(0)
    x = noise * (alpha**2 + sigma**2).sqrt()
    states = [noise]
    for k, timestep in enumerate(scheduler.timesteps):
        if not name.startswith("Flow"):
            scheduler.scale_model_input(x, timestep)
        alpha, sigma = scales_at(k)
        x0, output = epsilon_at(x, alpha, sigma)
        if name.startswith("Flow"):
            output = output - x0
        elif name.startswith("EDM"):
            output = (x0 - 0.25 / (sigma**2 + 0.25) * x) / (sigma * 0.5 / (sigma**2 + 0.25).sqrt())
        elif scheduler.config.prediction_type == "v_prediction":
            output = (alpha * output - sigma * x0) / (alpha**2 + sigma**2).sqrt()
        elif scheduler.config.prediction_type == "sample":
            output = x0
        x = scheduler.step(output, timestep, x, return_dict=False, **options)[0]
        if getattr(scheduler, "state_in_first_order", True) or k + 1 == len(scheduler.timesteps):
            alpha, sigma = scales_at(k + 1)
            states.append(x / (alpha**2 + sigma**2).sqrt())
    return states


def recorded(
    sampler: Any, schedule: Any, times: Tensor, noise: Tensor, generator: Any = None
) -> list[Tensor]:
    """The same of a sampler of ours."""
    alpha, sigma = scales(schedule, times[0].item())
    states = [noise]

    def keep(step: int, t: float, x: Tensor, x0: Tensor) -> None:
        states.append(x / math.hypot(*scales(schedule, t)))

    start = noise * math.hypot(alpha, sigma)
    out = sampler(MIXTURE.denoiser(schedule), start, schedule, times, generator, keep)
    assert torch.equal(out, states[-1])
    return states


def times_of(scheduler: Any, schedule: Any, steps: int) -> Tensor:
    """The scheduler's noise levels as times of a schedule."""
    scheduler.set_timesteps(steps)
    if not hasattr(scheduler, "sigmas"):
        return torch.cat([(scheduler.timesteps.double() + 1) / 1000, torch.zeros(1)])
    sigmas = scheduler.sigmas.double().unique().flip(0)
    ratio = sigmas / (1 - sigmas) if "Flow" in type(scheduler).__name__ else sigmas
    return schedule.time(-2 * ratio.log())


def assert_equal_steps(ours: list[Tensor], theirs: list[Tensor], steps: int) -> None:
    assert len(ours) == len(theirs) == steps + 1
    for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        torch.testing.assert_close(
            a, b.double(), rtol=1e-5, atol=1e-5, msg=lambda message, i=i: f"step {i}: {message}"
        )


@pytest.mark.parametrize(
    ("sampler", "build", "schedule"),
    [
        (ddpm, partial(diffusers.DDPMScheduler, **PLAIN), TRAINED),
        (ddpm, partial(diffusers.DDPMScheduler, **PLAIN, prediction_type="sample"), TRAINED),
        (ddim, partial(diffusers.DDIMScheduler, **PLAIN, prediction_type="v_prediction"), TRAINED),
        (euler, partial(diffusers.EulerDiscreteScheduler, **ODE), TRAINED),
        (heun, partial(diffusers.HeunDiscreteScheduler, **ODE), TRAINED),
        (heun, partial(diffusers.HeunDiscreteScheduler, use_karras_sigmas=True), TRAINED),
        (dpmpp_2m, partial(diffusers.DPMSolverMultistepScheduler, **ODE), TRAINED),
        (dpmpp_2m, partial(diffusers.DPMSolverMultistepScheduler, **ODE, use_karras_sigmas=True), TRAINED),
        (dpmpp_2m_sde, partial(diffusers.DPMSolverMultistepScheduler, **SDE), TRAINED),
        *(
            (partial(unipc, order=order), partial(diffusers.UniPCMultistepScheduler, **ODE, **how), TRAINED)
            for order in (1, 2, 3)
            for how in ({"solver_order": order}, {"solver_order": order, "use_karras_sigmas": True})
        ),
        (euler, partial(diffusers.FlowMatchEulerDiscreteScheduler), Flow()),
        (euler, partial(diffusers.FlowMatchEulerDiscreteScheduler, shift=3.0), Flow()),
        (euler, partial(diffusers.EDMEulerScheduler), EDM()),
        (dpmpp_2m, partial(diffusers.EDMDPMSolverMultistepScheduler), EDM()),
    ],
    ids=lambda value: getattr(getattr(value, "func", value), "__name__", type(value).__name__),
)
def test_steps_of_diffusers(sampler: Any, build: Any, schedule: Any) -> None:
    scheduler, steps, noise = build(), 20, noise_like(6, 2)
    draws = noise_like(steps, 6, 2, seed=1)
    sde = scheduler.config.get("algorithm_type") == "sde-dpmsolver++"
    times = times_of(scheduler, schedule, steps)
    if sampler is ddpm:
        theirs = by_hand(scheduler, steps, noise, generator=torch.Generator().manual_seed(1))
        ours = recorded(sampler, schedule, times, noise, torch.Generator().manual_seed(1))
    elif sde:
        given = iter(draws)
        scheduler.step = _with_noise(scheduler.step, given)
        theirs = by_hand(scheduler, steps, noise)
        again = iter(draws)
        ours = recorded(sampler, schedule, times, noise, lambda shape: next(again))
    else:
        theirs, ours = by_hand(scheduler, steps, noise), recorded(sampler, schedule, times, noise)
    assert_equal_steps(ours, theirs, steps)


def _with_noise(step: Any, noise: Any) -> Any:
    return lambda *args, **kwargs: step(*args, variance_noise=next(noise), **kwargs)


ADAPTED = {
    "ddpm": lambda kind: diffusers.DDPMScheduler(**PLAIN, prediction_type=kind),
    "ddim": lambda kind: diffusers.DDIMScheduler(**PLAIN, prediction_type=kind),
    "euler": lambda kind: diffusers.EulerDiscreteScheduler(**ODE, prediction_type=kind),
    "heun": lambda kind: diffusers.HeunDiscreteScheduler(prediction_type=kind),
    "dpmpp": lambda kind: diffusers.DPMSolverMultistepScheduler(**ODE, prediction_type=kind),
    "unipc": lambda kind: diffusers.UniPCMultistepScheduler(**ODE, prediction_type=kind),
    "deis": lambda kind: diffusers.DEISMultistepScheduler(**ODE, prediction_type=kind),
    "edm": lambda kind: diffusers.EDMDPMSolverMultistepScheduler(sigma_max=50.0),
    "flow": lambda kind: diffusers.FlowMatchEulerDiscreteScheduler(shift=2.0),
}


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("name", ADAPTED)
@pytest.mark.parametrize("schedule", [TRAINED, Cosine(), Flow()], ids=["trained", "cosine", "flow"])
def test_a_scheduler_of_diffusers_as_sampler(name: str, kind: str, schedule: Any) -> None:
    """The adapter takes the scheduler's own steps, whatever the model's schedule and the prediction."""
    if (name, kind) == ("euler", "sample"):
        pytest.skip("diffusers' Euler takes no sample prediction")
    if name == "flow" and schedule is TRAINED:
        pytest.skip("flow matching starts from pure noise, which this table does not reach")
    scheduler, steps, noise = ADAPTED[name](kind), 10, noise_like(6, 2)
    before = scheduler.timesteps.clone()
    stochastic = {"generator": torch.Generator().manual_seed(1)} if name == "ddpm" else {}
    theirs = by_hand(ADAPTED[name](kind), steps, noise, **stochastic)
    times = spaced(schedule, steps)
    ours = recorded(from_scheduler(scheduler), schedule, times, noise, torch.Generator().manual_seed(1))
    assert_equal_steps(ours, theirs, steps)
    assert torch.equal(scheduler.timesteps, before), "a copy of the scheduler runs"


def test_step_options_and_noise_of_a_scheduler() -> None:
    times, noise = spaced(TRAINED, 10), noise_like(6, 2)
    draws = iter(noise_like(10, 6, 2, seed=1))
    scheduler = diffusers.DDIMScheduler(**PLAIN)
    ours = recorded(from_scheduler(scheduler, eta=1.0), TRAINED, times, noise, lambda shape: next(draws))
    again = iter(noise_like(10, 6, 2, seed=1))
    expected = recorded(ddpm, TRAINED, times_of(scheduler, TRAINED, 10), noise, lambda shape: next(again))
    assert_equal_steps(ours, expected, 10)


# Spacing and errors --------------------------------------------------------------


@given(
    st.sampled_from([*SCHEDULES.values(), TRAINED]),
    st.sampled_from(SPACINGS),
    st.integers(1, 60),
    st.sampled_from([1.0, 0.5, 0.1]),
)
def test_spacings_fall_strictly(schedule: Any, spacing: str, steps: int, start: float) -> None:
    times = spaced(schedule, steps, spacing, start=start)
    assert times.shape == (steps + 1,)
    assert times.dtype == torch.float64
    assert times[0] == start
    assert times[-1] == 0
    assert (times.diff() < 0).all()
    if spacing in ("karras", "log_snr") and steps > 3:
        alpha, sigma = schedule(times)
        ratio = (sigma / alpha)[1:-1]
        curve = ratio ** (1 / 7) if spacing == "karras" else ratio.log()
        torch.testing.assert_close(curve.diff(), curve.diff().mean().expand(steps - 2), rtol=1e-6, atol=1e-9)


def test_edm_with_uniform_or_karras_spacing_is_karras() -> None:
    low, high = 0.002 ** (1 / 7), 80 ** (1 / 7)
    expected = [(high + i / 17 * (low - high)) ** 7 for i in range(18)]
    assert EDM()(spaced(EDM(), 18, "karras"))[1].tolist() == pytest.approx([*expected, 0.0], rel=1e-9)


@pytest.mark.parametrize("steps", [1, 7, 10, 50, 999, 1000])
def test_trailing_is_that_of_diffusers(steps: int) -> None:
    scheduler = diffusers.DDIMScheduler(timestep_spacing="trailing")
    scheduler.set_timesteps(steps)
    ours = (spaced(TRAINED, steps, "trailing")[:-1] * 1000).round().long() - 1
    assert ours.tolist() == scheduler.timesteps.tolist()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x, ok: spaced(Cosine(), 0), ValueError, "steps must be at least 1, got 0"),
        (lambda x, ok: spaced(Cosine(), 2.5), TypeError, "steps must be an int, got 2.5"),  # type: ignore
        (
            lambda x, ok: spaced(Cosine(), 3, "even"),
            ValueError,
            "spacing must be one of 'uniform'.* got 'even'",
        ),
        (lambda x, ok: spaced(Cosine(), 3, start=0.0), ValueError, r"start must be in \(0, 1\], got 0.0"),
        (
            lambda x, ok: spaced(TRAINED, 1001, "trailing"),
            ValueError,
            "steps must not exceed .*1000.* got 1001",
        ),
        (lambda x, ok: ok(times=torch.tensor([1.0])), ValueError, "times must be .*got shape"),
        (lambda x, ok: ok(times=torch.tensor([0.5, 0.5])), ValueError, "times must fall strictly"),
        (lambda x, ok: ok(times=torch.tensor([1.5, 0.5])), ValueError, "times must fall strictly"),
        (lambda x, ok: ok(x=x.long()), TypeError, "x must be a floating-point tensor, got torch.int64"),
        (
            lambda x, ok: ok(denoise=lambda x, t: x[:1]),
            ValueError,
            r"denoise must return .*\(2, 3\), got \(1, 3\)",
        ),
        (lambda x, ok: ok(ddim, eta=1.5), ValueError, r"eta must be in \[0, 1\], got 1.5"),
        (lambda x, ok: ok(dpmpp_2m_sde, eta=-1.0), ValueError, "eta must be at least 0 and finite, got -1.0"),
        (lambda x, ok: ok(unipc, order=4), ValueError, "order must be 1, 2 or 3, got 4"),
        (lambda x, ok: ok(heun, churn=-1.0), ValueError, "churn must be at least 0, got -1.0"),
        (lambda x, ok: ok(heun, churn_noise=-1.0), ValueError, "churn_noise must be at least 0, got -1.0"),
        (lambda x, ok: ok(heun, churn_range=(2.0, 1.0)), ValueError, "churn_range must be .*got"),
        (
            lambda x, ok: ok(from_scheduler(diffusers.DDIMScheduler()), times=torch.tensor([0.5, 0])),
            ValueError,
            "times must go from 1 to 0",
        ),
        (
            lambda x, ok: from_scheduler(diffusers.KDPM2DiscreteScheduler()),
            TypeError,
            "at its sigmas, got KDPM2",
        ),
        (lambda x, ok: from_scheduler("unipc"), TypeError, "scheduler must be an object with set_timesteps"),
        (
            lambda x, ok: from_scheduler(diffusers.UniPCMultistepScheduler(), eta=1.0),
            TypeError,
            "eta must be an arg",
        ),
        (
            lambda x, ok: from_scheduler(diffusers.DDPMScheduler(variance_type="learned")),
            ValueError,
            "variance_type must not be learned",
        ),
        (
            lambda x, ok: ok(from_scheduler(diffusers.DDPMScheduler(**PLAIN)), generator=torch.ones),
            TypeError,
            "generator must be a torch generator",
        ),
        (lambda x, ok: Gaussian(std=0.0), ValueError, "std must be positive, got 0.0"),
        (lambda x, ok: GaussianMixture(torch.zeros(2, 3), [1.0]), ValueError, r"stds must be \(2,\)"),
        (lambda x, ok: probability_flow(lambda x, t: x, x, Cosine(), 1.0, 0.5), ValueError, "finite log-SNR"),
    ],
)
def test_bad_arguments_are_refused_by_name(call: Any, error: type[Exception], message: str) -> None:
    x = torch.zeros(2, 3)

    def ok(sampler: Any = euler, **changed: Any) -> Tensor:
        given = {"denoise": lambda x, t: x, "x": x, "schedule": Cosine(), "times": torch.tensor([1.0, 0.0])}
        return sampler(**{**given, **changed})

    with pytest.raises(error, match=message):
        call(x, ok)


def test_times_in_a_list_are_doubles() -> None:
    times: Any = [1.0, 0.3, 0.1, 0.0]
    x = torch.ones(1, 1, 1, dtype=torch.float64)
    walks = [ddim(lambda x, t: x / 2, x, Cosine(), t) for t in (times, torch.tensor(times).double())]
    exact = ddim(lambda x, t: x / 2, x, Cosine(), torch.tensor(times, dtype=torch.float64))
    assert torch.equal(walks[0], exact)
    assert not torch.equal(walks[1], exact)


# testing -------------------------------------------------------------------------


@given(st.integers(1, 4), st.floats(0.05, 0.95))
@example(4, 0.375)  # tells the deviations from those rounded to single precision
def test_closed_denoisers_are_conditional_means(rank: int, t: float) -> None:
    """Tweedie: x_0 = (x + sigma^2 grad log p(x)) / alpha, with the density's gradient by autograd."""
    alpha, sigma = scales(Linear(), t)
    shape = (2,) * rank
    mixture = GaussianMixture(noise_like(3, *shape), [0.3, 0.5, 1.0], [1.0, 2.0, 3.0])
    x = noise_like(4, *shape, seed=1).requires_grad_()
    log_p = torch.stack(
        [
            torch.distributions.Normal(alpha * m, (alpha**2 * s**2 + sigma**2) ** 0.5)
            .log_prob(x)
            .flatten(1)
            .sum(1)
            + math.log(w)
            for m, s, w in zip(mixture.means, [0.3, 0.5, 1.0], [1.0, 2.0, 3.0], strict=True)
        ]
    ).logsumexp(0)
    (score,) = torch.autograd.grad(log_p.sum(), x)
    expected = (x + sigma**2 * score).detach() / alpha
    times = torch.full((4,), t, dtype=torch.float64)
    torch.testing.assert_close(mixture.denoiser(Linear())(x.detach(), times), expected, rtol=1e-8, atol=1e-8)
    single = GaussianMixture(torch.full((1, *shape), 0.7, dtype=torch.float64), [0.4]).denoiser(Linear())
    torch.testing.assert_close(single(x.detach(), times), DATA.denoiser(Linear())(x.detach(), times))


def test_a_scheduler_brings_its_own_times() -> None:
    diffusers = pytest.importorskip("diffusers")
    diffusion = Diffusion(lambda x, t: x, prediction="epsilon")
    with pytest.raises(ValueError, match=r"spacing must be left out for a scheduler .* got 'karras'"):
        diffusion.sample((1, 1, 4), 2, sampler=diffusers.DDIMScheduler(), spacing="karras", progress=False)
