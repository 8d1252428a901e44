"""Commands as processes of their own: sampling takes long, and the page has to answer meanwhile."""

import asyncio
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..cli.catalogue import Flag, arguments_of, flags_of_form
from ..cli.main import parsed
from ..data import find
from ..data.errors import shown
from .roots import Roots

__all__ = ["Job", "command_line", "fields_of", "stop_all"]

_SAID = 4000  # characters that are kept
# On Windows Ctrl-Break is all that another process can be sent; the command line takes it as Ctrl-C.
_INTERRUPT = getattr(signal, "CTRL_BREAK_EVENT", signal.SIGINT)

_running: "set[Job]" = set()


class Job:
    """A command that runs.

    Args:
        arguments: its command line, without ``dynunet``.
        where: the folder that relative paths are of.
        said: is called with what it has said so far.
    """

    def __init__(self, arguments: Sequence[str], where: Path, said: Callable[[str], Any]) -> None:
        self.arguments, self.where, self.said = list(arguments), where, said
        self.process: asyncio.subprocess.Process | None = None

    async def run(self) -> bool:
        """Run it to its end; True if all went well."""
        text = f"$ {shown(shlex.join(['dynunet', *self.arguments]))}\n"
        self.said(text)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "dynunet",
            *self.arguments,
            cwd=self.where,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},  # a run is a folder, and nothing is fetched
            creationflags=getattr(
                subprocess, "CREATE_NEW_PROCESS_GROUP", 0
            ),  # of Windows, to interrupt it alone
        )
        self.process = process
        _running.add(self)
        try:
            while process.stdout is not None and (part := await process.stdout.read(2**12)):
                text = (text + part.decode("utf-8", "replace"))[-_SAID:]
                self.said(text)
            return await process.wait() == 0
        finally:
            _running.discard(self)

    def stop(self) -> None:
        """What Ctrl-C does: what is done is kept."""
        if self.process is not None and self.process.returncode is None:
            self.process.send_signal(_INTERRUPT)


def stop_all() -> None:
    """End what runs, when the studio ends."""
    for job in list(_running):
        job.stop()


def fields_of(command: Any, apart: Sequence[str]) -> list[Flag]:
    """The flags of a command but for those that have fields of their own, and what is of a terminal alone."""
    return [flag for flag in flags_of_form(command) if flag.name not in apart and not flag.positional]


def command_line(
    roots: Roots, name: str, command: Any, texts: Mapping[str, str], out: str, must: Sequence[str] = ()
) -> list[str]:
    """The command line for what is typed in, checked, all of whose paths are below the roots.

    Args:
        name: of the command.
        texts: by the name of the flag, those of positional ones among them.
        out: the folder for the results, as it is typed in.
        must: flags that have to be given.

    Raises:
        ValueError, TypeError, OSError: naming the flag, the rule and the value.
    """
    given = dict(texts)
    for flag in flags_of_form(command):
        text = texts.get(flag.name, "").strip()
        if flag.name in must and not text:
            raise ValueError(f"{flag.name.replace('-', ' ')}: choose one first")
        if flag.kind is Path and flag.name != "out" and text:
            given[flag.name] = str(roots.there(text, flag.name))
    if not out.strip():
        raise ValueError("out must be a folder for the results")
    given["out"] = str(roots.inside(out, "out"))
    line = [name, *arguments_of(command, given)]
    made = parsed(line)
    for flag in flags_of_form(command):  # whatever was typed into another field
        place = getattr(made, flag.name.replace("-", "_"), None)
        if isinstance(place, Path) and flag.name != "out":
            _check_links(roots, roots.there(place, flag.name), flag.name)
        elif isinstance(place, Path):
            roots.inside(place, flag.name)
    made.check()
    return line


def _check_links(roots: Roots, place: Path, name: str) -> None:
    """Refuse a folder of files that lie elsewhere."""
    if name in ("source", "mask") and place.is_dir():
        roots.check_links(find(place), name)
