"""How a run is doing, from the files in its folder alone: for lists of runs, whoever began them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..data.errors import printable
from .background import output, process_of
from .folder import CHECKPOINTS, LOG, OUTPUT, PROCESS, SAMPLES
from .record import RUN, read_record
from .run import read_log
from .state import Checkpoints

__all__ = ["Overview", "overview", "runs_below", "samples_of"]

Status = Literal["starting", "training", "stopping", "finished", "stopped", "failed"]
_SAID = "dynunet train: "  # before what went wrong
_SAVED = ("stopped and saved", "interrupted")
_DEEPEST = 6  # folders below that in which runs are looked for


@dataclass(frozen=True)
class Overview:
    """The state of a run.

    Attributes:
        status: what it does, or how it ended.
        step: of the optimiser, as far as the log or a checkpoint says.
        steps: of the whole run, 0 if it is not known yet.
        message: how it ended, in words; of one that was begun in the background.
        record: of ``run.json``, empty if there is none yet.
    """

    status: Status
    step: int
    steps: int
    message: str
    record: dict[str, Any]


def overview(folder: Path) -> Overview:
    """The state of the run in a folder.

    Raises:
        ValueError: its record is none, naming the file and what is wrong.
    """
    record = read_record(folder / RUN) if (folder / RUN).is_file() else {}
    rows = read_log(folder / LOG)
    logged = int(rows[-1]["step"]) if rows else 0
    saved = Checkpoints(folder / CHECKPOINTS).steps()
    message = _message(folder)
    step, steps = max([logged, *saved]), _steps(record)
    done = "finished" in record and step >= steps  # it may have been made longer since
    return Overview(_status(folder, bool(record), done, message), step, steps, message, record)


def runs_below(folder: Path) -> Iterator[Path]:
    """The folders of runs in a folder and below, sorted, also of those that only begin or failed at once."""
    waiting = [(folder, 0)]
    while waiting:
        place, depth = waiting.pop()
        try:
            inside = sorted(place.iterdir(), reverse=True)
        except OSError:  # that may not be read
            continue
        if {RUN, OUTPUT, PROCESS} & {path.name for path in inside}:
            yield place
        elif depth < _DEEPEST:
            waiting += [
                (path, depth + 1)
                for path in inside
                if not path.name.startswith(".") and not path.is_symlink() and path.is_dir()
            ]


def samples_of(folder: Path) -> list[Path]:
    """The pictures of samples of a run, in the order of their steps."""
    return sorted((folder / SAMPLES).glob("step-*.png"))


def _status(folder: Path, begun: bool, done: bool, message: str) -> Status:
    process = process_of(folder)
    if process is not None:
        return "stopping" if process.stopping else "training" if begun else "starting"
    if done:
        return "finished"
    return "failed" if message and not message.startswith(_SAVED) else "stopped"


def _steps(record: dict[str, Any]) -> int:
    """Of the whole run, which may have become longer when it was resumed."""
    options = [r["options"] for r in (record, *record.get("resumed", [])) if "options" in r]
    return int(options[-1].get("steps", 0)) if options else 0


def _message(folder: Path) -> str:
    """What the command said last of how it ended."""
    _, said = output(folder)
    if _SAID in said:
        lines = said.rpartition(_SAID)[2].splitlines()
    elif "Traceback (most recent call last)" in said:
        lines = said.rstrip().splitlines()[-1:]
    else:
        return ""
    return "\n".join(printable(" ".join(line.split())) for line in lines)
