"""Run all rows and write what they say: ``python -m tests.gpu --minutes 8 --out DIR``.

``results.jsonl`` has a line for each row, ``table.md`` the same as tables, ``log.txt`` what the processes
printed; all are written as the rows end. The exit status is 1 if a row of correctness or waiting failed.
"""

import argparse
import os
import sys
import time
from pathlib import Path

from .report import Report
from .rows import Group, Setting
from .supervisor import run_groups

CHECKS = (
    Group("correctness", "correctness", "functions"),
    Group("correctness", "correctness", "operators"),
    Group("waiting", "waiting", "steps"),
    Group("waiting", "waiting_tasks", "tasks"),
    Group("correctness", "networks", "unets"),
    Group("correctness", "learning", "trainers"),
    Group("correctness", "posteriors", "posteriors"),
    Group("correctness", "streams", "streams"),
    Group("correctness", "conditioned", "conditioned", 0.5),
    Group("correctness", "predicting", "predicting", 0.5),
    Group("correctness", "diffusing", "diffusion"),
    Group("correctness", "training", "trainer"),
    Group("correctness", "correctness", "modules"),
    Group("correctness", "correctness", "conformance"),
    Group("correctness", "correctness", "algorithms"),
    Group("correctness", "correctness", "deterministic"),
    Group("correctness", "large", "sizes"),
    Group("correctness", "training", "compiled"),
)
SPEED = (
    Group("speed", "rates", "rates", 0.5),
    Group("speed", "speed_streams", "pushes", 0.5),
    Group("speed", "speed_networks", "steps", 3),
    Group("speed", "speed_networks", "memory", 1),
    Group("speed", "speed_conv", "beyond", 3),
    Group("speed", "speed_conv", "copies", 0.5),
    Group("speed", "speed_layers", "layers", 2),
    Group("speed", "speed_networks", "samples", 1),
    Group("speed", "speed_conv", "within", 1),
    Group("speed", "speed_networks", "compiled", 3),
    Group("speed", "speed_networks", "compiled_samples", 1),
)
PART = 0.45  # of the time is for the checks at most; what they leave is for speed


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.gpu", description=__doc__)
    parser.add_argument("--minutes", type=float, default=8.0, help="in all")
    parser.add_argument("--out", type=Path, required=True, help="folder for what is written")
    parser.add_argument("--device", default="cuda", help="cuda or cpu")
    parser.add_argument("--quick", action="store_true", help="every kind of row once, small")
    parser.add_argument("--only", nargs="*", metavar="TEXT", help="groups whose section or name has one")
    parser.add_argument("--jobs", type=int, help="processes of checks at a time")
    given = parser.parse_args()
    end = time.monotonic() + 60 * given.minutes
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    jobs = given.jobs or max(1, min(len(CHECKS), cores if given.device == "cpu" else cores - 4))
    setting = Setting(given.device, given.quick)
    given.out.mkdir(parents=True, exist_ok=True)

    def chosen(groups: tuple[Group, ...]) -> list[Group]:
        names = given.only or [""]
        return [g for g in groups if any(name in f"{g.section} {g.title}" for name in names)]

    with (given.out / "log.txt").open("w", encoding="utf-8") as log, Report(given.out) as report:
        environment = [Group("environment", "environment", "rows")]
        run_groups(environment, setting, 120, 1, cores, log, report)
        if any(row["status"] != "ok" for row in report.rows):
            return 1
        checks, speed = chosen(CHECKS), chosen(SPEED)
        left = end - time.monotonic()
        run_groups(checks, setting, left * (PART if speed else 1), jobs, cores, log, report)
        # On the CPU nothing is measured, only tried, and as many at a time as there are cores.
        at_once = 1 if setting.gpu else jobs
        run_groups(speed, setting, end - time.monotonic(), at_once, cores, log, report)
    print(f"{len(report.rows)} rows in {given.out}")
    return 1 if report.failed() else 0


if __name__ == "__main__":
    sys.exit(main())
