"""Posterior sampling against closed forms, and what must hold of any data."""

from typing import Any

import pytest
import torch
from torch import Tensor

from dynunet import Diffusion
from dynunet.diffusion import MMPS, PiGDM, spaced
from dynunet.diffusion.samplers import SAMPLERS
from dynunet.diffusion.schedules import SCHEDULES
from dynunet.operators import Blur, Compose, Downsample, Fourier, Mask, Operator, Project
from dynunet.testing import CorrelatedGaussian, posterior_law

EXACT: dict[str, Any] = {"mmps": MMPS(50, 1e-12), "pigdm": PiGDM(50, 1e-12)}


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def correlated(*shape: int, seed: int = 0) -> CorrelatedGaussian:
    """Gaussian data with a dense covariance and a standard deviation of about 0.5."""
    n = torch.Size(shape).numel()
    factor = randn(n, n + 2, seed=seed) / (2 * n**0.5)
    return CorrelatedGaussian(0.3 * randn(*shape, seed=seed + 1), factor @ factor.mT)


def modelled(data: CorrelatedGaussian, schedule: str) -> Diffusion:
    return Diffusion(data.denoiser(SCHEDULES[schedule]), schedule, "sample")


# Data and a linear operator, for one to four axes.
CASES: dict[str, tuple[tuple[int, ...], Operator]] = {
    "mask": ((2, 5), Mask(torch.tensor([True, False, False, True, True]).view(1, 1, 5))),
    "average": ((1, 4, 2), Downsample((2, 1))),
    "blur": ((1, 2, 2, 2), Blur(torch.tensor([0.2, 0.5, 0.3]).double().view(1, 3, 1), "replicate")),
    "fourier": ((1, 2, 2, 1, 2), Fourier(torch.tensor([True, False]).view(1, 1, 2, 1, 1, 1))),
    "some of a blur": (
        (1, 6),
        Compose(Blur([torch.tensor([0.2, 0.5, 0.3]).double()]), Downsample(2, "stride")),
    ),
    "mean": ((1, 2, 3), Project(0)),
}


class Units:
    """A source of noise that gives every sample a one in one entry of one draw, and the first none."""

    def __init__(self, n: int, draws: int) -> None:
        self.n, self.draws, self.drawn = n, draws, 0
        self.samples = 1 + n * draws

    def __call__(self, shape: torch.Size) -> Tensor:
        noise, first = torch.zeros(self.samples, self.n).double(), 1 + self.n * self.drawn
        noise[first : first + self.n] = torch.eye(self.n).double()
        self.drawn += 1
        return noise.view(shape)


def implemented_law(
    data: CorrelatedGaussian, schedule: str, operator: Operator, y: Tensor, **options: Any
) -> tuple[Tensor, Tensor]:
    """Mean and covariance of what the implementation gives, which is affine in its noise."""
    n, steps = data.mean.numel(), options["steps"]
    units = Units(n, steps)
    out = (
        modelled(data, schedule)
        .reconstruct(
            y.expand(units.samples, *y.shape),
            operator,
            shape=(units.samples, *data.mean.shape),
            generator=units,
            progress=False,
            **options,
        )[0]
        .flatten(1)
    )
    coefficients = out[1:] - out[0]
    return out[0].view_as(data.mean), coefficients.mT @ coefficients


@pytest.mark.parametrize("method", ["mmps", "pigdm"])
@pytest.mark.parametrize("noise_std", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("case", CASES)
def test_the_implementation_has_the_law_of_its_method(case: str, noise_std: float, method: str) -> None:
    shape, operator = CASES[case]
    data, names = correlated(*shape), list(CASES)
    y = operator(data.mean.unsqueeze(0) + randn(1, *shape, seed=5))[0]
    i = names.index(case)
    schedule = [*SCHEDULES][i]
    for sampler in ("dpmpp_2m", ["ddpm", "euler", "heun", "dpmpp_2m_sde", "ddim"][i % 5]):
        mean, covariance = posterior_law(
            SAMPLERS[sampler],
            SCHEDULES[schedule],
            spaced(SCHEDULES[schedule], 5),
            data,
            operator,
            y,
            noise_std,
            method,
        )
        got = implemented_law(
            data, schedule, operator, y, steps=5, method=EXACT[method], noise_std=noise_std, sampler=sampler
        )
        torch.testing.assert_close(got[0], mean, rtol=0, atol=1e-8)
        torch.testing.assert_close(got[1], covariance, rtol=0, atol=1e-8)


def distance(law: tuple[Tensor, Tensor], data: CorrelatedGaussian) -> float:
    return ((law[0] - data.mean).norm() + (law[1] - data.covariance).norm()).item()


@pytest.mark.parametrize("case", ["mask", "average", "some of a blur"])
@pytest.mark.parametrize(("sampler", "order"), [("euler", 1), ("ddpm", 1), ("heun", 2)])
def test_mmps_approaches_the_posterior_at_the_order_of_the_sampler(
    case: str, sampler: str, order: int
) -> None:
    shape, operator = CASES[case]
    data = correlated(*shape)
    y = operator(data.mean.unsqueeze(0) + randn(1, *shape, seed=5))[0]
    for schedule, noise_std in [("flow", 0.0), ("cosine", 0.1), ("flow", 1.0)]:
        posterior = data.posterior(operator, y, noise_std)
        errors = []
        for steps in (60, 180):
            times = spaced(SCHEDULES[schedule], steps)
            law = posterior_law(SAMPLERS[sampler], SCHEDULES[schedule], times, data, operator, y, noise_std)
            errors.append(distance(law, posterior))
        assert errors[1] < 0.15 * data.covariance.norm(), errors
        assert errors[0] / errors[1] > 3 ** (0.8 * order), (schedule, noise_std, errors)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_mmps_is_the_sampler_with_the_exact_posterior_as_its_data(sampler: str) -> None:
    """For Gaussian data p(x_0 | x_t) is what the method takes it for, so nothing is approximate."""
    for (case, (shape, operator)), noise_std in zip(CASES.items(), [0.0, 0.05, 0.5] * 2, strict=True):
        data = correlated(*shape)
        y = operator(data.mean.unsqueeze(0) + randn(1, *shape, seed=5))[0]
        posterior = data.posterior(operator, y, noise_std)
        times = spaced(SCHEDULES["linear"], 6)
        everything = Mask(torch.zeros(1, *(1,) * len(shape)).bool())  # nothing is measured of it
        given = SAMPLERS[sampler], SCHEDULES["linear"], times
        mean, covariance = posterior_law(*given, data, operator, y, noise_std)
        nothing = torch.zeros(shape).double()
        wanted = posterior_law(*given, posterior, everything, nothing, 1.0)
        torch.testing.assert_close(mean, wanted[0], rtol=0, atol=1e-7, msg=case)
        torch.testing.assert_close(covariance, wanted[1], rtol=0, atol=1e-7, msg=case)
