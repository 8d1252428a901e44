"""The mixed layer of the ocean: where it is, what floats measure of it, answers by hand, and maps.

Fields are those of ``_ocean.py``, ``(months, depths, latitudes, longitudes)``; labels are 1 in the layer that
wind and cooling keep stirred, 0 below it, -1 on land.
"""

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import torch
from _ocean import applied, below, draw_maps, linear, mean_of_parallel
from torch import Tensor
from torch.utils.data import Dataset

import convnd.functional as F
from dynunet.diffusion import coordinates
from dynunet.metrics import dice

STEP = 0.5  # degrees C: the layer ends where it is by so much warmer or colder than at the surface
STEPS = (0.4, 0.6, 0.8, 1.0, 1.3)  # degrees C, between which to choose
WIDE = (3, 5, 9)  # months, latitudes and longitudes of a mean
REACHES = tuple(product((1, 3), (1, 3, 5), (1, 3, 5, 9)))  # to choose from


def layer(field: Tensor, water: Tensor) -> Tensor:
    """Labels of the mixed layer, from the surface down to the first depth of another temperature."""
    mixed = ((field - field[:, :1]).abs() < STEP).long().cumprod(1)
    return torch.where(water, mixed, -1)


def measured(field: Tensor, water: Tensor, share: float, std: float) -> tuple[Tensor, Tensor]:
    """Temperatures of floats, which are in other places every month, and where they are; 0 elsewhere.

    Args:
        field, water: the truth.
        share: of the columns of water, which are measured.
        std: of the errors, in degrees C.
    """
    floats = (torch.rand_like(field[:, :1]) < share) & water
    return (field + std * torch.randn_like(field)) * floats, floats


def seen(values: Tensor, floats: Tensor, water: Tensor, usual: Tensor) -> Tensor:
    """What the network is shown, ``(9, *values.shape)``: the temperature that was measured, and how far it is
    from the surface's; where; the mean of that around, and how much there is around; how usual the layer is
    on the parallel; where there is water; and places, alike in both hemispheres."""
    depth, latitude = coordinates((1, 1, *values.shape))[0, 1:3]
    deeper = values - values[:, :1]
    mean, count = mean_around(deeper, floats, WIDE)
    warm, there = (values / 15 - 1) * floats, floats.expand_as(values)
    shown = [warm, deeper.clamp(-6, 6) / 2, there, mean.clamp(-3, 3), 4 * count.expand_as(values)]
    shown += [2 * usual - 1, water, depth, 2 * latitude.abs() - 1]
    return torch.stack([x.float() for x in shown])


class Areas(Dataset[dict[str, Tensor]]):
    """Areas of some latitudes and longitudes, all year and at all depths, with new floats each time.

    Longitudes have no end. How usual the layer is comes from other longitudes.
    """

    def __init__(
        self, field: Tensor, water: Tensor, labels: Tensor, size: Sequence[int], share: float, std: float
    ) -> None:
        self.parts, self.size, self.share, self.std = (field, water, labels), size, share, std

    def __len__(self) -> int:
        return 10_000

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        rows, columns = self.parts[0].shape[2:]
        row = int(torch.randint(max(rows - self.size[0], 0) + 1, ()))
        around = (int(torch.randint(columns, ())) + torch.arange(min(self.size[1], columns))) % columns
        parallels = [part[..., row : row + self.size[0], :] for part in self.parts]
        labels, elsewhere = parallels[2], torch.ones(columns, dtype=torch.bool)
        elsewhere[around] = False
        usual = mean_of_parallel(labels.float(), elsewhere & (labels >= 0))[..., around]
        field, water, target = (part[..., around] for part in parallels)
        asked = measured(field, water, self.share, self.std)
        return {"x0": seen(*asked, water, usual), "target": target}


def climatology(labels: Tensor, known: Tensor) -> Tensor:
    """What is the rule at the same month, depth and latitude."""
    return (mean_of_parallel(labels.float(), known) > 0.5).long()


def mean_around(values: Tensor, floats: Tensor, reach: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Means of what floats measured around, and the share of places where there are any.

    ``reach`` is of months, latitudes and longitudes, odd numbers.
    """
    months, rows, columns = (size // 2 for size in reach)

    def around(x: Tensor) -> Tensor:
        x = F.pad(x, (columns, columns), mode="circular")
        x = torch.cat([x[len(x) - months :], x, x[:months]])  # nor has the year an end
        size = (reach[0], 1, *reach[1:])
        return F.avg_pool(x.unsqueeze(0), size, 1, (0, 0, rows, 0), spatial_dims=4)[0]

    share = around(floats.float())
    return around(values * floats) / share.clamp(min=1e-6), share


def smoothed(values: Tensor, floats: Tensor, usual: Tensor, reach: Sequence[int], step: float) -> Tensor:
    """The layer by means around: where these are within a step of the surface's; as usual far from floats."""
    mean, share = mean_around(values - values[:, :1], floats, reach)
    return torch.where(share > 1e-6, (mean.abs() < step).long().cumprod(1), usual)


def best_smoothed(values: Tensor, floats: Tensor, labels: Tensor, known: Tensor) -> tuple[Tensor, Any]:
    """The layer by means around, with the reach and the step that are best where labels are known."""
    usual, truth = climatology(labels, known), labels.clamp(min=0)
    counted = known & below(labels)

    def good(how: tuple[Sequence[int], float]) -> float:
        found = smoothed(values, floats, usual, *how)
        return dice(found[None], truth[None], 2, counted[None])[0, 1].item()

    best = max(product(REACHES, STEPS), key=good)
    return smoothed(values, floats, usual, *best), best


def regression(values: Tensor, floats: Tensor, labels: Tensor, known: Tensor, reach: Sequence[int]) -> Tensor:
    """Labels as a linear function, for each depth its own, of means around and the rule of a parallel."""
    mean, _ = mean_around(values - values[:, :1], floats, reach)
    wide, _ = mean_around(values - values[:, :1], floats, WIDE)
    usual = mean_of_parallel(labels.float(), known)
    terms = [torch.ones_like(mean), usual]
    for x in (mean, wide):
        terms += [(-x.abs()).exp(), (-((2 * x) ** 2)).exp(), usual * (-x.abs()).exp()]
    x = torch.stack(terms)
    return (applied(linear([(x * known, labels * known)]), x) > 0.5).long()


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
