"""Bars, messages above them, and the end of work that is interrupted."""

import sys
import time
import warnings
from typing import Any

from tqdm import TqdmWarning

from .data.errors import count, printable

with warnings.catch_warnings():  # that a notebook without ipywidgets gets bars of text is nothing amiss
    warnings.simplefilter("ignore", TqdmWarning)
    from tqdm.auto import tqdm

_SECONDS = 30  # between lines, where no terminal shows a bar


class Interrupted(KeyboardInterrupt):
    """Work was stopped by a signal, and what is done is kept; the message says how to go on."""


class Bar(tqdm):
    """A bar; in a file or a pipe, where a bar would be one long line, a line now and then.

    Arguments are those of ``tqdm``.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        self.lines = not sys.stderr.isatty() and "ipykernel" not in sys.modules
        self.said = time.monotonic()
        if self.lines:
            form = "{desc}: {n_fmt} of {total_fmt}, {elapsed} so far, {remaining} to go{postfix}"
            lines = {"bar_format": form, "mininterval": _SECONDS, "miniters": 1, "leave": False, "delay": 0}
            options |= lines
        super().__init__(*args, **options)
        if self.lines and self.total is None:  # nobody knows how many there are
            self.bar_format = "{desc}: {n_fmt}, {elapsed} so far{postfix}"

    def display(self, msg: str | None = None, pos: int | None = None, **notebook: Any) -> None:
        if not self.lines:
            super().display(msg, pos, **notebook)
        elif msg is None and time.monotonic() - self.said >= _SECONDS:
            self.said = time.monotonic()
            print(self, file=sys.stderr, flush=True)

    def clear(self, *args: Any, **options: Any) -> None:
        if not self.lines:
            super().clear(*args, **options)

    def doing(self, what: str) -> None:
        """Name what goes on, which may take longer than a step, at once."""
        if not self.disable and self.desc.removesuffix(": ") != what:
            self.set_description_str(what, refresh=False) if self.lines else self.set_description(what)


def say(text: str) -> None:
    """One line to the user on stderr, above a progress bar."""
    tqdm.write(printable(" ".join(text.split())), file=sys.stderr)


def duration(seconds: float) -> str:
    """About how long, in words.

    >>> duration(50), duration(400), duration(71000)
    ('50 seconds', '7 minutes', '19.7 hours')
    """
    if seconds < 90:
        return count(round(seconds), "second")
    if seconds < 90 * 60:
        return count(round(seconds / 60), "minute")
    return f"{seconds / 3600:.1f} hours" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"
