"""``dynunet inpaint``: what is missing in files, filled in by a model of such data."""

from dataclasses import dataclass, fields
from pathlib import Path

from tyro.conf import Positional

from ..data.options import missing_value
from ..hub import check_run
from .flags import check_counts, check_seed, check_windows


@dataclass(frozen=True)
class Inpaint:
    """Fill in what is missing in files, by --missing or --mask. All else stays as it is, to the bit.

    A jpg changes whole blocks of pixels when it is written, so that its result is a png. Results that are
    there are kept, so that the same command goes on where it was interrupted.
    """

    run_folder: Positional[Path]
    """folder of the run, or owner/name of one on the Hub"""
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

    def check(self) -> None:
        if (self.missing is None) == (self.mask is None):
            raise ValueError("one of --missing and --mask must say what is to be filled in")
        missing_value(self.missing)
        check_counts(steps=self.steps, resamplings=self.resamplings)
        check_seed(self.seed)
        check_windows(self.window, self.overlap)
        check_run(self.run_folder)

    def run(self) -> None:
        from ..restoration import fill_gaps

        options = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "run_folder"}
        outcome = fill_gaps(self.run_folder, **options)
        print(outcome)
        if outcome.failed:
            raise SystemExit(1)
