"""The Python blocks of every README run, and its links lead somewhere."""

import re
from pathlib import Path

import pytest
import torch

from dynunet.data import SUFFIXES

ROOT = Path(__file__).parent.parent
READMES = (*ROOT.glob("*.md"), *ROOT.glob("[a-z]*/README.md"))
BLOCKS = [
    pytest.param(block, id=f"{path.parent.name}: {block.splitlines()[-1][:40]}")
    for path in READMES
    for block in re.findall(r"```python\n(.*?)```", path.read_text(), flags=re.DOTALL)
]


def test_there_are_four() -> None:
    folders = {path.parent.relative_to(ROOT).as_posix() for path in READMES}
    assert folders == {".", "convnd", "dynunet", "examples"}


@pytest.mark.parametrize("block", BLOCKS)
def test_block_runs(block: str) -> None:
    images = torch.rand(4, 1, 28, 28) * 2 - 1
    exec(block, {"images": images, "labels": torch.randint(0, 10, (4,))})


@pytest.mark.parametrize("path", READMES, ids=lambda path: path.parent.name)
def test_links_lead_to_files(path: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text())
    assert [link for link in links if not (path.parent / link).exists()] == []


def test_the_suffixes_of_every_kind_of_file_are_named() -> None:
    text = (ROOT / "dynunet" / "README.md").read_text()
    words = set(re.split(r"[\s`]+", text))
    assert [suffix for suffixes in SUFFIXES.values() for suffix in suffixes if suffix not in words] == []
