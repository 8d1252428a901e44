"""Finding files below a folder, and the reader of each."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .arrays import Npy, Npz
from .audio import Audio
from .images import Images
from .sources import Reader, shown
from .standard import Cifar, Idx, is_idx_labels
from .volumes import Volumes

READERS: Mapping[str, Reader] = {
    r.format: r for r in (Audio(), Images(), Volumes(), Npy(), Npz(), Idx(), Cifar())
}

SUFFIXES: Mapping[str, tuple[str, ...]] = {
    kind: tuple(suffix for r in READERS.values() if r.kind == kind for suffix in r.suffixes)
    for kind in ("audio", "images", "volumes", "arrays")
}


@dataclass
class Found:
    """Files of known formats, sorted, and a count of the others by suffix."""

    root: Path
    files: list[Path]
    others: Counter[str] = field(default_factory=Counter)


def reader_of(path: Path) -> Reader | None:
    """The reader of a file by its name; None if it is of no known format."""
    name = path.name.lower()
    if name.startswith("."):
        return None
    return next((r for r in READERS.values() if r.matches(name)), None)


def find(source: Path | str | Sequence[Path | str]) -> list[Path]:
    """The files of known formats in a folder and all below, sorted; a file is itself, in a list.

    Raises:
        FileNotFoundError: there is no such file or folder.
        ValueError: there is none of a known format; the message says what was looked for.
    """
    return search(source, "source").files


def search(source: Path | str | Sequence[Path | str], name: str) -> Found:
    """As :func:`find`, for the argument of this name."""
    one = isinstance(source, (str, os.PathLike))
    paths = [Path(source)] if one else [Path(p) for p in source]
    if not paths:
        raise ValueError(f"{name} must be a folder, a file or files, got an empty sequence")
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f"{name}: there is no file or folder {shown(path)}")
    folder = paths[0] if one and paths[0].is_dir() else None
    found = Found(folder or _common(paths), [])
    for path in paths:
        for file in _below(path) if path.is_dir() else [path]:
            if reader_of(file) is not None:
                found.files.append(file)
            elif not is_idx_labels(file):
                found.others["(hidden)" if file.name.startswith(".") else file.suffix or "(no suffix)"] += 1
    if not found.files:
        looked = "; ".join(f"{kind}: {' '.join(suffixes)}" for kind, suffixes in SUFFIXES.items())
        where = shown(paths[0]) if one else f"{len(paths)} paths"
        there = others_text(found.others) or "nothing at all"
        raise ValueError(f"{name}: no file to read in {where}. Looked for {looked}; found {there}")
    return found


def others_text(others: Counter[str]) -> str:
    """The other files in words."""
    return ", ".join(f"{n} {shown(suffix)}" for suffix, n in sorted(others.items()))


def _common(paths: list[Path]) -> Path:
    return Path(os.path.commonpath([p.absolute() if p.is_dir() else p.absolute().parent for p in paths]))


def _below(folder: Path) -> Iterator[Path]:
    """All files in a folder and below, sorted; linked folders too, each once."""
    seen = set()
    for at, folders, files in os.walk(folder, followlinks=True):
        folders.sort()
        real = os.path.realpath(at)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        yield from (Path(at, name) for name in sorted(files))
