"""Rows, and the groups they run in."""

import importlib
import importlib.util
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SAID = 6  # lines of an error and places in our own code that are kept
ROOT = Path(__file__).parents[2]


class Skip(Exception):
    """A row that cannot run here, and why."""


@dataclass(frozen=True)
class Setting:
    """Where rows run, and how much is asked of them."""

    device: str
    quick: bool

    @property
    def gpu(self) -> bool:
        return self.device != "cpu"


@dataclass(frozen=True)
class Row:
    """``run()`` returns figures by name, and raises where something is wrong."""

    name: str
    run: Callable[[], dict[str, Any]]
    limit: float = 60.0  # seconds, after which it is stopped


@dataclass(frozen=True)
class Group:
    """Rows of one function ``module.name(setting) -> list[Row]``, most important first."""

    section: str
    module: str
    name: str
    share: float = 1.0  # of the time that there is, beside the other groups of its section

    @property
    def title(self) -> str:
        return f"{self.module}.{self.name}"

    def rows(self, setting: Setting) -> Sequence[Row]:
        return getattr(importlib.import_module(f"tests.gpu.{self.module}"), self.name)(setting)


def need(*packages: str) -> None:
    """Skip a row for want of a package."""
    missing = [p for p in packages if importlib.util.find_spec(p) is None]
    if missing:
        raise Skip(f"{', '.join(missing)} not installed")


def need_gpu(setting: Setting, what: str = "needs a GPU") -> None:
    if not setting.gpu:
        raise Skip(what)


def _said(error: Exception) -> str:
    """Where in our own code it came from, and the first lines of what it says."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if Path(f.filename).is_relative_to(ROOT)]
    places = [f"{Path(f.filename).relative_to(ROOT)}:{f.lineno} {f.line}" for f in ours[-SAID:]]
    said = f"{type(error).__name__}: {str(error).strip()}".splitlines()
    return "\n".join([*places, *said[:SAID]])


def outcome(row: Row) -> dict[str, Any]:
    """What became of a row, as JSON holds it."""
    start = time.perf_counter()
    try:
        told: dict[str, Any] = {"status": "ok", "figures": row.run()}
    except Skip as reason:
        told = {"status": "skipped", "error": str(reason)}
    except Exception as error:
        told = {
            "status": "failed",
            "error": _said(error),
            "figures": getattr(error, "figures", {}),
        }
    return {**told, "seconds": round(time.perf_counter() - start, 2)}
