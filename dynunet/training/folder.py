"""The folder of a run: which files in it are its own, and that one process at a time writes them.

The process that does so holds the lock, and its number is in ``.process``, see :mod:`.background`.

Nothing in a folder is removed or replaced but what a run wrote itself, which is told by exact names, and only
where the record of a run lies beside it.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from json import dumps
from pathlib import Path
from socket import gethostname

from filelock import FileLock, Timeout

from ..averages import FOLDER as AVERAGES
from ..cards import owner
from ..checkpoints import WEIGHTS
from ..data.errors import shown
from ..writing import LEFT, write_text
from .record import RUN, read_record

LOG, LOCK = "log.csv", ".lock"
PROCESS, OUTPUT = ".process", "output.txt"  # of a process in the background, see .background
CHECKPOINTS, SAMPLES, TENSORBOARD = "checkpoints", "samples", "tensorboard"
_KEPT = r"checkpoints/(step|damaged|\.step)-\d+"
_FOLDERS = re.compile(rf"{AVERAGES}|{CHECKPOINTS}|{SAMPLES}|{TENSORBOARD}|{_KEPT}")
_MODEL = r"config\.json|model\.safetensors"
_FILES = re.compile(
    rf"({_MODEL}|run\.json|log\.csv|loss\.png|\.lock|\.process|output\.txt"
    rf"|{_KEPT}/({_MODEL}|state\.json|state\.pt|probe)"
    rf"|{AVERAGES}/step-\d+\.safetensors"
    r"|samples/step-\d+\.png|tensorboard/events\.out\.tfevents\.[^/]+"
    rf"|(({_KEPT}|{AVERAGES}|samples)/)?{LEFT.pattern})"
)
_SHOWN = 3


def check_folder(folder: Path, resume: bool, overwrite: bool) -> None:
    """Refuse a folder that training would overwrite, or that is no run to be resumed.

    Raises:
        ValueError: naming what is there.
    """
    _check_path(folder)
    if not folder.exists() or all(_before_a_run(path.name) for path in folder.iterdir()):
        return
    if not (folder / RUN).is_file():
        raise ValueError(f"out must be a new or empty folder or that of a run (with {RUN}), got {folder}")
    read_record(folder / RUN)
    if not resume and not overwrite:
        raise ValueError(
            f"out must be a new or empty folder, got {folder}, which holds a run: go on with "
            "fit(resume=True), or give overwrite=True to remove it"
        )
    if not resume:
        _own(folder)


def _check_path(folder: Path) -> None:
    try:
        os.fspath(folder.absolute()).encode()
    except UnicodeEncodeError:  # neither safetensors nor TensorBoard could write there
        raise ValueError(f"out must be a path in UTF-8, got {shown(folder)}") from None
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"out must be a folder, got the file {folder}")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """The folder of a run, made if need be, for this process alone. The lock ends with the process.

    Raises:
        ValueError: if another process trains there.
    """
    new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ValueError(f"out: another process is training in {folder}; wait until it has ended") from None
    try:
        note(folder / PROCESS, os.getpid())
        yield
    finally:
        (folder / PROCESS).unlink(missing_ok=True)
        if [path.name for path in folder.glob("*")] == [LOCK]:  # nothing has begun
            (folder / LOCK).unlink()
            if new:
                folder.rmdir()
        lock.release()


def note(file: Path, pid: int, stopping: bool = False) -> None:
    """Write down which process trains, on which machine, and whether it was asked to stop."""
    write_text(file, dumps({"pid": pid, "host": gethostname(), "stopping": stopping}))


def remove_run(folder: Path) -> None:
    """Remove all files of a run, the record of it last.

    Raises:
        ValueError: if there is anything else, and nothing has been removed.
    """
    files, folders = _own(folder)
    for path in files:
        if path.name not in (RUN, LOCK, PROCESS, OUTPUT):
            path.unlink()
    for path in reversed(folders):
        path.rmdir()
    (folder / RUN).unlink()


def check_untrained(folder: Path, rows: int) -> None:
    """Refuse to begin a run anew, for want of a checkpoint, where one has been trained.

    Args:
        folder: of the run.
        rows: in its log.
    """
    damaged = [path.name for path in (folder / CHECKPOINTS).glob("damaged-*")]
    there = [*([WEIGHTS] if (folder / WEIGHTS).exists() else []), *([LOG] if rows else []), *damaged]
    if there:
        raise ValueError(
            f"{folder} must have a checkpoint that is whole to be resumed, got none beside "
            f"{', '.join(there)}, which stay as they are. Begin a new run in another folder, or give "
            "overwrite=True to replace this one"
        )


def _own(folder: Path) -> tuple[list[Path], list[Path]]:
    """All files and folders in the folder of a run, each folder before those in it."""
    files, folders, foreign = [], [], []
    waiting = [folder]
    while waiting:
        for entry in sorted(waiting.pop().iterdir()):
            name = entry.relative_to(folder).as_posix()
            if entry.is_symlink():
                foreign.append(name)
            elif entry.is_dir() and _FOLDERS.fullmatch(name):
                folders.append(entry)
                waiting.append(entry)
            elif entry.is_file() and (_FILES.fullmatch(name) or _is_card(folder, name)):
                files.append(entry)
            else:
                foreign.append(name)
    if foreign:
        more = f" and {len(foreign) - _SHOWN} more" if len(foreign) > _SHOWN else ""
        raise ValueError(
            f"out must hold nothing but a run to be overwritten, got {folder} with "
            f"{', '.join(sorted(foreign)[:_SHOWN])}{more}, which no run wrote: move that, or choose another "
            "folder"
        )
    return files, folders


def _before_a_run(name: str) -> bool:
    """True for what is in a folder before a run begins there, or while another process of it writes that."""
    return name in (LOCK, PROCESS, OUTPUT) or LEFT.fullmatch(name) is not None


def _is_card(folder: Path, name: str) -> bool:
    """True for the card of the run's model, as long as nobody has changed it."""
    return name == owner.CARD and owner.is_own(owner.read(folder) or "")
