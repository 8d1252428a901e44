"""The table that is shown before training starts."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from .errors import count, shown
from .files import others_text
from .formats import of_kind
from .formats.format import times
from .options import DataOptions
from .scan import Scan
from .selection import File

_LISTED = 10  # places that are named
_ROWS = 12  # kinds of files that are listed one by one


def table(
    scan: Scan, options: DataOptions, shape: Sequence[int], masked: bool, skipped: Mapping[Path, str]
) -> str:
    """A text about what a data set consists of, and what is left out of it."""
    spec, held = scan.spec, sum(scan.held)
    lines = _aligned(
        [
            ("files", "examples", "channels", "sizes", of_kind(spec.kind).step_name, "stored", "values"),
            *_rows(scan),
        ]
    )
    lines.append("")
    lines.append(f"values    {of_kind(spec.kind).scale_text(spec, options)}")
    lines.append(f"examples  {len(scan.entries)}: {len(scan.entries) - held} to train on, {held} held out")
    if scan.labels is not None:
        lines.append(f"classes   {_counts(scan)}")
    if scan.targets is not None:
        lines.append(f"targets   {scan.targets.text()}")
    parts = [f"x0 {times(shape)}"]
    if spec.cond_channels:
        parts.append(f"cond {times((spec.cond_channels, *shape[1:]))}")
    lines.append(f"item      {', '.join(parts + ['mask'] * masked)}")
    if scan.noise:
        lines.append(f"noise     {count(len(scan.noise), 'file')}")
    converted = sum(f.header.channels != spec.channels for f in scan.files)
    if converted:
        lines.append(f"channels  {count(converted, 'file')} converted to {spec.channels}")
    for lost, n in Counter(f.header.lost for f in scan.files if f.header.lost is not None).items():
        lines.append(f"lost      in {count(n, 'file')}, {lost}")
    for title, files in (("skipped", skipped), ("in part", scan.selection.partly)):
        if files:
            lines.append(f"{title}   {count(len(files), 'file')}")
            lines += _listed(files, scan.root)
    if scan.left_out:
        lines.append(f"left out  {count(len(scan.left_out), 'folder')} without data")
        lines += _listed(scan.left_out, scan.root)
    if scan.others:
        lines.append(
            f"other     {count(scan.others.total(), 'file')} without data: {others_text(scan.others)}"
        )
    return "\n".join(lines)


def _rows(scan: Scan) -> list[tuple[str, ...]]:
    """Files that are stored alike, in one row: how many, and from which size to which."""
    groups: dict[Any, list[File]] = defaultdict(list)
    for file in scan.files:
        header = file.header
        step = header.sample_rate if header.sample_rate is not None else _rounded(header.spacing)
        groups[header.channels, step, header.stored].append(file)
    ordered = sorted(groups.items(), key=lambda item: -len(item[1]))
    rows = [_row(files, channels, _step(step), stored) for (channels, step, stored), files in ordered[:_ROWS]]
    rest = [file for _, files in ordered[_ROWS:] for file in files]
    return rows + ([_row(rest, "...", "...", "...")] if rest else [])


def _row(files: list[File], channels: object, step: str, stored: str) -> tuple[str, ...]:
    examples = sum(f.header.entries for f in files)
    sizes = "x".join(_span(axis) for axis in zip(*(f.header.shape for f in files), strict=True))
    ranges = [f.ranges for f in files if f.ranges is not None]
    values = ""
    if ranges:
        low = min(float(m.low[m.low == m.low].min()) for m in ranges)
        high = max(float(m.high[m.high == m.high].max()) for m in ranges)
        values = f"{low:.6g} to {high:.6g}"
    return str(len(files)), str(examples), str(channels), sizes, step, stored, values or "not measured"


def _span(numbers: Iterable[int]) -> str:
    numbers = list(numbers)
    least, most = min(numbers), max(numbers)
    return str(least) if least == most else f"{least}..{most}"


def _rounded(spacing: Sequence[float] | None) -> tuple[float, ...] | None:
    return None if spacing is None else tuple(round(s, 3) for s in spacing)


def _step(step: Any) -> str:
    if step is None:
        return ""
    return "x".join(f"{s:g}" for s in step) if isinstance(step, tuple) else f"{step} Hz"


def _counts(scan: Scan) -> str:
    names, labels = scan.spec.classes or (), scan.labels or []
    counts = Counter(labels)
    some = ", ".join(f"{name} {counts[i]}" for i, name in enumerate(names[:30]))
    return some + (f" and {len(names) - 30} more" if len(names) > 30 else "")


def _listed(places: Mapping[Path, str], root: Path) -> list[str]:
    """The first ones, each with what there is to say of it, and how many more there are."""
    lines = [f"  {_place(path, root)}: {why}" for path, why in islice(places.items(), _LISTED)]
    return lines + ([f"  and {len(places) - _LISTED} more"] if len(places) > _LISTED else [])


def _place(path: Path, root: Path) -> str:
    """A file's path below the source, or in full if it is elsewhere."""
    return shown(path.relative_to(root) if path.is_relative_to(root) else path)


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Columns under each other; without those that are empty in every row."""
    columns = [c for c in zip(*rows, strict=True) if any(c)]
    widths = [max(map(len, c)) for c in columns]
    return [
        "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip()
        for row in zip(*columns, strict=True)
    ]
