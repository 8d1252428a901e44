"""``dynunet inpaint``: what is missing in files, filled in by a model of such data."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from tyro.conf import Positional

from ..data.errors import shown
from ..data.files import search, stem
from ..data.loading import load_gaps, marks_of
from ..data.options import missing_value
from ..data.saving import check_result, write
from ..data.spec import DataSpec
from ..diffusion import Diffusion
from .common import check_counts, check_seed, conditions, load_run, restores, windows
from .work import NothingToDoError, Work

_HELD_BY = {".jpg": ".png", ".jpeg": ".png", ".ogg": ".wav"}  # which keep what is not filled in as it is


@dataclass(frozen=True)
class Inpaint:
    """Fill in what is missing in files, by --missing or --mask. All else stays as it is, to the bit.

    A jpg changes whole blocks of pixels when it is written, so that its result is a png. Results that are
    there are kept, so that the same command goes on where it was interrupted.
    """

    run_folder: Positional[Path]
    """folder of the run"""
    source: Positional[Path]
    """a file, or a folder with all below it"""
    out: Path
    """folder for the results, with the names of the files; for one file also the file to write"""
    missing: str | None = None
    """value of what is missing: nan, or a number as it is in the file"""
    mask: Path | None = None
    """file of the same kind and size, not 0 (of images: bright) where something is to be filled in; for a
    folder one for all, or a folder with one at the relative path of each"""
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
    """make results again that exist"""

    def run(self) -> None:
        if (self.missing is None) == (self.mask is None):
            raise ValueError("one of --missing and --mask must say what is to be filled in")
        missing_value(self.missing)
        check_counts(steps=self.steps, resamplings=self.resamplings)
        check_seed(self.seed)
        diffusion, units = load_run(self.run_folder, self.device)
        if restores(units):
            raise ValueError(
                f"{shown(self.run_folder)} was trained to restore; to fill gaps train without noise or pairs"
            )
        units = replace(units, missing=self.missing or units.missing)
        windows(units, self.window, self.overlap)  # refuses them once, not for every file
        masks = self._masks()
        work = Work(self.source, self.out, self.overwrite, _named, list(masks.values()))
        work.run(lambda path, to: self._file(diffusion, units, masks, path, to), "filled in")

    def _masks(self) -> dict[str, Path]:
        """The file of each mask, by the place of what it is for; one for all by none."""
        if self.mask is None:
            return {}
        found = search(self.mask, "mask").files
        return {stem(path, self.mask): path for path in found} if self.mask.is_dir() else {"": found[0]}

    def _file(
        self, diffusion: Diffusion, units: DataSpec, masks: dict[str, Path], path: Path, to: Path
    ) -> tuple[str, ...]:
        """Fill in one file."""
        root = self.source if self.source.is_dir() else self.source.parent
        mask = masks.get("") or masks.get(stem(path, root))
        if self.mask is not None and mask is None:
            raise ValueError(f"there is no mask of its name in {shown(self.mask)}")
        loaded, holes = load_gaps(path, units, None if mask is None else marks_of(mask, units))
        check_result(to, units, loaded.source, exact=True)
        if not holes.any():
            raise NothingToDoError(f"nothing is missing in {shown(path)}, where {mask or self.missing} is")
        several = loaded.x.ndim == units.spatial_dims + 2
        x = loaded.x if several else loaded.x.unsqueeze(0)
        known = torch.ones_like(x, dtype=torch.bool) if loaded.mask is None else loaded.mask.view_as(x)
        filled = self._filled(diffusion, units, x, known)
        to.parent.mkdir(parents=True, exist_ok=True)
        write(to, filled if several else filled[0], units, loaded.source, holes, self.overwrite)
        return ()

    def _filled(self, diffusion: Diffusion, units: DataSpec, x: Tensor, known: Tensor) -> Tensor:
        device = next(diffusion.parameters()).device
        given = conditions(units, x.shape)
        return diffusion.inpaint(
            x.to(device),
            known.to(device),
            self.steps,
            resamplings=self.resamplings,
            generator=torch.Generator(device).manual_seed(self.seed),
            progress=False,
            **{name: value.to(device) for name, value in given.items()},
            **windows(units, self.window, self.overlap),
        ).cpu()


def _named(path: Path) -> str:
    return path.stem + _HELD_BY[path.suffix.lower()] if path.suffix.lower() in _HELD_BY else path.name
