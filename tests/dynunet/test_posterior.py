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
