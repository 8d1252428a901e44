"""Tensors of more than 2^31 entries: their first rows, their last and those across the limit.

What is refused, by a kernel of torch or by us where it is wrong, is listed; anything else has to be right.

An operator of local reach gives the same rows of a crop, which the CPU computes in float64.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import convnd.functional as F

from .compare import Mismatch, error, tf32
from .rows import Row, Setting, need_gpu

LIMIT = 2**31
TOLERANCE = 8 * 2.0**-10
KEPT, MARGIN = 4, 4  # rows compared, and rows around them that a crop has
REFUSED = {  # what the refusal says
    ("conv k3 1", 1): "less than 2^31 entries",
    ("max_pool", 2): "CUDA error: invalid argument",
    ("interpolate", 2): "larger than the kernel capacity",
}


def sizes(setting: Setting) -> list[Row]:
    def row(
        name: str, n: int, function: Callable[..., Tensor], up: int = 1, down: int = 1, **kinds: Any
    ) -> Row:
        def run() -> dict[str, Any]:
            try:
                return _run(setting, n, function, up, down, **kinds)
            except (RuntimeError, ValueError) as reason:
                if (name, n) not in REFUSED or REFUSED[name, n] not in str(reason):
                    raise
                return {"refused": str(reason).splitlines()[0]}

        return Row(f"{name} {n}-D", run, limit=90)

    rows = [row(f"conv k3 {n}", n, _conv(n), weight=True) for n in (1, 2, 3, 4)]
    for n in (2, 4):
        k: dict[str, Any] = {"spatial_dims": n}
        rows += [
            row("max_pool", n, lambda x, k=k: F.max_pool(x, 2, 2, **k), down=2),
            row("avg_pool", n, lambda x, k=k: F.avg_pool(x, 2, 2, **k), down=2),
            row("pad", n, lambda x, n=n: F.pad(x, (1, 1) * (n - 1) + (0, 0), "circular")),
            row("interpolate", n, lambda x, k=k: F.interpolate(x, scale_factor=0.5, **k), down=2),
        ]
    return rows


def _conv(n: int) -> Callable[..., Tensor]:
    """Zero padding but for the first axis, along which rows of a crop are compared."""
    return lambda x, w: F.conv(x, w, padding=(0, *(1,) * (n - 1)))


def _run(
    setting: Setting, n: int, function: Callable[..., Tensor], up: int, down: int, weight: bool = False
) -> dict[str, Any]:
    if setting.gpu and torch.cuda.mem_get_info()[0] < 40 * 2**30:
        need_gpu(Setting("cpu", setting.quick), "needs 40 GiB of free memory on the GPU")
    limit = LIMIT if setting.gpu else 2**14
    rest = {1: (), 2: (4096,), 3: (256, 256), 4: (64, 32, 32)}[n] if setting.gpu else (4,) * (n - 1)
    inner = 1
    for size in rest:
        inner *= size
    rows = limit // inner + 16
    rows += rows % 2
    x = torch.empty(1, 1, rows, *rest, dtype=torch.float16, device=setting.device)
    flat = x.view(-1)
    step = 2**28
    for i in range(0, flat.numel(), step):  # numbers that float16 holds, without a short period
        flat[i : i + step] = (
            torch.arange(i, min(i + step, flat.numel()), device=setting.device) * 7919 % 251 - 125
        )
    w = ((torch.arange(3**n, dtype=torch.float64) % 5 - 2) / 4).view(1, 1, *(3,) * n)
    operands = [w.to(x)] if weight else []
    x.requires_grad_()
    with tf32(False):
        out = function(x, *operands)
        out.backward(_direction(out.shape, 0, out))
    assert x.grad is not None
    worst = 0.0
    lost = 2 if weight else 0  # rows that a crop has fewer
    boundary = (limit // inner - MARGIN) // 4 * 4
    for start in sorted({0, boundary, (rows - KEPT - 2 * MARGIN) // 4 * 4}):
        stop = min(start + KEPT + 2 * MARGIN, rows)
        crop = x.detach()[:, :, start:stop].cpu().double().requires_grad_()
        part = function(crop, *(o.cpu().double() for o in operands))
        place = start // down
        got = out.detach()[:, :, place : place + part.shape[2]]
        part.backward(_direction(out.shape, place, part))
        assert crop.grad is not None
        worst = max(worst, error(got, part.detach()))
        # Rows at the ends of a crop also belong to outputs outside it.
        low, high = (0 if start == 0 else lost), stop - start - (0 if stop == rows else lost)
        worst = max(worst, error(x.grad[:, :, start:stop][:, :, low:high], crop.grad[:, :, low:high]))
    if not worst <= TOLERANCE:
        raise Mismatch(f"off by {worst:.3g}", {"error": worst})
    return {"entries": x.numel(), "error": worst}


def _direction(shape: tuple[int, ...], start: int, like: Tensor) -> Tensor:
    """A number for each row of an output, from row ``start`` on."""
    rows = (torch.arange(start, start + like.shape[2], device=like.device) % 7 - 3).to(like.dtype)
    return rows.view(-1, *(1,) * (like.ndim - 3)).expand(like.shape).contiguous()
