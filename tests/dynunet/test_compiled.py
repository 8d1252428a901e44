"""Compiled networks of every rank give and learn what they do when they are not, for any sizes.

In one process, one after the other, and without a reset: what a compiler has learned of one must not harm
the next, whose sizes it takes to vary.
"""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters

from dynunet import UNet

pytestmark = pytest.mark.filterwarnings("ignore")  # the compiler's own


def network(n: int, **options: Any) -> UNet:
    """Small, and with a head that is not zero."""
    torch.manual_seed(0)
    options = {"channels": (2, 4), "num_blocks": 1, "num_groups": 1, "time_embedding": True, **options}
    unet = UNet(n, 1, **options)
    with torch.no_grad():
        for p in unet.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return unet


def results(function: Any, parameters: list[Tensor], x: Tensor, train: bool, timed: bool) -> list[Tensor]:
    """The output, and in training the gradients."""
    t = torch.linspace(0, 1, len(x), dtype=x.dtype) if timed else None
    with torch.set_grad_enabled(train):
        y = function(x, t)
    weights = torch.arange(1.0, y.numel() + 1).view(y.shape) / y.numel()
    return [y, *(torch.autograd.grad((y * weights).sum(), parameters) if train else ())]


def check(unet: UNet, n: int, train: bool, sizes: list[tuple[int, ...]], **options: Any) -> None:
    compiled: Any = torch.compile(unet.train(train), fullgraph=True, **options)
    timed, dtype = unet.time_embedding is not None, next(unet.parameters()).dtype
    for batch, *spatial in sizes:
        x = torch.randn(batch, 1, *spatial[:n], dtype=dtype)
        expected, found = (results(f, list(unet.parameters()), x, train, timed) for f in (unet, compiled))
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


SIZES = [(2, 6, 7, 8, 5), (3, 9, 6, 5, 7), (2, 8, 8, 6, 6)]
LEAST = {"channels": (2,), "block": "plain", "norm": None, "time_embedding": False}


@pytest.fixture(autouse=True)
def fresh() -> None:
    """Dynamo keeps eight graphs of a function for all networks; then it gives up."""
    torch._dynamo.reset()


def test_networks_of_one_rank_after_another() -> None:
    """The first has sizes as they are, and all that follow sizes that vary."""
    for n in (1, 2, 4):
        check(network(n, **LEAST), n, False, SIZES[:2], backend="aot_eager")


def test_odd_and_even_sizes_share_a_graph() -> None:
    counters.clear()
    unet = network(2, block="plain", norm=None, time_embedding=False)
    check(unet, 2, False, SIZES, backend="aot_eager", dynamic=True)
    assert counters["stats"]["unique_graphs"] == 1


def test_inductor_trains_one_rank_after_another() -> None:
    for n in (1, 2, 4):
        check(network(n, **LEAST), n, True, SIZES[:1], dynamic=True)


@pytest.mark.inductor
@pytest.mark.parametrize(
    ("options", "dtype"),
    [
        ({}, torch.float32),
        # Its gradients magnify rounding so much that over four axes single precision is no measure.
        ({"attention": (None, "full"), "norm": "rms"}, torch.float64),
    ],
    ids=["plain", "attention"],
)
@pytest.mark.parametrize("train", [True, False], ids=["training", "inference"])
def test_inductor_on_one_rank_after_another(train: bool, options: dict[str, Any], dtype: torch.dtype) -> None:
    for n in (1, 2, 3, 4):
        check(network(n, **options).to(dtype), n, train, SIZES)
