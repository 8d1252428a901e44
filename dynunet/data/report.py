"""The table that is shown before training starts."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .common import times
from .files import others_text
from .options import DataOptions
from .scaling import scale_of
from .scan import Scan
from .sieve import File
from .sources import shown

_ROWS = 12  # kinds of files that are listed one by one


def table(
    scan: Scan, options: DataOptions, shape: Sequence[int], masked: bool, skipped: Mapping[Path, str]
) -> str:
    """What a data set consists of, and what is left out of it."""
    units, held = scan.units, sum(scan.held)
    lines = _aligned(
        [("files", "examples", "channels", "sizes", _step_name(scan), "stored", "values"), *_rows(scan)]
    )
    lines.append("")
    if units.kind == "audio":
        lines.append("values    as they are, 1 is full scale")
    else:
        low, high = _range(scan)
        lines.append(f"values    {low:.6g} becomes -1, {high:.6g} becomes 1{_how(scan, options)}")
    lines.append(f"examples  {len(scan.entries)}: {len(scan.entries) - held} to train on, {held} held out")
    if scan.labels is not None:
        lines.append(f"classes   {_counts(scan)}")
    parts = [f"x0 {times(shape)}"]
    if units.cond_channels:
        parts.append(f"cond {times((units.cond_channels, *shape[1:]))}")
    lines.append(f"item      {', '.join(parts + ['mask'] * masked)}")
    if scan.noise:
        lines.append(f"noise     {len(scan.noise)} files")
    converted = sum(f.info.channels != units.channels for f in scan.files)
    if converted:
        lines.append(f"channels  {converted} files are converted to {units.channels}")
    for lost, count in Counter(f.info.lost for f in scan.files if f.info.lost is not None).items():
        lines.append(f"lost      in {count} files, {lost}")
    for title, files in (("skipped", skipped), ("in part", scan.sieve.partly)):
        if files:
            lines.append(f"{title}   {len(files)} files")
            lines += [f"  {_place(path, scan.root)}: {why}" for path, why in files.items()]
    if scan.left_out:
        lines.append(f"left out  {len(scan.left_out)} folders that are no data")
        lines += [f"  {_place(path, scan.root)}: {what}" for path, what in scan.left_out.items()]
    if scan.others:
        lines.append(f"other     {scan.others.total()} files that are no data: {others_text(scan.others)}")
    return "\n".join(lines)


def _rows(scan: Scan) -> list[tuple[str, ...]]:
    """Files that are stored alike, in one row: how many, and from which size to which."""
    groups: dict[Any, list[File]] = defaultdict(list)
    for file in scan.files:
        info = file.info
        step = info.sample_rate if info.sample_rate is not None else _rounded(info.spacing)
        groups[info.channels, step, info.stored].append(file)
    ordered = sorted(groups.items(), key=lambda item: -len(item[1]))
    rows = [_row(files, channels, _step(step), stored) for (channels, step, stored), files in ordered[:_ROWS]]
    rest = [file for _, files in ordered[_ROWS:] for file in files]
    return rows + ([_row(rest, "...", "...", "...")] if rest else [])


def _row(files: list[File], channels: object, step: str, stored: str) -> tuple[str, ...]:
    examples = sum(f.info.entries for f in files)
    sizes = "x".join(_span(axis) for axis in zip(*(f.info.shape for f in files), strict=True))
    measures = [f.measure for f in files if f.measure is not None]
    values = ""
    if measures:
        low = min(float(m.low[m.low == m.low].min()) for m in measures)
        high = max(float(m.high[m.high == m.high].max()) for m in measures)
        values = f"{low:.6g} to {high:.6g}"
    return str(len(files)), str(examples), str(channels), sizes, step, stored, values or "not measured"


def _span(numbers: Iterable[int]) -> str:
    numbers = list(numbers)
    least, most = min(numbers), max(numbers)
    return str(least) if least == most else f"{least}..{most}"


def _step_name(scan: Scan) -> str:
    return {"audio": "rate", "volumes": "spacing"}.get(scan.units.kind, "")


def _rounded(spacing: Sequence[float] | None) -> tuple[float, ...] | None:
    return None if spacing is None else tuple(round(s, 3) for s in spacing)


def _step(step: Any) -> str:
    if step is None:
        return ""
    return "x".join(f"{s:g}" for s in step) if isinstance(step, tuple) else f"{step} Hz"


def _range(scan: Scan) -> tuple[float, float]:
    scale = scale_of(None, scan.units)
    return scale.low, scale.high


def _how(scan: Scan, options: DataOptions) -> str:
    units = scan.units
    if units.percentiles is not None:
        return " in a typical file, the percentiles {:g} and {:g} of each".format(*units.percentiles)
    if units.kind == "arrays":
        return ", as asked" if options.value_range is not None else ", the range of what is trained on"
    return ""


def _counts(scan: Scan) -> str:
    names, labels = scan.units.classes or (), scan.labels or []
    counts = Counter(labels)
    some = ", ".join(f"{name} {counts[i]}" for i, name in enumerate(names[:30]))
    return some + (f" and {len(names) - 30} more" if len(names) > 30 else "")


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
