"""Messages above a progress bar, and the end of work that is interrupted."""

import sys

from tqdm.auto import tqdm

from .data.errors import printable


class Interrupted(KeyboardInterrupt):
    """Work was stopped by a signal, and what is done is kept; the message says how to go on."""


def say(text: str) -> None:
    """One line to the user on stderr, above a progress bar."""
    tqdm.write(printable(" ".join(text.split())), file=sys.stderr)
