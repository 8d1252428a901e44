"""Files that belong together: those at the same place in two folders, whatever their suffixes."""

from collections.abc import Callable, Sequence
from pathlib import Path

from .errors import shown
from .files import search, stem
from .formats import Format, Header
from .options import DataOptions
from .selection import File, Selection

__all__ = ["Others", "no_partner"]


class Others:
    """The files of a second folder, to be matched with those of the source.

    Args:
        folder: the second folder, or one file.
        name: of the argument that it is, for errors.
        files: those of the source.
        root: folder of the source.
        options: how to read the second folder.
        header: reads the header of one of its files, by default as that of an example.
        selection: where files are noted that are not used.

    Raises:
        FileNotFoundError, ValueError: there is nothing to read, or it is read as the source, too.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        files: Sequence[File],
        root: Path,
        options: DataOptions,
        selection: Selection,
        header: Callable[[Format, Path, DataOptions], Header] | None = None,
    ) -> None:
        self.name, self.root, self.selection = name, root, selection
        found = search(folder, name)
        if {f.header.path.resolve() for f in files} & {p.resolve() for p in found.files}:
            raise ValueError(f"{name} must be a folder outside of the source, got {shown(folder)}")
        self.folder = found.root
        selection.skipped.update(found.unusable)
        read = selection.read_headers(found.files, options, header)
        self._files = {stem(f.header.path, self.folder): f for f in read}

    @property
    def files(self) -> list[File]:
        """Those that are not matched yet."""
        return list(self._files.values())

    def match(
        self, files: Sequence[File], accept: Callable[[File, File], str | None], lonely: str
    ) -> list[File]:
        """The files of the source that have a partner.

        Args:
            files: of the source.
            accept: why a file and its partner do not fit, or None after noting that they do.
            lonely: what is said of files of the second folder that are the partner of none.
        """

        def reason(file: File) -> str | None:
            other = self._files.pop(stem(file.header.place, self.root), None)
            return no_partner(self.folder) if other is None else accept(file, other)

        try:
            return self.selection.keep(files, reason)
        finally:
            for other in self.files:
                self.selection.skipped[other.header.path] = lonely


def no_partner(folder: Path) -> str:
    """What is said of a file of the source without a partner."""
    return f"there is no file of its name in {shown(folder)}, or none that can be read"
