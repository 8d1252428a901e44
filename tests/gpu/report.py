"""What is written while the rows run: a line of JSON for each, and a table of all so far."""

import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from .rows import Group

RESULTS, TABLE = "results.jsonl", "table.md"
BAD = ("failed",)


class Report:
    """Rows as they come from several threads, flushed one by one."""

    def __init__(self, out: Path) -> None:
        self.out, self.rows = out, []
        self.file = (out / RESULTS).open("w", encoding="utf-8")
        self.lock = threading.Lock()

    def __call__(self, group: Group, line: Mapping[str, Any]) -> None:
        kept = {k: v for k, v in line.items() if k not in ("event", "number")}
        row = {"section": group.section, "group": group.title, **kept}
        with self.lock:
            self.rows.append(row)
            print(json.dumps(row), file=self.file, flush=True)
            self._write()
        if row["status"] in BAD:
            print(f"FAILED {group.title}: {row['name']}\n{row.get('error', '')}", flush=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def failed(self) -> bool:
        """Whether a row failed that says something about results or waits; speed has none to fail."""
        return any(row["status"] in BAD and row["section"] != "speed" for row in self.rows)

    def _write(self) -> None:
        whole = self.out / f"{TABLE}.part"
        whole.write_text(table(self.rows), encoding="utf-8")
        whole.replace(self.out / TABLE)


def table(rows: list[dict[str, Any]]) -> str:
    """All rows in Markdown: the count, what failed, then a table for each group."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["section"], row["group"]), []).append(row)
    parts = [_counts(rows)]
    bad = [row for row in rows if row["status"] in BAD]
    if bad:
        parts.append("## Failed\n")
        parts += [f"- {r['group']}: {r['name']}\n\n{_indented(r.get('error', ''))}\n" for r in bad]
    for (section, group), members in groups.items():
        parts.append(f"## {section}: {group}\n\n{_one(members)}")
    return "\n".join(parts)


def _counts(rows: list[dict[str, Any]]) -> str:
    kinds: dict[str, dict[str, int]] = {}
    for row in rows:
        section = kinds.setdefault(row["section"], {})
        section[row["status"]] = section.get(row["status"], 0) + 1
    lines = [
        f"{section}: {', '.join(f'{n} {k}' for k, n in kind.items())}" for section, kind in kinds.items()
    ]
    return "\n\n".join(lines) + "\n"


def _one(rows: list[dict[str, Any]]) -> str:
    flat = [(row, _flat(row.get("figures") or {})) for row in rows]
    columns = list(dict.fromkeys(key for _, figures in flat for key in figures))
    head = ["row", "status", *columns, "s"]
    lines = [_line(head), _line(["---"] * len(head))]
    for row, figures in flat:
        status = row["status"] if row["status"] != "skipped" else f"skipped: {row['error']}"
        lines.append(_line([row["name"], status, *(_cell(figures.get(c)) for c in columns), row["seconds"]]))
    return "\n".join(lines) + "\n"


def _flat(figures: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested figures with their names joined; what is long stays in the lines of JSON alone."""
    flat: dict[str, Any] = {}
    for key, value in figures.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key} ")
        elif not isinstance(value, (list, tuple)):
            flat[prefix + key] = value
    return flat


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.3g}" if isinstance(value, float) else str(value).replace("|", "/").replace("\n", " ")


def _line(cells: list[Any]) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def _indented(text: str) -> str:
    return "\n".join(f"      {line}" for line in text.splitlines())
