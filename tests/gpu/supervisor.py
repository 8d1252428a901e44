"""Runs groups of rows in processes of their own, each with limits of time that nothing overruns."""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any

from .rows import ROOT, Group, Setting

GRACE = 5.0  # seconds by which a process may overrun
STARTING = 90.0  # seconds in which a process has to begin its first row

Tell = Callable[[Group, Mapping[str, Any]], None]


class Process:
    """The process of one group, from one row on; its lines are read by a thread."""

    def __init__(
        self, group: Group, setting: Setting, seconds: float, first: int, threads: int, log: IO[str]
    ):
        about = (group.section, group.module, group.name, setting.device, setting.quick, seconds, first)
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        added = {
            "OMP_NUM_THREADS": str(threads),
            "PYTHONPATH": path,
            "PYTHONUNBUFFERED": "1",
        }
        if group.section == "correctness":
            added["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # which deterministic matrix products need
        self.child = subprocess.Popen(
            [sys.executable, "-m", "tests.gpu.worker", *map(str, about)],
            stdout=subprocess.PIPE,
            stderr=log,
            stdin=subprocess.DEVNULL,
            text=True,
            cwd=ROOT,
            env={**os.environ, **added},
            process_group=0,  # of the same session, so that what ends that ends it too
        )
        self.lines: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        assert self.child.stdout is not None
        with self.child.stdout as lines:
            for line in lines:
                self.lines.put(json.loads(line))
        self.lines.put(None)

    def next(self, until: float) -> dict[str, Any] | None:
        """The next line, None at the end of the process; ``queue.Empty`` when the time is over."""
        return self.lines.get(timeout=max(until - time.monotonic(), 0.01))

    def stop(self) -> int:
        """End it with all that it has started; its exit status."""
        try:
            os.killpg(self.child.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.reader.join()
        return self.child.wait()


def run_group(
    group: Group, setting: Setting, seconds: float, last: float, threads: int, log: IO[str], tell: Tell
) -> None:
    """Run a group for so many seconds; the row it is at then may still end, but not after the time ``last``.

    A row that ends its process is a row that failed.
    """
    end, first = time.monotonic() + seconds, 0
    while True:
        left = end - time.monotonic()
        process = Process(group, setting, max(left, 0.0), first, threads, log)
        row, until = None, time.monotonic() + STARTING
        why = ""
        try:
            while (line := process.next(min(until, last))) is not None:
                if line["event"] == "begin":
                    row, until = line, time.monotonic() + line["limit"]
                elif line["event"] == "row":
                    first, row = line["number"] + 1, None
                    tell(group, line)
                    until = time.monotonic() + STARTING
                else:
                    process.stop()
                    return
        except queue.Empty:
            why = "stopped: out of time"
        status = process.stop()
        if row is None and not why and first > 0:
            continue  # it ended itself after a row that broke the device
        about = row or {"number": first, "name": "(start)"}
        late = why and time.monotonic() >= last
        tell(
            group,
            {
                "number": about["number"],
                "name": about["name"],
                "status": "cut" if late else "failed",
                "error": why or f"the process ended with status {status}; see log.txt",
                "seconds": 0.0,
            },
        )
        if row is None or late:
            return
        first = about["number"] + 1


def run_groups(
    groups: Sequence[Group],
    setting: Setting,
    seconds: float,
    jobs: int,
    cores: int,
    log: IO[str],
    tell: Tell,
) -> None:
    """Run groups, ``jobs`` at a time, each for its share of the time that is left."""
    end = time.monotonic() + seconds
    waiting: queue.SimpleQueue[tuple[Group, float]] = queue.SimpleQueue()
    for i, group in enumerate(groups):
        rest = sum(g.share for g in groups[i:])
        waiting.put((group, min(1.0, jobs * group.share / rest)))

    def work() -> None:
        while True:
            try:
                group, share = waiting.get_nowait()
            except queue.Empty:
                return
            left = max(end - time.monotonic(), 0.0)
            run_group(group, setting, left * share, end + GRACE, max(1, cores // jobs), log, tell)

    workers = [threading.Thread(target=work) for _ in range(jobs)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
