"""Guidance by a weaker model, and adaptive projected guidance, against formulas in NumPy and diffusers."""

import importlib
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from dynunet import Diffusion, UNet
from dynunet.diffusion import APG
from dynunet.diffusion.samplers import SAMPLERS
from dynunet.diffusion.schedules import SCHEDULES
from dynunet.testing import Gaussian

guiders: Any = importlib.import_module("diffusers.guiders.adaptive_projected_guidance")

DATA, WIDER = Gaussian(0.3, 0.5), Gaussian(0.1, 0.9)
SPATIAL = [(7,), (3, 4), (2, 3, 2), (2, 1, 3, 2)]


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def exact(data: Gaussian, schedule: Any = "cosine") -> Diffusion:
    """A model that knows the law of its data, with any schedule, as one that predicts the data."""
    denoise = data.denoiser(SCHEDULES[schedule] if isinstance(schedule, str) else schedule)
    return Diffusion(lambda x, t, **cond: denoise(x, t), schedule, "sample")


class WithVelocity(nn.Module):
    """The same as a network that predicts v, of its own schedule."""

    def __init__(self, data: Gaussian, schedule: Any) -> None:
        super().__init__()
        self.schedule, self.denoise = schedule, data.denoiser(schedule)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = (s.to(x).view(-1, *(1,) * (x.ndim - 1)) for s in self.schedule(t.double()))
        x0 = self.denoise(x, t)
        return alpha * (x - alpha * x0) / sigma.clamp(min=1e-30) - sigma * x0


def combined(scale: float) -> Diffusion:
    """The model that guidance by the wider law should make of the data's, written down."""
    strong, weak = (data.denoiser(SCHEDULES["cosine"]) for data in (DATA, WIDER))
    return Diffusion(lambda x, t: weak(x, t) + scale * (strong(x, t) - weak(x, t)), prediction="sample")


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("spatial", SPATIAL)
def test_autoguidance_leads_away_from_the_weaker_model(sampler: str, spatial: tuple[int, ...]) -> None:
    draws: list[Tensor] = []
    for model, options in (
        (combined(2.5), {}),
        (exact(DATA), {"guide": exact(WIDER), "guide_scale": 2.5}),
        (exact(DATA), {"guide": exact(WIDER).model, "guide_scale": 2.5}),  # a network, read as its own
    ):
        how: dict[str, Any] = {"sampler": sampler, "generator": torch.Generator().manual_seed(1)}
        how |= {"progress": False, "dtype": torch.float64, **options}
        draws.append(model.sample((2, 1, *spatial), 6, **how))
    torch.testing.assert_close(draws[1], draws[0], rtol=1e-10, atol=1e-10)
    assert torch.equal(draws[1], draws[2])
    plain = exact(DATA).sample(
        (2, 1, *spatial),
        6,
        sampler=sampler,
        generator=torch.Generator().manual_seed(1),
        progress=False,
        dtype=torch.float64,
    )
    assert not torch.allclose(plain, draws[1], atol=1e-3)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("own", SCHEDULES)
def test_a_guide_may_have_another_schedule_and_prediction(schedule: str, own: str) -> None:
    """The law of the data does not depend on the schedule: the guide is asked at the same noise level."""
    guide = Diffusion(WithVelocity(WIDER, SCHEDULES[own]), own)
    x, t = noise(4, 1, 3, 2), torch.tensor([0.05, 0.3, 0.5, 0.7], dtype=torch.float64)
    out, expected = (
        exact(DATA, schedule).predict(x, t, guide=g, guide_scale=3.0) for g in (guide, exact(WIDER, schedule))
    )
    torch.testing.assert_close(out, expected, rtol=1e-6, atol=1e-6)


def test_a_guide_is_asked_at_its_noisiest_where_there_is_pure_noise() -> None:
    x = noise(2, 1, 5)
    out = exact(DATA).predict(x, 1.0, guide=exact(WIDER, "edm"), guide_scale=2.0)
    level = 80.0  # there x has the standard deviation (1 + 80^2)^.5
    weak = 0.1 + 0.9**2 / (0.9**2 + level**2) * ((1 + level**2) ** 0.5 * x - 0.1)
    torch.testing.assert_close(out, 2 * 0.3 - weak, rtol=1e-9, atol=1e-9)


def test_a_guide_works_in_windows() -> None:
    how: dict[str, Any] = {"guide": exact(WIDER), "progress": False, "dtype": torch.float64}
    windows: list[dict[str, Any]] = [{}, {"window": 4, "overlap": 2}]
    whole, parts = (
        exact(DATA).sample((1, 1, 9, 8), 3, generator=torch.Generator().manual_seed(2), **how, **more)
        for more in windows
    )
    torch.testing.assert_close(parts, whole, rtol=1e-10, atol=1e-10)


class Labelled(nn.Module):
    """Says its label and how it was asked."""

    def __init__(self, offset: float) -> None:
        super().__init__()
        self.offset, self.seen = offset, []

    def forward(self, x: Tensor, t: Tensor, class_labels: Tensor) -> Tensor:
        self.seen.append((len(x), self.training))
        return (class_labels + self.offset).to(x).view(-1, 1, 1).expand_as(x)


def test_a_guide_has_the_same_conditions_and_is_left_out_beyond_the_interval() -> None:
    strong, weak = Labelled(0.5), Labelled(0.25)
    model, guide = (Diffusion(m, "linear", "sample") for m in (strong, weak))
    labels = torch.tensor([3, 4])
    out = model.predict(noise(2, 1, 4), 0.5, class_labels=labels, guide=guide)
    assert out[:, 0, 0].tolist() == [3.75, 4.75]  # 2 by default
    levels = [(s / a).item() for a, s in [SCHEDULES["linear"](torch.tensor(t)) for t in (0.25, 0.65)]]
    weak.seen.clear()
    guide.train()
    model.sample(
        (2, 1, 4), 10, class_labels=labels, guide=guide, guidance_interval=(levels[0], levels[1]),
        progress=False,
    )  # fmt: skip
    assert weak.seen == [(2, False)] * 4  # at .6 .5 .4 .3
    assert guide.training
    assert weak.training


def plain_apg(
    pairs: list[tuple[Tensor, Tensor]], scale: float, eta: float, norm: float | None, momentum: float
) -> list[Any]:
    """Sadat et al. 2024, algorithm 1, sample by sample."""
    out: list[Any] = []
    average: Any = 0
    for strong, weak in pairs:
        d, w = (v.flatten(1).numpy() for v in (strong, weak))
        average = (d - w) + momentum * average
        rows = []
        for row, along in zip(average, d, strict=True):
            size = np.linalg.norm(row)
            row = row if norm is None else row * min(1, norm / size)
            unit = along / np.linalg.norm(along)
            parallel = (row @ unit) * unit
            rows.append(along + (scale - 1) * (row - parallel + eta * parallel))
        out.append(np.stack(rows).reshape(strong.shape))
    return out


class Recorded(nn.Module):
    """Estimates that are written down beforehand, one for each step."""

    def __init__(self, estimates: list[Tensor]) -> None:
        super().__init__()
        self.estimates = list(estimates)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.estimates.pop(0)


@given(
    st.sampled_from([(), *SPATIAL]),
    st.floats(0, 5),
    st.floats(-1, 1),
    st.none() | st.floats(0.1, 10),
    st.sampled_from([0.0, -0.5, -0.9, 0.5]),
)
def test_projected_guidance_is_the_published_algorithm(
    spatial: tuple[int, ...], scale: float, eta: float, norm: float | None, momentum: float
) -> None:
    shape, steps = (2, 2, *spatial), 3
    pairs = [(noise(*shape, seed=i), noise(*shape, seed=i + 100)) for i in range(steps)]
    model, guide = (Diffusion(Recorded([p[i] for p in pairs]), "flow", "sample") for i in range(2))
    found: list[Tensor] = []
    model.sample(
        shape, steps, sampler="euler", guide=guide, guide_scale=scale, dtype=torch.float64, progress=False,
        guidance_projection=APG(eta, norm, momentum), callback=lambda step, t, x, x0: found.append(x0),
    )  # fmt: skip
    expected = plain_apg(pairs, scale, eta, norm, momentum)
    if scale == 1:
        expected = [strong.numpy() for strong, _ in pairs]
    buffer = guiders.MomentumBuffer(momentum)
    for out, formula, (strong, weak) in zip(found, expected, pairs, strict=True):
        np.testing.assert_allclose(out.numpy(), formula, rtol=1e-9, atol=1e-9)
        theirs = guiders.normalized_guidance(strong, weak, scale - 1, buffer, eta, norm or 0.0, True)
        torch.testing.assert_close(out, theirs, rtol=1e-9, atol=1e-9)


def test_projected_guidance_of_all_that_is_parallel_is_plain_guidance() -> None:
    unet = UNet(2, 1, channels=(4,), num_groups=2, time_embedding=True, num_classes=3)
    diffusion = Diffusion(unet, prediction="sample")
    with torch.no_grad():
        for p in unet.parameters():
            p.add_(0.1)
    how: dict[str, Any] = {"class_labels": torch.tensor([0, 2]), "guidance_scale": 4.0, "progress": False}
    plain, same, projected, again = (
        diffusion.sample(
            (2, 1, 4, 5), 3, generator=torch.Generator().manual_seed(3), guidance_projection=apg, **how
        )
        for apg in (None, APG(1.0, None, 0.0), APG(), APG())
    )
    torch.testing.assert_close(plain, same)
    assert not torch.allclose(plain, projected, atol=1e-4)
    assert torch.equal(projected, again), "what it remembers is of one run"


def test_guides_act_on_reconstructions() -> None:
    """A guide that is the model itself changes nothing, in methods that take gradients too."""
    unet = UNet(1, 1, channels=(4,), num_groups=2, time_embedding=True)
    diffusion, y = Diffusion(unet), torch.zeros(1, 1, 8)
    known = torch.arange(8) < 4
    for method in ("mmps", "repaint"):
        plain, guided = (
            diffusion.inpaint(
                y, known[None, None], 2, method=method, generator=torch.Generator().manual_seed(4),
                progress=False, **more,
            )
            for more in ({}, {"guide": Diffusion(unet), "guidance_projection": APG()})
        )  # fmt: skip
        torch.testing.assert_close(guided, plain)
    assert all(p.requires_grad for p in unet.parameters())


def test_guides_that_cannot_guide_are_refused() -> None:
    unet = UNet(1, 1, channels=(4,), num_groups=2, time_embedding=True, num_classes=2)
    diffusion, guide = Diffusion(unet), exact(DATA)
    blind = UNet(1, 1, channels=(4,), num_groups=2)
    flat = Diffusion(UNet(2, 1, channels=(4,), num_groups=2, time_embedding=True))

    both, word = {"guidance_scale": 2.0, "class_labels": 1}, cast(Any, "x")

    def sample(**options: Any) -> Callable[[], Any]:
        return lambda: diffusion.sample((1, 1, 8), 1, progress=False, **options)

    cases: list[tuple[Any, str, Callable[[], Any]]] = [
        (ValueError, "guidance_scale must be 1 with a guide", sample(guide=guide, **both)),
        (ValueError, "guide_scale must be left out without a guide, got 2", sample(guide_scale=2.0)),
        (TypeError, "guide_scale must be a number", sample(guide=guide, guide_scale=word)),
        (TypeError, "guide must be a callable", sample(guide=3)),
        (ValueError, "guide must take a time", sample(guide=blind)),
        (ValueError, "what guide evaluates must fit the model, with 1 channels and 2", sample(guide=flat)),
        (TypeError, "guidance_projection must be None or an APG, got True", sample(guidance_projection=True)),
        (ValueError, "max_norm must be", lambda: APG(max_norm=0.0)),
        (ValueError, "momentum must be", lambda: APG(momentum=-1.0)),
        (TypeError, "eta must be a number", lambda: APG(eta=word)),
    ]  # fmt: skip
    for kind, words, call in cases:
        with pytest.raises(kind, match=words):
            call()
