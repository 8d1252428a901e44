"""Run every suite in full and print how many cases passed: ``python -m tests.convnd.conformance``."""

import sys
import warnings

import torch
from tqdm.auto import tqdm

from .suites import SUITES


def main() -> int:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)  # the cases are small
    rows, failures = [], []
    for suite in SUITES:
        passed = total = 0
        for name, check in tqdm(suite.cases(), desc=suite.name, leave=False, disable=None):
            total += 1
            try:
                check()
                passed += 1
            except Exception as error:
                failures.append(f"{suite.name}: {name}: {type(error).__name__}: {error}")
        rows.append((suite.name, total, passed))
    rows.append(("all", sum(r[1] for r in rows), sum(r[2] for r in rows)))
    print("| suite | cases | passed |\n|---|---:|---:|")
    for name, total, passed in rows:
        print(f"| {name} | {total:,} | {passed:,} |")
    print("\n".join(failures), file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
