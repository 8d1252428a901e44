"""The log of a run.

The folder of a run holds

``run.json``     command, options, commit, versions and a report of the data: enough to run it again
``log.csv``      a row every ``log_every`` steps, and one for each validation
``tensorboard/`` the same for TensorBoard, and the pictures
``samples/``     pictures of samples
``loss.png``     the curves of log.csv
``config.json``, ``model.safetensors``  the averaged model as of the last checkpoint, once there is a step
``README.md``    its card, see :mod:`dynunet.cards`; once somebody has changed it, it stays as it is
``averages/``    with ``ema_lengths``, see :mod:`dynunet.averages`
``checkpoints/`` see :mod:`dynunet.training.state`
``.lock``        held by the process that trains
``.process``     while it trains: its number, see :mod:`.background`
``output.txt``   what it says, if it was begun in the background
"""

import csv
import io
import re
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from ..progress import say
from ..writing import write_text, written
from .folder import LOG, SAMPLES, TENSORBOARD

COLUMNS = ("step", "loss", "validation_loss", "lr", "gradient_norm", "samples_per_second", "seconds")
_STEP = re.compile(r"[0-9]{1,18}")


class Log:
    """Rows of figures by step, in a CSV file and for TensorBoard.

    Args:
        folder: of the run.
        step: at which the run continues: rows of later steps, which a killed run has left, are removed.
        tensorboard: write for TensorBoard, too.
        metrics: names of the model's figures of held-out data.
    """

    def __init__(self, folder: Path, step: int, tensorboard: bool, metrics: Sequence[str] = ()) -> None:
        self.path = folder / LOG
        self.columns = *COLUMNS, *(f"validation_{name}" for name in metrics)
        rows = [row for row in read_log(self.path) if int(row["step"]) <= step]
        write_text(self.path, _text(rows, self.columns, header=True).rstrip("\r\n"))
        self._board: Any = None
        if tensorboard and find_spec("tensorboard") is None:
            say("tensorboard is not installed (pip install 'dynunet[train]'): the log is in log.csv alone")
        elif tensorboard:
            from accelerate.tracking import TensorBoardTracker

            self._board = TensorBoardTracker(TENSORBOARD, folder, purge_step=step + 1)
            self._board.start()

    def write(self, row: Mapping[str, float]) -> None:
        """One row, of some of the columns."""
        with written(self.path), self.path.open("a", newline="", encoding="utf-8") as file:
            file.write(_text([row], self.columns, header=False))
        if self._board is not None:
            with written(self.path.parent / TENSORBOARD):
                figures = {name: value for name, value in row.items() if name != "step"}
                self._board.log(figures, int(row["step"]))

    def picture(self, file: Path, step: int) -> None:
        """The picture in a file, for TensorBoard."""
        if self._board is not None:
            from PIL import Image

            with written(self.path.parent / TENSORBOARD), Image.open(file) as image:
                pixels = np.asarray(image.convert("RGB"))[None]
                self._board.log_images({SAMPLES: pixels}, step, dataformats="NHWC")

    def close(self) -> None:
        if self._board is not None:
            with written(self.path.parent / TENSORBOARD):
                self._board.finish()


def read_log(path: Path) -> list[dict[str, str]]:
    """The rows of a log, none if there is none. What is no row, as after a failure of power, is left out."""
    text = path.read_bytes().decode("utf-8", "replace") if path.exists() else ""
    lines = text[: text.rfind("\n") + 1].splitlines()
    header = lines[0].split(",") if lines else []
    columns = header if tuple(header[: len(COLUMNS)]) == COLUMNS else COLUMNS
    rows = [line.split(",") for line in lines]
    named = [dict(zip(columns, row, strict=True)) for row in rows if len(row) == len(columns)]
    return [row for row in named if _STEP.fullmatch(row["step"])]


def _text(rows: list[Any], columns: Sequence[str], header: bool) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
