"""Networks of other libraries as generators of images of classes, alike in channels. None has to be there.

Each is called as ours, ``network(x, t, class_labels=)`` with times in [0, 1] and labels of which -1 means
none, has one block at each level where it lets one choose, group norm of eight groups where it lets one
choose, and attention in its bottleneck where it has any.
"""

import importlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from dynunet import UNet
from dynunet.embeddings import TimeEmbedding

from .peers import installed

GROUPS = 8
TIMES = 1000.0  # the last time of the peers

Make = Callable[[Sequence[int], int, int], nn.Module]


def ours(channels: Sequence[int], colours: int, classes: int) -> nn.Module:
    return UNet(
        2,
        colours,
        channels=channels,
        num_blocks=1,
        mid_attention="full",
        num_groups=GROUPS,
        time_embedding=True,
        num_classes=classes,
    )


class Padded(nn.Module):
    """A network that needs sizes divisible by the product of its strides: zeros are put around the image."""

    def __init__(self, network: nn.Module, multiple: int, run: Callable[[Tensor, Tensor, Tensor], Tensor]):
        super().__init__()
        self.network, self.multiple, self.run = network, multiple, run

    def forward(self, x: Tensor, t: Tensor, class_labels: Tensor | None = None) -> Tensor:
        labels = torch.full((len(x),), -1, device=x.device) if class_labels is None else class_labels
        *_, rows, columns = x.shape
        more = [-n % self.multiple for n in (rows, columns)]
        padded = pad(x, (0, more[1], 0, more[0]))
        return self.run(padded, t * TIMES, labels)[..., :rows, :columns]


def diffusers(channels: Sequence[int], colours: int, classes: int) -> nn.Module:
    model: Any = importlib.import_module("diffusers").UNet2DModel(
        in_channels=colours,
        out_channels=colours,
        layers_per_block=1,
        block_out_channels=tuple(channels),
        down_block_types=("DownBlock2D",) * len(channels),
        up_block_types=("UpBlock2D",) * len(channels),
        norm_num_groups=GROUPS,
        num_class_embeds=classes + 1,
    )

    def run(x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        return model(x, t, class_labels=labels % (classes + 1), return_dict=False)[0]

    return Padded(model, 2 ** (len(channels) - 1), run)


def lucidrains(channels: Sequence[int], colours: int, classes: int) -> nn.Module:
    module: Any = importlib.import_module("denoising_diffusion_pytorch.classifier_free_guidance")
    if any(c % channels[0] for c in channels):
        raise ValueError(f"channels must be multiples of the first for lucidrains' Unet, got {channels}")
    model = module.Unet(
        channels[0],
        classes,
        channels=colours,
        dim_mults=tuple(c // channels[0] for c in channels),
        cond_drop_prob=0.0,
    )
    # The loss drops labels, not the network: one label more stands for none.
    model.classes_emb = nn.Embedding(classes + 1, channels[0])

    def run(x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        return model(x, t, labels % (classes + 1))

    return Padded(model, 2 ** (len(channels) - 1), run)


class Modulated(nn.Module):
    """Azula's network with the vectors of time and class that it asks its user for."""

    def __init__(self, channels: Sequence[int], colours: int, classes: int) -> None:
        super().__init__()
        features = 4 * channels[0]
        self.time = TimeEmbedding("sinusoidal", channels[0], features, TIMES)
        self.classes = nn.Embedding(classes + 1, features)
        self.network = importlib.import_module("azula.nn.unet").UNet(
            colours,
            colours,
            hid_channels=channels,
            hid_blocks=[1] * len(channels),
            mod_features=features,
            norm="group",
            groups=GROUPS,
        )

    def forward(self, x: Tensor, t: Tensor, class_labels: Tensor | None = None) -> Tensor:
        labels = torch.full((len(x),), -1, device=x.device) if class_labels is None else class_labels
        mod = self.time(t) + self.classes(labels % self.classes.num_embeddings)
        return self.network(x, mod)


MAKERS: dict[str, Make] = {"ours": ours} | {
    name: make
    for name, package, make in (
        ("diffusers", "diffusers", diffusers),
        ("lucidrains", "denoising_diffusion_pytorch", lucidrains),
        ("azula", "azula", Modulated),
    )
    if installed(package)
}
