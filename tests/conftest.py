"""Hypothesis profiles: the default one keeps the suite short, ``thorough`` is for long runs."""

import os

import pytest
import torch
from hypothesis import HealthCheck, settings

_COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow], "print_blob": True}
settings.register_profile("default", max_examples=60, derandomize=True, **_COMMON)
settings.register_profile("thorough", max_examples=1500, **_COMMON)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

torch.set_num_threads(1)  # the cases are small: threads would only wait for each other


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", default="cpu", help="where to run what can run anywhere: cpu or cuda")


@pytest.fixture(scope="session")
def device(pytestconfig: pytest.Config) -> str:
    """The device that was asked for; it is an error if it is not there."""
    name = str(pytestconfig.getoption("--device"))
    if torch.device(name).type == "cuda" and not torch.cuda.is_available():
        pytest.exit(f"--device {name}: torch {torch.__version__} sees no GPU", returncode=1)
    return name
