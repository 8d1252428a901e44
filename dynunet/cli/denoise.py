"""``dynunet denoise``: files restored by a model that has learned it, each on its own grid."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm
from tyro.conf import Positional

from ..data import find, load, save
from ..data.sources import Units, shown
from ..diffusion import Diffusion
from .common import check_new, conditions, load_run, restoration_steps, restores, result_of, windows


@dataclass(frozen=True)
class Denoise:
    """Restore files with a model trained by --noise, --coloured or --pairs.

    A model trained without them removes white noise of known level, by --sigma.
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
    """replace results that exist"""

    def run(self) -> None:
        diffusion, units = load_run(self.run_folder, self.device)
        if not restores(units) and self.sigma is None:
            raise ValueError(
                f"{self.run_folder} was trained without --noise, --coloured or --pairs: give --sigma, the "
                "level of white noise, or train a model to restore"
            )
        if restores(units) and self.sigma is not None:
            raise ValueError(f"--sigma must be left out, {self.run_folder} knows its noise, got {self.sigma}")
        files = self._files()
        check_new([to for _, to in files], self.overwrite)
        done = 0
        for path, to in tqdm(files, desc="denoising", unit="file", disable=None):
            done += self._file(diffusion, units, path, to)
        print(f"{done} of {len(files)} files restored, in {self.out}")
        if done < len(files):
            raise SystemExit(1)

    def _files(self) -> list[tuple[Path, Path]]:
        """Each file and where its result goes."""
        found = find(self.source)
        if not self.source.is_dir():
            return [(found[0], result_of(found[0], self.out))]
        return [(path, self.out / path.relative_to(self.source)) for path in found]

    def _file(self, diffusion: Diffusion, units: Units, path: Path, to: Path) -> bool:
        """Whether a file could be restored; what cannot be read is named and passed over."""
        try:
            loaded = load(path, units.document())
        except ValueError as error:
            tqdm.write(f"skipped: {shown(path)}: {error}", file=sys.stderr)
            return False
        several = loaded.x.ndim == units.spatial_dims + 2
        x = self._restored(diffusion, units, loaded.x if several else loaded.x.unsqueeze(0))
        to.parent.mkdir(parents=True, exist_ok=True)
        save(to, x if several else x[0], units.document(), like=loaded.source, overwrite=self.overwrite)
        return True

    def _restored(self, diffusion: Diffusion, units: Units, noisy: Tensor) -> Tensor:
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
