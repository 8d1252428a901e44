"""Results for files, one by one: what becomes of each, and going on where it was interrupted.

A result appears when it is complete. So those that are there are kept, and the same call makes the others as
it would have without the interruption: nothing about a file depends on the others.
"""

import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .data.channel_files import case_of, cases
from .data.errors import count, shown
from .data.files import Found, search
from .data.formats import SUFFIXES, to_write
from .data.saving import check_free
from .progress import Bar, Interrupted, say
from .writing import DiskFull

_NAMED = 10  # files that are named, of each thing that may become of them


class NothingToDoError(ValueError):
    """There is nothing to be done about a file; the message says why."""


@dataclass
class Outcome:
    """Counts of what became of files. As text they are a sentence.

    Attributes:
        verb: what was done to them, such as ``"restored"``.
        out: where the results are.
        done, kept: how many results were made, and how many were there already.
        passed_over: files about which there was nothing to do, and why.
        failed: files without a result, and why.
        lost: what results do not have of their files, in words.
    """

    verb: str
    out: Path
    done: int = 0
    kept: int = 0
    passed_over: dict[Path, str] = field(default_factory=dict)
    failed: dict[Path, str] = field(default_factory=dict)
    lost: set[str] = field(default_factory=set)
    total: int = 0

    def __str__(self) -> str:
        parts = [f"{self.done} of {count(self.total, 'file')} {self.verb}, in {shown(self.out)}"]
        if self.kept:
            parts.append(f"{self.kept} there already and kept (--overwrite would make them again)")
        if self.passed_over:
            parts.append(f"{len(self.passed_over)} passed over")
        if self.failed:
            parts.append(f"{len(self.failed)} skipped")
        return "; ".join([*parts, *sorted(self.lost)])


def is_made(path: Path, to: Path) -> bool:
    """True where the result for a file is there: a regular file, no link to one."""
    return to.is_file() and not to.is_symlink()


class Results:
    """Files, where their results go, and what becomes of them.

    Args:
        source: a file, or a folder with all below it.
        out: a folder for the results; for one file also the file to write.
        verb: what is done, such as ``"restored"``.
        overwrite: make results again that are there.
        named: the name of the result for a file, by default that of the file.
        beside: other files that are read, and must not be replaced.
        progress: show a bar, and say on stderr which files are skipped and why.
        lines: ``out`` is a table, and results are lines of it.
        channels: that are in files of their own, see :mod:`dynunet.data.channel_files`.

    Raises:
        FileNotFoundError, ValueError: there is nothing to work on, or a result would take the place of an
        input.
    """

    def __init__(
        self,
        source: Path,
        out: Path,
        verb: str,
        overwrite: bool,
        named: Callable[[Path], str] = lambda path: path.name,
        beside: Sequence[Path] = (),
        progress: bool = True,
        lines: bool = False,
        channels: tuple[str, ...] | None = None,
    ) -> None:
        self.overwrite, self.folder, self.progress, self.lines = overwrite, source.is_dir(), progress, lines
        if not lines:
            _check_out(out, self.folder)
        below = self.folder and not lines  # every file has a result of its own, in its place below the folder
        found = search(source, "source", out if below else None, progress)
        read = {_identity(path) for path in beside} if below else ()
        files = [path for path in found.files if _identity(path) not in read]
        files = cases(files, channels, found.unusable)
        if not files and not self.folder:
            raise ValueError(f"source: {shown(source)}: {found.unusable[source]}")
        self.files = [(p, out if lines else _destination(p, source, out, named, channels)) for p in files]
        self.outcome = Outcome(verb, out, total=len(self.files) + len(found.unusable))
        self._named: Counter[str] = Counter()
        self._check_inputs(beside)
        self._name_unread(found)

    def _name_unread(self, found: Found) -> None:
        for place, what in found.left_out.items():
            self._name("left out", place, what)
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
        if not (self.folder or self.lines or self.overwrite) and self.files[0][1].exists():
            to = shown(self.files[0][1])
            raise ValueError(f"out: {to} exists already; choose another folder or give --overwrite")

    def make(
        self,
        do: Callable[[Path, Path], Sequence[str]],
        there: Callable[[Path, Path], bool] = is_made,
    ) -> Outcome:
        """Make the result of every file that has none.

        Args:
            do: ``do(path, to)`` writes the result, and gives what of the file is lost in it, in words.
            there: ``there(path, to)`` is True if it has been made already.

        Raises:
            Interrupted: by Ctrl-C; the results that are made are kept.
            DiskFull: at once, for nothing else would fit either.
        """
        outcome, taken = self.outcome, {}
        quiet = None if self.progress else True
        try:
            bar = Bar(self.files, desc=outcome.verb, unit="file", disable=quiet)
            for path, to in bar:
                bar.set_postfix_str(shown(path.name), refresh=False)
                first = taken.setdefault(os.path.normcase(to), path)
                if first != path and not self.lines:
                    self._fail(path, f"its result has the name of that for {shown(first)}, {shown(to)}")
                elif not self.overwrite and there(path, to):
                    outcome.kept += 1
                else:
                    self._one(do, path, to)
        except KeyboardInterrupt:
            raise Interrupted(f"interrupted, {outcome}; the same command goes on") from None
        for what, number in self._named.items():
            if number > _NAMED:
                self._say(f"{what}: {number - _NAMED} more")
        return outcome

    def _one(self, do: Callable[[Path, Path], Sequence[str]], path: Path, to: Path) -> None:
        try:
            check_free(to, overwrite=True)  # no file of the user's: what is there is not complete
            lost = do(path, to)
        except NothingToDoError as error:
            if not self.folder:
                raise
            self.outcome.passed_over[path] = str(error)
            self._name("passed over", path, str(error))
        except DiskFull:
            raise
        except (ValueError, OSError, MemoryError, RuntimeError) as error:  # the last is torch's, of memory
            self._fail(path, str(error) or type(error).__name__)
        else:
            self.outcome.done += 1
            for text in set(lost) - self.outcome.lost:
                self._say(f"{shown(path)}, and others like it: {text}")
            self.outcome.lost |= set(lost)

    def _fail(self, path: Path, why: str) -> None:
        name = shown(path)
        self.outcome.failed[path] = why.removeprefix(f"{name} cannot be read: ")
        self._name("skipped", path, self.outcome.failed[path])

    def _name(self, what: str, path: Path, why: str) -> None:
        """Say what becomes of a file; only of the first ones, for there may be thousands."""
        self._named[what] += 1
        if self._named[what] <= _NAMED:
            self._say(f"{what}: {shown(path)}: {why}")

    def _say(self, text: str) -> None:
        if self.progress:
            say(text)


def _check_out(out: Path, folder: bool) -> None:
    """Refuse a path at which the results of a folder, or of a file, cannot be written."""
    if folder and not out.is_dir() and (out.exists() or _names_file(out)):
        raise ValueError(f"out must be a folder, for the results of one, got {shown(out)}")
    if not folder and _like_a_file(out):
        to_write(out)


def _destination(
    path: Path, source: Path, out: Path, named: Callable[[Path], str], channels: tuple[str, ...] | None
) -> Path:
    """Where the result of a file goes: to its place below the source, or of a source that is a file."""
    if path != source:
        place = case_of(path.relative_to(source), channels)
        return out / place.with_name(named(place))
    return out if _names_file(out) and not out.is_dir() else out / named(case_of(path, channels))


def _names_file(path: Path) -> bool:
    """True for a path that names a file of a known format, not a folder."""
    return path.name.lower().endswith(tuple(s for suffixes in SUFFIXES.values() for s in suffixes))


def _like_a_file(path: Path) -> bool:
    """True for what is no folder yet and has a suffix as files have: letters, or letters and digits."""
    return not path.is_dir() and re.fullmatch(r"\.(?=.*[a-zA-Z])\w{2,5}", path.suffix) is not None


def _identity(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino
