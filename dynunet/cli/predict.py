"""``dynunet predict``: labels or values of files, by a model that was trained on targets."""

from dataclasses import dataclass
from pathlib import Path

from .on_files import OnFiles


@dataclass(frozen=True)
class Predict(OnFiles):
    """Segment, classify or regress files with a model trained by --targets.

    Label maps and maps of values have the grid, the format and the names of their files; labels have their
    own values. Labels and values of whole examples become a table, predictions.csv. Results that are there
    are kept, so that the same command goes on where it was interrupted.
    """

    out: Path
    """folder for the results; or the file to write: of one map, or of the table"""
    mirror: bool = False
    """average over reflections along all axes: 2, 4, 8, ... times as slow, and a little better"""
    probabilities: bool = False
    """write the probabilities of all classes, too, beside label maps: NAME-probabilities.npy"""

    def run(self) -> None:
        from ..prediction import predict

        self.use(predict)
