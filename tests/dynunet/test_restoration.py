"""Restoration against the closed forms of Gaussian data, and what must hold of any data."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from dynunet import Diffusion, UNet
from dynunet.diffusion import Cosine, Linear, ddpm, dpmpp_2m, inpainting, spaced
from dynunet.diffusion.restoration import time_of
from dynunet.diffusion.samplers import SAMPLERS
from dynunet.diffusion.schedules import SCHEDULES

MEAN = torch.tensor([0.3, -0.2], dtype=torch.float64)
COVARIANCE = torch.tensor([[0.5, 0.36], [0.36, 0.4]], dtype=torch.float64)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def correlated(schedule: Any) -> Any:
    """The exact E[x_0 | x] of a Gaussian vector in the last axis, which has two entries."""

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = (s[0] for s in schedule(t[:1].double()))
        total = alpha**2 * COVARIANCE + sigma**2 * torch.eye(2, dtype=torch.float64)
        gain = alpha * COVARIANCE @ torch.linalg.inv(total)
        return MEAN + (x - alpha * MEAN) @ gain.T

    return denoise


def independent(schedule: Any, mean: float = 0.7, std: float = 0.4) -> Any:
    def denoise(x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = (s.view(-1, *(1,) * (x.ndim - 1)) for s in schedule(t.double()))
        return mean + alpha * std**2 / (alpha**2 * std**2 + sigma**2) * (x - alpha * mean)

    return denoise


class Units:
    """A source of noise that gives each sample one unit in one entry of one draw, and the first none."""

    def __init__(self, draws: int) -> None:
        self.draws, self.drawn = draws, 0
        self.samples = 1 + 2 * draws

    def __call__(self, shape: torch.Size) -> Tensor:
        noise = torch.zeros(shape, dtype=torch.float64)
        for entry in range(2):
            noise[1 + 2 * self.drawn + entry, 0, entry] = 1
        self.drawn += 1
        return noise


def law_of_inpainting(steps: int, resamplings: int, y: float) -> tuple[float, float]:
    """Exact mean and variance of the second entry, given the first: inpainting is affine in its noise."""
    schedule = Cosine()
    units = Units(1 + (steps - 1) * resamplings + steps * (resamplings - 1))  # none in the last step
    known = torch.tensor([True, False])
    sampler = inpainting(ddpm, torch.full((1, 1, 2), y, dtype=torch.float64), known, resamplings)
    start = schedule(torch.ones(1).double())[1] * units(torch.Size((units.samples, 1, 2)))
    out = sampler(correlated(schedule), start, schedule, spaced(schedule, steps), units)
    assert units.drawn == units.draws, "all of the noise has been drawn"
    assert out[:, 0, 0].eq(y).all()
    return out[0, 0, 1].item(), (out[1:, 0, 1] - out[0, 0, 1]).square().sum().item()


def test_inpainting_approaches_the_conditional_law() -> None:
    y = 1.4
    gain = COVARIANCE[1, 0] / COVARIANCE[0, 0]
    mean = (MEAN[1] + gain * (y - MEAN[0])).item()
    variance = (COVARIANCE[1, 1] - gain * COVARIANCE[0, 1]).item()
    means = [abs(law_of_inpainting(30, resamplings, y)[0] - mean) for resamplings in (1, 2, 4, 12)]
    assert means == sorted(means, reverse=True), means
    assert means[-1] < 0.12 * means[0], "the more often, the better the rest takes notice of what is known"
    variances = [abs(law_of_inpainting(steps, 6, y)[1] - variance) for steps in (10, 30, 90)]
    assert variances == sorted(variances, reverse=True), variances
    assert variances[-1] < 0.025, "in ever smaller steps"


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("schedule", ["cosine", "flow", "edm"])
def test_known_entries_are_kept_exactly(sampler: str, schedule: str) -> None:
    diffusion = Diffusion(correlated(SCHEDULES[schedule]), schedule, "sample")
    y = randn(3, 1, 7, 2)
    known = randn(3, 1, 7, 2, seed=1) > 0
    for resamplings, jump in [(1, 1), (2, 1), (2, 3)]:
        out = diffusion.inpaint(
            torch.where(known, y, torch.nan),
            known,
            steps=4,
            sampler=sampler,
            resamplings=resamplings,
            jump=jump,
            progress=False,
        )
        assert torch.equal(out[known], y[known])
        assert out.isfinite().all()


def test_independent_unknown_entries_are_sampled_as_if_alone() -> None:
    schedule = Linear()
    diffusion = Diffusion(independent(schedule), schedule, "sample")
    options: Any = {"sampler": "dpmpp_2m", "progress": False}

    def noise(shape: torch.Size) -> Tensor:
        return randn(*shape, seed=5)

    known = torch.tensor([True, False, False, True])
    y = randn(2, 1, 4)
    out = diffusion.inpaint(y, known.expand(2, 1, 4), resamplings=1, generator=noise, **options)
    alone = diffusion.sample((2, 1, 4), generator=noise, dtype=torch.float64, **options)
    torch.testing.assert_close(out[..., ~known], alone[..., ~known], rtol=1e-12, atol=1e-12)


def test_a_known_entry_follows_the_forward_process() -> None:
    """On the way it is alpha y + sigma noise, the noise being that of the start."""
    schedule = Linear()
    seen: list[tuple[float, Tensor]] = []
    noise, y = randn(1, 1, 2, seed=3), randn(1, 1, 2, seed=4)
    start = schedule(torch.ones(1).double())[1] * noise
    inpainting(dpmpp_2m, y, torch.ones(1, 1, 2).bool())(
        lambda x, t: torch.full_like(x, torch.nan),
        start,
        schedule,
        spaced(schedule, 6),
        callback=lambda step, t, x, x0: seen.append((t, x)),
    )
    assert len(seen) == 6
    for t, x in seen:
        alpha, sigma = schedule(torch.tensor([t], dtype=torch.float64))
        torch.testing.assert_close(x, alpha * y + sigma * noise, rtol=1e-10, atol=1e-10)


def test_inpainting_reports_every_step_once() -> None:
    diffusion = Diffusion(lambda x, t: 0 * x, prediction="sample")
    seen: list[tuple[int, float]] = []
    diffusion.inpaint(
        torch.zeros(1, 1, 4),
        torch.ones(1, 1, 4).bool(),
        steps=4,
        resamplings=3,
        jump=3,
        progress=False,
        callback=lambda step, t, x, x0: seen.append((step, t)),
    )
    assert seen == [(0, 0.75), (1, 0.5), (2, 0.25), (3, 0.0)]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_times_of_noise_levels(schedule: str) -> None:
    for sigma in (0.003, 0.1, 1.0, 10.0):
        alpha, noise = SCHEDULES[schedule](
            torch.tensor([time_of(SCHEDULES[schedule], sigma)], dtype=torch.float64)
        )
        assert (noise / alpha).item() == pytest.approx(sigma, rel=1e-9)

    def plain(t: Tensor) -> tuple[Tensor, Tensor]:
        return SCHEDULES[schedule](t)

    assert time_of(plain, 0.5) == pytest.approx(time_of(SCHEDULES[schedule], 0.5), rel=1e-9)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_one_step_of_denoising_is_the_posterior_mean(schedule: str) -> None:
    diffusion = Diffusion(independent(SCHEDULES[schedule]), schedule, "sample")
    y = randn(4, 1, 5)
    out = diffusion.denoise(y, 0.25, steps=1, progress=False)
    expected = 0.7 + 0.4**2 / (0.4**2 + 0.25**2) * (y - 0.7)
    torch.testing.assert_close(out, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_denoising_in_many_steps_is_the_exact_flow(schedule: str) -> None:
    """The probability flow maps the law of y to that of the data: z-scores stay."""
    diffusion = Diffusion(independent(SCHEDULES[schedule]), schedule, "sample")
    y = randn(4, 1, 5)
    out = diffusion.denoise(y, 0.25, steps=60, sampler="heun", spacing="karras", progress=False)
    expected = 0.7 + (y - 0.7) * 0.4 / math.hypot(0.4, 0.25)
    torch.testing.assert_close(out, expected, rtol=0.01, atol=0.01)


def test_sdedit_keeps_more_the_weaker_it_is() -> None:
    diffusion = Diffusion(independent(Cosine()), Cosine(), "sample")
    x0 = 0.7 + 0.4 * randn(50, 1, 6)

    def distance(strength: float) -> float:
        out = diffusion.sdedit(x0, strength, generator=torch.Generator().manual_seed(1), progress=False)
        return (out - x0).square().mean().sqrt().item()

    distances = [distance(strength) for strength in (0.01, 0.3, 0.6, 1.0)]
    assert distances == sorted(distances)
    assert distances[0] < 0.03
    assert distances[-1] == pytest.approx(0.4 * math.sqrt(2), rel=0.15), "independent draws of the data"


def test_sdedit_at_full_strength_is_sampling() -> None:
    diffusion = Diffusion(independent(Cosine()), Cosine(), "sample")
    options: Any = {"steps": 5, "progress": False}
    edited = diffusion.sdedit(randn(2, 1, 3), 1.0, generator=torch.Generator().manual_seed(1), **options)
    drawn = diffusion.sample(
        (2, 1, 3), generator=torch.Generator().manual_seed(1), dtype=torch.float64, **options
    )
    torch.testing.assert_close(edited, drawn, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("method", ["inpaint", "sdedit"])
def test_one_generator_per_sample_makes_restoration_independent_of_the_batch(method: str) -> None:
    diffusion = Diffusion(independent(Cosine()), Cosine(), "sample")
    x = randn(3, 1, 4)
    arguments: Any = {"known": x > 0} if method == "inpaint" else {"sampler": "ddpm"}

    def restore(rows: list[int]) -> Tensor:
        given = {k: v[rows] if isinstance(v, Tensor) else v for k, v in arguments.items()}
        generators = [torch.Generator().manual_seed(r) for r in rows]
        return getattr(diffusion, method)(x[rows], steps=4, generator=generators, progress=False, **given)

    split = torch.cat([restore([0, 1]), restore([2])])
    torch.testing.assert_close(split, restore([0, 1, 2]), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dims", [1, 2, 3, 4])
def test_conditional_restoration_trains_and_samples(dims: int) -> None:
    """A network that sees the noisy or low-resolution input as its condition."""
    unet = UNet(dims, 1, channels=(4,), num_groups=2, time_embedding=True, cond_channels=1)
    diffusion = Diffusion(unet)
    clean, noisy = torch.randn(2, 1, *(4,) * dims), torch.randn(2, 1, *(2,) * dims)
    diffusion.loss(clean, cond=noisy).backward()
    out = diffusion.sample(tuple(clean.shape), 2, cond=noisy, progress=False)
    assert out.shape == clean.shape
    assert out.isfinite().all()


def test_bad_arguments_are_refused() -> None:
    diffusion = Diffusion(UNet(1, 1, channels=(4,), time_embedding=True), "linear")
    x, known = torch.zeros(2, 1, 4), torch.ones(2, 1, 4).bool()
    bad = x.clone()
    bad[0, 0, 0] = torch.nan
    for error, pattern, call in [
        (
            ValueError,
            r"sigma must be a noise level .* up to 152\.\d+, got 1000",
            lambda: diffusion.denoise(x, 1000),
        ),
        (ValueError, "sigma must be a noise level .* got 0", lambda: diffusion.denoise(x, 0.0)),
        (ValueError, "sigma must be a noise level .* got nan", lambda: diffusion.denoise(x, math.nan)),
        (TypeError, "sigma must be a number, got '1'", lambda: diffusion.denoise(x, "1")),  # type: ignore[arg-type]
        (ValueError, "y must be finite, got 1 of 8 entries", lambda: diffusion.denoise(bad, 0.1)),
        (
            ValueError,
            "the shape of y must fit the model",
            lambda: diffusion.denoise(torch.zeros(1, 2, 4), 0.1),
        ),
        (TypeError, "y must be a floating-point tensor", lambda: diffusion.denoise(x.long(), 0.1)),
        (ValueError, "steps must be at least 1, got 0", lambda: diffusion.denoise(x, 0.1, 0)),
        (ValueError, "y, where it is known, must be finite, got 1", lambda: diffusion.inpaint(bad, known)),
        (TypeError, "known must be a bool tensor, .*float32", lambda: diffusion.inpaint(x, x)),
        (ValueError, "known must have the axes of y", lambda: diffusion.inpaint(x, known[..., :3])),
        (ValueError, "known must have the axes of y", lambda: diffusion.inpaint(x, known[0])),
        (ValueError, "resamplings must be at least 1", lambda: diffusion.inpaint(x, known, resamplings=0)),
        (ValueError, "jump must be at least 1", lambda: diffusion.inpaint(x, known, jump=0)),
        (ValueError, "sampler must be one of 'ddpm'", lambda: diffusion.inpaint(x, known, sampler="ddpmm")),
        (ValueError, "eta must be left out with .*'ddpm'", lambda: diffusion.inpaint(x, known, eta=0.5)),
        (ValueError, r"strength must be in \[0, 1\], got 1\.5", lambda: diffusion.sdedit(x, 1.5)),
        (ValueError, "strength must be above 0", lambda: diffusion.sdedit(x, 0.0)),
        (ValueError, "x0 must be finite", lambda: diffusion.sdedit(bad)),
    ]:
        with pytest.raises(error, match=pattern):
            call()
