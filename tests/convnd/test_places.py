"""How many functions of convnd a convolution passes through, from the public one to torch's kernel."""

import sys
from collections.abc import Callable
from contextlib import nullcontext
from types import FrameType
from typing import Any

import pytest
import torch

import convnd
import convnd.functional as F

from .planning import ALGORITHMS

MOST = 9


def places(call: Callable[[], Any]) -> list[str]:
    """The longest chain of functions of convnd around a call of a kernel of torch's, from ``F.conv`` on."""
    longest: list[str] = []

    def profile(frame: FrameType | None, event: str, arg: Any) -> None:
        nonlocal longest
        if event != "c_call" or not getattr(arg, "__name__", "").startswith("conv"):
            return
        chain: list[str] = []
        while frame is not None:
            if frame.f_globals.get("__name__", "").startswith("convnd."):
                chain.append(f"{frame.f_globals['__name__']}.{frame.f_code.co_name}")
            frame = frame.f_back
        if "convnd.functional._conv.conv" in chain:
            chain = chain[: chain.index("convnd.functional._conv.conv") + 1]
            longest = max(longest, chain[::-1], key=len)

    sys.setprofile(profile)
    try:
        call()
    finally:
        sys.setprofile(None)
    return longest


@pytest.mark.parametrize("recorded", [False, True])
@pytest.mark.parametrize("name", [None, *ALGORITHMS])
@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_a_convolution_passes_through_few_places(n: int, name: str | None, recorded: bool) -> None:
    x, w = torch.randn(1, 2, *(4,) * n), torch.randn(2, 2, *(3,) * n, requires_grad=recorded)
    try:
        with nullcontext() if name is None else convnd.algorithm(name):
            found = places(lambda: F.conv(x, w, padding=1))
    except ValueError:
        return  # it does not apply
    assert len(found) <= MOST, found
    assert found or name not in ("native", "channels_last", "tiles", "im2col", "kn2row", "shift_add")


@pytest.mark.parametrize("n", [1, 2, 3])
def test_small_calls_go_straight_to_torch(n: int) -> None:
    x, w = torch.randn(1, 2, *(4,) * n), torch.randn(2, 2, *(3,) * n)
    assert len(places(lambda: F.conv(x, w, padding=1))) <= 3
