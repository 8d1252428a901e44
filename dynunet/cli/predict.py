"""``dynunet predict``: labels or values of files, by a model that was trained on targets."""

from dataclasses import dataclass, fields
from pathlib import Path

from tyro.conf import Positional

from ..hub import check_run
from .flags import check_windows


@dataclass(frozen=True)
class Predict:
    """Segment, classify or regress files with a model trained by --targets.

    Label maps and maps of values have the grid, the format and the names of their files; labels have their
    own values. Labels and values of whole examples become a table, predictions.csv. Results that are there
    are kept, so that the same command goes on where it was interrupted.
    """

    run_folder: Positional[Path]
    """folder of the run, or owner/name of one on the Hub"""
    source: Positional[Path]
    """a file, or a folder with all below it"""
    out: Path
    """folder for the results; or the file to write: of one map, or of the table"""
    window: tuple[int, ...] | None = None
    """work in windows of this size, one number or one per axis; by default that of training"""
    overlap: tuple[int, ...] | None = None
    """of the windows; by default a quarter"""
    mirror: bool = False
    """average over reflections along all axes: 2, 4, 8, ... times as slow, and a little better"""
    probabilities: bool = False
    """write the probabilities of all classes, too, beside label maps: NAME-probabilities.npy"""
    device: str | None = None
    """cpu, cuda, cuda:1, mps, ...; by default the fastest"""
    overwrite: bool = False
    """make results again that exist"""

    def check(self) -> None:
        check_windows(self.window, self.overlap)
        check_run(self.run_folder)

    def run(self) -> None:
        from ..prediction import predict

        options = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "run_folder"}
        outcome = predict(self.run_folder, **options)
        print(outcome)
        if outcome.failed:
            raise SystemExit(1)
