"""The command line of the benchmarks, and their tables."""

import argparse
import importlib
import json
import math
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch
from tqdm.auto import tqdm

from .harness import OURS, PASSES, THREADS, Row, Settings, Table, measure, roof
from .memory import peak_memory

SUFFIX = {"forward": "", "both": " f+b"}
LEGEND = (
    "Without a suffix: forward. f+b: forward and backward. A column named after another implementation\n"
    "is its time over ours (above 1, ours is faster). roof: share of the FLOP/s of a 2048^3 float32 matrix\n"
    "product timed beside the case. MB: peak memory of ours, results included, operands not."
)

Column = tuple[str, Callable[[Row], float | None], str]


def _columns(table: Table, rows: Sequence[Row]) -> list[Column]:
    """Header, value and format of each column."""
    others = list(
        dict.fromkeys(n for row in rows for n in (*row.seconds["forward"], *row.left_out) if n != OURS)
    )
    columns: list[Column] = []
    for which in PASSES:
        scale, unit, digits = (1e6, "us", "{:.1f}") if table.tiny else (1e3, "ms", "{:.2f}")
        columns.append((f"{unit}{SUFFIX[which]}", lambda r, w=which, s=scale: r.seconds[w][OURS] * s, digits))
        if any(row.share for row in rows):
            columns.append((f"roof{SUFFIX[which]}", lambda r, w=which: r.share.get(w), "{:.0%}"))
        for other in others:
            columns.append((f"{other}{SUFFIX[which]}", lambda r, w=which, o=other: r.ratio(w, o), "{:.2f}"))
            if table.tiny:
                columns.append((f"+us{SUFFIX[which]}", lambda r, w=which, o=other: _more(r, w, o), "{:+.1f}"))
        if any(row.memory for row in rows):
            columns.append((f"MB{SUFFIX[which]}", lambda r, w=which: _megabytes(r, w), "{:.1f}"))
    return columns


def _more(row: Row, which: str, other: str) -> float | None:
    """Microseconds that ours takes more than another."""
    seconds = row.seconds[which]
    return (seconds[OURS] - seconds[other]) * 1e6 if other in seconds else None


def _megabytes(row: Row, which: str) -> float | None:
    return row.memory[which] / 1e6 if which in row.memory else None


def render(table: Table, rows: Sequence[Row], markdown: bool) -> str:
    columns = _columns(table, rows)
    cells = [["case", *(header for header, _, _ in columns)]]
    for row in rows:
        values = [(value(row), digits) for _, value, digits in columns]
        cells.append([row.name, *("-" if v is None else digits.format(v) for v, digits in values)])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for line in cells:
        padded = [c.rjust(w) if i else c.ljust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True))]
        lines.append(f"| {' | '.join(padded)} |" if markdown else "  ".join(padded).rstrip())
    if markdown:
        lines.insert(1, "|---|" + "---:|" * len(columns))
    lines = [f"### {table.title}\n" if markdown else table.title, *lines, *([""] if markdown else [])]
    lines += [_mean(rows, other) for other in table.mean_of]
    for row in rows:
        for why in dict.fromkeys(row.left_out.values()):
            names = ", ".join(name for name, reason in row.left_out.items() if reason == why)
            lines.append(f"{row.name}: no {names}: {why}")
    return "\n".join(lines) + "\n"


def _mean(rows: Sequence[Row], other: str) -> str:
    parts = []
    for which, words in zip(PASSES, ("forward", "forward and backward"), strict=True):
        ratios = [ratio for row in rows if (ratio := row.ratio(which, other)) is not None]
        mean = math.exp(sum(map(math.log, ratios)) / len(ratios)) if ratios else math.nan
        parts.append(f"{mean:.2f} {words} ({len(ratios)} cases)")
    return f"Geometric mean of the ratio to {other}: {', '.join(parts)}."


def _bound_memory() -> None:
    """Let a contender that takes too much memory fail by itself instead of ending the process."""
    if sys.platform == "linux":
        import resource

        most = int(0.7 * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
        resource.setrlimit(resource.RLIMIT_DATA, (most, resource.getrlimit(resource.RLIMIT_DATA)[1]))


def main(module: str) -> int:
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=sys.modules["__main__"].__doc__)
    parser.add_argument("--quick", action="store_true", help="two to five repeats instead of five to fifty")
    parser.add_argument("--filter", default="", metavar="SUBSTRING", help="only cases (or tables) with it")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, ...")
    parser.add_argument(
        "--fastest", action="store_true", help="shortest times, not medians: on a busy machine"
    )
    parser.add_argument("--no-memory", action="store_true", help="leave the peak memory out")
    parser.add_argument("--markdown", action="store_true", help="tables in Markdown")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all rows to a file")
    options = parser.parse_args()

    warnings.simplefilter("ignore")
    torch.set_num_threads(THREADS)
    if options.device == "cpu":
        _bound_memory()
    torch.backends.cudnn.allow_tf32 = False  # the arithmetic of the matrix product, and of the other device
    settings = Settings(options.device, fastest=options.fastest)
    if options.quick:
        settings = replace(settings, least=2, most=5, budget=0.3)

    machine = {
        "torch": torch.__version__,
        "device": options.device if options.device == "cpu" else str(torch.cuda.get_device_name()),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 1),  # of other processes: 0 on a machine fit for measuring
        "times": "fastest" if options.fastest else "medians",
        "roof_gflops": round(roof(settings) / 1e9, 1),
    }
    print(", ".join(f"{k} {v}" for k, v in machine.items()), LEGEND, sep="\n", end="\n\n")
    written: dict[str, list[dict[str, object]]] = {}
    for table in importlib.import_module(module).tables():
        chosen = [c for c in table.cases if options.filter in f"{table.title}: {c.name}"]
        rows = []
        for case in tqdm(chosen, desc=table.title, leave=False, disable=None):
            row = measure(case, settings)
            if table.memory and not options.no_memory:
                row.memory = peak_memory(module, case.name, OURS, options.device)
            rows.append(row)
        if rows:
            print(render(table, rows, options.markdown), flush=True)
            written[table.title] = [asdict(row) for row in rows]
    if options.json:
        options.json.write_text(json.dumps({"machine": machine, "tables": written}, indent=1) + "\n")
    return 0
