"""The folders that the studio may read and write, and nothing else.

Every path that comes from a page goes through :meth:`Roots.inside`: it is resolved, links and ``..``
included, and refused if it is not below one of the folders.
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..data.errors import shown

__all__ = ["Roots"]

_LISTED = 2000  # folders in a list


class Roots:
    """Folders that may be read, with all that is below them.

    Args:
        folders: that exist.
    """

    def __init__(self, folders: Iterable[Path | str]) -> None:
        self.folders = tuple(dict.fromkeys(Path(folder).resolve() for folder in folders))

    def inside(self, path: Path | str, name: str = "path") -> Path:
        """The resolved path, if it is below one of the folders; relative ones are below the first.

        Raises:
            ValueError: it is not, or it is none.
        """
        try:
            found = (self.folders[0] / str(path).strip()).resolve()
            os.fsencode(found)
        except (OSError, ValueError, RuntimeError):  # a null byte, a loop of links
            raise ValueError(f"{name} must be a path, got {shown(str(path))!r}") from None
        if not any(found.is_relative_to(root) for root in self.folders):
            there = ", ".join(map(shown, self.folders))
            raise ValueError(f"{name} must be below {there} (--root), got {shown(found)}")
        return found

    def there(self, path: Path | str, name: str = "path") -> Path:
        """The same for a file or folder that exists.

        Raises:
            ValueError: it does not.
        """
        found = self.inside(path, name)
        if not str(path).strip() or not found.exists():
            raise ValueError(f"{name}: there is no file or folder {shown(str(path).strip())!r}")
        return found

    def name(self, path: Path) -> str:
        """A path as the page shows and takes it: from the first folder, or in full."""
        first = self.folders[0]
        return shown(path.relative_to(first)) if path.is_relative_to(first) else shown(path)

    def inner(self, folder: Path) -> list[Path]:
        """The folders in one, sorted, without those that are hidden or lead out."""
        return sorted(self._folders(folder))[:_LISTED]

    def check_links(self, paths: Iterable[Path], name: str) -> None:
        """Refuse files that lie elsewhere, and are below the folders as links alone.

        Raises:
            ValueError: naming the first one.
        """
        for path in paths:
            self.inside(path, name)

    def _folders(self, folder: Path) -> Iterator[Path]:
        try:
            entries = list(os.scandir(folder))
        except OSError:
            return
        for entry in entries:
            try:
                if not entry.name.startswith(".") and entry.is_dir():
                    self.inside(entry.path)
                    yield Path(entry.path)
            except (OSError, ValueError):
                continue
