"""Segmentation beside MONAI's network, trained for as many seconds on the same data with the same loss.

Runs ``examples/segment_2d.py`` and ``examples/segment_brain_3d.py`` with ``--peer`` and several seeds, and
prints the median of each of their figures on data that no network saw, with the least and the largest: Dice
of each class, of ours ("network"), of MONAI's and of the classical method where there is one. What is held
out differs from seed to seed, so below them is what ours has more than MONAI's on the same: the mean of the
seeds, and the interval that holds it with 95 % (Student's t). Results are kept in ``--out``; a second call
with the same flags adds the seeds that are not there.
"""

import argparse
import csv
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from .trainings import over_seeds, with_interval

ROOT = Path(__file__).parents[2]
EXAMPLES = ("segment_2d", "segment_brain_3d")
NOT_FIGURES = ("run", "flags")
OURS, PEER = "network", "monai"


def train(example: str, seeds: Sequence[int], flags: Sequence[str], out: Path) -> None:
    known = {_seed(row) for row in _rows(out)}
    for seed in [seed for seed in seeds if seed not in known]:
        command = [sys.executable, f"examples/{example}.py", "--peer", "--seed", str(seed)]
        subprocess.run([*command, "--out", out.absolute(), *flags], cwd=ROOT, check=True, stdout=sys.stderr)


def figures(out: Path) -> dict[str, list[float]]:
    """Each figure by its name, one number for each seed."""
    rows = _rows(out)
    return {name: [float(row[name]) for row in rows] for name in rows[0] if name not in NOT_FIGURES}


def _rows(out: Path) -> list[dict[str, str]]:
    results = out / "results.csv"
    return [*csv.DictReader(results.read_text().splitlines())] if results.is_file() else []


def _seed(row: dict[str, str]) -> int:
    found = re.search(r"--seed (\d+)", row["flags"])
    return int(found[1]) if found else 0


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.segment",
        description=__doc__,
        epilog="Other flags are those of the examples, such as --train-steps 300.",
    )
    parser.add_argument("--seeds", type=int, default=3, help="runs of each example")
    parser.add_argument("--first", type=int, default=0, help="of the seeds")
    parser.add_argument("--only", choices=EXAMPLES, help="one of the examples")
    parser.add_argument("--out", type=Path, default=Path("runs/segment"), help="folder of all runs")
    given, flags = parser.parse_known_args()
    for example in EXAMPLES if given.only is None else (given.only,):
        out = given.out / example
        train(example, range(given.first, given.first + given.seeds), flags, out)
        print(example)
        found = figures(out)
        for name, values in found.items():
            print(f"  {name:32} {over_seeds(values)}")
        for name, values in found.items():
            peer = found.get(name.replace(OURS, PEER), values)
            if peer is not values and "seconds" not in name:
                more = [a - b for a, b in zip(values, peer, strict=True)]
                print(f"  {name:32} more than {PEER}: {with_interval(more)} of {len(more)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
