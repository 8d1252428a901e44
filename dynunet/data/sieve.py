"""Files on their way into a data set: each is kept, or skipped with the reason."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from tqdm.auto import tqdm

from .files import reader_of
from .measuring import Measure
from .options import DataOptions
from .sources import Info, UnreadableError, attempt, shown

_Item = TypeVar("_Item")


@dataclass
class File:
    """A file that can be used."""

    info: Info
    grid: tuple[int, ...] = ()  # sizes of an example once read, before it is cropped
    folder: str = ""  # the top-level sub-folder it is in
    measure: Measure | None = None
    pair: "File | None" = None  # its degraded version


@dataclass
class Sieve:
    """Files that are skipped, and why; and files of which only some examples are."""

    skipped: dict[Path, str] = field(default_factory=dict)
    partly: dict[Path, str] = field(default_factory=dict)

    def look(self, paths: Iterable[Path], options: DataOptions) -> list[File]:
        files = []
        for path in watched(paths, "looking at files"):
            reader = reader_of(path)
            try:
                if reader is None:
                    raise UnreadableError("its suffix is not known")
                files.append(File(attempt(lambda r=reader, p=path: r.look(p, options))))
            except UnreadableError as error:
                self.skipped[path] = str(error)
        return self.left(files)

    def keep(self, files: Iterable[File], reason: Callable[[File], str | None]) -> list[File]:
        """The files for which there is no reason to skip them."""
        kept = []
        for file in files:
            try:
                why = reason(file)
            except UnreadableError as error:
                why = str(error)
            if why is None:
                kept.append(file)
            else:
                self.skipped[file.info.path] = why
        return self.left(kept)

    def left(self, files: list[File]) -> list[File]:
        if not files:
            some = [f"{shown(path)}: {why}" for path, why in list(self.skipped.items())[:5]]
            raise ValueError(f"none of {len(self.skipped)} files can be used:\n  " + "\n  ".join(some))
        return files


def watched(items: Iterable[_Item], text: str) -> Iterable[_Item]:
    """With a progress bar on a terminal, if it takes a while."""
    return tqdm(items, desc=text, leave=False, disable=None, delay=1)
