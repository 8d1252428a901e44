"""Ctrl-C, SIGTERM and SIGHUP in training: the step is finished and saved; a second one stops at once."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class Interrupts:
    """A context in which the first SIGINT, SIGTERM or SIGHUP (the terminal was closed) is noted, as ``name``.

    SIGHUP stays ignored where it was, as under ``nohup``. Outside the main thread, where Python gives no
    signals, nothing is changed.
    """

    def __init__(self) -> None:
        self.name: str | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Interrupts":
        if threading.current_thread() is threading.main_thread():
            for number in self._signals():
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        while self._before:
            number, handler = self._before.popitem()
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _signals(self) -> list[int]:
        taken: list[int] = [signal.SIGINT, signal.SIGTERM]
        if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            taken.append(signal.SIGHUP)  # Windows has none
        return taken

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.name = signal.Signals(number).name
        self.__exit__()


def stand_apart(worker: int) -> None:
    """For processes that read data: what a terminal or a launcher sends to all processes is not for them.

    They are needed for the step that is finished, and end with the process that trains.
    """
    if hasattr(os, "setpgrp"):
        os.setpgrp()
    else:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def killed_by_interrupts() -> Iterator[None]:
    """For imports, which take seconds: Ctrl-C ends the process at once, without a traceback."""
    handled = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    try:
        if handled:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        yield
    finally:
        if handled:
            signal.signal(signal.SIGINT, signal.default_int_handler)
