"""Finding files below a folder.

What the program itself has written there is no data: the folders of runs, and the one that results go to.
Hidden folders are none either: other programs keep copies in them (``.ipynb_checkpoints``, ``.git``).
"""

import json
import os
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..progress import Bar
from .errors import check_exists, shown
from .formats import FORMATS, SUFFIXES, of_path

_RUN = "run.json"
_LONGEST = 10**8  # bytes of a run's record
_SUFFIXES = 10  # that are named, the commonest


@dataclass
class Found:
    """Files of known formats, sorted, and a count of the others by suffix."""

    root: Path
    files: list[Path]
    others: Counter[str] = field(default_factory=Counter)
    unusable: dict[Path, str] = field(default_factory=dict)  # of known formats by their names alone
    left_out: dict[Path, str] = field(default_factory=dict)  # folders, and what they are

    def add(self, file: Path) -> None:
        """Note a file as what it is."""
        if of_path(file) is not None:
            why = no_file(file)
            if why is None:
                self.files.append(file)
            else:
                self.unusable[file] = why
        elif not any(f.holds_labels(file.name.lower()) for f in FORMATS):
            self.others["(hidden)" if file.name.startswith(".") else file.suffix or "(no suffix)"] += 1


def find(source: Path | str | Sequence[Path | str]) -> list[Path]:
    """The files of known formats in a folder and all below, sorted; a file is itself, in a list.

    Folders of runs are left out, and so is what is no file: a pipe, or a link that leads nowhere.

    Raises:
        FileNotFoundError: there is no such file or folder.
        ValueError: there is none of a known format; the message says what was looked for.
    """
    return search(source, "source").files


def search(
    source: Path | str | Sequence[Path | str], name: str, results: Path | None = None, progress: bool = True
) -> Found:
    """Search as :func:`find` does, for the argument of this name.

    Args:
        results: a folder below the source that is left out: results are not read as what they are made from.
        progress: show how many files there are so far, if it takes a while.
    """
    one = isinstance(source, (str, os.PathLike))
    paths = _there([source] if one else source, name)
    folder = paths[0] if one and paths[0].is_dir() else None
    found = Found(folder or _common(paths), [])
    for path in paths:
        below = _below(path, results, found) if path.is_dir() else [path]
        for file in Bar(below, desc="finding files", leave=False, delay=1, disable=not progress):
            found.add(file)
    if not found.files:
        where = shown(paths[0]) if one else f"{len(paths)} paths"
        raise ValueError(f"{name}: no file to read in {where}. {_without_files(found)}")
    return found


def described(found: Found) -> list[str]:
    """Things that were found and are not read, each in words, but for files of other formats."""
    places = {**found.left_out, **found.unusable}
    return [f"{shown(os.path.relpath(path, found.root))}: {why}" for path, why in places.items()]


def _without_files(found: Found) -> str:
    """What was looked for, and what there is instead."""
    looked = "; ".join(f"{kind}: {' '.join(suffixes)}" for kind, suffixes in SUFFIXES.items())
    there = ", ".join(filter(None, [others_text(found.others), *described(found)])) or "nothing at all"
    return f"Looked for {looked}; found {there}"


def no_file(path: Path) -> str | None:
    """Why something cannot be read as a file, without opening it: a pipe would wait for ever."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return "it is a link that leads nowhere"
    except OSError as error:
        return f"it cannot be looked at: {error.strerror}"
    return None if stat.S_ISREG(mode) else "it is no regular file"


def stem(path: Path, root: Path) -> str:
    """The place of a file below a folder, without its suffix: the same for files that belong together."""
    place = os.path.relpath(path, root)
    known = [suffix for f in FORMATS for suffix in f.suffixes if suffix.startswith(".")]
    ends = [suffix for suffix in known if place.lower().endswith(suffix)]
    return place[: -len(max(ends, key=len))] if ends else os.path.splitext(place)[0]


def is_run(folder: Path | str) -> bool:
    """True for the folder of a run: the record of one, ``run.json``, is in it."""
    file = Path(folder, _RUN)
    try:
        if not file.is_file() or file.stat().st_size > _LONGEST:
            return False
        record = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(record, dict) and isinstance(record.get("options"), dict) and "started" in record


def others_text(others: Counter[str]) -> str:
    """The other files in words."""
    first = sorted(others.items(), key=lambda item: (-item[1], item[0]))[:_SUFFIXES]
    said = [f"{n} {shown(suffix)}" for suffix, n in sorted(first)]
    return ", ".join([*said, *(["and others"] if len(first) < len(others) else [])])


def _there(source: Sequence[Path | str], name: str) -> list[Path]:
    """At least one path, and something at each."""
    paths = [Path(path) for path in source]
    if not paths:
        raise ValueError(f"{name} must be a folder, a file or files, got an empty sequence")
    for path in paths:
        check_exists(path, name)
    return paths


def _common(paths: list[Path]) -> Path:
    return Path(os.path.commonpath([p.absolute() if p.is_dir() else p.absolute().parent for p in paths]))


def _below(folder: Path, results: Path | None, found: Found) -> Iterator[Path]:
    """All files in a folder and below, sorted; linked folders too, each once."""
    seen = set()
    own = None if results is None else os.path.realpath(results)
    if own == os.path.realpath(folder):
        raise ValueError(f"results must go to another folder than {shown(folder)}, which they are made from")

    def closed(error: OSError) -> None:
        found.unusable[Path(error.filename)] = f"it cannot be looked into: {error.strerror}"

    for at, folders, files in os.walk(folder, onerror=closed, followlinks=True):
        folders.sort()
        what = _without_data(at, files, own, at == os.fspath(folder))
        if what is not None:
            found.left_out[Path(at)] = what
        real = os.path.realpath(at)
        if what is not None or real in seen:
            folders.clear()
            continue
        seen.add(real)
        yield from (Path(at, name) for name in sorted(files))


def _without_data(folder: str, files: Sequence[str], results: str | None, asked_for: bool) -> str | None:
    """What a folder is whose files are no data; None for others, and hidden ones that were asked for."""
    if os.path.basename(folder).startswith(".") and not asked_for:
        return "hidden"
    if os.path.realpath(folder) == results:
        return "the results"
    return "a run" if _RUN in files and is_run(folder) else None
