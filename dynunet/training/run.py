"""The folder of a run: what was run, and the log of how it went.

``run.json``     command, options, commit, versions and a report of the data: enough to run it again
``log.csv``      a row every ``log_every`` steps, and one for each validation
``tensorboard/`` the same for TensorBoard
``samples/``     pictures of samples
``loss.png``     the curves of log.csv
``config.json``, ``model.safetensors``  the averaged model as of the last checkpoint
``checkpoints/`` see :mod:`dynunet.training.state`
"""

import csv
import io
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping
from datetime import datetime
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from .state import write_text

RUN, LOG = "run.json", "log.csv"
COLUMNS = ("step", "loss", "validation_loss", "lr", "gradient_norm", "samples_per_second", "seconds")
_PACKAGES = ("dynunet", "torch", "numpy", "accelerate", "safetensors", "huggingface-hub")


def say(text: str) -> None:
    """To the user, above the progress bar."""
    tqdm.write(text, file=sys.stderr)


def check_folder(folder: Path, resume: bool, overwrite: bool) -> None:
    """Refuse a folder that training would overwrite, or that is no run to be resumed."""
    try:
        os.fspath(folder.absolute()).encode()
    except UnicodeEncodeError:  # neither safetensors nor TensorBoard could write there
        raise ValueError(f"out must be a path in UTF-8, got {os.fsencode(folder)!r}") from None
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"out must be a folder, got the file {folder}")
    if not folder.exists() or not any(folder.iterdir()):
        return
    if not (folder / RUN).is_file():
        raise ValueError(f"out must be a new or empty folder or that of a run (with {RUN}), got {folder}")
    if not resume and not overwrite:
        raise ValueError(
            f"out must be a new or empty folder, got {folder}, which holds a run: go on with "
            "fit(resume=True), or give overwrite=True to remove it"
        )


def open_folder(folder: Path, resume: bool, about: Mapping[str, Any]) -> None:
    """Make the folder of a run, after :func:`check_folder`; an older run there is removed or gone on with."""
    file, now = folder / RUN, datetime.now().astimezone().isoformat(timespec="seconds")
    if resume and file.is_file():
        written = json.loads(file.read_text(encoding="utf-8"))
        again = {"at": now, **{k: about[k] for k in about if about[k] != written.get(k)}}
        written["resumed"] = [*written.get("resumed", []), again]
    else:
        if file.is_file():
            shutil.rmtree(folder)
        written = {**about, "started": now}
    folder.mkdir(parents=True, exist_ok=True)
    write_text(file, json.dumps(written, indent=2))


def finished(folder: Path) -> None:
    """Note the time at which a run was complete."""
    written = json.loads((folder / RUN).read_text(encoding="utf-8"))
    written["finished"] = datetime.now().astimezone().isoformat(timespec="seconds")
    write_text(folder / RUN, json.dumps(written, indent=2))


def surroundings() -> dict[str, Any]:
    """Command line, commit of the current folder's repository if it is one, versions, machine."""
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return {
        "command": sys.argv,
        "folder": str(Path.cwd()),
        "git": _commit(),
        "python": platform.python_version(),
        "versions": versions,
        "platform": platform.platform(),
    }


def _commit() -> str | None:
    command = ["git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() or None if result.returncode == 0 else None


class Log:
    """Rows of figures by step, in a CSV file and for TensorBoard.

    Args:
        folder: of the run.
        step: that the run goes on from: rows of later steps, which a killed run has left, are removed.
        tensorboard: whether to write for TensorBoard.
    """

    def __init__(self, folder: Path, step: int, tensorboard: bool) -> None:
        self.path = folder / LOG
        rows = [row for row in _read(self.path) if int(row["step"]) <= step]
        write_text(self.path, _text(rows, header=True).rstrip("\r\n"))
        self._board: Any = None
        if tensorboard and find_spec("tensorboard") is None:
            say("tensorboard is not installed (pip install 'dynunet[train]'): the log is in log.csv alone")
        elif tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def write(self, row: Mapping[str, float]) -> None:
        """One row, of some of the columns."""
        with self.path.open("a", newline="", encoding="utf-8") as file:
            file.write(_text([row], header=False))
        if self._board is not None:
            for name, value in row.items():
                if name != "step":
                    self._board.add_scalar(name, value, int(row["step"]))

    def close(self) -> None:
        if self._board is not None:
            self._board.close()


def _read(path: Path) -> list[dict[str, str]]:
    """The rows of a log; the last one counts if its line has an end."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return list(csv.DictReader(text[: text.rfind("\n") + 1].splitlines()))


def _text(rows: list[Any], header: bool) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
