"""Memory that is given back at once: which blocks are mapped, and that training learns the same with it."""

import ctypes
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from dynunet import Diffusion, Trainer, UNet, allocator
from dynunet.allocator import compact_memory, has_glibc

needs_glibc = pytest.mark.skipif(not has_glibc(), reason="it is an option of glibc's allocator")


class _Mallinfo(ctypes.Structure):
    """Of ``mallinfo2``: hblks is the number of blocks that are mapped by themselves."""

    _fields_: ClassVar = [
        (name, ctypes.c_size_t)
        for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
    ]


def mapped(size: int) -> int:
    """How many blocks are mapped for a tensor of so many bytes."""
    library = ctypes.CDLL(None)
    library.mallinfo2.restype = _Mallinfo
    before = library.mallinfo2().hblks
    tensor = torch.empty(size, dtype=torch.uint8)
    after = library.mallinfo2().hblks
    del tensor
    return after - before


@needs_glibc
@pytest.mark.parametrize("mebibytes", [2, 8, 31])
def test_large_blocks_are_mapped_by_themselves(mebibytes: int) -> None:
    with compact_memory(False):
        pass
    with compact_memory():
        assert mapped(mebibytes << 20) == 1
        assert mapped(1 << 16) == 0
    assert mapped(mebibytes << 20) == 0


@needs_glibc
def test_it_ends_with_an_error() -> None:
    with pytest.raises(ZeroDivisionError), compact_memory():
        _ = 1 / 0
    assert mapped(2 << 20) == 0


@needs_glibc
def test_training_gives_memory_back_and_learns_the_same(tmp_path: Path) -> None:
    data, found, blocks = torch.rand(8, 1, 64), {}, {}
    for compact in (False, True):
        blocks[compact] = []

        class Model(Diffusion):
            def loss(self, x0: Tensor, **given: object) -> Tensor:
                blocks[compact].append(mapped(2 << 20))  # noqa: B023
                return super().loss(x0, **given)  # type: ignore[arg-type]

        torch.manual_seed(0)
        model = Model(UNet(1, 1, channels=(4, 8), num_groups=2, time_embedding=True))
        options = {"batch_size": 2, "sample_every": 0, "progress": False, "cpu": True}
        trainer = Trainer(model, data, tmp_path / str(compact), compact_memory=compact, **options)
        found[compact] = trainer.fit(steps=3).state_dict()
    assert blocks == {False: [0] * 3, True: [1] * 3}
    assert all(torch.equal(value, found[True][name]) for name, value in found[False].items())


def test_another_c_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocator, "has_glibc", lambda: False)
    model = Diffusion(UNet(1, 1, channels=(4, 8), num_groups=2, time_embedding=True))
    trainer = Trainer(model, torch.rand(4, 1, 16), tmp_path / "run", compact_memory=True, progress=False)
    with pytest.raises(ValueError, match="compact_memory must be False here: it needs glibc"):
        trainer.fit(steps=1)
    assert not (tmp_path / "run").exists()
