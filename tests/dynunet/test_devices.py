"""A device without float64, as Apple's, that is never waited for, as CUDA's should not be.

The meta device stands in: nothing on it can be read back, and a mode refuses float64 tensors there and notes
what is copied to it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dynunet import Diffusion, Encoder, SpectralMask, Stream, Supervised, UNet, summarize
from dynunet._devices import moved, placed
from dynunet.diffusion import DPS, MMPS, Measurement, PiGDM, Tangent, random_crops, zero_terminal_snr
from dynunet.diffusion.losses import LOSSES
from dynunet.diffusion.noise import rand
from dynunet.diffusion.predictions import PREDICTIONS
from dynunet.diffusion.samplers import SAMPLERS
from dynunet.diffusion.schedules import SCHEDULES, Discrete, Linear
from dynunet.metrics import coverage, crps, spread_skill
from dynunet.operators import Mask

from .measurements import SIZES, operators

TABLE = Discrete((1 - torch.linspace(1e-4, 0.02, 100)).cumprod(0))
EVERY = {**SCHEDULES, "table": TABLE, "zero terminal SNR": zero_terminal_snr(Linear())}


class Narrow(TorchDispatchMode):
    """Refuses float64 on the meta device, and counts the tensors that are copied to it."""

    copies = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        made, given = (
            [v for v in tree_leaves(tree) if isinstance(v, Tensor)] for tree in (out, (args, kwargs))
        )
        for tensor in (*made, *given):
            if tensor.is_meta and tensor.dtype in (torch.float64, torch.complex128):
                raise TypeError(f"the device has no {tensor.dtype}: {func}")
        sources = [v for v in given if not v.is_meta and v.ndim > 0]
        if sources and any(v.is_meta for v in made):
            assert (kwargs or {}).get("non_blocking"), f"{func} waits for its copy to the device"
            self.copies += 1
        return out


@contextmanager
def narrow() -> Iterator[Narrow]:
    with Narrow() as mode:
        yield mode


class Small(nn.Module):
    """As little of a network as there can be: a U-Net takes a second a call on this device."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor, t: Tensor, class_labels: Tensor, context: Tensor) -> Tensor:
        per_sample = self.weight * t * class_labels + context.sum((1, 2))
        return x * per_sample.view(-1, *(1,) * (x.ndim - 1))


def diffusion_of(schedule: Any = "cosine", prediction: str = "v_prediction", weighting: Any = None) -> Any:
    return Diffusion(Small(), schedule, prediction, weighting).to("meta")


def conditions(n: int = 2) -> dict[str, Any]:
    with torch.device("meta"):
        return {
            "class_labels": torch.zeros(n, dtype=torch.int64),
            "context": torch.zeros(n, 4, 3),
        }


X = torch.zeros(2, 1, 8, device="meta")


@pytest.mark.parametrize("schedule", EVERY)
@pytest.mark.parametrize("weighting", LOSSES)
def test_the_loss(schedule: str, weighting: Any) -> None:
    for prediction in PREDICTIONS:
        diffusion = diffusion_of(EVERY[schedule], prediction, weighting)
        with narrow() as mode:
            mask = torch.ones(2, 1, 8, dtype=torch.bool, device="meta")
            diffusion.loss(X, mask=mask, generator=torch.Generator(), **conditions()).backward()
        assert mode.copies == 4, "times and scales together, noise, and what is dropped of two conditions"


class OnDevice(torch.Generator):
    """A generator of the meta device, which torch has not."""


OnDevice.device = torch.device("meta")


def test_a_generator_on_the_device_is_not_waited_for() -> None:
    diffusion = diffusion_of()
    with narrow():
        for generator in (OnDevice(), [OnDevice(), OnDevice()]):
            diffusion.loss(X, generator=generator, **conditions()).backward()
    first, second = OnDevice(), OnDevice()
    first.manual_seed(1)
    second.manual_seed(2)
    assert torch.equal(rand(3, first), rand(3, first)), "its state alone decides: nothing is drawn on meta"
    assert not torch.equal(rand(3, first), rand(3, second))


@pytest.mark.parametrize("schedule", EVERY)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_sampling(sampler: str, schedule: str) -> None:
    diffusion = diffusion_of(EVERY[schedule])
    guided: dict[str, Any] = {"guidance_scale": 2.0, "guidance_rescale": 0.5, **conditions()}
    with narrow() as mode:
        out = diffusion.sample((2, 1, 8), 3, sampler=sampler, progress=False, **guided)
    assert out.is_meta
    assert mode.copies == (5 if sampler == "heun" else 3), "one for every evaluation"


def test_every_way_to_sample() -> None:
    diffusion = diffusion_of()
    known = torch.ones(2, 1, 8, dtype=torch.bool, device="meta")
    options: dict[str, Any] = {"steps": 2, "progress": False, **conditions()}
    with narrow():
        for extra in (
            {"guidance_scale": 2.0, "guidance_interval": (0.1, 5.0)},
            {"clip": "dynamic"},
            {"clip": 1.0, "window": 4, "overlap": 2},
            {"class_labels": [0, 1]},
            {"generator": torch.Generator()},
            {"generator": [torch.Generator(), torch.Generator()]},
            {"sampler": "ddim", "eta": 1.0},
            {"spacing": "karras"},
        ):
            diffusion.sample((2, 1, 8), **{**options, **extra})
            diffusion.inpaint(X, known, **{"resamplings": 2, **options, **extra})
            diffusion.sdedit(X, 0.5, **{**options, **extra})
            diffusion.denoise(X, 0.3, **{**options, **extra})
        for t in (0.5, torch.tensor([0.1, 1.0]), torch.zeros(2, device="meta")):
            diffusion.predict(X, t, guidance_scale=2.0, guidance_interval=(0.1, 5.0), **conditions())


def test_likelihoods() -> None:
    diffusion = diffusion_of()
    with narrow():
        for probes in (None, 2):
            options: dict[str, Any] = {"probes": probes, "generator": torch.Generator(), **conditions()}
            values = diffusion.log_likelihood(X, 2, return_error=True, progress=False, **options)
            assert all(value.is_meta and value.shape == (2,) for value in values)


def test_what_lies_elsewhere_is_moved_to_the_network() -> None:
    diffusion, y = diffusion_of(), torch.zeros(2, 1, 8)
    given: dict[str, Any] = {"class_labels": torch.tensor([0, 1]), "context": torch.zeros(2, 4, 3)}
    options: dict[str, Any] = {"steps": 2, "progress": False, **given}
    there: dict[str, Any] = {"device": "meta", **options}  # nothing comes back from this device
    known, generator = y[:, :, :1] == 0, torch.Generator()
    with narrow():
        made = [
            diffusion.sample((2, 1, 8), **options),
            diffusion.sample((2, 1, 8), start=(y, 0.5), generator=generator, **options),
            diffusion.denoise(y, 0.3, **there),
            diffusion.sdedit(y, 0.5, **there),
            diffusion.inpaint(y, known, resamplings=1, **there),
            *diffusion.reconstruct(y, Mask(known), 0.0, 2, method="repaint", **there),
        ]
    assert all(x.is_meta and x.shape == y.shape for x in made)


@pytest.mark.parametrize("device", ["meta", "cuda", "cpu", "mps"])
def test_what_is_waited_for(device: str) -> None:
    """Nothing is read before it has arrived, or has been freed."""
    asked: list[bool] = []

    class Sent(Tensor):
        def to(self, *args: Any, non_blocking: bool = False, **kwargs: Any) -> Any:
            asked.append(non_blocking)
            return self

    x = torch.zeros(3).as_subclass(Sent)
    moved(x, device)
    assert placed({"a": x, "b": [x, {"c": x}], "d": 1}, torch.device(device))["d"] == 1
    assert asked == [device in ("meta", "cuda")] * 4


def test_supervised_losses_of_targets_that_lie_elsewhere() -> None:
    for task, target in (("segmentation", torch.zeros(2, 8).long()), ("regression", torch.zeros(2, 3, 8))):
        weights = [1.0, 2.0, 3.0] if task == "segmentation" else None
        model = Supervised(Wide(), task, class_weights=weights)
        with narrow():
            assert model.loss(X, target=target).is_meta


class Wide(nn.Module):
    """Three outputs on the meta device."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.ones(len(x), 3, *x.shape[2:], device="meta")


class Told(nn.Module):
    """A network on the meta device that says where its input is, and whose output is on the CPU."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, device="meta"))

    def forward(self, x: Tensor, features: Tensor) -> Tensor:
        assert x.is_meta
        assert features.is_meta
        return torch.ones(x.shape)


@pytest.mark.parametrize("window", [None, 4])
def test_predictions_are_where_the_data_are(window: Any) -> None:
    model, x = Supervised(Told(), "regression"), torch.zeros(2, 1, 8)
    assert torch.equal(model.predict(x, window=window, features=torch.zeros(2, 3)), torch.ones(2, 1, 8))


@pytest.mark.parametrize("kind", operators(2))
def test_answers_to_measurements(kind: str) -> None:
    """By operators that were made on the CPU."""
    operator, x = operators(2)[kind], torch.zeros(2, 1, *SIZES[:2], device="meta")
    with narrow():
        y = operator(x)
        variance, known = torch.zeros((), device="meta"), torch.ones_like(y, dtype=torch.bool)
        for method in (MMPS(), DPS(), PiGDM(5)):
            measurement = Measurement(y, operator, variance, known, True)
            at = Tangent(lambda x, t: 0.5 * x, measurement, x, torch.ones(2), (0.5, 0.5), 0.5)
            assert method.correction(at).shape == x.shape


def test_streams() -> None:
    options: dict[str, Any] = {"channels": (4, 8), "num_groups": 2, "norm": "layer", "causal": True}
    unet = UNet(1, 1, attention=(None, "window"), num_heads=2, lookahead=3, **options)
    for network in (unet, SpectralMask(UNet(1, 9, **options), 16)):
        stream = Stream(network.to("meta").eval())
        with narrow() as mode:
            lengths = [stream(torch.zeros(2, 1, 40, device="meta")).shape[-1] for _ in range(3)]
            assert sum(lengths) + stream.end().shape[-1] == 120
        assert mode.copies == 0


def test_ensembles() -> None:
    samples, mask = torch.zeros(19, 2, 1, 8, device="meta"), torch.ones(2, 1, 8, device="meta").bool()
    with narrow() as mode:
        _, _, low, high = summarize(samples)
        figures = crps(samples, X, mask), spread_skill(samples, X, mask), coverage(low, high, X, mask)
    assert all(figure.is_meta and figure.shape == (2,) for figure in figures)
    assert mode.copies == 0


@pytest.mark.parametrize("name", ["DDIM", "EulerDiscrete", "DPMSolverMultistep", "HeunDiscrete"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_schedulers_of_diffusers(name: str) -> None:
    diffusers: Any = pytest.importorskip("diffusers")
    scheduler = getattr(diffusers, f"{name}Scheduler")()
    diffusion = diffusion_of()
    with narrow():
        diffusion.sample((2, 1, 8), 4, sampler=scheduler, progress=False, **conditions())


@pytest.mark.parametrize(
    ("dims", "time_embedding", "positions", "block"),
    [
        (1, "sinusoidal", "rotary", "residual"),
        (2, "ddpm", "sinusoidal", "convnext"),
        (4, "fourier", None, "plain"),
    ],
)
def test_networks(dims: int, time_embedding: str, positions: Any, block: str) -> None:
    options: dict[str, Any] = {
        "channels": (8, 8), "num_groups": 4, "num_blocks": 1, "num_heads": 2, "block": block,
        "time_embedding": time_embedding, "positions": positions, "attention": ("full+window+axial", "cbam"),
        "num_classes": 3, "cond_channels": 1, "cond_features": 2, "context_features": 3,
    }  # fmt: skip
    unet = UNet(dims, 4, skip_attention=True, **options).to("meta")
    encoder = Encoder(dims, 4, 3, **options).to("meta")
    with torch.device("meta"):
        x, cond = torch.zeros(2, 4, *(4,) * dims), torch.zeros(2, 1, *(2,) * dims)
        given: dict[str, Any] = {
            "cond": cond,
            "features": torch.zeros(2, 2),
            "class_labels": torch.zeros(2).long(),
        }
    with narrow():
        encoder(x, torch.zeros(2, device="meta"), **given).sum().backward()
        Diffusion(unet).loss(x, **given).backward()


def test_crops_with_their_places() -> None:
    with narrow():
        crops, places = random_crops(X, 4)
    assert crops.shape == places.shape == (2, 1, 4)
