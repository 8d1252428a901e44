"""Peak memory of one call, in a process of its own.

On the CPU it is what the kernel saw: the growth of the largest resident set during the call, after one
call that loads libraries and starts threads. torch's profiler would only know of torch's own allocator,
not of what oneDNN, MKL or another library takes. The mark is set back just before the call
(``/proc/self/clear_refs``), and glibc returns freed blocks at once, so that none of the first call's
memory hides any of the second's. Where the mark cannot be set back, there is no figure.
On another device it is the peak of torch's allocator there. Operands do not count, results do.
"""

import importlib
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import torch

from .harness import PASSES, THREADS, Call, first, wait

RETURN_AT_ONCE = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}


def peak_memory(module: str, case: str, contender: str, device: str) -> dict[str, int]:
    """Bytes for each pass of a case that ``module`` lists; those that could not be measured are left out."""
    done = subprocess.run(
        [sys.executable, "-m", __spec__.name, module, case, contender, device],
        env={**os.environ, **RETURN_AT_ONCE},
        capture_output=True,
        text=True,
        check=False,
    )
    return json.loads(done.stdout) if done.returncode == 0 else {}


def high_water_mark() -> int:
    """The most bytes that this process had resident."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise OSError("no high-water mark of the resident set")


def _peak(call: Call, device: str) -> int:
    call()
    wait(device)
    if device != "cpu":
        torch.accelerator.reset_peak_memory_stats()
        before = torch.accelerator.memory_allocated()
        call()
        wait(device)
        return torch.accelerator.max_memory_allocated() - before
    Path("/proc/self/clear_refs").write_text("5")
    before = high_water_mark()
    call()
    return max(high_water_mark() - before, 0)


def main(module: str, name: str, contender: str, device: str) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(THREADS)
    tables = importlib.import_module(module).tables()
    case = next(c for table in tables for c in table.cases if c.name == name)
    measured = case.contenders[contender](case.tensors(device))
    out = measured.forward()
    both = measured.both(torch.randn_like(first(out)))
    del out
    peaks = {}
    for which, call in zip(PASSES, (measured.forward, both), strict=True):
        try:
            peaks[which] = _peak(call, device)
        except OSError:
            continue
    print(json.dumps(peaks))


if __name__ == "__main__":
    main(*sys.argv[1:])
