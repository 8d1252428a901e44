"""``dynunet inpaint``: what is missing in files, filled in by a model of such data."""

from dataclasses import dataclass
from pathlib import Path

from ..data.options import missing_value
from .flags import check_counts
from .on_files import Sampling


@dataclass(frozen=True)
class Inpaint(Sampling):
    """Fill in what is missing in files, by --missing or --mask. All else stays as it is, to the bit.

    A jpg changes whole blocks of pixels when it is written, so that its result is a png. Results that are
    there are kept, so that the same command goes on where it was interrupted.
    """

    missing: str | None = None
    """value of what is missing: nan, or a number as it is in the file"""
    mask: Path | None = None
    """file of the same kind and size, not 0 (of images: bright) where something is to be filled in; for a
    folder one for all, or a folder with one at the relative path of each"""
    steps: int = 20
    """of the sampler: more are better and slower"""
    resamplings: int = 4
    """how often each step is taken, so that what is filled in fits what is around"""

    def check(self) -> None:
        if (self.missing is None) == (self.mask is None):
            raise ValueError("one of --missing and --mask must say what is to be filled in")
        missing_value(self.missing)
        check_counts(steps=self.steps, resamplings=self.resamplings)
        super().check()

    def run(self) -> None:
        from ..restoration import fill_gaps

        self.use(fill_gaps)
