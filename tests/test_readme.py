"""The README's Python blocks run."""

import re
from pathlib import Path

import pytest
import torch

README = Path(__file__).parent.parent / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.splitlines()[-1][:40])
def test_block_runs(block: str) -> None:
    images = torch.rand(4, 1, 28, 28) * 2 - 1
    exec(block, {"images": images, "labels": torch.randint(0, 10, (4,))})
