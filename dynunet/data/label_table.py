"""A table of labels: a CSV file with the columns ``file`` and ``label``, or several of numbers.

The first column, or the one named ``file``, has the paths of the files below the source, or below the folder
of the table, with or without their suffixes. Commas, semicolons or tabulators lie between the columns.
"""

import csv
import os
from dataclasses import dataclass
from pathlib import Path

from .errors import shown
from .files import stem
from .formats import of_path

__all__ = ["LabelTable", "read_table"]


@dataclass(frozen=True)
class LabelTable:
    """Cells by the place of their file."""

    path: Path
    columns: tuple[str, ...]
    rows: dict[str, tuple[str, ...]]

    def pop(self, file: Path, root: Path) -> tuple[str, ...] | None:
        """The cells of a file below a folder, once; None if there are none."""
        places = stem(file, root), stem(file, self.path.parent)
        return next((self.rows.pop(place) for place in places if place in self.rows), None)


def read_table(path: Path) -> LabelTable:
    """Read a table of labels.

    Raises:
        ValueError: naming the file, the line, the rule and what was there.
    """
    header, *lines = _lines(path)
    first = header.index("file") if "file" in header else 0
    rows: dict[str, tuple[str, ...]] = {}
    for number, line in enumerate(lines, start=2):
        if len(line) != len(header):
            raise ValueError(
                f"targets: {shown(path)}, line {number}, must have {len(header)} columns, got {len(line)}"
            )
        place, *cells = line[first], *line[:first], *line[first + 1 :]
        place = os.path.normpath(place)
        place = place if of_path(Path(place)) is None else stem(Path(place), Path())
        if place in rows:
            raise ValueError(f"targets: {shown(path)}, line {number}, names {place} again")
        rows[place] = tuple(cells)
    return LabelTable(path, (*header[:first], *header[first + 1 :]), rows)


def _lines(path: Path) -> list[list[str]]:
    """The cells of the names of the columns, and of one line at least for files."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            head = file.readline()
            file.seek(0)
            read = csv.reader(file, delimiter=max(",;\t", key=head.count))
            lines = [[cell.strip() for cell in row] for row in read if any(row)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"targets: {shown(path)} must be a table (CSV) in UTF-8: {error}") from None
    columns = len(lines[0]) if lines else 0
    if len(lines) < 2 or columns < 2:
        raise ValueError(
            f"targets: {shown(path)} must have a line of names, such as file,label, and one line for each "
            f"file, got {len(lines)} lines of {columns} columns"
        )
    return lines
