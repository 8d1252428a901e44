"""Schedules, predictions, samplers and the model around them, against closed forms."""

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from convnd import inflate
from dynunet import Diffusion, UNet
from dynunet.diffusion import Cosine, Linear, ddim, ddpm, dpmpp_2m, threshold
from dynunet.diffusion.noise import randn
from dynunet.diffusion.predictions import PREDICTIONS
from dynunet.diffusion.samplers import SAMPLERS
from dynunet.diffusion.schedules import SCHEDULES
from dynunet.testing import Gaussian, gaussian_law

MEAN, STD = 0.7, 0.4
DATA = Gaussian(MEAN, STD)


def scales(schedule: Any, t: float) -> tuple[float, float]:
    alpha, sigma = schedule(torch.tensor(t, dtype=torch.float64))
    return alpha.item(), sigma.item()


@pytest.mark.parametrize("name", [name for name in SCHEDULES if name not in ("flow", "edm")])
def test_schedules(name: str) -> None:
    t = torch.linspace(0, 1, 1001, dtype=torch.float64)
    alpha, sigma = SCHEDULES[name](t)
    torch.testing.assert_close(alpha**2 + sigma**2, torch.ones_like(t))
    assert alpha[0] == 1
    assert sigma[0] == 0
    assert (alpha.diff() < 0).all()
    assert (sigma.diff() > 0).all()


def test_linear_is_the_limit_of_ddpm() -> None:
    """With ever more steps the discrete product of 1 - beta approaches alpha^2."""
    t = 0.5
    errors = []
    for steps in (1000, 10_000):
        beta = torch.linspace(0.1, 20, steps, dtype=torch.float64) / steps
        discrete = torch.cumprod(1 - beta, 0)[: int(t * steps)][-1].sqrt().item()
        errors.append(abs(discrete - scales(Linear(), t)[0]))
    assert errors[1] < errors[0] / 8
    assert errors[0] < 2e-3


def test_cosine_values() -> None:
    assert scales(Cosine(), 1.0) == (0.0, 1.0)
    assert scales(Cosine(), 2 / 3) == pytest.approx((math.cos(math.pi / 3), math.sin(math.pi / 3)))


@pytest.mark.parametrize("name", PREDICTIONS)
@pytest.mark.parametrize("schedule", SCHEDULES.values())
def test_predictions_recover_the_data(name: str, schedule: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    x0, noise = (torch.randn(50, generator=generator, dtype=torch.float64) for _ in range(2))
    alpha, sigma = schedule(torch.linspace(0, 1, 50, dtype=torch.float64))
    x = alpha * x0 + sigma * noise
    prediction = PREDICTIONS[name]
    out = prediction.denoised(prediction.target(x0, noise, alpha, sigma), x, alpha, sigma)
    if name == "epsilon":  # at alpha = 0 the noise does not tell the data
        assert out[alpha == 0].eq(0).all()
        out, x0 = out[alpha > 0], x0[alpha > 0]
    torch.testing.assert_close(out, x0, rtol=1e-9, atol=1e-9)


def test_v_prediction_recovers_the_data_off_the_circle() -> None:
    x0, noise, alpha, sigma = torch.randn(
        4, 100, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    v = PREDICTIONS["v_prediction"]
    out = v.denoised(v.target(x0, noise, alpha, sigma), alpha * x0 + sigma * noise, alpha, sigma)
    torch.testing.assert_close(out, x0)


def law(sampler: Any, schedule: Any, steps: int, **options: Any) -> tuple[float, float]:
    """Mean and variance of a sampler's result on Gaussian data."""
    times = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
    return gaussian_law(sampler, schedule, times, DATA, **options)


def expected_law(schedule: Any, steps: int, eta: float) -> tuple[float, float]:
    """Mean and variance of DDIM's recurrence on Gaussian data, as scalars."""
    times = [1 - i / steps for i in range(steps + 1)]
    mean, variance = 0.0, scales(schedule, times[0])[1] ** 2
    for t, t_next in pairwise(times):
        (a, s), (a_next, s_next) = scales(schedule, t), scales(schedule, t_next)
        gain = a * STD**2 / (a**2 * STD**2 + s**2)  # x_0 = MEAN + gain (x - a MEAN)
        step_variance = (s_next**2 / s**2) * (s**2 - (a / a_next) ** 2 * s_next**2) * eta**2
        direction = math.sqrt(max(s_next**2 - step_variance, 0)) / s
        slope = a_next * gain + direction * (1 - a * gain)
        offset = (a_next - direction * a) * (1 - gain * a) * MEAN
        mean, variance = slope * mean + offset, slope**2 * variance + step_variance
    return mean, variance


@pytest.mark.parametrize("schedule", SCHEDULES.values())
@pytest.mark.parametrize("steps", [1, 2, 7, 50])
@pytest.mark.parametrize(
    ("sampler", "eta", "options"),
    [(ddim, 0.0, {}), (ddim, 0.5, {"eta": 0.5}), (ddim, 1.0, {"eta": 1.0}), (ddpm, 1.0, {})],
)
def test_samplers_follow_the_closed_law(
    sampler: Any, eta: float, options: dict[str, float], schedule: Any, steps: int
) -> None:
    assert law(sampler, schedule, steps, **options) == pytest.approx(
        expected_law(schedule, steps, eta), abs=1e-10
    )


@pytest.mark.parametrize("schedule", SCHEDULES.values())
@pytest.mark.parametrize("sampler", [run for name, run in SAMPLERS.items() if name != "consistency"])
def test_samplers_converge_to_the_data(sampler: Any, schedule: Any) -> None:
    mean, variance = law(sampler, schedule, 400)
    assert mean == pytest.approx(MEAN, abs=0.02)
    assert math.sqrt(variance) == pytest.approx(STD, abs=0.02)


def test_dpmpp_2m_is_the_published_recurrence() -> None:
    """Lu et al. 2022, algorithm 2, in k-diffusion's form on x / alpha over sigma / alpha."""
    schedule = Linear()
    times = torch.linspace(1, 0.02, 12, dtype=torch.float64)
    denoise = DATA.denoiser(schedule)
    x = torch.randn(3, 1, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    out = dpmpp_2m(denoise, x, schedule, times)

    previous, previous_lambda = None, None
    for t, t_next in pairwise(times.tolist()):
        (a, s), (a_next, s_next) = scales(schedule, t), scales(schedule, t_next)
        lam, lam_next = -math.log(s / a), -math.log(s_next / a_next)
        h = lam_next - lam
        d = x0 = denoise(x, torch.full((3,), t, dtype=torch.float64))
        if previous is not None and previous_lambda is not None:
            r = (lam - previous_lambda) / h
            d = (1 + 1 / (2 * r)) * x0 - 1 / (2 * r) * previous
        x = a_next * ((s_next / a_next) / (s / a) * (x / a) - math.expm1(-h) * d)
        previous, previous_lambda = x0, lam
    torch.testing.assert_close(out, x, rtol=1e-10, atol=1e-10)


def test_dpmpp_2m_is_of_second_order_and_ddim_of_first() -> None:
    """Against the exact solution on Gaussian data."""
    schedule = Linear()
    first, last = 0.9, 0.05
    x = torch.full((1, 1, 1), 0.3, dtype=torch.float64)
    exact = DATA.flow(x, schedule, first, last).item()

    def order(sampler: Any) -> float:
        errors = []
        for steps in (200, 400):
            times = torch.linspace(first, last, steps + 1, dtype=torch.float64)
            out = sampler(DATA.denoiser(schedule), x, schedule, times)
            errors.append(abs(out.item() - exact))
        return math.log2(errors[0] / errors[1])

    assert order(ddim) == pytest.approx(1, abs=0.1)
    assert order(dpmpp_2m) == pytest.approx(2, abs=0.15)


def exact_network(schedule: Any, prediction: str) -> Any:
    """The network that is exact for Gaussian data, whatever it is asked to predict."""

    def model(x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = (s.view(-1, *(1,) * (x.ndim - 1)) for s in schedule(t.double()))
        x0 = DATA.denoiser(schedule)(x, t.double())
        return PREDICTIONS[prediction].target(x0, (x - alpha * x0) / sigma, alpha, sigma)

    return model


@pytest.mark.parametrize("prediction", ["sample", "v_prediction", "epsilon"])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_prediction_of_one_denoiser_gives_one_trajectory(prediction: str, sampler: str) -> None:
    schedule = Linear()
    results = []
    for name in ("sample", prediction):
        diffusion = Diffusion(exact_network(schedule, name), schedule, name)
        generator = torch.Generator().manual_seed(0)
        results.append(
            diffusion.sample(
                (4, 1, 3), 10, sampler=sampler, generator=generator, dtype=torch.float64, progress=False
            )
        )
    torch.testing.assert_close(results[0], results[1], rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("steps", [1, 4])
def test_nothing_is_nan(schedule: str, prediction: str, sampler: str, steps: int) -> None:
    network = UNet(1, 1, channels=(4, 8), num_groups=2, time_embedding=True)
    diffusion = Diffusion(network, schedule, prediction)
    assert diffusion.sample((2, 1, 9), steps, sampler=sampler, progress=False).isfinite().all()


@pytest.mark.parametrize("sizes", [(1000,), (28, 28), (33, 47), (16, 16, 16), (8, 8, 8, 8)])
def test_trains_and_samples_in_every_dimension(sizes: tuple[int, ...]) -> None:
    diffusion = Diffusion(UNet(len(sizes), 1, channels=(8, 16), num_groups=4, time_embedding=True))
    loss = diffusion.loss(torch.randn(2, 1, *sizes))
    loss.backward()
    assert loss.isfinite()
    assert diffusion.sample((1, 1, *sizes), 2, progress=False).shape == (1, 1, *sizes)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_the_loss_is_least_at_the_exact_denoiser(prediction: str) -> None:
    """Scaling the exact network up or down raises the loss, at the same times and noise."""
    schedule = Linear()
    exact = exact_network(schedule, prediction)
    x0 = MEAN + STD * torch.randn(
        20_000, 1, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    )

    def loss(factor: float) -> float:
        diffusion = Diffusion(lambda x, t: factor * exact(x, t), schedule, prediction)
        return diffusion.loss(x0, generator=torch.Generator().manual_seed(0)).item()

    assert loss(1.0) < min(loss(0.95), loss(1.05))


class Recorder(nn.Module):
    """A network that keeps what it was called with and returns its label."""

    def __init__(self) -> None:
        super().__init__()
        self.labels: list[Tensor] = []
        self.training_modes: list[bool] = []

    def forward(self, x: Tensor, t: Tensor, class_labels: Tensor, context: Tensor | None = None) -> Tensor:
        self.labels.append(class_labels)
        self.training_modes.append(self.training)
        return class_labels.to(x.dtype).view(-1, *(1,) * (x.ndim - 1)).expand_as(x).clone()


def test_guidance_extrapolates_from_the_unconditional_estimate() -> None:
    diffusion = Diffusion(Recorder(), prediction="sample")
    x, t, labels = torch.zeros(3, 1, 2), torch.full((3,), 0.5), torch.tensor([0, 1, 5])
    out = diffusion.predict(x, t, guidance_scale=3.0, class_labels=labels)
    expected = -1 + 3.0 * (labels + 1)
    assert torch.equal(out[:, 0, 0], expected.to(out.dtype))
    assert torch.equal(diffusion.predict(x, t, class_labels=labels)[:, 0, 0], labels.to(out.dtype))


def test_labels_are_dropped_with_the_given_probability() -> None:
    recorder = Recorder()
    labels = torch.ones(10_000, dtype=torch.int64)
    for probability in (0.0, 0.3, 1.0):
        diffusion = Diffusion(recorder, cond_dropout=probability)
        diffusion.loss(
            torch.zeros(10_000, 1, 1), class_labels=labels, generator=torch.Generator().manual_seed(0)
        )
        dropped = (recorder.labels[-1] == -1).double().mean().item()
        assert dropped == pytest.approx(probability, abs=0.02)
        assert ((recorder.labels[-1] == -1) | (recorder.labels[-1] == 1)).all()
    assert torch.equal(labels, torch.ones_like(labels)), "the caller's labels stay as they are"


def test_label_and_context_are_dropped_together() -> None:
    seen: list[tuple[Tensor, Tensor]] = []

    def model(x: Tensor, t: Tensor, class_labels: Tensor, context: Tensor, cond: Tensor) -> Tensor:
        seen.append((class_labels, context))
        assert cond.eq(1).all(), "cond is never dropped"
        return x

    ones = torch.ones(100, 4, 2)
    Diffusion(model, cond_dropout=0.5).loss(
        torch.zeros(100, 1, 1), class_labels=torch.zeros(100).long(), context=ones, cond=ones
    )
    labels, context = seen[0]
    assert torch.equal(labels == -1, context.eq(0).all(-1).all(-1))
    assert 0 < (labels == -1).sum() < 100


def test_sampling_evaluates_and_restores_the_mode() -> None:
    recorder = Recorder()
    diffusion = Diffusion(recorder).train()
    diffusion.sample((2, 1, 3), 2, class_labels=1, progress=False)
    assert recorder.training_modes == [False, False]
    assert recorder.training
    assert torch.equal(recorder.labels[0], torch.tensor([1, 1]))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_one_generator_per_sample_makes_samples_independent_of_the_batch(sampler: str) -> None:
    diffusion = Diffusion(exact_network(Cosine(), "sample"), Cosine(), "sample")

    def draw(seeds: list[int]) -> Tensor:
        generators = [torch.Generator().manual_seed(s) for s in seeds]
        return diffusion.sample(
            (len(seeds), 1, 4), 5, sampler=sampler, generator=generators, dtype=torch.float64, progress=False
        )

    together = draw([1, 2, 3])
    torch.testing.assert_close(torch.cat([draw([1, 2]), draw([3])]), together, rtol=1e-12, atol=1e-12)
    assert not torch.allclose(together[0], together[1])


def test_callback_sees_every_step_and_clip_limits_the_estimates() -> None:
    diffusion = Diffusion(lambda x, t: 5 * torch.ones_like(x), prediction="sample")
    seen: list[tuple[int, float, float]] = []
    out = diffusion.sample(
        (1, 1, 2),
        4,
        progress=False,
        clip=1.0,
        callback=lambda step, t, x, x0: seen.append((step, t, x0.max().item())),
    )
    assert seen == [(0, 0.75, 1.0), (1, 0.5, 1.0), (2, 0.25, 1.0), (3, 0.0, 1.0)]
    assert torch.equal(out, torch.ones(1, 1, 2)), "the last step returns the estimate exactly"


def test_noise_sources() -> None:
    one = randn((2, 3), torch.Generator().manual_seed(0), "cpu", torch.float32)
    assert torch.equal(one, randn((2, 3), torch.Generator().manual_seed(0), "cpu", torch.float32))
    assert torch.equal(randn((2, 3), torch.zeros, "cpu", torch.float64), torch.zeros(2, 3).double())
    with pytest.raises(ValueError, match=r"one per sample \(2\), got 1"):
        randn((2, 3), [torch.Generator()], "cpu", None)


def test_data_far_from_unit_scale_warns_once() -> None:
    diffusion = Diffusion(lambda x, t: x)
    with pytest.warns(UserWarning, match=r"x0 should be in about \[-1, 1\], got values from 0 to 255"):
        diffusion.loss(torch.tensor([0.0, 255.0]).view(1, 1, 2))
    diffusion.loss(torch.tensor([0.0, 255.0]).view(1, 1, 2))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def formula(seen: list[float]) -> Any:
    """A network of a label that says how large its estimate is, and -1 without one."""

    def model(x: Tensor, t: Tensor, class_labels: Tensor) -> Tensor:
        seen.append(len(x))
        pattern = torch.linspace(-1, 1, x[0].numel(), dtype=x.dtype).view_as(x[0])
        return (class_labels.to(x.dtype).view(-1, *(1,) * (x.ndim - 1)) + 2) * pattern

    return model


def test_rescaled_guidance_is_the_published_formula() -> None:
    """Lin et al. 2024, eq. 14 to 16, in numbers."""
    diffusion = Diffusion(formula([]), prediction="sample")
    x, t, labels = torch.zeros(2, 3, 4, 5).double(), torch.full((2,), 0.5), torch.tensor([0, 3])
    plain, guided, out = (
        diffusion.predict(x, t, class_labels=labels, guidance_scale=scale, guidance_rescale=rescale)
        for scale, rescale in [(1.0, 0.0), (4.0, 0.0), (4.0, 0.7)]
    )
    for p, g, o in zip(plain, guided, out, strict=True):
        expected = 0.7 * g * p.std() / g.std() + 0.3 * g
        torch.testing.assert_close(o, expected, rtol=1e-12, atol=1e-12)


def test_guidance_is_left_out_beyond_the_interval() -> None:
    seen: list[float] = []
    diffusion = Diffusion(formula(seen), Linear(), "sample")
    x, labels = torch.zeros(3, 1, 4), torch.tensor([0, 1, 2])
    t = torch.tensor([0.1, 0.4, 0.9])
    levels = [s / a for a, s in (scales(Linear(), v) for v in t.tolist())]
    interval = (levels[0] * 1.01, levels[1] * 1.01)

    def predict(t: Tensor, scale: float) -> Tensor:
        return diffusion.predict(x, t, class_labels=labels, guidance_scale=scale, guidance_interval=interval)

    plain, guided = predict(t, 1.0), predict(t, 3.0)
    assert torch.equal(guided[[0, 2]], plain[[0, 2]])
    assert not torch.allclose(guided[1], plain[1])
    seen.clear()
    predict(torch.full((3,), 0.9), 3.0)
    assert seen == [3], "no sample is evaluated twice where none is guided"


def test_guidance_interval_includes_pure_noise_if_it_is_open() -> None:
    diffusion = Diffusion(formula([]), "cosine", "sample")
    x, t, labels = torch.zeros(1, 1, 4), torch.ones(1), torch.zeros(1).long()
    out = [
        diffusion.predict(x, t, class_labels=labels, guidance_scale=2.0, guidance_interval=interval)
        for interval in (None, (0.0, math.inf), (0.0, 80.0))
    ]
    assert torch.equal(out[0], out[1])
    assert not torch.equal(out[0], out[2])


@pytest.mark.parametrize("sizes", [(11,), (5, 6), (2, 3, 4)])
def test_dynamic_threshold_is_the_published_formula(sizes: tuple[int, ...]) -> None:
    """Saharia et al. 2022, section 2.3, by numpy's quantile."""
    x0 = 2 * torch.randn(3, 2, *sizes, generator=generator(), dtype=torch.float64)
    x0[1] /= 100  # in range already
    out = threshold(x0, "dynamic")
    for sample, expected in zip(x0, out, strict=True):
        limit = max(float(np.quantile(sample.abs().numpy(), 0.995)), 1.0)
        torch.testing.assert_close(sample.clamp(-limit, limit) / limit, expected, rtol=1e-12, atol=1e-12)
    assert torch.equal(out[1], x0[1])
    assert torch.equal(threshold(x0, 0.5), x0.clamp(-0.5, 0.5))


def test_missing_entries_do_not_count() -> None:
    network = UNet(1, 1, channels=(4,), num_groups=2, time_embedding=True).double()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=generator())
    diffusion = Diffusion(network)
    x0 = torch.randn(4, 1, 8, dtype=torch.float64, generator=generator(1))
    mask = torch.rand(4, 1, 8, generator=generator(2)) < 0.6
    mask[1] = False

    def loss(x0: Tensor, mask: Tensor | None) -> Tensor:
        return diffusion.loss(x0, mask=mask, generator=generator())

    whole = loss(torch.where(mask, x0, torch.nan), mask)
    whole.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())
    assert torch.equal(whole, loss(torch.where(mask, x0, 5.0), mask))
    torch.testing.assert_close(loss(x0, torch.ones_like(mask)), loss(x0, None))
    assert loss(x0, torch.zeros_like(mask)) == 0
    assert not torch.equal(whole, loss(x0, None))


@pytest.mark.parametrize("name", ["l1", "l2", "huber"])
def test_loss_is_an_average_of_the_elementwise_one(name: str) -> None:
    diffusion = Diffusion(lambda x, t: torch.zeros_like(x), prediction="sample")
    x0 = torch.randn(50, 1, 4, dtype=torch.float64, generator=generator())
    expected = {"l1": x0.abs(), "l2": x0**2, "huber": nn.functional.huber_loss(x0, 0 * x0, reduction="none")}
    torch.testing.assert_close(diffusion.loss(x0, loss=name), expected[name].mean())


def test_low_precision_networks_are_sampled_in_single_precision() -> None:
    network = UNet(2, 1, channels=(4, 8), num_groups=2, time_embedding=True, cond_channels=1).bfloat16()
    diffusion = Diffusion(network, schedule="edm", prediction="edm")
    out = diffusion.sample((2, 1, 5, 6), 3, cond=torch.randn(2, 1, 5, 6), progress=False)
    assert out.dtype == torch.float32
    assert out.isfinite().all()
    double = torch.randn(2, 1, 5, 6, dtype=torch.float64)
    assert diffusion.loss(double, cond=double).dtype == torch.float64


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"schedule": "edm", "prediction": "edm", "loss_weighting": "edm", "sigma_data": 0.3},
        {"schedule": "linear", "zero_terminal_snr": True, "shift": 2.0, "loss_weighting": "min_snr"},
    ],
)
def test_a_saved_model_gives_the_same_samples(tmp_path: Path, options: Any) -> None:
    network = UNet(1, 1, channels=(4, 8), num_groups=2, time_embedding=True, num_classes=3)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2, generator=generator())
    diffusion = Diffusion(network, cond_dropout=0.25, **options)
    diffusion.save_pretrained(tmp_path)
    again = Diffusion.from_pretrained(tmp_path)
    assert (again.schedule, again.prediction, again.loss_weighting) == (
        diffusion.schedule,
        diffusion.prediction,
        diffusion.loss_weighting,
    )
    assert again.cond_dropout == 0.25

    def draw(model: Diffusion) -> Tensor:
        return model.sample(
            (2, 1, 9), 4, class_labels=1, guidance_scale=2.0, generator=generator(), progress=False
        )

    assert torch.equal(draw(again), draw(diffusion))
    x0, labels = torch.randn(2, 1, 9), torch.tensor([0, 1])
    losses = [m.loss(x0, class_labels=labels, generator=generator()) for m in (again, diffusion.eval())]
    assert torch.equal(*losses)


def test_a_function_as_network_is_passed_again(tmp_path: Path) -> None:
    def model(x: Tensor, t: Tensor) -> Tensor:
        return 0.5 * x

    diffusion = Diffusion(model, "flow", "flow")
    diffusion.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="field 'model' was a module or a function"):
        Diffusion.from_pretrained(tmp_path)
    again = Diffusion.from_pretrained(tmp_path, model=model)
    draws = [m.sample((1, 1, 3), 3, generator=generator(), progress=False) for m in (diffusion, again)]
    assert torch.equal(*draws)


def test_bad_arguments_are_refused() -> None:
    network = UNet(1, 1, channels=(4,), time_embedding=True)
    diffusion = Diffusion(network)
    x = torch.zeros(2, 1, 4)
    for error, pattern, call in [
        (ValueError, "build the UNet with time_embedding=True", lambda: Diffusion(UNet(1, 1, channels=(4,)))),
        (TypeError, "model must be a callable", lambda: Diffusion("unet")),  # type: ignore[arg-type]
        (ValueError, "schedule must be one of 'linear', ", lambda: Diffusion(network, "quadratic")),
        (ValueError, "prediction must be one of 'epsilon'", lambda: Diffusion(network, prediction="score")),
        (ValueError, r"cond_dropout must be in \[0, 1\], got 2", lambda: Diffusion(network, cond_dropout=2)),
        (TypeError, "x0 must be a floating-point tensor", lambda: diffusion.loss(x.long())),
        (ValueError, "the shape of x0 must fit the model", lambda: diffusion.loss(x[0])),
        (ValueError, r"the shape of x0 must be \(N, C, \*spatial\)", lambda: diffusion.loss(x[0, 0])),
        (ValueError, "steps must be at least 1, got 0", lambda: diffusion.sample((1, 1, 4), 0)),
        (TypeError, "steps must be an int", lambda: diffusion.sample((1, 1, 4), 2.5)),  # type: ignore[arg-type]
        (ValueError, "shape must be", lambda: diffusion.sample((4,))),
        (ValueError, "shape must fit the model", lambda: diffusion.sample((1, 4))),
        (ValueError, "sampler must be one of 'ddpm'", lambda: diffusion.sample((1, 1, 4), sampler="heun2")),
        (ValueError, "eta must be left out", lambda: diffusion.sample((1, 1, 4), eta=1.0)),
        (
            ValueError,
            "guidance_scale must be 1 without",
            lambda: diffusion.sample((1, 1, 4), guidance_scale=2.0),
        ),
        (ValueError, "model must return the shape", lambda: Diffusion(lambda x, t: x[:, :0]).loss(x)),
        (ValueError, "clip must be positive", lambda: diffusion.sample((1, 1, 4), clip=0.0)),
        (ValueError, "clip must be a positive number or 'dyn", lambda: diffusion.sample((1, 1, 4), clip="x")),
        (
            ValueError,
            "loss_weighting must be one of None, 'snr'",
            lambda: Diffusion(network, loss_weighting="x"),
        ),
        (ValueError, r"shape must fit the model, with 1 channels and 1", lambda: diffusion.sample((1, 2, 4))),
        (ValueError, r"shape must fit the model.*got \(1, 1, 4, 4\)", lambda: diffusion.sample((1, 1, 4, 4))),
        (ValueError, "the shape of x0 must fit the model", lambda: diffusion.loss(torch.zeros(2, 3, 4))),
        (ValueError, "x0 must be finite, got 8 of 8 entries", lambda: diffusion.loss(x * torch.nan)),
        (TypeError, "mask must be a bool tensor", lambda: diffusion.loss(x, mask=x)),
        (ValueError, "mask must have the axes", lambda: diffusion.loss(x, mask=torch.ones(2, 1, 3).bool())),
        (ValueError, "loss must be one of 'l1'", lambda: diffusion.loss(x, loss="l3")),
        (ValueError, "spacing must be one of", lambda: diffusion.sample((1, 1, 4), spacing="even")),
        (TypeError, "sampler must be a name, a function", lambda: diffusion.sample((1, 1, 4), sampler=3)),
        (ValueError, "eta must be at least 0", lambda: diffusion.sample((1, 1, 4), sampler="ddim", eta=-1)),
        (
            ValueError,
            r"guidance_rescale must be in \[0, 1\], got 2",
            lambda: diffusion.sample((1, 1, 4), guidance_rescale=2.0),
        ),
        (
            ValueError,
            r"guidance_interval must be \(low, high\)",
            lambda: diffusion.sample((1, 1, 4), guidance_interval=(2.0, 1.0)),
        ),
        (ValueError, "overlap must be left out", lambda: diffusion.sample((1, 1, 4), overlap=1)),
        (ValueError, "overlap must be less", lambda: diffusion.sample((1, 1, 4), window=2, overlap=2)),
        (ValueError, "window must be at least 1", lambda: diffusion.sample((1, 1, 4), window=0)),
        (ValueError, r"start\[1\] must be above 0", lambda: diffusion.sample((2, 1, 4), start=(x, 0.0))),
        (ValueError, r"start\[0\] must have the shape", lambda: diffusion.sample((1, 1, 4), start=(x, 0.5))),
        (ValueError, "shift must be positive", lambda: Diffusion(network, shift=0.0)),
    ]:
        with pytest.raises(error, match=pattern):
            call()


def test_an_inflated_model_is_saved_as_it_is(tmp_path: Any) -> None:
    diffusion = Diffusion(UNet(2, 1, channels=(4, 8), num_groups=2, time_embedding=True))
    inflate(diffusion, 3).save_pretrained(tmp_path)
    again = Diffusion.from_pretrained(tmp_path)
    assert again.sample((1, 1, 4, 4, 4), 1, progress=False).shape == (1, 1, 4, 4, 4)
    assert diffusion.config["model"]["spatial_dims"] == 2


@pytest.mark.parametrize("labelled", [False, True])
def test_one_generator_per_sample_makes_the_loss_independent_of_the_batch(labelled: bool) -> None:
    unet = UNet(1, 1, channels=(4,), num_groups=2, time_embedding=True, num_classes=3 if labelled else None)
    for parameter in unet.parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=generator())
    diffusion = Diffusion(unet, cond_dropout=0.5).eval()
    x0 = torch.randn(6, 1, 8, generator=generator(1))
    labels = torch.arange(6) % 3

    def loss(first: int, last: int) -> float:
        cond: dict[str, Any] = {"class_labels": labels[first:last]} if labelled else {}
        return diffusion.loss(
            x0[first:last], generator=[generator(s) for s in range(first, last)], **cond
        ).item()

    assert loss(0, 6) == pytest.approx((loss(0, 4) * 4 + loss(4, 6) * 2) / 6, rel=1e-5)


def test_quantiles_choose_the_times_of_the_loss() -> None:
    seen = []

    def model(x: Tensor, t: Tensor) -> Tensor:
        seen.append(t)
        return x

    diffusion = Diffusion(model)
    at = torch.tensor([0.25, 0.5, 0.875], dtype=torch.float64)
    diffusion.loss(torch.zeros(3, 1, 4), quantiles=at)
    assert torch.equal(seen[0].double(), at)
    for wrong in (at[:2], torch.tensor([0, 1, 2]), at + 1, [0.1, 0.2, 0.3]):
        with pytest.raises(ValueError, match="quantiles must be"):
            diffusion.loss(torch.zeros(3, 1, 4), quantiles=wrong)  # type: ignore[arg-type]


def test_what_the_data_is_stays_with_the_model(tmp_path: Path) -> None:
    units = {"sample_rate": 8000, "range": [-1.0, 1.0], "classes": ["a", "b"], "mask": None}
    diffusion = Diffusion(UNet(1, 1, channels=(4,), num_groups=2, time_embedding=True), data=units)
    assert diffusion.data == units
    diffusion.data = {**units, "sample_rate": 16000}
    diffusion.save_pretrained(tmp_path)
    again = Diffusion.from_pretrained(tmp_path)
    assert again.data == {**units, "sample_rate": 16000}
    again.data = None
    assert again.config["data"] is None
    for wrong in ([1], "wav", {"a": object()}):
        with pytest.raises(TypeError, match="data must be None or a dict"):
            again.data = wrong  # type: ignore[assignment]
