"""``dynunet denoise``: files restored by a model that has learned it, each on its own grid."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tyro.conf import Positional

from ..data import load, save
from ..data.errors import shown
from ..data.saving import check_result
from ..data.spec import DataSpec
from ..diffusion import Diffusion
from .common import check_counts, check_seed, conditions, load_run, restoration_steps, restores, windows
from .work import Work


@dataclass(frozen=True)
class Denoise:
    """Restore files with a model trained by --noise, --coloured or --pairs.

    A model trained without them removes white noise of known level, by --sigma. A file that cannot be
    restored is named, and the others are. Results that are there are kept, so that the same command goes on
    where it was interrupted.
    """

    run_folder: Positional[Path]
    """folder of the run"""
    source: Positional[Path]
    """a file, or a folder with all below it"""
    out: Path
    """folder for the results, with the names of the files; for one file also the file to write"""
    steps: int | None = None
    """1 gives the mean of what the clean data may be, more one sharp guess; by default 1, with --sigma 20"""
    sigma: float | None = None
    """standard deviation of white noise, where 2 is the range of the data"""
    window: tuple[int, ...] | None = None
    """work in windows of this size, one number or one per axis; by default that of training"""
    overlap: tuple[int, ...] | None = None
    """of the windows; by default a quarter"""
    seed: int = 0
    """of the noise it starts from"""
    device: str | None = None
    """cpu, cuda, cuda:1, mps, ...; by default the fastest"""
    overwrite: bool = False
    """make results again that exist"""

    def run(self) -> None:
        check_counts(steps=self.steps)
        check_seed(self.seed)
        diffusion, units = load_run(self.run_folder, self.device)
        if not restores(units) and self.sigma is None:
            raise ValueError(
                f"{shown(self.run_folder)} was trained without --noise, --coloured or --pairs: give --sigma, "
                "the level of white noise, or train a model to restore"
            )
        if restores(units) and self.sigma is not None:
            raise ValueError(
                f"--sigma must be left out, {shown(self.run_folder)} knows its noise, got {self.sigma}"
            )
        windows(units, self.window, self.overlap)  # refuses them once, not for every file
        work = Work(self.source, self.out, self.overwrite)
        work.run(lambda path, to: self._file(diffusion, units, path, to), "restored")

    def _file(self, diffusion: Diffusion, units: DataSpec, path: Path, to: Path) -> tuple[str, ...]:
        """Restore a file; what of it is lost, in words."""
        loaded = load(path, units.document(), mix=False)
        check_result(to, units, loaded.source)
        several = loaded.x.ndim == units.spatial_dims + 2
        x = self._restored(diffusion, units, loaded.x if several else loaded.x.unsqueeze(0))
        to.parent.mkdir(parents=True, exist_ok=True)
        save(to, x if several else x[0], units.document(), like=loaded.source, overwrite=self.overwrite)
        return loaded.lost

    def _restored(self, diffusion: Diffusion, units: DataSpec, noisy: Tensor) -> Tensor:
        device = next(diffusion.parameters()).device
        noisy = noisy.to(device)
        shape = len(noisy), units.channels, *noisy.shape[2:]
        options: dict[str, Any] = {
            **windows(units, self.window, self.overlap),
            "generator": torch.Generator(device).manual_seed(self.seed),
            "progress": False,
        }
        if self.sigma is not None:
            given = {name: value.to(device) for name, value in conditions(units, shape).items()}
            return diffusion.denoise(noisy, self.sigma, self.steps or 20, **options, **given).cpu()
        given = conditions(units, shape, noisy)
        return diffusion.sample(shape, restoration_steps(diffusion, self.steps), **options, **given).cpu()
