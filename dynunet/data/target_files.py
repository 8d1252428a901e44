"""Finding the target of every file: a map at its place in another folder, or its line in a table."""

from dataclasses import replace
from pathlib import Path

from .errors import UnreadableError, shown
from .formats import Format, Header
from .formats.format import misplaced
from .label_table import read_table
from .options import DataOptions
from .pairing import Others, no_partner
from .selection import File, Selection
from .spec import DataSpec

__all__ = ["find_targets"]


def find_targets(
    files: list[File], root: Path, options: DataOptions, spec: DataSpec, selection: Selection
) -> list[File]:
    """The files that have a target, which is noted in them."""
    if options.targets is None:
        return files
    if options.table:
        return _in_table(files, root, options.targets, selection)
    alike = replace(options, labels=None, spatial_dims=spec.spatial_dims, channel_files=None)
    others = Others(options.targets, "targets", files, root, alike, selection, _map_header)

    def accept(file: File, target: File) -> str | None:
        why = _misfit(file.header, target.header, options)
        file.target = target
        return None if why is None else f"its target {shown(target.header.path)} {why}"

    return others.match(files, accept, "it is the target of no file")


def _in_table(files: list[File], root: Path, path: Path, selection: Selection) -> list[File]:
    table = read_table(path)

    def reason(file: File) -> str | None:
        file.row = table.pop(file.header.place, root)
        return f"there is no line for it in {shown(path)}" if file.row is None else None

    try:
        return selection.keep(files, reason)
    finally:
        for place in table.rows:
            selection.skipped[path.parent / place] = f"{no_partner(root)}, and a line in {shown(path)}"


def _map_header(own: Format, path: Path, options: DataOptions) -> Header:
    """Of a map, which may have channels as its file has, or none."""
    read = own.header if options.task == "regression" else own.label_header
    try:
        return read(path, replace(options, channel_axis=None))
    except UnreadableError:
        if options.channel_axis is None:
            raise
        return read(path, options)


def _misfit(header: Header, target: Header, options: DataOptions) -> str | None:
    """Why a file and its target do not fit."""
    why = misplaced(header, target)
    if why is None and target.channels != 1 and options.task != "regression":
        return f"has {target.channels} channels; a label map has one"
    return why
