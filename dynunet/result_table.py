"""Results that are lines of a table: written whole, now and then and in the end, and gone on with."""

import csv
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .data.errors import shown
from .data.saving import check_free
from .writing import write_table

__all__ = ["ResultTable"]

_SECONDS = 20  # between writings
_NUMBERED = re.compile(r"\[\d+\]$")


@dataclass
class ResultTable:
    """Lines of a table by their files; written as a whole, so that it is never half a line."""

    path: Path
    columns: list[str]
    lines: list[list[str]]
    files: set[str]
    written: float = 0.0

    @classmethod
    def at(cls, path: Path, columns: list[str], overwrite: bool) -> "ResultTable":
        """The table that is there already, or an empty one.

        Raises:
            ValueError: there is one with other columns.
        """
        check_free(path, overwrite=True)
        if overwrite or not path.is_file():
            return cls(path, columns, [], set())
        with path.open(newline="", encoding="utf-8") as file:
            first, *lines = [*csv.reader(file)] or [[]]
        if first != columns or any(len(line) != len(columns) for line in lines):
            raise ValueError(
                f"out: {shown(path)} must have the columns {', '.join(columns)} to be gone on with, got "
                f"{', '.join(first)}; choose another file or give --overwrite"
            )
        return cls(path, columns, lines, {_NUMBERED.sub("", line[0]) for line in lines})

    def add(self, name: str, cells: Sequence[list[str]], several: bool) -> None:
        """Lines of a file: one, or of several examples one for each, ``name[0]``, ..."""
        names = [f"{name}[{i}]" if several else name for i in range(len(cells))]
        self.lines += [[name, *line] for name, line in zip(names, cells, strict=True)]
        self.files.add(name)
        if time.monotonic() - self.written > _SECONDS:
            self.write()

    def write(self) -> None:
        if not self.lines:
            return
        write_table(self.path, [self.columns, *self.lines])
        self.written = time.monotonic()
