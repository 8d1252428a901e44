"""``dynunet denoise``: files restored by a model that has learned it, each on its own grid."""

from dataclasses import dataclass, fields
from pathlib import Path

from tyro.conf import Positional

from ..hub import check_run
from .flags import check_counts, check_seed, check_windows


@dataclass(frozen=True)
class Denoise:
    """Restore files with a model trained by --noise, --coloured or --pairs.

    A model trained without them removes white noise of known level, by --sigma. A file that cannot be
    restored is named, and the others are. Results that are there are kept, so that the same command goes on
    where it was interrupted.
    """

    run_folder: Positional[Path]
    """folder of the run, or owner/name of one on the Hub"""
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

    def check(self) -> None:
        check_counts(steps=self.steps)
        check_seed(self.seed)
        check_windows(self.window, self.overlap)
        check_run(self.run_folder)

    def run(self) -> None:
        from ..restoration import restore

        options = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "run_folder"}
        outcome = restore(self.run_folder, **options)
        print(outcome)
        if outcome.failed:
            raise SystemExit(1)
