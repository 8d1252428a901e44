"""Memory that is given back at once: which blocks are mapped, and that training learns the same with it.

A block is mapped only where the heap has no gap for it, so most of this is done in processes that have none.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dynunet import Diffusion, Trainer, UNet, allocator
from dynunet.allocator import has_glibc

needs_glibc = pytest.mark.skipif(not has_glibc(), reason="it is an option of glibc's allocator")

# mallinfo2's hblks is the number of blocks that are mapped by themselves.
BEGINNING = """
import ctypes, json, sys
import torch
from dynunet import Diffusion, Trainer, UNet
from dynunet.allocator import compact_memory

names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
fields = [(name, ctypes.c_size_t) for name in names]
library = ctypes.CDLL(None)
library.mallinfo2.restype = type("Mallinfo", (ctypes.Structure,), {"_fields_": fields})

def mapped(size):
    before = library.mallinfo2().hblks
    tensor = torch.empty(size, dtype=torch.uint8)
    return library.mallinfo2().hblks - before

sizes = [2 << 20, 8 << 20, 31 << 20]
mapped(sizes[-1])  # from here on the heap would hold smaller ones
"""


def result(script: str, *arguments: object) -> object:
    """What a script prints, as JSON, in a process of its own."""
    command = [sys.executable, "-W", "ignore", "-c", BEGINNING + script, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@needs_glibc
def test_large_blocks_are_mapped_by_themselves() -> None:
    """From a mebibyte on, and as usual afterwards, also after an error."""
    found = result("""
with compact_memory():
    within = [mapped(size) for size in sizes]
    small = mapped(1 << 16)
try:
    with compact_memory():
        1 / 0
except ZeroDivisionError:
    pass
with compact_memory(False):
    after = [mapped(size) for size in sizes]
print(json.dumps([within, small, after]))
""")
    assert found == [[1, 1, 1], 0, [0, 0, 0]]


@needs_glibc
def test_training_gives_memory_back_and_learns_the_same(tmp_path: Path) -> None:
    found = result(
        """
data, blocks, states = torch.rand(8, 1, 64), {}, []
for compact in (True, False):
    class Model(Diffusion):
        def loss(self, x0, **given):
            blocks.setdefault(compact, []).append(mapped(2 << 20))
            return super().loss(x0, **given)

    torch.manual_seed(0)
    model = Model(UNet(1, 1, channels=(4, 8), num_groups=2, time_embedding=True))
    options = {"batch_size": 2, "sample_every": 0, "progress": False, "cpu": True, "tensorboard": False}
    trainer = Trainer(model, data, f"{sys.argv[1]}/{compact}", compact_memory=compact, **options)
    states.append(trainer.fit(steps=3).state_dict())
same = all(torch.equal(value, states[1][name]) for name, value in states[0].items())
print(json.dumps([blocks[True], blocks[False], same]))
""",
        tmp_path,
    )
    assert found == [[1, 1, 1], [0, 0, 0], True]


def test_another_c_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocator, "has_glibc", lambda: False)
    model = Diffusion(UNet(1, 1, channels=(4, 8), num_groups=2, time_embedding=True))
    trainer = Trainer(model, torch.rand(4, 1, 16), tmp_path / "run", compact_memory=True, progress=False)
    with pytest.raises(ValueError, match="compact_memory must be False here: it needs glibc"):
        trainer.fit(steps=1)
    assert not (tmp_path / "run").exists()
