"""Checkpoints of a run: each is whole or not there, whenever the process is killed.

``checkpoints/step-XXXXXXXX/`` holds

``config.json``, ``model.safetensors``  the averaged model, for ``Diffusion.from_pretrained``;
``state.pt``                            weights and optimiser, read with ``weights_only=True``;
``state.json``                          numbers, and the checksums of the other files.

A checkpoint is written into a hidden folder, which gets its name once all is on the disk. The last two are
kept, so that one is left if the newest turns out damaged, and the best by validation.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ..diffusion import Diffusion

STATE, NUMBERS = "state.pt", "state.json"
_KEPT = 2


class Saved(NamedTuple):
    """A checkpoint that has been read."""

    path: Path
    state: dict[str, Any]
    numbers: dict[str, Any]


class Checkpoints:
    """Those in a folder, by step."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def steps(self) -> list[int]:
        """Of all that are there, in order."""
        names = [path.name for path in self.folder.glob("step-*")]
        return sorted(int(n[5:]) for n in names if n[5:].isdigit())

    def path(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}"

    def save(
        self,
        step: int,
        state: Mapping[str, Any],
        average: Diffusion,
        numbers: Mapping[str, Any],
        best: int | None = None,
    ) -> Path:
        """Write one, then remove those that are neither among the last two nor the best."""
        temporary, final = self._hidden(step), self.path(step)
        self.clean()
        temporary.mkdir(parents=True)
        torch.save(state, temporary / STATE)
        average.save_pretrained(temporary)
        files = {p.name: _checksum(p) for p in sorted(temporary.iterdir())}
        write_text(temporary / NUMBERS, json.dumps({**numbers, "step": step, "files": files}, indent=2))
        sync(temporary / STATE)
        sync(temporary)
        temporary.rename(final)
        sync(self.folder)
        for old in self.steps()[:-_KEPT]:
            if old != best:
                self._remove(old)
        return final

    def latest(self, report: Callable[[str], None]) -> Saved | None:
        """The newest that is whole; those that are not are reported and set aside, under another name."""
        self.clean()
        broken = []
        for step in reversed(self.steps()):
            path = self.path(step)
            try:
                return read(path)
            except (OSError, ValueError, KeyError) as error:
                aside = path.with_name(f"damaged-{step:08d}")
                shutil.rmtree(aside, ignore_errors=True)
                path.rename(aside)
                broken.append(f"{path.name} ({error})")
                report(f"{path} is damaged and passed over, now {aside.name}: {error}")
        if broken:
            raise ValueError(f"{self.folder} must have a checkpoint that is whole, got {'; '.join(broken)}")
        return None

    def clean(self) -> None:
        """Remove what a killed save has left."""
        for path in self.folder.glob(".step-*"):
            shutil.rmtree(path)

    def _remove(self, step: int) -> None:
        """At once, as far as others can see."""
        with suppress(FileNotFoundError):
            self.path(step).rename(self._hidden(step))
            shutil.rmtree(self._hidden(step))

    def _hidden(self, step: int) -> Path:
        return self.folder / f".step-{step:08d}"


def read(path: Path) -> Saved:
    """A checkpoint, on the CPU.

    Raises:
        ValueError, OSError, KeyError: if it is not whole.
    """
    numbers = json.loads((path / NUMBERS).read_text(encoding="utf-8"))
    for name, checksum in numbers["files"].items():
        if _checksum(path / name) != checksum:
            raise ValueError(f"{name} is not what was written, it has {(path / name).stat().st_size} bytes")
    state = torch.load(path / STATE, map_location="cpu", weights_only=True)
    return Saved(path, state, numbers)


def write_text(path: Path, text: str) -> None:
    """Replace a file once the new text is on the disk."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text + "\n", encoding="utf-8")
    sync(temporary)
    os.replace(temporary, path)


def sync(path: Path) -> None:
    """Have a file, or the names in a folder, written to the disk."""
    if path.is_dir() and os.name != "posix":
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
