"""Files that are whole or not there, and a full disk that is called one.

A file is written under another name beside its own, which it gets once it is on the disk. Whatever ends the
writing but the end of the process, nothing is left of it; what a killed process leaves has a name that
starts with ``.tmp-``.
"""

import csv
import errno
import io
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import ceil
from pathlib import Path
from zlib import crc32

__all__ = [
    "DiskFull",
    "amount",
    "making",
    "remove_left",
    "replacing",
    "sync",
    "write_table",
    "write_text",
    "written",
]

LEFT = re.compile(r"\.tmp-\d+-[0-9a-f]{8}(\.[^/]*)?")  # names of what a killed process has left
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_PROBE = 2**16  # bytes


class DiskFull(OSError):
    """There is no room for a file; the message is a sentence that says for which, and how much it takes."""

    def __str__(self) -> str:
        return self.strerror or ""


@contextmanager
def replacing(*paths: Path, needs: int | None = None) -> Iterator[tuple[Path, ...]]:
    """Paths to write to, one for each of these files, which are replaced once all of them are whole on disk.

    Each keeps the suffix of its file, which may say the format, and exists already.

    Args:
        paths: of the files, in one folder or in several, which exist.
        needs: bytes that will be written, as far as they are known, for the message.

    Raises:
        DiskFull: if there is no room for them.
    """
    temporary = tuple(_beside(path) for path in paths)
    with written(paths[0], temporary, needs):
        for path in temporary:
            path.touch()
        modes = [path.stat().st_mode for path in temporary]
        yield temporary
        for path, mode in zip(temporary, modes, strict=True):
            path.chmod(mode & 0o7777)  # safetensors makes files for their owner alone
            sync(path)
        for path, final in zip(temporary, paths, strict=True):
            os.replace(path, final)
        for folder in {path.parent for path in paths}:
            sync(folder)


@contextmanager
def making(folder: Path, temporary: Path, needs: int | None = None) -> Iterator[Path]:
    """A folder to write files to, which gets its name once all of them are whole on disk.

    Args:
        folder: that is not there yet.
        temporary: its name until then.
        needs: bytes that will be written, as far as they are known, for the message.

    Raises:
        DiskFull: if there is no room for them.
    """
    with written(folder, [temporary], needs):
        temporary.mkdir(parents=True)
        yield temporary
        for path in temporary.iterdir():
            sync(path)
        sync(temporary)
        temporary.rename(folder)
        sync(folder.parent)


def write_text(path: Path, text: str) -> None:
    """Replace a file by a text that ends with a line end."""
    with replacing(path, needs=len(text) + 1) as (temporary,):
        temporary.write_text(text + "\n", encoding="utf-8")


def write_table(path: Path, lines: Sequence[Sequence[str]]) -> None:
    """Replace a file by a table (CSV); its folder is made if need be."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text.getvalue().removesuffix("\n"))


@contextmanager
def written(what: Path, partial: Sequence[Path] = (), needs: int | None = None) -> Iterator[None]:
    """A context in which something is written: if that fails, its parts, files or folders, are removed.

    Raises:
        DiskFull: if the disk is full, whatever the library that wrote has raised.
    """
    try:
        yield
    except BaseException as error:
        reason = _reason(error, partial)
        for path in partial:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        if reason is None:
            raise
        raise DiskFull(reason, f"{what} could not be written: {_room(what, reason, needs)}") from error


def sync(path: Path) -> None:
    """Have a file, or the names in a folder, written to the disk."""
    if path.is_dir() and os.name != "posix":
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove_left(folder: Path) -> None:
    """Remove what a killed process has left in a folder that no other one writes to."""
    for path in folder.glob(".tmp-*"):
        if LEFT.fullmatch(path.name):
            path.unlink()


def _beside(path: Path) -> Path:
    """Unlike the name, this one is never too long."""
    suffix = "".join(path.suffixes[-2:] if path.suffix == ".gz" else path.suffixes[-1:])[-16:]
    return path.with_name(f".tmp-{os.getpid()}-{crc32(os.fsencode(path.name)):08x}{suffix}")


def _reason(error: BaseException | None, partial: Sequence[Path]) -> int | None:
    """The number of the system's error, if it is one of a full disk.

    Many libraries say something else instead, or nothing: then it is seen by writing a little more.
    """
    if not isinstance(error, Exception):
        return None
    seen: BaseException | None = error
    while seen is not None:
        number = _number(seen)
        if number in _FULL:
            return number
        seen = seen.__cause__ or seen.__context__
    return next(filter(None, map(_refusal, partial)), None)


def _number(error: BaseException) -> int | None:
    """That of the system's error, as the error has it, or as Rust tells it."""
    if isinstance(error, OSError):
        return error.errno
    told = re.search(r"os error (\d+)", str(error))
    return int(told[1]) if told else None


def _refusal(path: Path) -> int | None:
    """The number of the error of a full disk with which a little more is refused; None if it is not."""
    try:
        with (path / "probe" if path.is_dir() else path).open("ab") as file:
            file.write(bytes(_PROBE))
            file.flush()
            os.fsync(file.fileno())
    except OSError as refused:
        return refused.errno if refused.errno in _FULL else None
    return None


def _room(what: Path, reason: int, needs: int | None) -> str:
    free = amount(shutil.disk_usage(what.parent if what.parent.is_dir() else ".").free)
    takes = "" if needs is None else f"it takes about {amount(needs)}, and "
    return f"{os.strerror(reason)}; {takes}{free} are free"


def amount(size: float, up: bool = False) -> str:
    """Bytes in words, with three digits; with ``up`` never less than it is.

    >>> amount(1_234_567_890), amount(1_234_567_890, up=True), amount(52_000_000), amount(7)
    ('1.23 GB', '1.24 GB', '52 MB', '7 bytes')
    """
    value, units = float(size), ["bytes", "kB", "MB", "GB", "TB"]
    while value >= 1000 and len(units) > 1:
        value, units = value / 1000, units[1:]
    scale = 10 ** max(0, 3 - len(str(int(value))))
    return f"{(ceil if up else round)(value * scale) / scale:g} {units[0]}"
