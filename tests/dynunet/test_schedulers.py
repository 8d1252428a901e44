"""Every scheduler that diffusers has, as a sampler: right on Gaussian data, or refused in a sentence."""

import importlib
import inspect
import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from dynunet.diffusion.schedulers import from_scheduler
from dynunet.diffusion.schedules import Cosine, Linear
from dynunet.diffusion.spacing import spaced
from dynunet.testing import Gaussian

diffusers: Any = importlib.import_module("diffusers")  # its classes are loaded lazily, unknown to pyright
diffusers.logging.set_verbosity_error()
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:__array_wrap__ must accept:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning:diffusers"),
]

DATA = Gaussian(mean=0.3, std=0.5)
SERVED = {
    "CogVideoXDDIM", "DDIM", "DDIMParallel", "DDPM", "DDPMParallel", "DEISMultistep", "DPMSolverMultistep",
    "DPMSolverSinglestep", "EDMDPMSolverMultistep", "EDMEuler", "EulerAncestralDiscrete", "EulerDiscrete",
    "FlowMapEulerDiscrete", "FlowMatchEulerDiscrete", "FlowMatchHeunDiscrete", "HeunDiscrete", "LMSDiscrete",
    "LTXEulerAncestralRF", "PNDM", "SASolver", "TCD", "UnCLIP", "UniPCMultistep",
}  # fmt: skip
CONSISTENCY = {"FlowMatchLCM", "LCM"}  # for networks that estimate the end of the flow
EXPORTED = sorted(
    name.removesuffix("Scheduler")
    for name in diffusers._import_structure["schedulers"]
    if name.endswith("Scheduler")
)
REQUIRED: dict[str, dict[str, Any]] = {
    "Amused": {"mask_token_id": 0},
    "RFD4Proteina": {"schedule_mode": "log", "noise_mode": "tan", "tsr_k": 1.0, "tsr_sigma": 1.0},
    "VQDiffusion": {"num_vec_classes": 4},
}


def built(name: str, **options: Any) -> Any:
    """A scheduler that does not clip; estimates of this data go beyond [-1, 1]."""
    kind = getattr(diffusers, f"{name}Scheduler")
    parameters = inspect.signature(kind.__init__).parameters
    clip = {k: False for k in ("clip_sample",) if k in parameters}
    return kind(**{**clip, **REQUIRED.get(name, {}), **options})


def law(
    scheduler: Any, steps: int, n: int = 1000, schedule: Any = None, denoise: Any = None, callback: Any = None
) -> tuple[float, float]:
    schedule = schedule or Linear()
    generator = torch.Generator().manual_seed(0)
    places = (torch.arange(n, dtype=torch.float64) + 0.5) / n  # the start without chance
    x = schedule(torch.ones(1).double())[1] * torch.special.ndtri(places).view(n, 1, 1)
    times = spaced(schedule, steps)
    denoise = denoise or DATA.denoiser(schedule)
    out = from_scheduler(scheduler)(denoise, x, schedule, times, generator, callback)
    return out.mean().item(), out.std().item()


@pytest.mark.parametrize("name", EXPORTED)
def test_every_scheduler_is_right_or_refused(name: str) -> None:
    if name in SERVED:
        seen: list[tuple[int, float]] = []
        steps = 20 if name == "LMSDiscrete" else 50  # its coefficients are slow integrals
        mean, std = law(built(name), steps, callback=lambda step, t, x, x0: seen.append((step, t)))
        assert mean == pytest.approx(0.3, abs=0.04)
        assert std == pytest.approx(0.5, abs=0.08)
        assert [step for step, _ in seen] == list(range(steps)), "once after every step"
        times = [1.01] + [t for _, t in seen]
        assert all(later < earlier for earlier, later in pairwise(times))
        assert times[-1] == 0
    elif name in CONSISTENCY:
        schedule = Linear()

        def end_of_flow(x: Tensor, t: Tensor) -> Tensor:
            return DATA.flow(x, schedule, t[0].item(), 0.0)

        for steps in (1, 4):
            mean, std = law(built(name), steps, schedule=schedule, denoise=end_of_flow)
            assert (mean, std) == (pytest.approx(0.3, abs=0.06), pytest.approx(0.5, abs=0.06))
    else:
        with pytest.raises((TypeError, ValueError), match=rf"{name}Scheduler") as error:
            law(built(name), 10)
        assert "\n" not in str(error.value)


VARIED: dict[str, list[Any]] = {
    "beta_schedule": ["scaled_linear", "squaredcos_cap_v2", "sigmoid", "laplace", "exp"],
    "prediction_type": ["epsilon", "sample", "v_prediction", "flow_prediction"],
    "timestep_spacing": ["linspace", "leading", "trailing"],
    "rescale_betas_zero_snr": [True],
    "set_alpha_to_one": [False],
    "steps_offset": [1],
    "variance_type": ["fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log", "learned_range"],
    "use_karras_sigmas": [True],
    "use_exponential_sigmas": [True],
    "use_beta_sigmas": [True],
    "use_flow_sigmas": [True],
    "use_lu_lambdas": [True],
    "algorithm_type": ["dpmsolver++", "sde-dpmsolver++", "sde-dpmsolver", "noise_prediction"],
    "solver_type": ["midpoint", "heun", "bh1"],
    "solver_order": [1, 2, 3],
    "final_sigmas_type": ["sigma_min"],
    "lower_order_final": [False],
    "predict_x0": [False],
    "skip_prk_steps": [True],
    "invert_sigmas": [True],
    "use_dynamic_shifting": [True],
    "num_train_timesteps": [50],
    "shift": [3.0],
}


@pytest.mark.parametrize("name", sorted(SERVED - {"DDIMParallel", "DDPMParallel"}))
def test_every_option_is_right_or_refused(name: str) -> None:
    """In few steps many solvers give too narrow a law; none is to be far from it without a word."""
    steps = 6 if name == "LMSDiscrete" else 16
    parameters = inspect.signature(getattr(diffusers, f"{name}Scheduler").__init__).parameters
    for option, values in VARIED.items():
        for value in values if option in parameters else ():
            try:
                scheduler = built(name, **{option: value})
            except (NotImplementedError, ValueError):  # diffusers' own
                continue
            case = f"{name}Scheduler({option}={value!r})"
            refusal, mean, std = "", 0.3, 0.5
            try:
                mean, std = law(scheduler, steps, n=200)
            except ValueError as error:
                refusal = str(error)
            if refusal and option != "solver_order":  # one of these is the default
                assert f"{name}Scheduler" in refusal, case
                assert f"{option}={value!r}" in refusal, f"{case}: {refusal}"
            assert mean == pytest.approx(0.3, abs=0.15), case
            assert std < 0.75, f"{case}: {std}"


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("DDIM", {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}, "zero terminal SNR"),
        ("DDIMInverse", {}, r"noise levels sigma / alpha must fall to 0, got 0\.01, then"),
        ("DPMSolverMultistepInverse", {}, "noise levels sigma / alpha must fall"),
        ("FlowMatchEulerDiscrete", {"invert_sigmas": True}, r"invert_sigmas=True\) .*must fall"),
        ("MiniMaxH3", {}, r"tried on data with mean 0\.5 and standard deviation 0\.0, x must have"),
        ("CMStochasticIterative", {}, "scales must be finite and not negative, got -79 and 80"),
        ("Helios", {}, "in 6 steps: KeyError: None"),
        ("DDPM", {"num_train_timesteps": 50}, "first noise level .* at least 3, as it starts from noise"),
        ("DDIM", {"steps_offset": 1000}, r"steps_offset=1000.*IndexError: index 1\d{3} is out of bounds"),
        ("DDPM", {"variance_type": "learned"}, "variance_type must not be learned"),
        ("SASolver", {"use_beta_sigmas": True}, r"standard deviation 0\.3, x must have"),
    ],
)
def test_what_is_wrong_is_said_before_the_network_runs(name: str, options: Any, message: str) -> None:
    def never(x: Tensor, t: Tensor) -> Tensor:
        raise AssertionError("evaluated")

    steps = 20 if name == "SASolver" else 6
    with pytest.raises(ValueError, match=message) as error:
        law(built(name, **options), steps, denoise=never)
    assert f"{name}Scheduler" in str(error.value)


def test_trying_a_scheduler_leaves_the_global_source_of_noise_alone() -> None:
    schedule, x = Cosine(), torch.zeros(2, 1, 3)
    before = torch.get_rng_state()
    run = from_scheduler(diffusers.EulerDiscreteScheduler())
    run(DATA.denoiser(schedule), x, schedule, spaced(schedule, 3))
    assert torch.equal(torch.get_rng_state(), before)
    own = torch.Generator().manual_seed(1)
    run = from_scheduler(diffusers.EulerAncestralDiscreteScheduler(), generator=own)
    run(DATA.denoiser(schedule), x, schedule, spaced(schedule, 3))
    again = torch.Generator().manual_seed(1)
    for _ in range(3):
        torch.randn(x.shape, generator=again)
    assert torch.equal(own.get_state(), again.get_state()), "one draw for each step"


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("steps", [4, 5, 11])
def test_pndm_reports_steps_not_evaluations(skip: bool, steps: int) -> None:
    evaluations: list[float] = []
    seen: list[float] = []
    schedule = Linear()

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        evaluations.append(t[0].item())
        return DATA.denoiser(schedule)(x, t)

    law(
        diffusers.PNDMScheduler(skip_prk_steps=skip),
        steps,
        schedule=schedule,
        denoise=denoise,
        callback=lambda step, t, x, x0: seen.append(t),
    )
    assert len(evaluations) == (steps + 1 if skip else steps + 9)
    assert len(seen) == steps
    assert math.isclose(seen[-1], 0.0)
