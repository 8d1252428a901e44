"""What importing the packages does, and does not."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["convnd", "convnd.testing", "dynunet"])
def test_import_is_silent(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", f"import {module}"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_convnd_does_not_import_dynunet_or_what_it_needs() -> None:
    others = {"dynunet", "hypothesis", "huggingface_hub", "safetensors"}
    code = f"import sys, convnd; print({others} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
