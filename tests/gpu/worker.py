"""The process that runs a group of rows.

It writes one JSON line as it begins a row and one as it ends it. When a row leaves the device unusable (an
illegal access stays with its process), the process ends, and another goes on after that row.
"""

import json
import os
import sys
import time
import warnings
from typing import Any

import torch

from .rows import Group, Setting, outcome

BROKEN = 70  # exit status of a process that can no longer use its device


def usable(device: str) -> bool:
    """Whether the device still answers after a row that failed."""
    if device == "cpu":
        return True
    try:
        torch.cuda.synchronize()
        return torch.ones(2, device=device).sum().item() == 2
    except RuntimeError:
        return False


def main(section: str, module: str, name: str, device: str, quick: str, seconds: str, first: str) -> int:
    """Run the rows of a group from number ``first`` on, for so many seconds."""
    told = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print goes to the log
    warnings.simplefilter("ignore")
    end = time.monotonic() + float(seconds)
    setting = Setting(device, quick == "True")

    def tell(event: str, **about: Any) -> None:
        print(json.dumps({"event": event, **about}, default=str), file=told, flush=True)

    rows = Group(section, module, name).rows(setting)
    for number, row in enumerate(rows[int(first) :], int(first)):
        if time.monotonic() > end:
            tell("row", number=number, name=row.name, status="not reached", seconds=0.0)
            continue
        tell("begin", number=number, name=row.name, limit=row.limit)
        result = outcome(row)
        tell("row", number=number, name=row.name, **result)
        if result["status"] == "failed" and not usable(device):
            return BROKEN
        if setting.gpu:
            torch.cuda.empty_cache()
    tell("end")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
