"""Convolution beside torch, and beyond three axes beside every installed library."""

import sys
from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

import convnd
import convnd.functional as F

from . import peers
from .harness import OURS, Build, Case, Contender, Table, differentiable, of
from .report import main

LIBRARIES = ("torchnd", "jax", "fft_conv_pytorch", "einconv")
FORCED = ("im2col", "shift_add", "gemm", "fft")


def _case(
    channels: tuple[int, int],
    kernel: int,
    sizes: Sequence[int],
    contenders: dict[str, Build],
    *,
    batch: int = 1,
    groups: int = 1,
    dtype: torch.dtype = torch.float32,
    label: str = "",
) -> Case:
    """A convolution with "same" padding."""
    (c, o), n = channels, len(sizes)
    size = f"{sizes[0]}^{n}" if len(set(sizes)) == 1 else "x".join(map(str, sizes))
    details = [f"{n}-D k{kernel} {c}->{o}", f"{batch}x{size}" if batch > 1 else size]
    details += ["depthwise"] * (groups > 1) + [str(dtype).removeprefix("torch.")] * (dtype != torch.float32)
    weight = (o, c // groups, *(kernel,) * n)
    flops = 2 * batch * o * prod(weight[1:]) * prod(sizes)
    name = " ".join([*details, label]).strip()
    return Case(name, [(batch, c, *sizes), weight], contenders, flops, dtype)


def _beyond(
    channels: tuple[int, int],
    kernel: int,
    sizes: Sequence[int],
    forced: Sequence[str] = (),
    libraries: Sequence[str] = LIBRARIES,
    **options: Any,
) -> Case:
    """More than three axes: beside other libraries and our own algorithms."""
    n, groups = len(sizes), options.get("groups", 1)
    call: dict[str, Any] = {"padding": kernel // 2, "groups": groups}
    contenders = {OURS: of(F.conv, **call), **{name: peers.forced(name, **call) for name in forced}}
    contenders |= peers.convolutions(n, kernel, groups, libraries)
    return _case(channels, kernel, sizes, contenders, **options)


def _within(
    channels: tuple[int, int],
    sizes: Sequence[int],
    batch: int,
    forced: Sequence[str] = (),
    **options: Any,
) -> Case:
    """At most three axes: beside torch, or our own algorithms."""
    native = getattr(nn.functional, f"conv{len(sizes)}d")
    contenders = {OURS: of(F.conv, padding=1)}
    contenders |= {name: peers.forced(name, padding=1) for name in forced} or {"torch": of(native, padding=1)}
    return _case(channels, 3, sizes, contenders, batch=batch, **options)


def _layers(channels: int, sizes: Sequence[int], batch: int) -> Case:
    n = len(sizes)
    native = getattr(nn, f"Conv{n}d")
    contenders = {OURS: _layer(lambda *a, **k: convnd.ConvNd(n, *a, **k)), "torch": _layer(native)}
    return _case((channels, channels), 3, sizes, contenders, batch=batch, label="layer")


def _layer(kind: Any) -> Build:
    """A layer with the weight of the case."""

    def build(tensors: Sequence[Tensor]) -> Contender:
        x, weight = tensors
        layer = kind(x.shape[1], weight.shape[0], weight.shape[2], padding=1, bias=False).to(x)
        layer.weight.data.copy_(weight)
        return differentiable(layer, [x], parameters=[layer.weight])

    return build


def tables() -> list[Table]:
    bfloat16 = torch.bfloat16
    beyond = [
        _beyond((16, 16), 3, (12,) * 4),
        _beyond((32, 32), 3, (16,) * 4),
        _beyond((32, 32), 3, (8,) * 4, batch=2),
        _beyond((64, 64), 3, (8,) * 4),
        _beyond((8, 8), 3, (16,) * 4),
        _beyond((4, 4), 3, (16,) * 4),
        _beyond((1, 8), 3, (16,) * 4),
        _beyond((8, 8), 5, (12,) * 4),
        _beyond((8, 8), 3, (8,) * 5),
        _beyond((16, 16), 3, (12,) * 4, groups=16),
        _beyond((16, 16), 3, (12,) * 4, dtype=bfloat16),
    ]
    chosen = [
        # This kernel takes JAX minutes, and einconv more memory than there is.
        _beyond(
            (4, 4),
            11,
            (24,) * 4,
            ("im2col", "shift_add", "fft"),
            ("torchnd", "fft_conv_pytorch"),
            label="forced",
        ),
        _beyond((16, 16), 3, (12,) * 4, FORCED, (), label="forced"),
        _beyond((64, 64), 3, (8,) * 4, FORCED, (), label="forced"),
        _beyond((1, 8), 3, (16,) * 4, FORCED, (), label="forced"),
    ]
    native = [
        _within((16, 16), (32,) * 3, 2, ("native", "channels_last", *FORCED), label="forced"),
        _within((1, 16), (32,) * 3, 2, ("native", "channels_last", *FORCED), label="forced"),
    ]
    within = [
        _within((16, 16), (16384,), 8),
        _within((16, 16), (128, 128), 4),
        *(_within(c, (32,) * 3, 2) for c in ((16, 16), (1, 1), (2, 2), (1, 16), (2, 16))),
        _within((16, 16), (128, 128), 4, dtype=bfloat16),
        _within((16, 16), (32,) * 3, 2, dtype=bfloat16),
        _layers(16, (128, 128), 4),
    ]
    tiny = [
        *(_within((4, 4), (8,) * n, 1, label="tiny") for n in (1, 2, 3)),
        _layers(4, (8, 8), 1),
    ]
    return [
        Table("More than three axes", beyond, memory=True, mean_of=("torchnd",)),
        Table("One algorithm for all, more than three axes", chosen),
        Table("One algorithm for all, three axes", native),
        Table("At most three axes", within, memory=True, mean_of=("torch",)),
        Table("Tiny calls", tiny, tiny=True),
    ]


if __name__ == "__main__":
    sys.exit(main("tests.benchmarks.conv"))
