"""``dynunet denoise``: files restored by a model that has learned it, each on its own grid."""

from dataclasses import dataclass

from .flags import check_counts
from .on_files import Sampling


@dataclass(frozen=True)
class Denoise(Sampling):
    """Restore files with a model trained by --noise, --coloured or --pairs.

    A model trained without them removes white noise of known level, by --sigma. A file that cannot be
    restored is named, and the others are. Results that are there are kept, so that the same command goes on
    where it was interrupted.
    """

    steps: int | None = None
    """1 gives the mean of what the clean data may be, more one sharp guess; by default 1, with --sigma 20"""
    sigma: float | None = None
    """standard deviation of white noise, where 2 is the range of the data"""

    def check(self) -> None:
        check_counts(steps=self.steps)
        super().check()

    def run(self) -> None:
        from ..restoration import restore

        self.use(restore)
