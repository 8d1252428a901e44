"""Transposed convolution beside torch and torchnd."""

import sys
from math import prod

from torch import nn

import convnd.functional as F

from . import peers
from .harness import OURS, Case, Table, of
from .report import main

SHAPES = ((2, 2, 0), (4, 2, 1), (3, 2, 1))  # kernel, stride, padding


def _case(n: int, shape: tuple[int, int, int], batch: int, size: int, channels: int = 16) -> Case:
    kernel, stride, padding = shape
    options = {"stride": stride, "padding": padding}
    contenders = {OURS: of(F.conv_transpose, **options)}
    if n <= 3:
        contenders["torch"] = of(getattr(nn.functional, f"conv_transpose{n}d"), **options)
    if peers.installed("torchnd"):
        contenders["torchnd"] = peers.torchnd_conv(n, transposed=True, **options)
    tensors = [(batch, channels, *(size,) * n), (channels, channels, *(kernel,) * n)]
    name = f"{n}-D k{kernel} s{stride} p{padding} {channels}->{channels} {batch}x{size}^{n}"
    return Case(name, tensors, contenders, 2 * prod(tensors[0]) * prod(tensors[1][1:]))


def tables() -> list[Table]:
    return [
        Table("More than three axes", [_case(4, s, 1, 8) for s in SHAPES], memory=True, mean_of=("torchnd",)),
        Table("Three axes", [_case(3, s, 2, 32) for s in SHAPES], memory=True, mean_of=("torch",)),
        Table("Two axes", [_case(2, s, 4, 128) for s in SHAPES], mean_of=("torch",)),
        Table("Tiny calls", [_case(n, (2, 2, 0), 1, 4, channels=4) for n in (2, 3)], tiny=True),
    ]


if __name__ == "__main__":
    sys.exit(main("tests.benchmarks.transpose"))
