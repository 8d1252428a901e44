"""``dynunet inpaint``: what is missing in a file, filled in by a model of such data."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from tyro.conf import Positional

from ..data import load, save
from ..data.sources import Units
from .common import check_new, conditions, load_run, restores, result_of, windows


@dataclass(frozen=True)
class Inpaint:
    """Fill in what is missing in a file, by --missing or --mask. All else stays as it is."""

    run_folder: Positional[Path]
    """folder of the run"""
    source: Positional[Path]
    """the file"""
    out: Path
    """the file to write, or a folder for it"""
    missing: str | None = None
    """value of what is missing: nan, or a number as it is in the file"""
    mask: Path | None = None
    """file of the same kind and size, not 0 (of images: bright) where something is to be filled in"""
    steps: int = 20
    """of the sampler: more are better and slower"""
    resamplings: int = 4
    """how often each step is taken, so that what is filled in fits what is around"""
    window: tuple[int, ...] | None = None
    """work in windows of this size, one number or one per axis; by default that of training"""
    overlap: tuple[int, ...] | None = None
    """of the windows; by default a quarter"""
    seed: int = 0
    """of the noise it starts from: another one gives another guess"""
    device: str | None = None
    """cpu, cuda, cuda:1, mps, ...; by default the fastest"""
    overwrite: bool = False
    """replace a result that exists"""

    def run(self) -> None:
        if (self.missing is None) == (self.mask is None):
            raise ValueError("one of --missing and --mask must say what is to be filled in")
        diffusion, units = load_run(self.run_folder, self.device)
        if restores(units):
            raise ValueError(
                f"{self.run_folder} was trained to restore; to fill gaps train without noise or pairs"
            )
        to = result_of(self.source, self.out)
        check_new([to], self.overwrite)
        loaded = load(self.source, replace(units, missing=self.missing or units.missing).document())
        several = loaded.x.ndim == units.spatial_dims + 2
        x = loaded.x if several else loaded.x.unsqueeze(0)
        known = torch.ones_like(x, dtype=torch.bool) if loaded.mask is None else loaded.mask.view_as(x)
        marked = torch.zeros_like(known) if self.mask is None else self._marked(units, x).expand_as(known)
        known = known & ~marked
        if known.all():
            raise ValueError(f"nothing is missing in {self.source}, where {self.mask or self.missing} is")
        device = next(diffusion.parameters()).device
        given = conditions(units, x.shape)
        filled = diffusion.inpaint(
            x.to(device),
            known.to(device),
            self.steps,
            resamplings=self.resamplings,
            generator=torch.Generator(device).manual_seed(self.seed),
            **{name: value.to(device) for name, value in given.items()},
            **windows(units, self.window, self.overlap),
        )
        to.parent.mkdir(parents=True, exist_ok=True)
        result = filled.cpu() if several else filled[0].cpu()
        complete = replace(units, missing=None).document()
        only = marked if several else marked[0]  # and what is missing in the file itself
        save(to, result, complete, like=loaded.source, only=only, overwrite=self.overwrite)
        print(f"{(~known).double().mean():.1%} filled in, in {to}")

    def _marked(self, units: Units, x: Tensor) -> Tensor:
        """Where the mask says that something is to be filled in."""
        assert self.mask is not None
        # Values as they are stored; images are scaled by their bit depth, half of which becomes 0.
        plain = replace(units, channels=1, percentiles=None, range=None, missing="nan")
        mask = load(self.mask, plain).x
        mask = mask if mask.ndim == x.ndim else mask.unsqueeze(0)
        if mask.shape[2:] != x.shape[2:]:
            raise ValueError(
                f"--mask must have the size of {self.source}, {tuple(x.shape[2:])}, "
                f"got {tuple(mask.shape[2:])}"
            )
        return mask > 0 if units.kind == "images" else mask != 0
