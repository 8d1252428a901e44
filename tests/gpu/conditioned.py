"""Diffusion that starts from a condition: bridges, and masks of spectra that restore in one step."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dynunet import Diffusion, SpectralMask, UNet
from dynunet.diffusion.bridges import BRIDGES
from dynunet.diffusion.samplers import SAMPLERS
from tests.dynunet.test_unet import filled

from .calls import random
from .diffusing import compared, generator
from .networks import SIZES, small
from .rows import Row, Setting

Place = Callable[[Any], Any]
PREDICTIONS = ("sample", "v_prediction", "edm")  # the others need the noise at t = 1


def bridge(n: int, name: str, prediction: str = "sample") -> Diffusion:
    """A small one, in float64 on the CPU."""
    network = small(n, outputs=2, time_embedding=True, cond_channels=3)
    return Diffusion(network, name, prediction).double()


def masks(n: int, causal: bool = False) -> Diffusion:
    """A small network that masks spectra, in a diffusion model."""
    axes = [causal and axis == n - 1 for axis in range(n)]
    network: dict[str, Any] = {"channels": (4, 6), "num_groups": 2, "num_blocks": 1, "norm": "layer"}
    unet = filled(UNet(n, 9, causal=axes, skips="level", mid_blocks=0, **network))
    return Diffusion(SpectralMask(unet, 16), prediction="sample").double()


def pairs(n: int, channels: int, given: int) -> tuple[Tensor, Tensor]:
    """Data and what it is restored from."""
    x0 = random(2, channels, *SIZES[n], low=-1.0, high=1.0)
    return x0, random(2, given, *SIZES[n], low=-0.5, high=0.5) + x0[:, :1]


def conditioned(setting: Setting) -> list[Row]:
    return [*bridges(setting), *spectra(setting)]


def bridges(setting: Setting) -> list[Row]:
    ranks = (3,) if setting.quick else (1, 2, 3, 4)
    rows: list[Row] = []

    def row(name: str, made: Callable[[], Diffusion], run: Any) -> None:
        rows.append(Row(name, lambda: compared(made(), run, setting)))

    def of_bridge(n: int, **given: Any) -> Callable[[Diffusion, Place], dict[str, Tensor]]:
        def run(made: Diffusion, to: Place) -> dict[str, Tensor]:
            x0, cond = map(to, pairs(n, 2, 3))
            how: dict[str, Any] = {"cond": cond, "progress": False, "generator": generator(), **given}
            return {**_learnt(made, x0, cond), "x": made.sample(tuple(x0.shape), 3, **how)}

        return run

    for name in BRIDGES:
        for n in ranks:
            row(f"{name} {n}-D", lambda n=n, name=name: bridge(n, name), of_bridge(n, sampler="ddpm"))
        for prediction in PREDICTIONS:
            row(
                f"{name} {prediction}",
                lambda name=name, p=prediction: bridge(2, name, p),
                of_bridge(2, sampler="ddim", generator=torch.zeros),
            )
        for sampler in SAMPLERS if not setting.quick else ():
            row(f"{name} {sampler}", lambda name=name: bridge(2, name), of_bridge(2, sampler=sampler))
    return rows


def spectra(setting: Setting) -> list[Row]:
    """Masks of spectra, causal or not, by the loss that has short-time spectra itself."""

    def run(made: Diffusion, to: Place) -> dict[str, Tensor]:
        network: Any = made.model
        x0, cond = map(to, pairs(network.spatial_dims, 1, 1))
        restored = made.sample(tuple(x0.shape), 1, cond=cond, progress=False)
        return {**_learnt(made, x0, cond, loss="l1+stft"), "restored": restored}

    return [
        Row(
            f"{n}-D masks of spectra{', causal' if causal else ''}",
            lambda n=n, c=causal: compared(masks(n, c), run, setting),
        )
        for n in ((2,) if setting.quick else (1, 2, 3, 4))
        for causal in (False, True)
    ]


def _learnt(made: Diffusion, x0: Tensor, cond: Tensor, **given: Any) -> dict[str, Tensor]:
    """The loss, and how long its gradient is."""
    loss = made.loss(x0, cond=cond, generator=generator(), **given)
    gradients = torch.autograd.grad(loss, [*made.parameters()], allow_unused=True)
    return {
        "loss": loss.detach(),
        "length": torch.stack([g.norm() for g in gradients if g is not None]).norm(),
    }
