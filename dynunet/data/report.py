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
from .spec import DataSpec

_LISTED = 10  # places that are named
_ROWS = 12  # kinds of files that are listed one by one


def table(
    scan: Scan, options: DataOptions, shape: Sequence[int], masked: bool, skipped: Mapping[Path, str]
) -> str:
    """A text about what a data set consists of, and what is left out of it."""
    own = of_kind(scan.spec.kind)
    title = ("files", "examples", "channels", "sizes", own.step_name, "stored", "values")
    lines = _aligned([title, *_rows(scan)])
    lines += ["", f"values    {own.scale_text(scan.spec, options)}", *_examples(scan)]
    lines += [_item(scan.spec, shape, masked), *_changed(scan), *_left_out(scan, skipped)]
    return "\n".join(lines)


def _item(spec: DataSpec, shape: Sequence[int], masked: bool) -> str:
    parts = [f"x0 {times(shape)}"]
    if spec.cond_channels:
        parts.append(f"cond {times((spec.cond_channels, *shape[1:]))}")
    return f"item      {', '.join(parts + ['mask'] * masked)}"


def _examples(scan: Scan) -> list[str]:
    held = sum(scan.held)
    lines = [f"examples  {len(scan.entries)}: {len(scan.entries) - held} to train on, {held} held out"]
    lines += [] if scan.labels is None else [f"classes   {_counts(scan)}"]
    return lines if scan.targets is None else [*lines, f"targets   {scan.targets.text()}"]


def _changed(scan: Scan) -> list[str]:
    """What is added to files, and what they lose."""
    lines = [f"noise     {count(len(scan.noise), 'file')}"] if scan.noise else []
    if scan.spec.self_supervised is not None:
        lines.append(f"learned   of noisy files alone, by {scan.spec.self_supervised}")
    converted = sum(f.header.channels != scan.spec.channels for f in scan.files)
    if converted:
        lines.append(f"channels  {count(converted, 'file')} converted to {scan.spec.channels}")
    lost = Counter(f.header.lost for f in scan.files if f.header.lost is not None)
    return lines + [f"lost      in {count(n, 'file')}, {what}" for what, n in lost.items()]


def _left_out(scan: Scan, skipped: Mapping[Path, str]) -> list[str]:
    """What was found and is not, or not all, used."""
    lines = []
    for title, places, thing in (
        ("skipped   {}", skipped, "file"),
        ("in part   {}", scan.selection.partly, "file"),
        ("left out  {} without data", scan.left_out, "folder"),
    ):
        if places:
            lines += [title.format(count(len(places), thing)), *_listed(places, scan.root)]
    if scan.others:
        number = count(scan.others.total(), "file")
        lines.append(f"other     {number} of formats that are not read: {others_text(scan.others)}")
    return lines


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
