"""Working on files one by one: what becomes of each, and going on where it was interrupted.

A result appears when it is complete. So those that are there are kept, and the same command makes the others
as it would have without the interruption: nothing about a file depends on the others.
"""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from tqdm.auto import tqdm

from ..data.errors import printable, shown
from ..data.files import search
from ..data.saving import check_free
from ..writing import DiskFull
from .common import known_suffix, result_of
from .train import Stopped


class NothingToDoError(ValueError):
    """There is nothing to be done about a file; the message says why."""


class Work:
    """Files, where their results go, and what became of them.

    Args:
        source: a file, or a folder with all below it.
        out: a folder for the results; for one file also the file to write.
        overwrite: make results again that are there.
        named: the name of the result for a file, by default that of the file.
        beside: other files that are read, and must not be replaced.

    Raises:
        FileNotFoundError, ValueError: there is nothing to work on, or a result would take the place of an
        input.
    """

    def __init__(
        self,
        source: Path,
        out: Path,
        overwrite: bool,
        named: Callable[[Path], str] = lambda path: path.name,
        beside: Sequence[Path] = (),
    ) -> None:
        self.out, self.overwrite, self.folder = out, overwrite, source.is_dir()
        if self.folder and not out.is_dir() and (out.exists() or known_suffix(out)):
            raise ValueError(f"out must be a folder, for the results of one, got {shown(out)}")
        found = search(source, "source", out if self.folder else None)
        read = {_identity(path) for path in beside}
        if self.folder:
            found.files = [p for p in found.files if _identity(p) not in read]
            self.files = [(p, out / p.relative_to(source).with_name(named(p))) for p in found.files]
        else:
            self.files = [(p, result_of(p, out, named(p))) for p in found.files]
        self.total = len(self.files) + len(found.unusable)
        self.done = self.kept = self.idle = self.failed = 0
        self.lost: set[str] = set()
        self._check_inputs(beside)
        for place, what in found.left_out.items():
            say(f"left out: {shown(place)}: {what}")
        for path, why in found.unusable.items():
            self._fail(path, why)

    def _check_inputs(self, beside: Sequence[Path]) -> None:
        inputs = {_identity(path) for path in (*beside, *(path for path, _ in self.files))}
        for path, to in self.files:
            if to.exists() and _identity(to) in inputs:
                raise ValueError(
                    f"out: the result for {shown(path)} would replace {shown(to)}, which is read; choose "
                    "another folder"
                )
        if not self.folder and not self.overwrite and self.files[0][1].exists():
            to = shown(self.files[0][1])
            raise ValueError(f"out: {to} exists already; choose another folder or give --overwrite")

    def run(self, do: Callable[[Path, Path], Sequence[str]], verb: str) -> None:
        """Do it for every file without a result, and say what became of them.

        Args:
            do: ``do(path, to)`` writes the result, and gives what of the file is lost in it, in words.
            verb: what is done, such as ``"restored"``.

        Raises:
            SystemExit: with code 1 if something failed; the rest is done.
            Stopped: it was interrupted.
            DiskFull: at once, for nothing else would fit either.
        """
        taken: dict[str, Path] = {}
        try:
            for path, to in tqdm(self.files, desc=f"{verb}", unit="file", disable=None):
                first = taken.setdefault(os.path.normcase(to), path)
                if first != path:
                    self._fail(path, f"its result has the name of that for {shown(first)}, {shown(to)}")
                elif not self.overwrite and to.is_file() and not to.is_symlink():
                    self.kept += 1
                else:
                    self._one(do, path, to)
        except KeyboardInterrupt:
            raise Stopped(f"interrupted, {self._summary(verb)}; the same command goes on") from None
        print(self._summary(verb))
        if self.failed:
            raise SystemExit(1)

    def _one(self, do: Callable[[Path, Path], Sequence[str]], path: Path, to: Path) -> None:
        try:
            check_free(to, self.overwrite)
            lost = do(path, to)
        except NothingToDoError as error:
            if not self.folder:
                raise
            self.idle += 1
            say(f"passed over: {shown(path)}: {error}")
        except DiskFull:
            raise
        except (
            ValueError,
            OSError,
            MemoryError,
            RuntimeError,
        ) as error:  # torch's memory errors are the last
            self._fail(path, str(error) or type(error).__name__)
        else:
            self.done += 1
            for text in set(lost) - self.lost:
                say(f"{shown(path)}, and others like it: {text}")
            self.lost |= set(lost)

    def _fail(self, path: Path, why: str) -> None:
        self.failed += 1
        name = shown(path)
        say(f"skipped: {name}: {why.removeprefix(f'{name} cannot be read: ')}")

    def _summary(self, verb: str) -> str:
        parts = [f"{self.done} of {self.total} files {verb}, in {shown(self.out)}"]
        if self.kept:
            parts.append(f"{self.kept} there already and kept (--overwrite would make them again)")
        if self.idle:
            parts.append(f"{self.idle} passed over")
        if self.failed:
            parts.append(f"{self.failed} skipped")
        return "; ".join([*parts, *sorted(self.lost)])


def say(text: str) -> None:
    """To the user, above the progress bar."""
    tqdm.write(printable(" ".join(text.split())), file=sys.stderr)


def _identity(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino
