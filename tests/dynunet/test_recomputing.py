"""Gradient checkpointing changes memory and time alone: not gradients, not what modules keep."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils.parametrizations import spectral_norm

from dynunet import Encoder, UNet
from dynunet.nn.checkpointing import checkpointed


class Counting(nn.Module):
    """An activation that counts its calls, writing in place and by replacing the buffer."""

    calls: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("last", torch.zeros(()), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.last = x.detach().mean() + self.calls
        return x * (1 + self.calls / 10).sigmoid()


def normalised(unet: nn.Module) -> None:
    torch.manual_seed(1)
    for module in [*unet.modules()]:
        if isinstance(module, _ConvNd) and module.out_channels > 1:
            nn.init.normal_(module.weight)  # that of zeros is not defined
            spectral_norm(module)


CASES: dict[str, tuple[dict[str, Any], Callable[[nn.Module], Any]]] = {
    "batch norm": ({"norm": "batch"}, lambda unet: None),
    "batch norm, cumulative": (
        {"norm": "batch"},
        lambda unet: [setattr(m, "momentum", None) for m in unet.modules() if hasattr(m, "momentum")],
    ),
    "activation": ({"activation": Counting()}, lambda unet: None),
    "spectral norm": ({}, normalised),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dims", [1, 2, 4])
@pytest.mark.parametrize("cls", [UNet, Encoder])
def test_everything_that_is_kept_is_as_without(cls: Any, dims: int, name: str) -> None:
    options, change = CASES[name]

    def trained(checkpointing: bool) -> tuple[nn.Module, list[Tensor | None]]:
        torch.manual_seed(0)
        network = cls(
            dims,
            1,
            1,
            channels=(4, 8),
            num_groups=2,
            dropout=0.2,
            gradient_checkpointing=checkpointing,
            **copy.deepcopy(options),
        )
        change(network)
        for _ in range(2):  # two batches, and twice back through the graph of each
            loss = network(torch.randn(3, 1, *(4,) * dims)).square().mean()
            loss.backward(retain_graph=True)
            loss.backward()
        return network, [p.grad for p in network.parameters()]

    (a, gradients), (b, others) = trained(False), trained(True)
    for (key, one), (other_key, other) in zip(a.named_buffers(), b.named_buffers(), strict=True):
        assert key == other_key
        assert torch.equal(one, other), key
    for one, other in zip(gradients, others, strict=True):
        assert (one is None) == (other is None)
        assert one is None or other is None or torch.equal(one, other)


def test_buffers_are_restored_where_the_recomputation_fails() -> None:
    norm, calls = nn.BatchNorm1d(2), 0

    def function(x: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise RuntimeError("odd")
        return norm(x).exp()

    y = checkpointed(norm, function, torch.randn(4, 2, requires_grad=True))
    own = {name: (buffer, buffer.clone()) for name, buffer in norm.named_buffers()}
    with pytest.raises(RuntimeError, match=r"^odd$"):
        y.sum().backward()
    for name, buffer in norm.named_buffers():
        assert buffer is own[name][0]
        assert torch.equal(buffer, own[name][1])
