"""The brains of the 3-D example: read two people's, measure one of them, fill it in by hand, and compare."""

from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from _runs import debian, keep
from _scans import ATLAS, TEMPLATE, Grid
from torch import Tensor
from torch.utils.data import Dataset

import convnd.functional as F
from dynunet import summarize
from dynunet.data import Augment
from dynunet.metrics import coverage, crps, psnr, ssim
from dynunet.operators import Downsample, Mask, Operator
from dynunet.plotting import slices

EMPTY = -0.8  # the grey value below which there is nothing, in [-1, 1]
# Heads differ by so much from each other, and their tissues' values from scan to scan.
OTHERS = Augment(
    preset=False,
    rotation=10,
    scale=(0.8, 1.1),
    stretch=(0.9, 1.1),
    shear=6,
    gamma=(0.8, 1.25),
    probability=0.8,
    padding="border",
    interpolation="cubic",
    condition=False,
)
SHIFT, ELASTIC = 3.0, 5.0  # mm, at most

Block = tuple[slice, ...]


class Brains(NamedTuple):
    """Scans ``(1, X, Y, Z)`` in [-1, 1]: to learn from, of another person, and the first on its grid."""

    teacher: Tensor
    other: Tensor
    atlas: Tensor


class Question(NamedTuple):
    """What is asked of crops ``(N, 1, *size)``.

    Attributes:
        name: in one word.
        truth, atlas: crops of the scan, and of the atlas at their places.
        operator: what is measured of the truth.
        counted: which entries are judged.
        shown: the measurement as it is drawn.
        by_hand: classical answers.
    """

    name: str
    truth: Tensor
    atlas: Tensor
    operator: Operator
    counted: Tensor
    shown: Tensor
    by_hand: dict[str, Tensor]


def read(data: Path | None, spacing: float) -> Brains:
    """The template and one man's scan, both without skulls, with entries so many mm wide.

    An entry is the mean of what is in it. The man's values are changed by one rising curve, so that they are
    spread as the template's are.
    """
    if data is not None:
        paths = [debian(f"{n}.nii.gz", packages="", data=data / f"{n}.nii.gz") for n in ("scan", "other")]
    else:
        package = find_spec("nilearn")
        if package is None:
            raise SystemExit("the MNI152 template comes with nilearn: pip install nilearn")
        template = Path(str(package.origin)).parent / TEMPLATE.format("t1")
        paths = [template, debian(f"{ATLAS}/ch2bet.nii.gz", packages="mricron-data")]
    pairs = (paths[0], paths[0]), (paths[1], paths[1]), (paths[0], paths[1])
    teacher, other, atlas = (averaged(path, at, spacing) for path, at in pairs)
    scale = 2 / teacher.max()
    return Brains(*(scale * x - 1 for x in (teacher, matched(other, teacher), atlas)))


def averaged(path: Path, at: Path, spacing: float) -> Tensor:
    """A scan ``(1, X, Y, Z)`` on the grid of a file at this spacing in mm: means of one value in each mm."""
    count = max(1, round(spacing))
    values = Grid.of(at, spacing / count).read(path)
    return F.avg_pool(values[None, None], count)[0]


def matched(x: Tensor, like: Tensor) -> Tensor:
    """Values by one rising curve, which gives what is inside the quantiles of another scan."""
    levels = np.linspace(0, 1, 257)
    own, wanted = (
        np.concatenate([[0], np.quantile(y[y > 0.05 * y.max()].numpy(), levels)]) for y in (x, like)
    )
    return torch.from_numpy(np.interp(x.numpy(), own, wanted)).float()


class Heads(Dataset[dict[str, Tensor]]):
    """Crops of scans, each as it might be in another head; told is what the scan itself has at the place."""

    def __init__(self, scans: Sequence[Tensor], spacing: Sequence[float], size: int) -> None:
        self.scans, self.size = scans, size
        self.margin = size // 4  # comes in when what is seen moves
        wide = [(size + 2 * self.margin) * step for step in spacing]
        self.others = [replace(OTHERS, shift=SHIFT / mm, elastic=min(ELASTIC / mm, 0.1)) for mm in wide]

    def __len__(self) -> int:
        return 10_000

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        scan, others = self.scans[index % len(self.scans)], self.others[index % len(self.scans)]
        while True:
            starts = [int(torch.randint(n - self.size + 1, ())) for n in scan.shape[1:]]
            crop = tuple(slice(a, a + self.size) for a in starts)
            if (scan[:, *crop] > EMPTY).float().mean() > 0.2:
                break
        wide = F.pad(scan, (self.margin,) * 6, value=-1)
        around = tuple(slice(a, a + self.size + 2 * self.margin) for a in starts)
        moved = others({"x0": wide[:, *around]})["x0"].clamp(-1, 1)
        inside = (slice(self.margin, self.margin + self.size),) * 3
        return {"x0": moved[:, *inside], "cond": scan[:, *crop]}


def choose(
    scan: Tensor, size: int, middle: int, number: int, factor: int = 1
) -> tuple[Tensor, Tensor, list[Block]]:
    """Crops at random places, their middles, bool, and the places; middles are tissue and lie apart.

    Along every axis a crop starts at a multiple of the factor.
    """
    shape, inner = scan.shape[1:], slice((size - middle) // 2, (size + middle) // 2)
    if min(shape) < size or middle >= size:
        raise ValueError(f"--size must be above {middle} and at most {min(shape)}, as the scan, got {size}")
    taken, places = torch.zeros_like(scan, dtype=torch.bool), []
    for _ in range(10_000):
        starts = [factor * int(torch.randint((n - size) // factor + 1, ())) for n in shape]
        block = tuple(slice(a + inner.start, a + inner.stop) for a in starts)
        if taken[:, *block].any() or (scan[:, *block] < EMPTY).float().mean() > 0.1:
            continue
        taken[:, *block] = True
        places.append(tuple(slice(a, a + size) for a in starts))
        if len(places) == number:
            middles = torch.zeros(number, 1, size, size, size, dtype=torch.bool)
            middles[:, :, inner, inner, inner] = True
            return crops(scan, places), middles, places
    raise ValueError(f"--crops: {number} blocks of {middle} entries find no place, choose fewer or smaller")


def crops(x: Tensor, places: Sequence[Block]) -> Tensor:
    """``(N, C, *size)`` out of ``(C, X, Y, Z)``."""
    return torch.stack([x[:, *place] for place in places])


def of_blocks(brains: Brains, size: int, removed: int, number: int) -> Question:
    """What was in blocks that are removed?"""
    x, gaps, places = choose(brains.other, size, removed, number)
    atlas = crops(brains.atlas, places)
    by_hand = {"biharmonic": biharmonic(x, gaps), "template": atlas}
    shown = x.masked_fill(gaps, torch.nan)
    return Question("blocks", x, atlas, Mask(~gaps), gaps, shown, by_hand)


def of_slices(brains: Brains, size: int, factor: int, number: int) -> Question:
    """What are thick slices made of, each the mean of some? Judged in the middle, as the blocks are."""
    x, middles, places = choose(brains.other, size, size // 2, number, factor)
    thick, by_hand = Downsample((1, 1, factor)), {"cubic": crops(cubic(brains.other, factor), places)}
    shown = thick(x).repeat_interleave(factor, -1)
    return Question("slices", x, crops(brains.atlas, places), thick, middles, shown, by_hand)


def biharmonic(x: Tensor, removed: Tensor) -> Tensor:
    """Gaps filled by the smoothest function through the entries within three of them (scipy).

    In three dimensions the kernel |r| is that of the biharmonic equation.
    """
    from scipy.interpolate import RBFInterpolator
    from scipy.ndimage import binary_dilation

    x = x.clone()
    for crop, gap in zip(x[:, 0], removed[:, 0], strict=True):
        near = torch.from_numpy(binary_dilation(gap.numpy(), iterations=3)) & ~gap
        smooth = RBFInterpolator(near.nonzero().numpy(), crop[near].double().numpy(), kernel="linear")
        crop[gap] = torch.from_numpy(smooth(gap.nonzero().numpy())).float()
    return x


def cubic(scan: Tensor, factor: int) -> Tensor:
    """A scan ``(1, X, Y, Z)`` from its thick slices, by cubic splines between their middles (scipy)."""
    from scipy.interpolate import make_interp_spline

    whole = scan.shape[-1] // factor * factor
    thick = Downsample((1, 1, factor))(scan[None, ..., :whole])[0]
    middles = factor * np.arange(thick.shape[-1]) + (factor - 1) / 2
    spline = make_interp_spline(middles, thick.numpy(), axis=-1)
    return torch.from_numpy(spline(np.arange(scan.shape[-1]))).float()


def judge(asked: Question, samples: Tensor, folder: Path) -> dict[str, str]:
    """Print how near to the truth the answers are, how rough beside it, and how sure; draw the first crop."""
    truth, counted = asked.truth, asked.counted
    answers = {**asked.by_hand, "mean": samples.mean(0), "one sample": samples[0]}
    print(f"\n{asked.name:18}{'PSNR, dB':>10}{'SSIM':>8}{'roughness':>12}")
    figures = {}
    for name, x in answers.items():
        near = psnr(x[counted].view(1, 1, -1), truth[counted].view(1, 1, -1)).item()
        alike = ssim(x, truth, mask=counted).mean().item()
        rough = roughness(x, counted) / roughness(truth, counted)
        print(f"{name:18}{near:10.2f}{alike:8.3f}{rough:12.2f}")
        figures[f"{asked.name}: {name}"] = f"{near:.2f}"
    _, std, low, high = summarize(samples)
    covered = coverage(low[counted][None], high[counted][None], truth[counted][None]).item()
    width, score = (high - low)[counted].mean().item(), crps(samples[:, None, counted], truth[None, counted])
    name, classical = next(iter(asked.by_hand.items()))
    error = (classical - truth)[counted].abs().mean().item()
    print(f"90 % intervals: {covered:.0%} of the truth inside, mean width {width:.3f}")
    print(f"CRPS {score.item():.4f}; of the {name} answer, its mean error, {error:.4f}")
    shown = {"truth": truth, "measured": asked.shown, **answers, "4 deviations": 4 * std - 1}
    slices(torch.stack([x[0] for x in shown.values()]), folder / f"{asked.name}.png", labels=[*shown])
    keep(folder, **{name: x[0] for name, x in shown.items()})
    return figures | {f"{asked.name}: covered": f"{covered:.3f}"}


def roughness(x: Tensor, counted: Tensor) -> float:
    """The mean square of differences between neighbours that both count, ``(N, C, *spatial)``."""
    total, pairs = 0.0, 0
    for axis in range(2, x.ndim):
        both = counted.narrow(axis, 0, x.shape[axis] - 1) & counted.narrow(axis, 1, x.shape[axis] - 1)
        total, pairs = total + x.diff(dim=axis)[both].square().sum().item(), pairs + int(both.sum())
    return total / pairs
