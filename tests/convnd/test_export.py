"""``torch.export`` with open batch and spatial sizes: one program for all of them."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from dynunet import UNet

from .calls import (
    Call,
    Function,
    data,
    everything,
    layers,
    of_input,
    paddings,
    pools,
    rearrangements,
    resamplings,
)

pytestmark = pytest.mark.filterwarnings("ignore")  # the exporter's own


class Calls(nn.Module):
    """Several calls as one program."""

    def __init__(self, calls: dict[str, Call]) -> None:
        super().__init__()
        self.calls = calls
        self.layers = nn.ModuleList([call for call in calls.values() if isinstance(call, nn.Module)])

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {name: call(x) for name, call in self.calls.items()}


def exported(module: nn.Module, x: Tensor) -> nn.Module:
    """With every size open but that of the channels."""
    open_sizes = {axis: torch.export.Dim.DYNAMIC for axis in range(x.ndim) if axis != 1}
    return torch.export.export(module, (x,), dynamic_shapes=(open_sizes,)).module()


def keeps_sizes_open(calls: dict[str, Call], n: int) -> None:
    module = Calls(calls).eval()
    program = exported(module, data(n, batch=3))
    for batch, longer in ((2, 0), (5, 1), (2, 3)):
        x = data(n, batch, longer)
        expected, out = module(x), program(x)
        wrong = [
            name for name, y in expected.items() if not torch.allclose(out[name], y, rtol=1e-4, atol=1e-5)
        ]
        assert not wrong


def need_open_pools() -> None:
    """Pools that are torch's own are exported as torch exports them."""
    program = exported(nn.MaxPool2d(2), torch.zeros(3, 2, 7, 8))
    try:
        program(torch.zeros(2, 2, 8, 9))
    except AssertionError as error:
        pytest.skip(f"torch {torch.__version__} fixes the sizes of its own pools: {error}")


POOLS = ("max_pool", "avg_pool", "avg_pool ceil", "lp_pool")
OTHERS = (
    "fractional_max_pool",
    "pad circular cropped",
    "interpolate nearest 2",
    "interpolate linear 1.5",
    "interpolate cubic size",
    "interpolate area 2",
    "unfold",
)


@pytest.mark.parametrize("names", [POOLS, OTHERS], ids=["pools", "others"])
@pytest.mark.parametrize("n", [1, 3, 4])
def test_operators_keep_sizes_open(n: int, names: tuple[str, ...]) -> None:
    if names == POOLS:
        need_open_pools()
    calls = everything(n)
    keeps_sizes_open({name: calls[name] for name in names}, n)


@pytest.mark.inductor
@pytest.mark.parametrize("maker", [pools, paddings, resamplings, rearrangements])
@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_every_operator_keeps_sizes_open(n: int, maker: Callable[[int], dict[str, Function]]) -> None:
    if maker is pools:
        need_open_pools()
    keeps_sizes_open(of_input(maker(n)), n)


@pytest.mark.inductor
@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_every_layer_keeps_sizes_open(n: int) -> None:
    need_open_pools()
    keeps_sizes_open(layers(n), n)


@pytest.mark.parametrize(
    ("n", "options"),
    [
        (1, {"upsample": "linear", "downsample": "avg"}),
        (2, {"upsample": "nearest", "downsample": "max"}),
    ],
)
def test_unet_keeps_sizes_open(n: int, options: dict[str, str]) -> None:
    if options["downsample"] == "max":
        need_open_pools()
    torch.manual_seed(0)
    unet = UNet(n, 1, 1, channels=(4, 8), num_blocks=1, num_groups=2, **options).eval()  # type: ignore[arg-type]
    program = exported(unet, torch.randn(2, 1, *(13, 10, 11)[:n]))
    for sizes in ((16, 20, 12), (9, 8, 7), (21, 33, 11)):
        x = torch.randn(3, 1, *sizes[:n])
        torch.testing.assert_close(program(x), unet(x), rtol=1e-4, atol=1e-5)
