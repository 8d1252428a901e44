"""The tables of :mod:`tests.benchmarks.quality`: each network by itself, and beside that of diffusers.

python -m tests.benchmarks.quality_tables runs/quality/digits/results.jsonl
"""

import json
import sys
from collections.abc import Sequence
from math import exp, log
from pathlib import Path
from statistics import median
from typing import Any

from .trainings import over_seeds, with_interval

COLUMNS = ("agreement", "frechet", "trained_on", "nearest")
PEER = "diffusers"

Row = dict[str, Any]
Chosen = dict[tuple[str, int], list[Row]]  # by name and number of steps, in the order of seeds


def by_steps(rows: Sequence[Row], best: bool) -> Chosen:
    """Results without guidance, or with the best scale of each network that has learnt for so many steps."""
    found: Chosen = {}
    for key in dict.fromkeys((row["name"], row["steps"]) for row in rows):
        by_scale: dict[float, list[Row]] = {}
        for row in sorted(rows, key=lambda row: row["seed"]):
            if (row["name"], row["steps"]) == key:
                by_scale.setdefault(row["scale"], []).append(row)
        scale = min(by_scale, key=lambda s: median(r["frechet"] for r in by_scale[s])) if best else 1.0
        if scale in by_scale:
            found[key] = by_scale[scale]
    return found


def table(rows: Sequence[Row]) -> str:
    """Medians over seeds: without guidance, then with the best scale of each."""
    lines = [f"| | guidance | steps | seeds | {' | '.join(COLUMNS)} |"]
    lines.append("|---|" + "---:|" * (3 + len(COLUMNS)))
    for best in (False, True):
        for (name, steps), chosen in by_steps(rows, best).items():
            cells = [over_seeds([row[column] for row in chosen]) for column in COLUMNS]
            first = f"| {name} | {chosen[0]['scale']:g} | {steps} | {len(chosen)}"
            lines.append(f"{first} | {' | '.join(cells)} |")
    return "\n".join(lines)


def pairs(rows: Sequence[Row]) -> str:
    """Means over pairs with diffusers' network of the same seed after all its steps, with their intervals."""
    lines = [f"| beside {PEER} | guidance | steps | pairs | frechet, ratio | agreement, difference |"]
    lines.append("|---|" + "---:|" * 5)
    for best in (False, True):
        found = by_steps(rows, best)
        whole = max((steps for name, steps in found if name == PEER), default=0)
        peers = {row["seed"]: row for row in found.get((PEER, whole), [])}
        for (name, steps), chosen in found.items():
            both = [(row, peers[row["seed"]]) for row in chosen if row["seed"] in peers]
            if (name, steps) == (PEER, whole) or not both:
                continue
            ratios = [log(row["frechet"] / peer["frechet"]) for row, peer in both]
            more = [row["agreement"] - peer["agreement"] for row, peer in both]
            first = f"| {name} | {chosen[0]['scale']:g} | {steps} | {len(both)}"
            lines.append(f"{first} | {with_interval(ratios, exp)} | {with_interval(more)} |")
    return "\n".join(lines)


def read(kept: Path) -> list[Row]:
    return [json.loads(line) for line in kept.read_text().splitlines()] if kept.exists() else []


if __name__ == "__main__":
    for given in sys.argv[1:]:
        found = read(Path(given))
        print(f"{given}\n\n{table(found)}\n\n{pairs(found)}\n")
