"""Training in the background: a process of its own that belongs to the folder of the run.

It has a session of its own, so that it goes on when the one that began it ends, whatever ends that. What it
says goes to ``output.txt`` in the folder. Whoever may write there can stop it, also one that was begun on a
terminal: ``.process`` has its number while it trains, and the lock of the folder says that this is still it.
Stopping is what Ctrl-C does: the step is finished and saved, and the run can be resumed to the same bits.

Where processes send each other no such signal, as on Windows, ``.process`` says that it is to stop, and the
process that trains looks there once a second.
"""

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from socket import gethostname
from threading import Lock, Thread
from typing import NamedTuple

from filelock import FileLock, Timeout

from ..data.errors import shown
from ..rules import flag, read_document, text, whole
from .folder import LOCK, OUTPUT, PROCESS, note

__all__ = ["Process", "asked_to_stop", "output", "process_of", "start", "stop"]

SIGNALS = os.name == "posix"

_RULES = {"pid": whole(1), "host": text(), "stopping": flag()}
_MOST = 2**16  # bytes of it that are read
# With a session of its own, or a console, so that closing that of another process does not end it.
_WINDOWS = ("CREATE_NO_WINDOW", "BELOW_NORMAL_PRIORITY_CLASS")
_FLAGS = 0 if SIGNALS else sum(getattr(subprocess, name, 0) for name in _WINDOWS)
_NICE = 10  # so much it gives way, as ``nice`` does; alone on a machine it is as fast
_started: dict[Path, subprocess.Popen[bytes]] = {}  # by this process, and not known to have ended
_asked: set[subprocess.Popen[bytes]] = set()  # to stop
_changing = Lock()


class Process(NamedTuple):
    """A process that trains, or will as soon as it has read its data.

    Attributes:
        pid: its number.
        host: the machine it runs on.
        stopping: it was asked to stop, and will once its step is finished and saved.
    """

    pid: int
    host: str
    stopping: bool


def start(folder: Path, flags: Sequence[str], where: Path | None = None) -> None:
    """Begin ``dynunet train`` with these flags, or go on with it, in the background.

    Args:
        folder: of the run, which is made if need be.
        flags: of the command, ``--out folder`` or ``--resume folder`` among them.
        where: the folder that relative paths are of, by default the current one.

    Raises:
        ValueError: a process is training there.
    """
    folder = folder.absolute()
    with _changing:
        if process_of(folder) is not None:
            raise ValueError(f"out: another process is training in {shown(folder)}; stop it first")
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / OUTPUT).open("a", encoding="utf-8") as said:
            said.write(f"$ {shown(shlex.join(['dynunet', 'train', *flags]))}\n")
            said.flush()
            begun = subprocess.Popen(
                [sys.executable, "-m", "dynunet", "train", *flags],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                cwd=where,
                start_new_session=SIGNALS,
                creationflags=_FLAGS,
            )
        _give_way(begun.pid)
        _started[folder] = begun
    Thread(target=begun.wait, daemon=True).start()  # else it would stay in the table of processes


def process_of(folder: Path) -> Process | None:
    """The process that trains in a folder, None if there is none."""
    begun = _started.get(folder.absolute())
    if begun is not None and begun.poll() is None:
        return Process(begun.pid, gethostname(), begun in _asked)
    noted = _noted(folder)
    if noted is None or (SIGNALS and noted.host == gethostname() and not _exists(noted.pid)) or _free(folder):
        return None
    return noted


def stop(folder: Path) -> None:
    """Ask the process that trains in a folder to finish and save its step, and to end.

    It is asked once: a second signal would end it without saving.

    Raises:
        ValueError: there is none, or it runs on another machine.
    """
    with _changing:
        found = process_of(folder)
        if found is None:
            raise ValueError(f"no process is training in {shown(folder)}")
        if found.host != gethostname():
            raise ValueError(
                f"the process that trains in {shown(folder)} runs on {found.host}: stop it there"
            )
        if not found.stopping:
            begun = [process for process in _started.values() if process.pid == found.pid]
            _asked.update(begun)
            trains = (folder / PROCESS).exists()
            if trains:
                note(folder / PROCESS, found.pid, stopping=True)
            if SIGNALS:
                os.kill(found.pid, signal.SIGINT)
            elif not trains:
                begun[0].terminate()  # it has not begun: there is nothing to save


def asked_to_stop(folder: Path) -> bool:
    """True if the process that trains in a folder was asked to stop, where no signal tells it."""
    noted = None if SIGNALS else _noted(folder)
    return noted is not None and noted.stopping


def output(folder: Path) -> tuple[str, str]:
    """The command line that was last begun in the background, and what it has said; empty if none was."""
    file = folder / OUTPUT
    if not file.is_file():
        return "", ""
    with file.open("rb") as said:
        said.seek(max(0, file.stat().st_size - _MOST))
        text = said.read().decode("utf-8", "replace")
    begun = re.split(r"(?m)^\$ (?=dynunet train)", text)
    line, _, rest = begun[-1].partition("\n")
    return (line, rest) if len(begun) > 1 else ("", text)


def _give_way(pid: int) -> None:
    """Have a process that has just begun come after those that somebody waits for."""
    if SIGNALS:
        with suppress(OSError):  # it has ended already
            os.setpriority(os.PRIO_PROCESS, pid, os.getpriority(os.PRIO_PROCESS, 0) + _NICE)


def _noted(folder: Path) -> Process | None:
    """What ``.process`` says, None if there is none or it is damaged, as after a failure of power."""
    try:
        return Process(**{name: read_document(folder / PROCESS, _RULES)[name] for name in _RULES})
    except (OSError, ValueError):
        return None


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # of another user
        return True
    return True


def _free(folder: Path) -> bool:
    """True if nobody holds the lock of a folder; what a killed process has noted is removed then."""
    lock = FileLock(folder / LOCK)
    try:
        with lock.acquire(timeout=0):
            (folder / PROCESS).unlink(missing_ok=True)
    except Timeout:
        return False
    return True
