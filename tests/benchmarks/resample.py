"""Interpolation and padding beside torch; beyond three axes beside torchnd."""

import importlib
import sys
from collections.abc import Sequence

from torch import Tensor, nn

import convnd.functional as F

from . import peers
from .harness import OURS, Build, Case, Contender, Table, differentiable, of
from .report import main

SHAPES = {1: (8, 16, 8192), 2: (4, 16, 64, 64), 3: (2, 16, 16, 16, 16), 4: (1, 16, 8, 8, 8, 8)}
LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}


def _torchnd(function: str, *args: object) -> dict[str, Build]:
    if not peers.installed("torchnd"):
        return {}

    def build(tensors: Sequence[Tensor]) -> Contender:
        run = getattr(importlib.import_module("torchnd.functional"), function)
        return differentiable(lambda x: run(x, *args), tensors)

    return {"torchnd": build}


def _interpolate(n: int, mode: str, shape: tuple[int, ...]) -> Case:
    contenders = {OURS: of(F.interpolate, scale_factor=2, mode=mode)}
    if n <= 3:
        name = LINEAR[n] if mode == "linear" else mode
        contenders["torch"] = of(nn.functional.interpolate, scale_factor=2, mode=name)
    else:
        contenders |= _torchnd(f"{mode}_interpolation_nd", tuple(2 * s for s in shape[2:]))
    return Case(f"{n}-D {mode} 2x {'x'.join(map(str, shape))}", [shape], contenders)


def _pad(n: int, mode: str, shape: tuple[int, ...], amount: int = 2) -> Case:
    amounts = [amount] * 2 * n
    contenders = {OURS: of(F.pad, amounts, mode)}
    if n <= 3:
        contenders["torch"] = of(nn.functional.pad, amounts, mode)
    else:
        contenders |= _torchnd("pad_nd", amounts, mode)
    return Case(f"{n}-D {mode} {amount} {'x'.join(map(str, shape))}", [shape], contenders)


def tables() -> list[Table]:
    modes, borders = ("nearest", "linear"), ("reflect", "circular", "replicate")
    interpolated = [_interpolate(n, mode, SHAPES[n]) for n in (1, 2, 3) for mode in modes]
    padded = [_pad(n, mode, SHAPES[n]) for n in (2, 3) for mode in borders]
    small = (1, 4, 8, 8)
    tiny = [_interpolate(2, mode, small) for mode in modes] + [_pad(2, mode, small, 1) for mode in borders]
    beyond = [_interpolate(4, mode, SHAPES[4]) for mode in modes]
    beyond += [_pad(4, mode, SHAPES[4]) for mode in borders]
    return [
        Table("Interpolation up to three axes", interpolated, mean_of=("torch",)),
        Table("Padding of two and three axes", padded, mean_of=("torch",)),
        Table("Four axes", beyond, memory=True),
        Table("Tiny calls", tiny, tiny=True),
    ]


if __name__ == "__main__":
    sys.exit(main("tests.benchmarks.resample"))
