"""A training step of the U-Net beside diffusers and MONAI at equal weights, and beside the machine's limit.

"f+b" is here a whole step: forward, backward, and one step of AdamW, fused as in the trainer. The first table
gives one network to both sides, its weights copied by :mod:`dynunet.interop`, and compares the first output
and the gradient of the first weight before it times them. In the second table every row is one network by
itself ("ours" in the legend above is whichever the row names): the share of the roof that one step reaches,
with the FLOPs of convolutions, linear layers and attention counted on the meta device, three times those of a
forward pass.
The batch is such that a forward pass takes about 4e10 FLOPs, about a second for a step on two cores.
``--filter tiny`` only tries whether all of it runs.
"""

import importlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.utils.flop_counter import FlopCounterMode

from dynunet import UNet, interop

from .harness import OURS, Build, Case, Contender, Table
from .peers import installed
from .report import main

WORK = 4e10  # FLOPs of a forward pass
HEAD = 16  # channels of an attention head
GROUPS = 8  # of group norm
COLOURS = 3
TIME = 0.5  # of [0, 1]; 500 of 1000 for the peers


@dataclass(frozen=True)
class Config:
    """One size of network and input. The deepest level and the bottleneck attend."""

    channels: tuple[int, ...]
    size: int
    spatial_dims: int
    work: float = WORK

    def shape(self, batch: int) -> tuple[int, ...]:
        return (batch, COLOURS, *(self.size,) * self.spatial_dims)

    def name(self, batch: int) -> str:
        return f"{'-'.join(map(str, self.channels))} {batch}x{self.size}^{self.spatial_dims}"


@dataclass(frozen=True)
class Network:
    module: nn.Module
    run: Callable[[Tensor], Tensor]
    first: nn.Parameter  # its gradient has passed the whole network


Make = Callable[[Config], Network]


def _times(x: Tensor, t: float) -> Tensor:
    return x.new_full((len(x),), t)


def _filled(module: nn.Module) -> nn.Module:
    """No weight at zero, as some begin: it would hide what comes before it."""
    with torch.no_grad():
        for p in module.parameters():
            if p.ndim > 1:
                p.normal_(std=prod(p.shape[1:]) ** -0.5)
    return module


def _of_unet(unet: UNet) -> Network:
    return Network(unet, lambda x: unet(x, _times(x, TIME)), next(unet.stem.parameters()))


def ours(config: Config) -> Network:
    deepest = [None] * (len(config.channels) - 1) + ["full"]
    unet = UNet(
        config.spatial_dims,
        COLOURS,
        channels=config.channels,
        attention=deepest,
        num_heads=[c // HEAD for c in config.channels],
        mid_attention="full",
        num_groups=GROUPS,
        time_embedding=True,
    )
    return _of_unet(_filled(unet))  # type: ignore[arg-type]


def diffusers(config: Config) -> Network:
    plain = len(config.channels) - 1
    model: Any = importlib.import_module("diffusers").UNet2DModel(
        block_out_channels=config.channels,
        down_block_types=("DownBlock2D",) * plain + ("AttnDownBlock2D",),
        up_block_types=("AttnUpBlock2D",) + ("UpBlock2D",) * plain,
        attention_head_dim=HEAD,
        norm_num_groups=GROUPS,
    )
    _filled(model)
    return Network(
        model, lambda x: model(x, _times(x, TIME * 1000), return_dict=False)[0], model.conv_in.weight
    )


def monai(config: Config) -> Network:
    model: Any = importlib.import_module("monai.networks.nets").DiffusionModelUNet(
        config.spatial_dims,
        COLOURS,
        COLOURS,
        num_res_blocks=2,
        channels=config.channels,
        attention_levels=[False] * (len(config.channels) - 1) + [True],
        num_head_channels=HEAD,
        norm_num_groups=GROUPS,
        use_flash_attention=True,  # its faster attention
    )
    _filled(model)
    return Network(model, lambda x: model(x, _times(x, TIME * 1000)), model.conv_in.conv.weight)


def azula(config: Config) -> Network:
    features = 4 * config.channels[0]
    model: Any = importlib.import_module("azula.nn.unet").UNet(
        COLOURS,
        COLOURS,
        hid_channels=config.channels,
        hid_blocks=[2] * len(config.channels),
        spatial=config.spatial_dims,
        mod_features=features,
        norm="group",
        groups=GROUPS,
    )
    run = lambda x: model(x, x.new_full((len(x), features), TIME))  # noqa: E731
    return Network(model, run, next(model.descent.parameters()))


def a_unet(config: Config) -> Network:
    apex = importlib.import_module("a_unet.apex")
    blocks = [
        apex.XBlock(channels=c, factor=min(i + 1, 2), items=[apex.ResnetItem] * 2)
        for i, c in enumerate(config.channels)
    ]
    model: Any = apex.XUNet(
        dim=config.spatial_dims,
        in_channels=COLOURS,
        blocks=blocks,
        skip_t=apex.SkipCat,
        resnet_groups=GROUPS,
    )
    return Network(model, model, next(model.parameters()))


EQUAL: dict[str, tuple[Make, Callable[[nn.Module], UNet]]] = {
    "diffusers": (diffusers, interop.from_diffusers),
    "monai": (monai, interop.from_monai),
}


def _step(make: Callable[[], Network]) -> Build:
    """A network as a contender whose backward pass goes on to a step of AdamW."""

    def build(tensors: Sequence[Tensor]) -> Contender:
        (x,) = tensors
        torch.manual_seed(0)  # the same weights for every contender
        network = make()
        network.module.to(x).train()
        optimizer = torch.optim.AdamW(network.module.parameters(), 1e-4, fused=True)

        def forward() -> Tensor:
            with torch.no_grad():
                return network.run(x)

        def both(direction: Tensor) -> Callable[[], list[Tensor | None]]:
            def call() -> list[Tensor | None]:
                out = network.run(x)
                out.backward(direction)
                gradient = network.first.grad
                optimizer.step()
                optimizer.zero_grad()
                return [out.detach(), gradient]

            return call

        return Contender(forward, both)

    return build


@cache
def flops(make: Make, config: Config) -> int:
    """Of a forward pass of one sample: two per product in convolutions, linear layers and attention."""
    with torch.device("meta"), torch.no_grad():
        network = make(config)
        counted = [0]

        def layer(module: nn.Module, inputs: Any, out: Tensor) -> None:
            weight: Any = module.weight
            channel = 1 if isinstance(module, _ConvNd) else -1  # a weight is read once per output position
            counted[0] += 2 * weight.numel() * (out.numel() // out.shape[channel])

        for module in network.module.modules():
            if isinstance(module, (_ConvNd, nn.Linear)):
                module.register_forward_hook(layer)
        with FlopCounterMode(display=False) as counter:
            network.run(torch.empty(config.shape(1)))
    operators = counter.get_flop_counts()["Global"].items()
    return counted[0] + sum(n for op, n in operators if "bmm" in str(op) or "dot_product" in str(op))


def batch_of(make: Make, config: Config) -> int:
    return max(1, round(config.work / flops(make, config)))


def beside(library: str, config: Config, label: str = "") -> Case:
    """A peer, and ours with its weights."""
    make, convert = EQUAL[library]
    batch = batch_of(make, config)
    contenders = {
        OURS: _step(lambda: _of_unet(convert(make(config).module))),
        library: _step(lambda: make(config)),
    }
    name = f"{config.spatial_dims}-D {library} {config.name(batch)} {label}".strip()
    return Case(name, [config.shape(batch)], contenders, batch * flops(make, config))


def alone(make: Make, config: Config, label: str = "") -> Case:
    """One network, whichever it is."""
    batch = batch_of(make, config)
    name = f"{config.spatial_dims}-D {make.__name__} {config.name(batch)} {label}".strip()
    return Case(name, [config.shape(batch)], {OURS: _step(lambda: make(config))}, batch * flops(make, config))


# The libraries that have a network on so many axes.
PEERS: dict[int, tuple[Make, ...]] = {
    1: (azula, a_unet),
    2: (diffusers, monai, azula),
    3: (monai, azula),
    4: (),
}


SIZES = {
    1: Config((64, 128, 256), 2048, 1),
    2: Config((64, 128, 256), 32, 2),
    3: Config((32, 64, 128), 24, 3),
    4: Config((16, 32, 64), 12, 4),
}
TINY = {n: Config((16, 32), 4, n, work=0) for n in SIZES}


def tables() -> list[Table]:
    image, volume = SIZES[2], SIZES[3]
    equal = [
        ("diffusers", image, ""),
        ("monai", image, ""),
        ("monai", volume, ""),
        ("diffusers", Config((16, 32), 8, 2, work=0), "tiny"),
        ("monai", Config((16, 32), 8, 2, work=0), "tiny"),
        ("monai", TINY[3], "tiny"),
    ]
    sizes = [*((config, "") for config in SIZES.values()), *((config, "tiny") for config in TINY.values())]
    each = [
        alone(make, config, label)
        for config, label in sizes
        for make in (ours, *(p for p in PEERS[config.spatial_dims] if installed(p.__name__)))
    ]
    return [
        Table(
            "Training step at equal weights",
            [beside(*given) for given in equal if installed(given[0])],
            mean_of=tuple(filter(installed, EQUAL)),
        ),
        Table("Share of the roof in a training step", each),
    ]


if __name__ == "__main__":
    sys.exit(main("tests.benchmarks.unet"))
