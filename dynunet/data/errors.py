"""Errors of files, in words that can be printed whatever the name and the content of a file are."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

_T = TypeVar("_T")


class VanishedError(RuntimeError):
    """No file of a data set can be read any more."""


class UnreadableError(Exception):
    """A file that cannot be used; the message is the reason, without the file's name."""


def attempt(read: Callable[[], _T]) -> _T:
    """Call ``read``, and turn what it raises into an :class:`UnreadableError` with the reason.

    A damaged file makes a decoder raise anything, so every exception is a reason here; but a package that is
    not installed is no fault of the file.
    """
    try:
        return read()
    except (UnreadableError, ImportError):
        raise
    except Exception as error:
        text = printable(" ".join(str(error).split())) or "no reason given"
        raise UnreadableError(f"{type(error).__name__}: {text[:200]}") from error


def check_exists(path: Path, name: str) -> None:
    """Refuse a path at which there is nothing, not even a link.

    Raises:
        FileNotFoundError: naming the argument.
    """
    if not os.path.lexists(path):
        raise FileNotFoundError(f"{name}: there is no file or folder {shown(path)}")


def missing_package(name: str, error: ImportError) -> ImportError:
    """The error for files whose package is not installed."""
    return ImportError(
        f"these files are read by {name}, which is not installed: pip install 'dynunet[files]' ({error})"
    )


def shown(path: Path | str) -> str:
    """A file's name as it can be printed, whatever its bytes are."""
    return printable(os.fsencode(path).decode("utf-8", "backslashreplace"))


def count(number: int, thing: str) -> str:
    """So many things.

    >>> count(1, "file"), count(2, "file")
    ('1 file', '2 files')
    """
    return f"{number} {thing}{'' if number == 1 else 's'}"


def printable(text: str) -> str:
    """Text without what would steer a terminal, or hide or turn around what is beside it."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
