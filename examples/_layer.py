"""The mixed layer of the ocean: where it is, what a satellite sees of it, answers by hand, and maps.

Fields are those of ``_ocean.py``, ``(months, depths, latitudes, longitudes)``; labels are 1 in the layer that
wind and cooling keep stirred, 0 below it, -1 on land.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from _ocean import applied, below, draw_maps, linear, mean_of_parallel
from torch import Tensor
from torch.utils.data import Dataset

from dynunet.diffusion import coordinates
from dynunet.metrics import dice

STEP = 0.5  # degrees C: the layer ends where it is by so much warmer or colder than at the surface


def layer(field: Tensor, water: Tensor) -> Tensor:
    """Labels of the mixed layer, from the surface down to the first depth of another temperature."""
    mixed = ((field - field[:, :1]).abs() < STEP).long().cumprod(1)
    return torch.where(water, mixed, -1)


def seen(field: Tensor, water: Tensor) -> Tensor:
    """What is known everywhere, ``(6, *field.shape)``: the surface, its mean over the year and season, where
    entries are, and where there is water."""
    surface = field[:, :1].expand_as(field)
    yearly = surface.mean(0, keepdim=True).expand_as(field)
    place = coordinates((1, 1, *field.shape))[0, 1:3]  # depth and latitude
    return torch.stack([surface / 15 - 1, yearly / 15 - 1, (surface - yearly) / 4, *place, water.float()])


class Areas(Dataset[dict[str, Tensor]]):
    """Areas of some latitudes and longitudes, all year and at all depths; longitudes have no end."""

    def __init__(self, x: Tensor, labels: Tensor, size: Sequence[int]) -> None:
        self.x, self.labels, self.size = x, labels, size

    def __len__(self) -> int:
        return 10_000

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        rows, columns = self.labels.shape[2:]
        row = int(torch.randint(max(rows - self.size[0], 0) + 1, ()))
        around = (int(torch.randint(columns, ())) + torch.arange(min(self.size[1], columns))) % columns
        x, target = (part[..., row : row + self.size[0], :][..., around] for part in (self.x, self.labels))
        return {"x0": x, "target": target}


def climatology(labels: Tensor, known: Tensor) -> Tensor:
    """What is the rule at the same month, depth and latitude."""
    return (mean_of_parallel(labels.float(), known) > 0.5).long()


def regression(x: Tensor, labels: Tensor, known: Tensor) -> Tensor:
    """Labels as a linear function, for each depth its own, of what is seen and of products of two of it."""
    pairs = torch.combinations(torch.arange(4), with_replacement=True)
    chosen = x[[0, 1, 2, 4]]
    terms = torch.stack([torch.ones_like(x[0]), *chosen, *(chosen[i] * chosen[j] for i, j in pairs)])
    weights = linear([(terms * known, labels * known)])
    return (applied(weights, terms) > 0.5).long()


def judge(answers: Mapping[str, Tensor], labels: Tensor, held_out: Tensor, folder: Path) -> dict[str, str]:
    """Print and return the Dice coefficients below the surface where labels are held out; draw a month."""
    counted = held_out & (labels >= 0) & below(labels)
    truth = labels.clamp(min=0)
    print(f"\nThe mixed layer below the surface, {int(counted.sum()):,} held-out entries:\n")
    print(f"  {'':12}   Dice   levels off")
    figures = {}
    for name, found in answers.items():
        value = dice(found[None], truth[None], 2, counted[None])[0, 1].item()
        off = torch.where(counted, found - truth, 0).sum(1)[counted.any(1)].double().abs().mean()
        print(f"  {name:12}{value:7.3f}{off:13.2f}")
        figures[name] = f"{value:.3f}"
    shown = {**{name: torch.where(held_out, x, truth) for name, x in answers.items()}, "truth": truth}
    maps = {
        f"levels of the mixed layer, first month: {name}": x[0].sum(0).float() for name, x in shown.items()
    }
    draw_maps(maps, labels[0, 0] >= 0, held_out[0, 0], folder / "layer.png", "levels")
    return figures
