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
import re
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..checkpoints import CONFIG, WEIGHTS, Checkpoint
from ..rules import Rule, both, optional, read_document, real, several, table, whole
from ..writing import making, write_text

STATE, NUMBERS = "state.pt", "state.json"
_KEPT = 2
_HASH = Rule(
    "a SHA-256 checksum", lambda v: isinstance(v, str) and re.fullmatch("[0-9a-f]{64}", v) is not None
)
_FILES = Rule(f"those of {CONFIG}, {WEIGHTS} and {STATE}", lambda v: {*v} == {CONFIG, WEIGHTS, STATE})
_BEST = Rule("a step and its loss", lambda v: whole().holds(v[0]))
_RULES = {
    "step": whole(),
    "fixed": table(),
    "best": optional(both(several(real(), 2), _BEST)),
    "seconds": real(0),
    "sums": several(real(), 3),
    "files": both(table(_HASH), _FILES),
}


class Saved(NamedTuple):
    """A checkpoint that has been read."""

    path: Path
    state: dict[str, Any]
    numbers: dict[str, Any]


class Checkpoints:
    """The checkpoints in a folder, by step."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def steps(self) -> list[int]:
        """Steps of all that are there, in order."""
        names = [path.name for path in self.folder.glob("step-*")]
        return sorted(int(n[5:]) for n in names if n[5:].isdigit())

    def path(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}"

    def save(
        self,
        step: int,
        state: Mapping[str, Any],
        average: Any,
        numbers: Mapping[str, Any],
        best: int | None = None,
    ) -> Path:
        """Write one, then remove those that are neither among the last two nor the best."""
        final = self.path(step)
        self.clean()
        tensors = [*_tensors(state), *average.state_dict().values()]
        with making(final, self._hidden(step), sum(t.nbytes for t in tensors)) as folder:
            torch.save(state, folder / STATE)
            _save_model(average, folder)
            files = {p.name: _checksum(p) for p in sorted(folder.iterdir())}
            write_text(folder / NUMBERS, json.dumps({**numbers, "step": step, "files": files}, indent=2))
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
            except (OSError, ValueError) as error:
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
        """Remove one, at once as far as others can see."""
        with suppress(FileNotFoundError):
            self.path(step).rename(self._hidden(step))
            shutil.rmtree(self._hidden(step))

    def _hidden(self, step: int) -> Path:
        return self.folder / f".step-{step:08d}"


def _save_model(average: Any, folder: Path) -> None:
    """The two files of a model alone: its card is in the folder of the run."""
    (average._save_pretrained if isinstance(average, Checkpoint) else average.save_pretrained)(folder)


def read(path: Path) -> Saved:
    """A checkpoint, on the CPU.

    Raises:
        ValueError, OSError: if it is not whole.
    """
    numbers = read_document(path / NUMBERS, _RULES)
    if path.name != f"step-{numbers['step']:08d}":
        raise ValueError(f"{path / NUMBERS}: field 'step' must be that of its folder, got {numbers['step']}")
    for name, checksum in numbers["files"].items():
        if _checksum(path / name) != checksum:
            raise ValueError(f"{name} is not what was written, it has {(path / name).stat().st_size} bytes")
    try:
        state = torch.load(path / STATE, map_location="cpu", weights_only=True)
    except Exception as error:  # what another file makes of the reader is anybody's guess
        raise ValueError(f"{STATE} must hold tensors and numbers alone: {type(error).__name__}") from None
    return Saved(path, state, numbers)


def _tensors(value: Any) -> list[Tensor]:
    """All that are somewhere in nested mappings and sequences."""
    if isinstance(value, Tensor):
        return [value]
    inside = (
        value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ()
    )
    return [tensor for v in inside for tensor in _tensors(v)]


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
