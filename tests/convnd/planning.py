"""The names of the algorithms, and plans as on another processor."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

import convnd
from convnd._conv.algorithms import tiles


def _names() -> tuple[str, ...]:
    with pytest.raises(ValueError, match="name must be one of") as refusal, convnd.algorithm("?"):
        pass
    return tuple(re.findall(r"'(\w+)'", str(refusal.value)))


ALGORITHMS = _names()  # as the refusal of an unknown name lists them


@contextmanager
def planned_as_on_avx512(tile_flops: int = 0) -> Iterator[None]:
    """With tiles of output positions for problems of at least so many operations."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiles, "TILE_FLOPS", tile_flops)
        patch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
        forget_plans()
        yield
    forget_plans()


def forget_plans() -> None:
    for name, module in list(sys.modules.items()):
        if name.startswith("convnd._conv"):
            for planned in vars(module).values():
                if hasattr(planned, "cache_clear"):
                    planned.cache_clear()
