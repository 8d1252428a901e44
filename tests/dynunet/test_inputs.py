"""Inputs of a diffusion model: labels, numbers and shapes as people have them, points, and no samples."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dynunet import Diffusion, Encoder, UNet
from dynunet.diffusion.samplers import SAMPLERS
from dynunet.testing import Gaussian

LABELS: dict[str, Any] = {
    "list": [0, 2],
    "tuple": (0, 2),
    "array": np.array([0, 2]),
    "short array": np.array([0, 2], dtype=np.uint16),
    **{
        str(dtype): torch.tensor([0, 2], dtype=dtype)
        for dtype in (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16)
    },
}


def labelled(cond_dropout: float = 0.0) -> Diffusion:
    unet = UNet(1, 1, channels=(4,), num_groups=2, time_embedding=True, num_classes=3)
    for parameter in unet.parameters():
        nn.init.normal_(parameter, std=0.3, generator=generator())
    return Diffusion(unet, cond_dropout=cond_dropout)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("kind", LABELS)
def test_labels_of_every_kind(kind: str) -> None:
    diffusion, x = labelled(0.5), torch.zeros(2, 1, 5)

    def outcomes(labels: Any) -> list[Tensor]:
        options: dict[str, Any] = {"guidance_scale": 2.0, "class_labels": labels}
        return [
            diffusion.loss(x, generator=generator(), class_labels=labels),
            diffusion.predict(x, 0.5, **options),
            diffusion.sample((2, 1, 5), 2, progress=False, generator=generator(), **options),
        ]

    for got, expected in zip(outcomes(LABELS[kind]), outcomes(torch.tensor([0, 2])), strict=True):
        torch.testing.assert_close(got, expected, rtol=0, atol=0)
    if isinstance(LABELS[kind], Tensor):  # what a network is called with by itself
        network = diffusion.model
        t = torch.ones(2)
        expected = network(x, t, class_labels=torch.tensor([0, 2]))
        assert torch.equal(network(x, t, class_labels=LABELS[kind]), expected)


@pytest.mark.parametrize("one", [2, np.int64(2), np.array(2), torch.tensor(2, dtype=torch.uint8)])
def test_one_label_is_that_of_all(one: Any) -> None:
    diffusion, x = labelled(), torch.zeros(2, 1, 5)
    both = torch.tensor([2, 2])
    losses = [diffusion.loss(x, generator=generator(), class_labels=labels) for labels in (one, both)]
    assert torch.equal(*losses)
    estimates = [diffusion.predict(x, 0.5, class_labels=labels) for labels in (one, both)]
    assert torch.equal(*estimates)


@pytest.mark.parametrize("wrong", [[0.5, 1.0], [True, False], torch.zeros(3).long(), [[0, 1]], 1.0])
def test_labels_that_are_none_are_refused(wrong: Any) -> None:
    diffusion, x = labelled(), torch.zeros(2, 1, 5)
    for call in (
        lambda: diffusion.loss(x, class_labels=wrong),
        lambda: diffusion.predict(x, 0.5, class_labels=wrong),
        lambda: diffusion.sample((2, 1, 5), 2, class_labels=wrong),
    ):
        with pytest.raises((TypeError, ValueError), match="class_labels must be "):
            call()


NUMBERS: list[Any] = [
    lambda v: v,
    np.float64,
    np.float32,
    np.array,
    lambda v: torch.tensor(v, dtype=torch.float64),
]


@pytest.mark.parametrize("kind", NUMBERS)
def test_numbers_of_every_kind(kind: Any) -> None:
    diffusion, x = labelled(), torch.zeros(2, 1, 8)
    options: dict[str, Any] = {"steps": 2, "progress": False, "generator": generator()}
    guided: dict[str, Any] = {"class_labels": 1, "guidance_scale": kind(2.0), "guidance_rescale": kind(0.5)}
    diffusion.denoise(x, kind(0.25), clip=kind(0.5), **options)
    diffusion.sdedit(x, kind(0.5), **options)
    diffusion.predict(x, kind(0.5), **guided)
    guided |= {"guidance_interval": (kind(0.5), kind(3.0)), "eta": kind(0.5), "sampler": "ddim"}
    diffusion.sample((2, 1, 8), **guided, **options)
    diffusion.sample((2, 1, 8), start=(x, kind(0.5)), **options)
    made = Diffusion(diffusion.model, cond_dropout=kind(0.5), sigma_data=kind(0.25), shift=kind(2.0))
    assert made.config["shift"] == 2.0
    assert made.cond_dropout == 0.5


@pytest.mark.parametrize(
    "shape",
    [
        [2, 1, 8],
        torch.Size([2, 1, 8]),
        np.array([2, 1, 8]),
        torch.tensor([2, 1, 8]),
        np.zeros((2, 1, 8)).shape,
    ],
)
@pytest.mark.parametrize("integer", [int, np.int64, np.array, torch.tensor])
def test_shapes_and_counts_of_every_kind(shape: Any, integer: Any) -> None:
    out = labelled().sample(shape, integer(2), window=integer(4), overlap=integer(1), progress=False)
    assert out.shape == (2, 1, 8)


@pytest.mark.parametrize("wrong", ["2", True, None, [0.5], 1j])
def test_what_is_no_number_is_refused(wrong: Any) -> None:
    diffusion, x = labelled(), torch.zeros(2, 1, 8)
    for name, call in {
        "sigma": lambda: diffusion.denoise(x, wrong),
        "strength": lambda: diffusion.sdedit(x, wrong),
        "guidance_scale": lambda: diffusion.sample((2, 1, 8), class_labels=1, guidance_scale=wrong),
        "shift": lambda: Diffusion(diffusion.model, shift=wrong),
    }.items():
        with pytest.raises(TypeError, match=f"{name} must be a number, got"):
            call()


@pytest.mark.parametrize("axes", [0, 1, 3])
def test_points_and_any_number_of_axes(axes: int) -> None:
    """Data of two channels and no place: whatever the model takes, a function takes points."""
    data, schedule = Gaussian(0.3, 0.5), "cosine"
    diffusion = Diffusion(lambda x, t: x, schedule, "sample")
    diffusion.model = data.denoiser(diffusion.schedule)
    shape = (4000 // 2**axes, 2, *(2,) * axes)
    out = torch.zeros(shape)
    for sampler in sorted(SAMPLERS.keys() - {"consistency"}):
        out = diffusion.sample(shape, 30, sampler=sampler, generator=generator(), progress=False)
        assert out.shape == shape
        assert out.mean().item() == pytest.approx(0.3, abs=0.05)
        assert out.std().item() == pytest.approx(0.5, abs=0.1)
    known = torch.zeros(shape, dtype=torch.bool)
    known[:, 0] = True
    filled = diffusion.inpaint(out, known, 2, progress=False)
    assert torch.equal(filled[:, 0], out[:, 0])
    for restored in (
        diffusion.sdedit(out, 0.3, 2, progress=False),
        diffusion.denoise(out, 0.1, 2, clip="dynamic", progress=False),
        diffusion.predict(out, 0.5),
    ):
        assert restored.shape == shape
    assert diffusion.loss(out, mask=known).isfinite()


@pytest.mark.parametrize("dims", [1, 2, 3, 4])
def test_no_samples(dims: int) -> None:
    unet = UNet(dims, 1, channels=(4, 8), num_groups=2, time_embedding=True, num_classes=3)
    diffusion = Diffusion(unet).eval()
    shape = (0, 1, *(5,) * dims)
    x = torch.zeros(shape)
    loss = diffusion.loss(x, class_labels=torch.zeros(0).long())
    assert loss == 0
    assert diffusion.loss(x, mask=x > 0, class_labels=[], generator=[]) == 0
    options: dict[str, Any] = {"steps": 2, "progress": False, "class_labels": 1, "generator": []}
    for out in (
        *(diffusion.sample(shape, sampler=sampler, **options) for sampler in SAMPLERS),
        diffusion.sample(shape, guidance_scale=2.0, guidance_rescale=0.5, clip="dynamic", **options),
        diffusion.sample(shape, window=4, **options),
        diffusion.inpaint(x, x > 0, **options),
        diffusion.sdedit(x, **options),
        diffusion.denoise(x, 0.2, **options),
        diffusion.predict(x, 0.5, class_labels=1),
    ):
        assert out.shape == shape


OPTIONS: dict[str, dict[str, Any]] = {
    **{f"block={v}": {"block": v} for v in ("plain", "residual", "convnext")},
    **{f"norm={v}": {"norm": v} for v in ("batch", "instance", "layer", "rms", None)},
    **{
        f"attention={v}": {"attention": v, "positions": "rotary"}
        for v in ("full", "linear", "axial", "window", "channel", "spatial", "cbam")
    },
    "sinusoidal positions": {"attention": "full", "positions": "sinusoidal", "mid_attention": "full"},
    "gates": {"skip_attention": True},
    "attention on the skips": {"skip_attention": "cbam"},
    **{f"downsample={v}": {"downsample": v} for v in ("max", "avg")},
    **{f"upsample={v}": {"upsample": v} for v in ("linear", "transpose", "shuffle")},
    **{f"padding={v}": {"padding_mode": v} for v in ("reflect", "replicate", "circular")},
    "steered": {
        "time_embedding": True, "num_classes": 3, "cond_channels": 1, "cond_features": 2,
        "context_features": 3, "modulation": "scale_shift", "dropout": 0.1, "gradient_checkpointing": True,
        "attention": "full",
    },
}  # fmt: skip


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("dims", [1, 2, 3, 4])
def test_networks_without_samples(dims: int, name: str) -> None:
    common: dict[str, Any] = {"channels": (4, 4), "num_groups": 2, "num_heads": 2, "num_blocks": 1}
    options = {**common, **OPTIONS[name]}
    alone = {k: v for k, v in options.items() if k not in ("skip_attention", "upsample", "mid_attention")}
    x = torch.zeros(0, 2, *(4,) * dims, requires_grad=True)
    steered: dict[str, Any] = {}
    if name == "steered":
        steered = {
            "t": torch.zeros(0),
            "class_labels": torch.zeros(0).long(),
            "cond": torch.zeros(0, 1, *(2,) * dims),
            "features": torch.zeros(0, 2),
            "context": torch.zeros(0, 4, 3),
        }
    for network, shape in (
        (UNet(dims, 2, deep_supervision=1, **options).eval(), tuple(x.shape)),
        (Encoder(dims, 2, 3, **alone).eval(), (0, 3)),
    ):
        out = network(x, **steered)
        assert out.shape == shape
        out.sum().backward()
        assert x.grad is not None
        assert x.grad.shape == x.shape
        for key, parameter in network.named_parameters():
            assert parameter.grad is None or not parameter.grad.any(), key


def test_what_a_sampler_does_not_use_is_refused() -> None:
    diffusers: Any = pytest.importorskip("diffusers")
    scheduler = diffusers.UniPCMultistepScheduler()
    diffusion, x = labelled(), torch.zeros(2, 1, 8)
    shape = (2, 1, 8)
    for pattern, call in [
        (
            r"sampler must be a name or a function to start .*, here at time 0\.5: UniPCMultistepScheduler",
            lambda: diffusion.sdedit(x, 0.5, sampler=scheduler),
        ),
        (
            "sampler must be a name or a function to start",
            lambda: diffusion.denoise(x, 0.5, sampler=scheduler),
        ),
        (
            "sampler must be a name or a function here, as inpainting .* UniPCMultistepScheduler",
            lambda: diffusion.inpaint(x, x > 0, sampler=scheduler),
        ),
        (
            r"eta must be left out with sampler 'UniPCMultistepScheduler', which has no such .* got 0\.5",
            lambda: diffusion.sample(shape, sampler=scheduler, eta=0.5),
        ),
        (
            "eta must be left out with sampler 'heun'",
            lambda: diffusion.sample(shape, sampler="heun", eta=0.5),
        ),
        ("spacing must be left out", lambda: diffusion.sample(shape, sampler=scheduler, spacing="karras")),
        ("guidance_scale must be 1 without", lambda: diffusion.predict(x, 0.5, guidance_scale=2.0)),
        (r"guidance_rescale must be in \[0, 1\]", lambda: diffusion.predict(x, 0.5, guidance_rescale=2.0)),
        (r"t must be in \[0, 1\], got 2 to 2", lambda: diffusion.predict(x, 2.0)),
        (r"t must be one time or have shape \(2,\)", lambda: diffusion.predict(x, torch.zeros(3))),
    ]:
        with pytest.raises(ValueError, match=pattern):
            call()
    with pytest.raises(TypeError, match="inpaint takes no start"):
        diffusion.inpaint(x, x > 0, start=(x, 0.5))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_eta_is_that_of_a_scheduler_which_has_it() -> None:
    diffusers: Any = pytest.importorskip("diffusers")
    scheduler = diffusers.DDIMScheduler(clip_sample=False, timestep_spacing="trailing")
    diffusion = Diffusion(lambda x, t: 0.5 * x, "linear", "sample")

    def draw(eta: float | None) -> Tensor:
        options: dict[str, Any] = {"steps": 4, "sampler": scheduler, "eta": eta, "progress": False}
        return diffusion.sample((2, 1, 3), generator=generator(), **options)

    assert torch.equal(draw(None), draw(0.0))
    assert not torch.allclose(draw(1.0), draw(0.0))
    assert math.isfinite(draw(1.0).sum().item())
