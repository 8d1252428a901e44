"""Segmentation beside MONAI's network, trained for as many seconds on the same data with the same loss.

Runs ``examples/segment_2d.py`` and ``examples/segment_brain_3d.py`` with ``--peer`` and several seeds, and
prints the median of each of their figures on data that no network saw, with the least and the largest: Dice
of each class, of ours ("network"), of MONAI's and of the classical method where there is one.
"""

import argparse
import csv
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[2]
EXAMPLES = ("segment_2d", "segment_brain_3d")
NOT_FIGURES = ("run", "flags")


def figures(example: str, seeds: Sequence[int], flags: Sequence[str]) -> dict[str, list[float]]:
    """Each figure by its name, one number for each seed."""
    with tempfile.TemporaryDirectory() as folder:
        for seed in seeds:
            command = [sys.executable, f"examples/{example}.py", "--peer", "--seed", str(seed)]
            subprocess.run([*command, "--out", folder, *flags], cwd=ROOT, check=True, stdout=sys.stderr)
        with Path(folder, "results.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
    return {name: [float(row[name]) for row in rows] for name in rows[0] if name not in NOT_FIGURES}


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.segment",
        description=__doc__,
        epilog="Other flags are those of the examples, such as --train-steps 300.",
    )
    parser.add_argument("--seeds", type=int, default=3, help="runs of each example")
    parser.add_argument("--only", choices=EXAMPLES, help="one of the examples")
    given, flags = parser.parse_known_args()
    for example in EXAMPLES if given.only is None else (given.only,):
        print(example)
        for name, values in figures(example, range(given.seeds), flags).items():
            print(f"  {name:32} {median(values):8.3f}   {min(values):.3f} to {max(values):.3f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
