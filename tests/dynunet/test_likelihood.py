"""Log densities against closed forms, against a Jacobian's determinant, and against the total of one."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dynunet import Diffusion, UNet
from dynunet.diffusion import Discrete, log_likelihood
from dynunet.diffusion.predictions import PREDICTIONS
from dynunet.diffusion.rescaling import zero_terminal_snr
from dynunet.diffusion.schedules import EDM, SCHEDULES, Cosine, Flow, Linear
from dynunet.diffusion.steps import level
from dynunet.testing import Gaussian, GaussianMixture, probability_flow

RANKS = [0, 1, 2, 3, 4]
SIZES = (3, 2, 1, 2)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def around(denoiser: Any, schedule: Any) -> Diffusion:
    """A model of an exact denoiser, whatever the condition."""
    return Diffusion(lambda x, t, **cond: denoiser(x, t), schedule, "sample")


def mixture(*shape: int, components: int = 3) -> tuple[GaussianMixture, Tensor]:
    """A mixture, and 20 draws of it."""
    data = GaussianMixture(0.7 * drawn(components, *shape), [0.2, 0.3, 0.5][:components], [0.3, 0.3, 0.4])
    kinds = torch.arange(20) % components
    spread = torch.as_tensor(data.stds)[kinds].view(-1, *(1,) * len(shape))
    return data, data.means[kinds] + spread * drawn(20, *shape, seed=1)


def log_density(data: GaussianMixture, x: Tensor, sigma: float) -> Tensor:
    """Of draws with noise, by torch's distributions."""
    stds, weights = (torch.as_tensor(value) for value in (data.stds, data.weights))
    spread = (stds**2 + sigma**2).sqrt().view(-1, *(1,) * (x.ndim - 1))
    each = torch.distributions.Normal(data.means, spread).log_prob(x.unsqueeze(1)).flatten(2).sum(2)
    return torch.logsumexp(each + (weights / weights.sum()).log(), 1)


# Closed forms --------------------------------------------------------------------


@pytest.mark.parametrize(("rank", "schedule"), [*((rank, Cosine()) for rank in RANKS), (1, Flow())])
def test_mixtures_come_out_to_a_thousandth_of_a_nat(rank: int, schedule: Any) -> None:
    data, x = mixture(1, *SIZES[:rank])
    diffusion = around(data.denoiser(schedule), schedule)
    value = diffusion.log_likelihood(x, steps=50, progress=False)
    assert (value.shape, value.dtype, value.requires_grad) == ((20,), torch.float64, False)
    noisy = log_density(data, x, level(schedule, 1e-3).ratio)
    torch.testing.assert_close(value, noisy, atol=3e-4, rtol=0)
    torch.testing.assert_close(value, log_density(data, x, 0.0), atol=1e-3, rtol=0)


def test_the_noise_of_the_density_is_chosen() -> None:
    data, x = mixture(2)
    diffusion = around(data.denoiser(Cosine()), Cosine())
    for sigma in (1e-4, 0.3):
        value = diffusion.log_likelihood(x, sigma=sigma, progress=False)
        torch.testing.assert_close(value, log_density(data, x, sigma), atol=1e-3, rtol=0)


def test_data_on_a_surface_gains_a_logarithm_for_each_direction_without_extent() -> None:
    data = GaussianMixture(torch.tensor([[0.5, -0.2]], dtype=torch.float64), [1e-9])
    diffusion, x = around(data.denoiser(Cosine()), Cosine()), data.means
    first, second = (diffusion.log_likelihood(x, 80, sigma=s, progress=False) for s in (0.1, 0.01))
    assert (second - first).item() == pytest.approx(2 * math.log(10), abs=1e-3)


ENDS = {
    **SCHEDULES,
    "table": Discrete(torch.linspace(0.99, 0.01, 50).tolist()),
    "zero terminal": zero_terminal_snr(Linear()),
    "callable": lambda t: (torch.cos(math.pi / 2 * t), t),
}


@pytest.mark.parametrize("name", ENDS)
def test_the_law_is_that_of_samples_from_the_noise_of_any_schedule(name: str) -> None:
    """For Gaussian data the flow is affine, also from a noise that has not forgotten the data."""
    schedule, data = ENDS[name], Gaussian(drawn(1, 2, 3), drawn(1, 2, 3, seed=1).abs() / 2 + 0.2)
    x = torch.as_tensor(data.mean) + torch.as_tensor(data.std) * drawn(5, 2, 3, seed=2)
    first, last = level(schedule, 1e-3), level(schedule, 1.0)
    spread, spread_last = (
        (at.alpha**2 * torch.as_tensor(data.std) ** 2 + at.sigma**2) ** 0.5 for at in (first, last)
    )
    noise = data.flow(first.alpha * x, schedule, 1e-3, 1.0)
    expected = torch.distributions.Normal(0.0, last.sigma).log_prob(noise)
    expected = (expected + (first.alpha * spread_last / spread).log()).flatten(1).sum(1)
    value = around(data.denoiser(schedule), schedule).log_likelihood(x, progress=False)
    torch.testing.assert_close(value, expected, atol=3e-4, rtol=0)


def test_errors_fall_with_the_fourth_power_of_the_steps() -> None:
    data, x = mixture(1, 4)
    denoise, schedule = data.denoiser(Cosine()), Cosine()
    exact = log_density(data, x, level(schedule, 1e-3).ratio)
    counts = [20, 40, 80]
    errors = [(log_likelihood(denoise, x, schedule, n)[0] - exact).abs().mean().item() for n in counts]
    slope = math.log(errors[0] / errors[-1]) / math.log(counts[-1] / counts[0])
    assert slope == pytest.approx(4, abs=0.5), errors


# Any network -----------------------------------------------------------------------


def unet(rank: int, **options: Any) -> UNet:
    network = UNet(rank, 1, channels=(4, 4), num_groups=2, time_embedding=True, num_classes=3, **options)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(parameter.numel()))
    return network


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("schedule", [Cosine(), EDM(), Flow(), Linear()], ids=lambda s: type(s).__name__)
def test_any_network_has_a_total_of_one(prediction: str, schedule: Any) -> None:
    """Whatever it has learnt: a law of the change of variables, here for single entries."""

    def network(x: Tensor, t: Tensor, class_labels: Tensor) -> Tensor:
        """What the prediction is where x_0 is a function that is no one's denoiser."""
        alpha, sigma = (s.to(x).view(-1, 1, 1) for s in schedule(t.double()))
        if prediction == "edm":
            x = x * (sigma**2 + (0.5 * alpha) ** 2).sqrt()
        x0 = torch.tanh(2 * x / torch.hypot(alpha, sigma) + 0.3 * class_labels.view(-1, 1, 1)) - 0.3 * sigma
        return PREDICTIONS[prediction].target(x0, (x - alpha * x0) / sigma, alpha, sigma)

    diffusion = Diffusion(network, schedule, prediction)
    x = torch.linspace(-4, 4, 401, dtype=torch.float64).view(-1, 1, 1)
    value = diffusion.log_likelihood(x, 20, sigma=0.1, class_labels=1, progress=False)
    assert torch.trapezoid(value.exp(), x.flatten()).item() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("rank", RANKS[1:])
def test_networks_of_any_rank_have_a_total_of_one(rank: int) -> None:
    diffusion = Diffusion(unet(rank).double())
    x = torch.linspace(-6, 6, 121, dtype=torch.float64).view(-1, 1, *(1,) * rank)
    value = diffusion.log_likelihood(x, 8, sigma=0.3, class_labels=2, progress=False)
    assert torch.trapezoid(value.exp(), x.flatten()).item() == pytest.approx(1, abs=2e-3)


def test_the_change_of_variables_is_the_determinant_of_the_flow() -> None:
    weight = drawn(4, 4) / 3

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        return (torch.tanh(x.flatten(1) @ weight + t.to(x).view(-1, 1))).view_as(x)

    schedule, x = Linear(), drawn(1, 2, 2, seed=1)
    first, last = level(schedule, 0.2), level(schedule, 1.0)

    def flow(y: Tensor) -> Tensor:
        return probability_flow(denoise, first.alpha * y, schedule, 0.2, 1.0, steps=150)

    jacobian = torch.autograd.functional.jacobian(flow, x)
    assert isinstance(jacobian, Tensor)
    expected = torch.distributions.Normal(0.0, last.sigma).log_prob(flow(x)).sum()
    expected = expected + torch.linalg.slogdet(jacobian.view(4, 4)).logabsdet
    value, error = log_likelihood(denoise, x, schedule, sigma=first.ratio)
    torch.testing.assert_close(value, expected.view(1), atol=1e-4, rtol=0)
    assert error.item() == 0


def test_a_model_is_left_as_it_was_in_every_mode() -> None:
    network = unet(1, dropout=0.5, cond_channels=1, context_features=2, attention=(None, "full"))
    network.decoder[0].requires_grad_(False)
    diffusion = Diffusion(network)
    trained = [p.requires_grad for p in diffusion.parameters()]

    def value() -> Tensor:
        cond = {"class_labels": [0, 2], "cond": torch.ones(2, 1, 3), "context": torch.ones(2, 4, 2)}
        return diffusion.train().log_likelihood(torch.ones(2, 1, 3), 1, progress=False, **cond)

    first = value()
    assert not first.requires_grad
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            torch.testing.assert_close(value(), first, rtol=0, atol=0)
    assert network.training
    assert [p.requires_grad for p in diffusion.parameters()] == trained
    assert all(p.grad is None for p in diffusion.parameters())


def test_conditions_count_and_gradient_checkpointing_does_not() -> None:
    x, values = torch.ones(2, 1, 4), []
    for checkpointing in (False, True):
        diffusion = Diffusion(unet(1, gradient_checkpointing=checkpointing))
        values.append(diffusion.log_likelihood(x, 2, class_labels=[0, 1], progress=False))
    torch.testing.assert_close(*values)
    assert not torch.allclose(values[0][0], values[0][1])


# Estimated traces ------------------------------------------------------------------


def test_estimates_scatter_by_their_standard_error() -> None:
    data, x = mixture(1, 3, 4)
    schedule = Cosine()
    diffusion = around(data.denoiser(schedule), schedule)
    exact, none = diffusion.log_likelihood(x, 10, return_error=True, progress=False)
    torch.testing.assert_close(none, torch.zeros_like(exact), rtol=0, atol=0)
    # Of each component alone the Jacobian is diagonal, and the estimate exact.
    between = x + 0.5 * (data.means.mean(0) - x)
    exact = diffusion.log_likelihood(between, 10, progress=False)
    scores = []
    for seed in range(4):
        value, error = diffusion.log_likelihood(
            between, 10, probes=11, return_error=True, generator=torch.Generator().manual_seed(seed)
        )
        scores.append(((value - exact) / error)[error > 1e-6])
    scores = torch.cat(scores)
    assert len(scores) > 40
    assert scores.mean().abs() < 0.4
    assert 0.6 < scores.square().mean().sqrt() < 1.7


def test_as_many_probes_as_entries_are_exact() -> None:
    data, x = mixture(1, 2, 3)
    exact = log_likelihood(data.denoiser(Cosine()), x, Cosine(), 4)
    again = log_likelihood(data.denoiser(Cosine()), x, Cosine(), 4, probes=6)
    assert all(map(torch.equal, exact, again))
    value, error = log_likelihood(data.denoiser(Cosine()), x, Cosine(), 4, probes=1)
    assert value.isfinite().all()
    assert error.isnan().all()


def test_large_data_is_estimated() -> None:
    data = Gaussian(0.2, 0.5)
    x = 0.2 + 0.5 * drawn(2, 1, 300)
    calls = []

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        x.register_hook(lambda grad: calls.append(len(grad)))
        return data.denoiser(Cosine())(x, t)

    value, error = log_likelihood(denoise, x, Cosine(), 20)
    assert len(calls) == 16 * 5 * 20
    expected = torch.distributions.Normal(0.2, 0.5).log_prob(x).flatten(1).sum(1)
    torch.testing.assert_close(value, expected, atol=0.05, rtol=0)
    torch.testing.assert_close(error, torch.zeros_like(error))


@pytest.mark.parametrize("probes", [None, 3])
def test_a_value_does_not_depend_on_the_batch(probes: int | None) -> None:
    diffusion, x = Diffusion(unet(2).double()), drawn(3, 1, 2, 3)
    labels = torch.tensor([0, 1, 2])

    def value(rows: slice) -> Tensor:
        generators = [torch.Generator().manual_seed(k) for k in range(3)][rows]
        return diffusion.log_likelihood(
            x[rows], 2, probes=probes, generator=generators, class_labels=labels[rows], progress=False
        )

    parts = torch.cat([value(slice(k, k + 1)) for k in range(3)])
    torch.testing.assert_close(value(slice(None)), parts, rtol=1e-10, atol=1e-10)
    assert value(slice(0, 0)).shape == (0,)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_single_precision_at_least(dtype: torch.dtype) -> None:
    data, x = mixture(1, 3)
    x = x.to(dtype)
    value = around(data.denoiser(Cosine()), Cosine()).log_likelihood(x, progress=False)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value.double(), log_density(data, x.double(), 0.0), atol=2e-3, rtol=0)


X = torch.zeros(1, 1, 3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda d: d.log_likelihood(torch.zeros(1, 1, 3, dtype=torch.int64)), "x must be a floating-point"),
        (lambda d: d.log_likelihood(X * torch.nan), "x must be finite, got 3 of 3"),
        (lambda d: d.log_likelihood(torch.zeros(3)), r"\(N, C, \*spatial\)"),
        (lambda d: d.log_likelihood(X, 0), "steps must be at least 1, got 0"),
        (lambda d: d.log_likelihood(X, sigma=0), "sigma must be a noise level.*got 0"),
        (lambda d: d.log_likelihood(X, probes=0), "probes must be at least 1, got 0"),
        (lambda d: d.log_likelihood(X, return_error=1), "return_error must be True or False, got 1"),
        (lambda d: d.log_likelihood(X, probes=2, generator=[]), "one per sample"),
        (
            lambda d: Diffusion(lambda x, t: torch.zeros_like(x), "cosine", "sample").log_likelihood(X),
            "model must be differentiable",
        ),
    ],
)
def test_bad_arguments_are_refused(call: Any, message: str) -> None:
    diffusion = around(Gaussian().denoiser(Cosine()), Cosine())
    with pytest.raises((ValueError, TypeError), match=message):
        call(diffusion)
