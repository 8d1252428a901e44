"""Whether something waits for the device: a value that is read back, a copy that is waited for.

What is asked runs once with torch's warnings of it, which tell all places, and where there was none once more
with its errors, which also come from backward passes. On the CPU nothing can wait.
"""

import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from .compare import Mismatch
from .rows import ROOT, Setting

WAITS = "called a synchronizing"  # in torch's words


class Waits:
    """The places at which something waited, innermost of our own code first, with the call there."""

    def __init__(self) -> None:
        self.places: dict[str, int] = {}

    def note(self, frames: list[traceback.FrameSummary]) -> None:
        frames = [f for f in frames if Path(f.filename).name != "warnings.py"]
        if not frames:
            self.places["in a backward pass"] = self.places.get("in a backward pass", 0) + 1
            return
        ours = [f for f in frames if Path(f.filename).is_relative_to(ROOT) and "tests" not in f.filename]
        at = ours[-1] if ours else frames[-1]
        last = frames[-1]
        place = f"{_short(at.filename)}:{at.lineno} {at.line}"
        if last is not at:
            place += f"  (in {_short(last.filename)}:{last.lineno} {last.line})"
        self.places[place] = self.places.get(place, 0) + 1


def _short(name: str) -> str:
    path = Path(name)
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else "/".join(path.parts[-3:])


@contextmanager
def watched(setting: Setting, mode: str, waits: Waits) -> Iterator[None]:
    """Notes what waits inside."""
    if not setting.gpu:
        yield
        return

    def show(message: Any, *_: Any, **__: Any) -> None:
        if WAITS in str(message):
            waits.note(traceback.extract_stack()[:-1])

    with warnings.catch_warnings(), mock.patch("warnings.showwarning", show):
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode(mode)
        try:
            yield
        except RuntimeError as error:
            if WAITS not in str(error):
                raise
            waits.note(list(traceback.extract_tb(error.__traceback__)))
        finally:
            torch.cuda.set_sync_debug_mode("default")


def told(setting: Setting, run: Callable[[str, Waits], None]) -> dict[str, Any]:
    """Warm up unwatched, then watch in both modes."""
    run("default", Waits())
    waits = Waits()
    if not setting.gpu:
        return {"waits": None}
    for mode in ("warn", "error"):
        if not waits.places:
            run(mode, waits)
    if waits.places:
        listed = [f"{count} x {place}" for place, count in waits.places.items()]
        raise Mismatch(
            "waits at\n" + "\n".join(listed[:5]), {"waits": sum(waits.places.values()), "places": listed}
        )
    return {"waits": 0}
