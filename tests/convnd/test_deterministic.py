"""Deterministic mode on a GPU, on the CPU: the same values by operators whose gradients repeat their bits."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import convnd.functional as F
from convnd._spatial import interpolate, pad, pool
from convnd._torch import eager
from tests.convnd.calls import SIZES, Call, data, paddings, pools, resamplings

# Gradients that torch refuses on CUDA (documentation of use_deterministic_algorithms), as far as these
# operators could use them.
REFUSED = (
    "max_pool3d_with_indices_backward",
    "avg_pool3d_backward",
    "_adaptive_avg_pool2d_backward",
    "_adaptive_avg_pool3d_backward",
    *(f"{kind}_pad{n}d_backward" for kind in ("reflection", "replication") for n in (1, 2, 3)),
    *(f"upsample_{kind}_backward" for kind in ("linear1d", "bilinear2d", "bicubic2d", "trilinear3d")),
)
TORCHS = ("adaptive_max_pool", "fractional_max_pool", "grid_sample")  # refused here as they are by torch


class Names(TorchDispatchMode):
    """The names of all operators that ran."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.add(func.__name__.split(".")[0])
        return func(*args, **(kwargs or {}))


def results(call: Call, x: Tensor) -> tuple[Tensor, Tensor]:
    x = x.clone().requires_grad_()
    out = call(x)
    direction = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view(out.shape)
    return out.detach(), torch.autograd.grad(out, x, direction)[0]


@pytest.mark.parametrize("n", SIZES)
def test_the_same_values_by_deterministic_operators(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x = data(n).double()
    calls = {**pools(n), **paddings(n), **resamplings(n)}
    calls = {name: call.of_input() for name, call in calls.items() if not name.startswith(TORCHS)}
    expected = {name: results(call, x) for name, call in calls.items()}
    for module in (interpolate, pad, pool):
        monkeypatch.setattr(module, "deterministic", lambda x: True)
    for name, call in calls.items():
        with Names() as names:
            got = results(call, x)
        assert not names.seen.intersection(REFUSED), name
        for a, b in zip(got, expected[name], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12, msg=name)


@pytest.mark.parametrize("n", SIZES)
def test_what_is_not_finite_stays_in_its_windows(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x = data(n, longer=3)
    x[(0, 0, *[1] * n)], x[(1, 2, *[-1] * n)] = float("inf"), float("nan")
    expected = F.adaptive_avg_pool(x, 3)
    monkeypatch.setattr(pool, "deterministic", lambda x: True)
    with torch.autocast("cpu", torch.bfloat16):  # which must not round what torch's kernels do not
        torch.testing.assert_close(F.adaptive_avg_pool(x, 3), expected, equal_nan=True)


def test_it_is_asked_of_torch() -> None:
    elsewhere = torch.empty(0, device="meta")
    assert not eager.deterministic(elsewhere)
    torch.use_deterministic_algorithms(True)
    try:
        assert eager.deterministic(elsewhere)
        assert not eager.deterministic(torch.empty(0))
    finally:
        torch.use_deterministic_algorithms(False)
