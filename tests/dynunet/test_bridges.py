"""Bridges against the equations of I2SB and of bridges for speech, in NumPy, and their laws on pairs."""

from collections.abc import Callable
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dynunet import Diffusion, UNet
from dynunet.diffusion import Bridge, Consistency, ExponentialBridge, SymmetricBridge, shifted
from dynunet.diffusion.bridges import BRIDGES
from dynunet.diffusion.noise import randn
from dynunet.runs import restoration_sampler

Array = np.ndarray
ALL: dict[str, Bridge] = {**BRIDGES, "brownian": SymmetricBridge(0.5, 0.5), "steep": ExponentialBridge(1, 9)}
NODES, WEIGHTS = np.polynomial.legendre.leggauss(24)
QUIET: dict[str, Any] = {"progress": False, "dtype": torch.float64}
each_bridge = pytest.mark.parametrize("name", ALL)
ranks = st.integers(1, 4)


def beta(name: str, t: Array) -> Array:
    """The squared diffusion coefficients as printed, or as in I2SB's code."""
    if name == "bridge":
        nearer = np.minimum(t, 1 - t)
        return (0.1**0.5 + nearer * (0.3**0.5 - 0.1**0.5)) ** 2
    if name == "brownian":
        return np.full_like(t, 0.5)
    c, k = (0.4, 2.6) if name == "bridge_ve" else (1, 9)
    return c * k ** (2 * t)


def gathered(name: str, start: float, stop: float) -> float:
    """The integral of beta, by Gauss-Legendre on both halves of the path."""
    cuts: list[float] = sorted({start, stop, *([0.5] if start < 0.5 < stop else [])})
    return sum(
        float(WEIGHTS @ beta(name, (b - a) / 2 * NODES + (a + b) / 2)) * (b - a) / 2
        for a, b in pairwise(cuts)
    )


def noise_like(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def drawing(kept: list[Array], seed: int) -> Callable[[torch.Size], Tensor]:
    """A source of noise that keeps what it has drawn."""

    def draw(shape: torch.Size) -> Tensor:
        kept.append(noise_like(*shape, seed=seed + len(kept)).numpy())
        return torch.from_numpy(kept[-1])

    return draw


def bent(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
    """A network of any number of axes."""
    time = t.view(-1, *(1,) * (x.ndim - 1))
    return torch.tanh(2 * x - cond) * (1 + time) + 0.3 * cond.roll(1, -1)


# Equations of the papers ---------------------------------------------------------------------


@each_bridge
@given(t=st.floats(0, 1))
def test_marginals_are_the_product_of_two_gaussians(name: str, t: float) -> None:
    """Liu et al. 2023, eq. 11: the law of x_t given both ends, from the noise and the data in x."""
    bridge, (before, after) = ALL[name], (gathered(name, 0, t), gathered(name, t, 1))
    alpha, sigma = bridge(torch.tensor([t], dtype=torch.float64))
    zero, one = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    of_data, of_end = bridge.between(alpha, alpha, sigma, zero), bridge.between(zero, alpha, sigma, one)
    of_noise = bridge.between(sigma, alpha, sigma, zero)
    v = before + after
    assert bridge.variance == pytest.approx(v, rel=1e-12)
    assert of_data.item() == pytest.approx(after / v, abs=1e-12)
    assert of_end.item() == pytest.approx(before / v, abs=1e-12)
    assert of_noise.item() == pytest.approx((before * after / v) ** 0.5, abs=1e-7)  # a root, near its ends


def test_the_table_of_i2sbs_code() -> None:
    """make_beta_schedule, mirrored, and its std_fwd and std_bwd (NVlabs/I2SB, runner.py)."""
    betas = np.linspace(1e-4**0.5, (0.3 / 1000) ** 0.5, 1000) ** 2
    betas = np.concatenate([betas[:500], betas[:500][::-1]])
    forward, backward = np.cumsum(betas), np.cumsum(betas[::-1])[::-1]
    t = torch.arange(1, 1001, dtype=torch.float64) / 1000
    np.testing.assert_allclose(SymmetricBridge().gathered(t).numpy(), forward, rtol=2e-3)
    np.testing.assert_allclose(SymmetricBridge().remaining(t - 0.001).numpy(), backward, rtol=2e-3)


@given(st.sampled_from([*ALL]), ranks, st.integers(1, 6), st.integers(0, 99))
def test_ancestral_steps_are_those_of_i2sb(name: str, rank: int, steps: int, seed: int) -> None:
    """Liu et al. 2023, algorithm 2 with eq. 4: from y, x' is drawn from its posterior given x and x_0."""
    y, drawn = noise_like(2, 1, *(3,) * rank, seed=seed), []
    diffusion = Diffusion(bent, ALL[name], "sample")
    found = diffusion.sample(y.shape, steps, sampler="ddpm", cond=y, generator=drawing(drawn, seed), **QUIET)
    x, times = y.numpy(), np.linspace(1, 0, steps + 1)
    for i, (now, then) in enumerate(pairwise(times.tolist())):
        x0 = bent(torch.from_numpy(x), torch.full((2,), now, dtype=torch.float64), y).numpy()
        here, step = gathered(name, 0, then), gathered(name, then, now)
        x = step / (step + here) * x0 + here / (step + here) * x
        if then > 0:
            x = x + (step * here / (step + here)) ** 0.5 * drawn[i + 1]  # the first is of x at t = 1
    np.testing.assert_allclose(found.numpy(), x, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("without_noise", [True, False])
@given(st.sampled_from([*ALL]), ranks, st.integers(1, 6), st.integers(0, 99))
def test_steps_without_noise_are_those_of_the_ode(
    without_noise: bool, name: str, rank: int, steps: int, seed: int
) -> None:
    """Jukic et al. 2024, the first-order ODE sampler, after a step that has noise or not."""
    y, drawn = noise_like(2, 1, *(3,) * rank, seed=seed), []
    generator = torch.zeros if without_noise else drawing(drawn, seed)
    diffusion = Diffusion(bent, ALL[name], "sample")
    found = diffusion.sample(y.shape, steps, sampler="ddim", cond=y, generator=generator, **QUIET)
    x, end = y.numpy(), y.numpy()
    for now, then in pairwise(np.linspace(1, 0, steps + 1).tolist()):
        x0 = bent(torch.from_numpy(x), torch.full((2,), now, dtype=torch.float64), y).numpy()
        s, r = gathered(name, 0, then) ** 0.5, gathered(name, then, 1) ** 0.5
        v = s**2 + r**2
        if now == 1:
            first = 0 if without_noise else s * r / v**0.5 * drawn[0]
            x = (r**2 * x0 + s**2 * end) / v + first
        else:
            s_now, r_now = gathered(name, 0, now) ** 0.5, gathered(name, now, 1) ** 0.5
            of_x, of_data = s * r / (s_now * r_now), r**2 - r_now * s * r / s_now
            x = of_x * x + (of_data * x0 + (s**2 - s_now * s * r / r_now) * end) / v
    np.testing.assert_allclose(found.numpy(), x, rtol=1e-7, atol=1e-7)


@each_bridge
def test_training_shows_the_network_points_of_the_bridge(name: str) -> None:
    seen: list[Tensor] = []

    def network(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        seen.extend([x, t])
        return torch.zeros_like(x)

    x0, y = noise_like(3, 2, 4, 5, seed=1), noise_like(3, 2, 4, 5, seed=2)
    quantiles = torch.tensor([0.1, 0.6, 1 - 2.0**-53], dtype=torch.float64)
    given: dict[str, Any] = {"quantiles": quantiles, "generator": torch.Generator().manual_seed(3)}
    loss = Diffusion(network, ALL[name], "sample").loss(x0, cond=y, **given)
    torch.testing.assert_close(loss, x0.square().mean())
    noise = randn(x0.shape, torch.Generator().manual_seed(3), None, torch.float64)
    for i, t in enumerate(seen[1].tolist()):
        before, after = gathered(name, 0, t), gathered(name, t, 1)
        mean = (after * x0[i] + before * y[i]) / (before + after)
        expected = mean + (before * after / (before + after)) ** 0.5 * noise[i]
        torch.testing.assert_close(seen[0][i], expected, rtol=1e-6, atol=1e-6)
    assert torch.equal(seen[0][2], y[2]), "at t = 1 it is the condition to the bit, without noise"


# Laws on Gaussian pairs ---------------------------------------------------------------------


class Pair:
    """Data x_0 given y, jointly Gaussian over all entries: N(mean, cov)."""

    def __init__(self, *spatial: int, seed: int = 0) -> None:
        n = int(np.prod(spatial))
        rng = np.random.default_rng(seed)
        root = rng.normal(size=(2 * n, 2 * n)) / (2 * n) ** 0.5
        joint = root @ root.T + 0.05 * np.eye(2 * n)
        means, self.y = rng.normal(size=2 * n), rng.normal(size=n)
        across = joint[:n, n:] @ np.linalg.inv(joint[n:, n:])
        self.mean = means[:n] + across @ (self.y - means[n:])
        self.cov = joint[:n, :n] - across @ joint[n:, :n]
        self.shape, self.n = (1, *spatial), n

    def of_data(self, name: str, t: float) -> tuple[Array, Array]:
        """G and m of E[x_0 | x_t, y] = m + G (x_t - E[x_t | y]), without 0 / 0 at t = 1."""
        v = gathered(name, 0, 1)
        u = gathered(name, 0, t) / v
        return self.cov @ np.linalg.inv((1 - u) * self.cov + v * u * np.eye(self.n)), self.mean

    def network(self, name: str) -> Callable[..., Tensor]:
        y, v = torch.from_numpy(self.y), gathered(name, 0, 1)

        @cache
        def of_time(t: float) -> tuple[Tensor, Tensor]:
            gain, mean = self.of_data(name, t)
            u = gathered(name, 0, t) / v
            return torch.from_numpy(gain), torch.from_numpy(mean - gain @ (u * self.y + (1 - u) * mean))

        def estimate(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
            torch.testing.assert_close(cond, y.view(1, *self.shape).expand(cond.shape))
            gains, offsets = map(torch.stack, zip(*map(of_time, t.tolist()), strict=True))
            return (torch.einsum("nij,nj->ni", gains, x.flatten(1)) + offsets).view(x.shape)

        return estimate

    def law(self, name: str, steps: int, stochastic: bool) -> tuple[Array, Array]:
        """Mean and covariance after these steps, by the moments of x_t given y from the papers' equations."""
        v, eye = gathered(name, 0, 1), np.eye(self.n)
        mean, root = self.y, np.zeros((self.n, self.n))  # of x_t, and a square root of its covariance
        cov = np.zeros_like(eye)
        for now, then in pairwise(np.linspace(1, 0, steps + 1).tolist()):
            gain, m = self.of_data(name, now)
            u, w = gathered(name, 0, now) / v, gathered(name, 0, then) / v
            x0 = m + gain @ (mean - u * self.y - (1 - u) * m)
            if stochastic:
                here, step = w * v, (u - w) * v
                keep, fresh = here / (step + here), step * here / (step + here)
                mean, move = (1 - keep) * x0 + keep * mean, (1 - keep) * gain + keep * eye
                cov = move @ cov @ move.T + fresh * eye
            elif now == 1:
                mean, root = (1 - w) * x0 + w * self.y, (v * w * (1 - w)) ** 0.5 * eye
            else:
                ratio = (w * (1 - w) / (u * (1 - u))) ** 0.5
                mean = (1 - w) * x0 + w * self.y + ratio * (mean - (1 - u) * x0 - u * self.y)
                root = ((1 - w) * gain + ratio * (eye - (1 - u) * gain)) @ root
        return mean, cov if stochastic else root @ root.T

    def sampled(self, diffusion: Diffusion, steps: int, sampler: str) -> tuple[Array, Array]:
        """Mean and covariance of samples: the result is affine in all noise drawn, see gaussian_law."""
        draws = steps if sampler == "ddpm" else 1
        size, count = (1 + draws * self.n, *self.shape), iter(range(draws))

        def unit(shape: torch.Size) -> Tensor:
            noise = torch.zeros(shape, dtype=torch.float64)
            first = 1 + next(count) * self.n
            noise[first : first + self.n] = torch.eye(self.n, dtype=torch.float64).view(-1, *self.shape)
            return noise

        y = torch.from_numpy(self.y).view(1, *self.shape).expand(size)
        out = (
            diffusion.sample(size, steps, sampler=sampler, cond=y, generator=unit, **QUIET).flatten(1).numpy()
        )
        return out[0], (out[1:] - out[0]).T @ (out[1:] - out[0])


PAIRS = [Pair(4), Pair(2, 2), Pair(1, 2, 2), Pair(2, 1, 1, 2)]


@each_bridge
@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: str(pair.shape))
@pytest.mark.parametrize("prediction", ["sample", "v_prediction", "edm"])
def test_exact_law_on_gaussian_pairs(name: str, pair: Pair, prediction: str) -> None:
    bridge = ALL[name]
    network = pair.network(name)
    if prediction != "sample":
        network = answering(network, Diffusion(network, bridge, prediction))
    diffusion = Diffusion(network, bridge, prediction)
    for sampler, steps in [("ddpm", 1), ("ddpm", 3), ("ddim", 2), ("ddim", 4)]:
        mean, cov = pair.sampled(diffusion, steps, sampler)
        expected_mean, expected_cov = pair.law(name, steps, sampler == "ddpm")
        np.testing.assert_allclose(mean, expected_mean, rtol=0, atol=1e-8)
        np.testing.assert_allclose(cov, expected_cov, rtol=0, atol=1e-8)
        if steps == 1:
            np.testing.assert_allclose(mean, pair.mean, atol=1e-12)
            assert not cov.any(), "one step is the mean of the data given y"


def answering(estimate: Callable[..., Tensor], diffusion: Diffusion) -> Callable[..., Tensor]:
    """The network whose output in another prediction means this estimate, from which the noise follows."""

    def network(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        x0, v = estimate(x, t, cond), diffusion.schedule.variance
        alpha, sigma = (s.view(-1, *(1,) * (x.ndim - 1)) for s in diffusion.schedule(t.double()))
        u = sigma**2 / (sigma**2 + v * alpha**2)
        width = (v * u * (1 - u)).sqrt()
        # At t = 1, where x_t has no noise, alpha is 0.
        noise = torch.where(width > 0, (x - (1 - u) * x0 - u * cond) / width.clamp(min=1e-300), 0)
        return diffusion.prediction.target(x0, noise, alpha, sigma)

    return network


@each_bridge
def test_the_law_approaches_the_posterior(name: str) -> None:
    pair = PAIRS[1]
    diffusion = Diffusion(pair.network(name), ALL[name], "sample")
    for sampler in ("ddpm", "ddim"):
        errors = []
        for steps in (16, 64, 256):
            mean, cov = pair.law(name, steps, sampler == "ddpm")
            errors.append(np.abs(cov - pair.cov).max() / np.abs(pair.cov).max())
            np.testing.assert_allclose(mean, pair.mean, atol=1e-10)
        assert errors[2] < errors[1] / 2 < errors[0] / 4, errors
        assert errors[2] < 0.05, errors
        found, _ = pair.sampled(diffusion, 16, sampler)
        np.testing.assert_allclose(found, pair.mean, atol=1e-10)


def test_other_uses_are_given_the_condition() -> None:
    """The density of data given y, and filling in what is missing beside y."""
    pair = Pair(3, seed=1)
    diffusion = Diffusion(pair.network("bridge"), "bridge", "sample")
    y, x = (torch.from_numpy(value).view(1, *pair.shape) for value in (pair.y, pair.mean + 0.3))
    value = diffusion.log_likelihood(x, cond=y, steps=30, sigma=1e-3, progress=False)
    law = torch.distributions.MultivariateNormal(torch.from_numpy(pair.mean), torch.from_numpy(pair.cov))
    torch.testing.assert_close(value, law.log_prob(x.flatten(1)), rtol=0, atol=1e-3)
    known = torch.tensor([[[True, False, False]]])
    filled = diffusion.inpaint(x, known, 3, cond=y, **QUIET)
    assert filled[known] == x[known]


# Use -----------------------------------------------------------------------------------------


def unet(dims: int, channels: int = 1, cond_channels: int = 1) -> UNet:
    torch.manual_seed(0)
    options: dict[str, Any] = {"num_groups": 2, "num_blocks": 1, "time_embedding": True}
    made = UNet(dims, channels, channels=(4, 8), cond_channels=cond_channels, **options)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return made


@given(rank=st.integers(1, 3), steps=st.integers(1, 3), seed=st.integers(0, 99))
def test_windows_change_nothing_for_a_local_network(rank: int, steps: int, seed: int) -> None:
    def local(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        return torch.tanh(x - cond) + t.view(-1, *(1,) * (x.ndim - 1))

    y = noise_like(2, 1, *(11,) * rank, seed=seed)
    diffusion, how = (
        Diffusion(local, "bridge", "sample"),
        {"steps": steps, "sampler": "ddpm", "cond": y, **QUIET},
    )
    whole, parts = (
        diffusion.sample(y.shape, generator=drawing([], seed), window=window, **how) for window in (None, 8)
    )
    torch.testing.assert_close(parts, whole, rtol=1e-9, atol=1e-9)


def test_a_bridge_starts_from_the_first_channels_at_the_size_of_the_data() -> None:
    """Coordinates, or other conditions, may follow the degraded data, which may be of low resolution."""
    network, y, seen = unet(2, 2, 4), noise_like(3, 4, 5, 6).float(), []
    network.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    diffusion = Diffusion(network, "bridge", "sample")
    diffusion.sample((3, 2, 5, 6), 1, cond=y, progress=False)
    assert torch.equal(seen[0], y[:, :2])
    diffusion.sample((3, 2, 10, 12), 1, cond=y, progress=False)
    wanted = torch.nn.functional.interpolate(y[:, :2], (10, 12), mode="bilinear")
    torch.testing.assert_close(seen[1], wanted)


def test_missing_entries_have_no_influence() -> None:
    diffusion, x0, y = (
        Diffusion(unet(1), "bridge", "sample"),
        noise_like(2, 1, 8).float(),
        noise_like(2, 1, 8),
    )
    mask = torch.arange(8) < 5
    given: dict[str, Any] = {"mask": mask.view(1, 1, 8), "quantiles": torch.tensor([0.3, 0.7])}
    losses = [
        diffusion.loss(x0.where(mask, other), cond=y, generator=torch.Generator().manual_seed(0), **given)
        for other in (torch.tensor(torch.nan), torch.tensor(9.0))
    ]
    assert losses[0] == losses[1] > 0


@pytest.mark.parametrize(
    "schedule", ["bridge", "bridge_ve", SymmetricBridge(0.2, 0.7), ExponentialBridge(0.1, 3)]
)
@pytest.mark.parametrize("shift", [1.0, 0.5])
def test_saved_and_loaded(schedule: Any, shift: float, tmp_path: Path) -> None:
    diffusion = Diffusion(unet(1), schedule, "sample", shift=shift)
    diffusion.save_pretrained(tmp_path)
    again, y = Diffusion.from_pretrained(tmp_path), noise_like(1, 1, 8).float()
    assert again.schedule == diffusion.schedule
    samples = [
        d.sample(y.shape, 2, cond=y, generator=torch.Generator().manual_seed(0), progress=False)
        for d in (diffusion.eval(), again)
    ]
    assert torch.equal(*samples)


def test_shift_is_of_the_noise() -> None:
    for bridge in ALL.values():
        weaker: Any = shifted(bridge, 0.5)
        assert weaker.variance == pytest.approx(bridge.variance / 4)
        t = torch.tensor(0.3, dtype=torch.float64)
        torch.testing.assert_close(shifted(bridge, 0.5).log_snr(t), bridge.log_snr(t) + 2 * np.log(2))


def test_tuned_to_few_steps_it_stays_a_bridge() -> None:
    teacher, y = Diffusion(unet(1), "bridge", "sample"), noise_like(2, 1, 8).float()
    student = Consistency.of(teacher, 2)
    student.loss(noise_like(2, 1, 8, seed=1).float(), cond=y).backward()
    found = student.sample(y.shape, cond=y, generator=torch.zeros, progress=False)
    x0 = teacher.predict(torch.zeros_like(y), 1.0, cond=y)
    alpha, _ = teacher.schedule(torch.tensor(0.5, dtype=torch.float64))
    torch.testing.assert_close(found, teacher.predict(alpha.float() * x0, 0.5, cond=y))


def test_restoring_is_without_noise_but_in_few_steps() -> None:
    """The sampler "consistency" is for what is not a mean, and "ddim" for what is."""
    teacher = Diffusion(unet(1), "bridge", "sample")
    assert restoration_sampler(teacher) == {"sampler": "ddim", "generator": torch.zeros}
    assert restoration_sampler(Consistency.of(teacher)) == {}
    assert restoration_sampler(Diffusion(unet(1))) == {}


def test_refused() -> None:
    diffusion, x = Diffusion(unet(1, 2, 2), "bridge", "sample"), torch.randn(3, 2, 8)
    word: Any = "a"

    def sampled(cond: Any) -> Tensor:
        return diffusion.sample(x.shape, 2, cond=cond, progress=False)

    for error, pattern, call in [
        (ValueError, "cond must be given with a bridge", lambda: diffusion.loss(x)),
        (ValueError, "cond must be given with a bridge", lambda: sampled(None)),
        (
            TypeError,
            "cond must be a floating-point tensor.*int64",
            lambda: sampled(torch.ones(3, 2, 8).long()),
        ),
        (TypeError, "cond must be a floating-point tensor.*list", lambda: sampled([1.0])),
        (ValueError, "cond must be finite, got 48 of 48", lambda: sampled(x * torch.nan)),
        (TypeError, "beta_min must be a number, got 'a'", lambda: SymmetricBridge(word)),
        (ValueError, r"cond must be \(3, at least 2, .*got shape \(3, 1, 8\)", lambda: sampled(x[:, :1])),
        (ValueError, r"cond must be \(3, at least 2, .*got shape \(2, 2, 8\)", lambda: sampled(x[:2])),
        (ValueError, r"1 spatial axes.*got shape \(3, 2\)", lambda: sampled(x[..., 0])),
        (
            ValueError,
            "prediction must be .*with a bridge.*Epsilon",
            lambda: Diffusion(bent, "bridge", "epsilon"),
        ),
        (
            ValueError,
            "prediction must be .*with a bridge.*Flow",
            lambda: Diffusion(bent, "bridge_ve", "flow"),
        ),
        (
            ValueError,
            "beta_min and beta_max must be positive.*got 0.2 and 0.1",
            lambda: SymmetricBridge(0.2, 0.1),
        ),
        (ValueError, "c must be positive", lambda: ExponentialBridge(0)),
        (ValueError, "k must be above 1, got 1", lambda: ExponentialBridge(k=1)),
        (ValueError, "shift must be positive", lambda: shifted(SymmetricBridge(), 0)),
    ]:
        with pytest.raises(error, match=pattern):
            call()
