"""Run every suite in full and print how many cases passed: ``python -m tests.convnd.conformance``.

``--algorithm`` and ``--workspace`` run the convolutions by one algorithm, in pieces of bounded memory.
"""

import argparse
import re
import sys
import warnings
from collections.abc import Callable
from contextlib import nullcontext

import torch
from tqdm.auto import tqdm

import convnd

from ..planning import ALGORITHMS
from .suites import SUITES


def _outcome(check: Callable[[], None], algorithm: str | None) -> str | None:
    """None, or what went wrong; an algorithm that does not apply has to say so."""
    try:
        with nullcontext() if algorithm is None else convnd.algorithm(algorithm):
            check()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.convnd.conformance", description=__doc__)
    parser.add_argument("--algorithm", choices=ALGORITHMS, help="force it; only the convolutions are run")
    parser.add_argument("--workspace", type=int, metavar="BYTES", help="only the convolutions are run")
    options = parser.parse_args()
    convnd.set_workspace_limit(options.workspace)
    chosen = options.algorithm is not None or options.workspace is not None
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)  # the cases are small
    rows, failures = [], []
    for suite in SUITES:
        passed = refused = total = 0
        for name, check in tqdm(suite.cases(), desc=suite.name, leave=False, disable=None):
            if chosen and ("error" in name or not re.search("conv|correlate", f"{suite.name} {name}", re.I)):
                continue
            total += 1
            wrong = _outcome(check, options.algorithm)
            if wrong is None:
                passed += 1
            elif options.algorithm is not None and "does not apply" in wrong:
                refused += 1
            else:
                failures.append(f"{suite.name}: {name}: {wrong}")
        if total:
            rows.append((suite.name, total - refused, passed))
    rows.append(("all", sum(r[1] for r in rows), sum(r[2] for r in rows)))
    print("| suite | cases | passed |\n|---|---:|---:|")
    for name, total, passed in rows:
        print(f"| {name} | {total:,} | {passed:,} |")
    print("\n".join(failures), file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
