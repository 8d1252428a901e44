"""What the device gives: products, copies, transforms, and how long a call takes that does nothing.

With the rows of :mod:`tests.gpu.speed_conv` they are what a table of costs for the planner is fitted to.
"""

from collections.abc import Callable
from math import log2
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as nnF

from .rows import Row, Setting
from .timing import dtype_of, kinds, precision, timed


def rates(setting: Setting) -> list[Row]:
    def product(kind: str) -> dict[str, Any]:
        n = 64 if setting.quick else 8192 if setting.gpu else 1024
        a, b = torch.randn(2, n, n, device=setting.device).to(dtype_of(kind))
        with precision(kind):
            return {"TFLOP/s": 2 * n**3 / _seconds(lambda: a @ b, setting) / 1e12}

    def copied(kind: str, what: str) -> dict[str, Any]:
        size = 4 if setting.quick else 24 if setting.gpu else 12
        x = torch.randn(16, 18, size, size, size, 32, device=setting.device).to(dtype_of(kind))
        views: dict[str, Callable[[Tensor], Tensor]] = {
            "plain": lambda x: x,
            "taps as channels": lambda x: x.movedim(-1, 1).unfold(2, 3, 1).movedim(-1, 2),
            "to channels-last": lambda x: x.movedim(1, -1),
        }
        view = views[what](x)
        taken = _seconds(lambda: view.clone(memory_format=torch.contiguous_format), setting)
        return {"GB/s written": view.numel() * view.element_size() / taken / 1e9}

    def added(kind: str) -> dict[str, Any]:
        x = torch.randn(2**10 if setting.quick else 2**26, device=setting.device).to(dtype_of(kind))
        return {"GB/s written": x.numel() * x.element_size() / _seconds(lambda: x.add_(x), setting) / 1e9}

    def transformed() -> dict[str, Any]:
        n = 4 if setting.quick else 30
        x = torch.randn(4, n, n, n, n, device=setting.device)
        taken = _seconds(lambda: torch.fft.rfftn(x, dim=(1, 2, 3, 4)), setting)
        return {"TFLOP/s": 2.5 * x.numel() * log2(x[0].numel()) / taken / 1e12}

    def called() -> dict[str, Any]:
        x, w = (
            torch.randn(1, 1, 2, 2, 2, device=setting.device),
            torch.randn(1, 1, 1, 1, 1, device=setting.device),
        )
        empty = _seconds(lambda: x.add_(1), setting)
        native = _seconds(lambda: nnF.conv3d(x.movedim(1, -1).movedim(-1, 1), w), setting)
        return {"microseconds of an addition": empty * 1e6, "of a small conv3d": native * 1e6}

    rows = [Row(f"matrix product {k}", lambda k=k: product(k)) for k in kinds(setting)]
    for kind in kinds(setting)[::2]:
        for what in ("plain", "taps as channels", "to channels-last"):
            rows.append(Row(f"copy {what} {kind}", lambda k=kind, w=what: copied(k, w)))
        rows.append(Row(f"addition in place {kind}", lambda k=kind: added(k)))
    return [*rows, Row("FFT over four axes", transformed), Row("a call", called)]


def _seconds(call: Callable[[], Any], setting: Setting) -> float:
    seconds, failed = timed({"": call}, setting)
    if failed:
        raise RuntimeError(failed[""])
    return seconds[""]
