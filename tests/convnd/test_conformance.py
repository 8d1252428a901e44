"""The conformance suites: a part of each by default, everything with ``HYPOTHESIS_PROFILE=thorough``."""

import os

import pytest

pytest.importorskip(
    "torch.testing._internal.common_methods_invocations",
    reason="torch moved its own test cases",
    exc_type=ImportError,
)

from .conformance.suites import SUITES, Suite

EVERYTHING = os.environ.get("HYPOTHESIS_PROFILE") == "thorough"


@pytest.mark.conformance
@pytest.mark.parametrize("suite", SUITES, ids=lambda suite: suite.name)
@pytest.mark.filterwarnings("ignore")  # torch's samples include calls that torch itself warns of
def test_conformance(suite: Suite) -> None:
    count, failures = 0, []
    for name, check in suite.sample(EVERYTHING):
        count += 1
        try:
            check()
        except Exception as error:
            failures.append(f"{name}: {type(error).__name__}: {error}")
    assert count
    assert not failures, "\n".join([f"{len(failures)} of {count} differ", *failures[:20]])
