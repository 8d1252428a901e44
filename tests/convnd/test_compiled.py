"""Compiled by inductor, every operator gives what it gives when it is not, and so do its gradients.

Inductor has lowerings of its own for torch's operators: a compiler that only traces them proves little. Each
call has an input of its own, so that many share one graph and a failure names those that differ.
"""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import Module

from convnd import ConvNd, ConvTransposeNd
from dynunet import UNet

from .calls import Call, data, everything

pytestmark = pytest.mark.filterwarnings("ignore")  # the compiler's own

# One of each family, and those that inductor's own lowerings get wrong.
FAMILIES = (
    "conv same",
    "conv_transpose",
    "conv replicate",
    "max_pool",
    "max_unpool",
    "avg_pool ceil",
    "lp_pool ceil",
    "adaptive_avg_pool",
    "adaptive_max_pool",
    "fractional_max_pool",
    "pad constant",
    "pad reflect",
    "pad replicate",
    "pad circular cropped",
    "interpolate nearest 2",
    "interpolate nearest unchanged",
    "interpolate nearest-exact size",
    "interpolate linear unchanged",
    "interpolate cubic size",
    "interpolate area size",
    "grid_sample",
    "unfold",
    "fold",
    "pixel_shuffle",
    "pixel_unshuffle",
    "BatchNormNd",
    "InstanceNormNd",
    "DropoutNd",
)


def differences(calls: dict[str, Call], n: int) -> list[str]:
    """Which outputs and gradients of the calls differ when compiled."""
    torch._dynamo.reset()  # or a second rank would be compiled for varying sizes, which takes minutes

    def outputs(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: call(inputs[name]) for name, call in calls.items()}

    compiled: Any = torch.compile(outputs, fullgraph=True, options={"fallback_random": True})
    results = []
    for function in (outputs, compiled):
        torch.manual_seed(0)
        inputs = {name: data(n).requires_grad_() for name in calls}
        out = function(inputs)
        # A weight for each entry, so that none can stand for another.
        weighted = [(y * torch.arange(1.0, y.numel() + 1).view(y.shape)).mean() for y in out.values()]
        gradients = torch.autograd.grad(sum(weighted[1:], weighted[0]), list(inputs.values()))
        results.append((out, dict(zip(inputs, gradients, strict=True))))
    return [
        f"{what} of {name}"
        for what, expected, actual in zip(("output", "gradient"), *results, strict=True)
        for name in calls
        if not torch.allclose(actual[name], expected[name], rtol=1e-4, atol=1e-5)
    ]


def test_each_family_on_one_axis() -> None:
    calls = everything(1)
    assert not differences({name: calls[name] for name in FAMILIES}, 1)


@pytest.mark.inductor
@pytest.mark.parametrize("part", range(8))
@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_every_operator(n: int, part: int) -> None:
    calls = everything(n)
    assert not differences({name: calls[name] for name in list(calls)[part::8]}, n)


def test_unet_with_average_pools_trains_as_when_not_compiled() -> None:
    torch._dynamo.reset()
    torch.manual_seed(0)
    unet = UNet(1, 1, 1, channels=(2, 3), num_blocks=1, block="plain", norm=None, downsample="avg")
    compiled: Any = torch.compile(unet, fullgraph=True)
    x = torch.randn(1, 1, 5)
    results = []
    for network in (unet, compiled):
        out = network(x)
        results.append((out, *torch.autograd.grad(out.square().sum(), list(unet.parameters()))))
    torch.testing.assert_close(results[1], results[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("op", ["conv", "transpose", "weight"])
@pytest.mark.parametrize(("n", "groups"), [(3, 1), (4, 1), (4, 2)])
def test_the_operator_of_compiled_graphs_is_as_it_declares(op: str, n: int, groups: int) -> None:
    """Schema, strides of its result, derivatives, varying sizes."""
    x, y = torch.randn(2, 4, *(4, 3, 4, 5)[-n:]), torch.randn(2, 2, *(2, 2, 2, 3)[-n:])
    w = torch.randn(2, 4 // groups, *(2, 2, 3, 3)[-n:])
    a, b, sizes = {"conv": (x, w, y), "transpose": (y, w, x), "weight": (x, y, w)}[op]
    ones = (1,) * n
    arguments = None, (2,) * n, ones, (0, 0, 1, 1)[-n:], ones, groups, sizes.shape[2:]
    torch.library.opcheck(
        torch.ops.convnd.bilinear.default, (op, a.requires_grad_(), b.requires_grad_(), *arguments)
    )


def varied(n: int) -> dict[str, tuple[Module, tuple[int, ...]]]:
    """Layers whose compilation asked a solver about products of sizes, and the first sizes of each."""
    return {
        "same": (ConvNd(n, 2, 3, 3, stride=2, padding="same"), (6,) * n),
        "strided": (ConvNd(n, 2, 3, 3, stride=2, padding=1), (6,) * n),
        "circular": (ConvNd(n, 2, 3, 3, padding=1, padding_mode="circular"), (6,) * n),
        "transposed": (ConvTransposeNd(n, 2, 3, 3, stride=2), (4,) * n),
        "transposed same": (ConvTransposeNd(n, 2, 3, 3, stride=2, padding="same"), (4,) * n),
    }


def check_at_varying_sizes(layer: Module, sizes: tuple[int, ...], **options: Any) -> None:
    torch._dynamo.reset()
    compiled: Any = torch.compile(layer, fullgraph=True, **options)
    for more in ((0, 1, 2, 3), (1, 2, 1, 2), (3, 2, 1, 0)):
        x = torch.randn(1, 2, *(size + m for size, m in zip(sizes, more, strict=False)), requires_grad=True)
        results = []
        for function in (layer, compiled):
            y = function(x)
            results.append((y, *torch.autograd.grad(y.square().sum(), [x, *layer.parameters()])))
        torch.testing.assert_close(results[1], results[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("n", "backend"),
    [(4, "aot_eager"), *(pytest.param(n, "inductor", marks=pytest.mark.inductor) for n in (1, 2, 3, 4))],
)
@pytest.mark.parametrize("name", list(varied(1)))
def test_layers_of_varying_sizes(name: str, n: int, backend: str) -> None:
    check_at_varying_sizes(*varied(n)[name], backend=backend)


def test_inductor_trains_a_strided_convolution_over_three_varying_axes() -> None:
    """If its sizes are sums, inductor fails to divide their products."""
    check_at_varying_sizes(*varied(3)["strided"], dynamic=True)


def operators(layer: Module, x: Tensor, **options: Any) -> set[str]:
    """The names of the operators of its graph."""
    torch._dynamo.reset()
    found: set[str] = set()

    def backend(graph: torch.fx.GraphModule, _: list[Any]) -> Any:
        found.update(str(node.target) for node in graph.graph.nodes)
        return graph

    with torch.no_grad():
        torch.compile(layer, fullgraph=True, backend=backend, **options)(x)
    return found


@pytest.mark.parametrize(
    ("n", "dynamic", "one"),
    [
        (1, True, False),
        (2, False, False),
        (2, True, True),
        (3, False, False),
        (3, True, True),
        (4, False, True),
    ],
)
@pytest.mark.parametrize("name", ["strided", "transposed"])
def test_convolutions_are_one_operator_where_inductor_needs_it(
    name: str, n: int, dynamic: bool, one: bool
) -> None:
    layer, sizes = varied(n)[name]
    found = operators(layer, torch.randn(2, 2, *sizes), dynamic=dynamic)
    assert any("convnd.bilinear" in target for target in found) == one
