"""Pooling, transposed convolution, resampling and padding: beside torch up to three axes, alone beyond."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import convnd.functional as F
from tests.benchmarks.resample import LINEAR

from .rows import Row, Setting
from .timing import BF16, FLOAT32, TF32, dtype_of, precision, timed

SHAPES = {1: (32, 64, 16384), 2: (16, 64, 128, 128), 3: (4, 64, 32, 32, 32), 4: (2, 32, 16, 16, 16, 16)}
SMALL = {1: (1, 2, 16), 2: (1, 2, 8, 8), 3: (1, 2, 4, 4, 4), 4: (1, 2, 4, 4, 4, 4)}

Function = Callable[..., Any]


def pairs(n: int, channels: int) -> dict[str, tuple[Function, Function | None, list[tuple[int, ...]]]]:
    """Ours, torch's where it has it, and the shapes of operands beside the input."""
    k: dict[str, Any] = {"spatial_dims": n}

    def theirs(name: str) -> Any:
        return getattr(nn.functional, f"{name}{n}d") if n <= 3 else None

    def pool(kind: str, **options: Any) -> tuple[Function, Function | None, list[tuple[int, ...]]]:
        native, ours = theirs(kind), getattr(F, kind)
        return lambda x: ours(x, **options, **k), native and (lambda x: native(x, **options)), []

    def resized(mode: str) -> tuple[Function, Function | None, list[tuple[int, ...]]]:
        name = LINEAR.get(n) if mode == "linear" else mode

        def native(x: Tensor) -> Tensor:
            return nn.functional.interpolate(x, scale_factor=2, mode=str(name))

        return lambda x: F.interpolate(x, scale_factor=2, mode=mode, **k), native if n <= 3 else None, []

    def padded(mode: str) -> tuple[Function, Function | None, list[tuple[int, ...]]]:
        pads = (1,) * 2 * n

        def native(x: Tensor) -> Tensor:
            return nn.functional.pad(x, pads, mode)

        return lambda x: F.pad(x, pads, mode, **k), native if n <= 3 else None, []

    def transposed(kernel: int, padding: int) -> tuple[Function, Function | None, list[tuple[int, ...]]]:
        native = theirs("conv_transpose")
        return (
            lambda x, w: F.conv_transpose(x, w, stride=2, padding=padding),
            native and (lambda x, w: native(x, w, stride=2, padding=padding)),
            [(channels, channels, *(kernel,) * n)],
        )

    return {
        "max_pool k2": pool("max_pool", kernel_size=2),
        "max_pool k3 s1": pool("max_pool", kernel_size=3, stride=1, padding=1),
        "avg_pool k2": pool("avg_pool", kernel_size=2),
        "avg_pool k3 s1": pool("avg_pool", kernel_size=3, stride=1, padding=1),
        "adaptive_avg_pool": pool("adaptive_avg_pool", output_size=3),
        "nearest 2x": resized("nearest"),
        "linear 2x": resized("linear"),
        "pad reflect": padded("reflect"),
        "pad circular": padded("circular"),
        "conv_transpose k2 s2": transposed(2, 0),
        "conv_transpose k4 s2": transposed(4, 1),
    }


def layers(setting: Setting) -> list[Row]:
    shapes = SMALL if setting.quick else SHAPES

    def run(n: int, name: str, kind: str) -> dict[str, Any]:
        shape = shapes[n]
        ours, native, others = pairs(n, shape[1])[name]
        torch.manual_seed(0)
        operands = [torch.randn(s, device=setting.device).to(dtype_of(kind)) for s in (shape, *others)]
        calls: dict[str, Callable[[], Any]] = {}
        for who, function in (("ours", ours), ("torch", native)):
            if function is not None:
                calls |= _passes(who, function, operands)
        with precision(kind):
            seconds, failed = timed(calls, setting, 0.1)
        figures: dict[str, Any] = {"seconds": seconds, "left out": failed}
        for which in ("forward", "backward"):
            if f"torch {which}" in seconds:
                figures[f"{which}: torch / ours"] = seconds[f"torch {which}"] / seconds[f"ours {which}"]
        return figures

    names = list(pairs(1, 1))[:: 3 if setting.quick else 1]
    chosen = (BF16, TF32) if setting.gpu else (FLOAT32,)
    ranks = (2, 4) if setting.quick else (3, 2, 1, 4)
    return [
        Row(f"{n}-D {name} {kind}", lambda n=n, name=name, kind=kind: run(n, name, kind))
        for kind in chosen
        for n in ranks
        for name in names
    ]


def _passes(who: str, function: Function, operands: list[Tensor]) -> dict[str, Callable[[], Any]]:
    leaves = [t.detach().requires_grad_() for t in operands]
    out = function(*leaves)
    direction = torch.randn_like(out)

    def forward() -> Any:
        with torch.no_grad():
            return function(*leaves)

    return {
        f"{who} forward": forward,
        f"{who} backward": lambda: torch.autograd.grad(out, leaves, direction, retain_graph=True),
    }
