"""Metrics on the device, whatever there are, against the CPU."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dynunet import metrics as every
from dynunet import summarize

from .calls import random
from .compare import Mismatch, error
from .rows import Row, Setting, need

SIZES = {1: (40,), 2: (9, 8), 3: (7, 6, 8), 4: (6, 7, 6, 6)}
ALLOWED = 1e-6
NEEDS = {
    "snr": "torchmetrics",
    "si_sdr": "torchmetrics",
    "psnr": "torchmetrics",
    "hausdorff_distance": "scipy",
    "average_surface_distance": "scipy",
}


def calls(n: int) -> dict[str, Callable[[Callable[..., Any]], Any]]:
    """A call of every metric, of a function that places tensors."""
    shape = 2, 2, *SIZES[n]
    a, b = random(*shape), random(*shape) + 0.3 * random(*shape[::-1]).movedim(-1, 0).reshape(shape)
    many = torch.stack([b + random(*shape).roll(i, 0) for i in range(1, 20)])
    mask = random(2, 1, *SIZES[n]) > -1
    labels, others = (((x.abs() * 10).long() % 3)[:, 0] for x in (a, b))
    at = mask[:, 0]

    def of_data(name: str, **more: Any) -> Callable[[Callable[..., Any]], Any]:
        return lambda to: getattr(every, name)(to(a), to(b), mask=to(mask), **more)

    def of_labels(name: str, masked: bool = True) -> Callable[[Callable[..., Any]], Any]:
        more = {"mask": at} if masked else {}
        return lambda to: getattr(every, name)(
            to(labels), to(others), 3, **{key: to(value) for key, value in more.items()}
        )

    found = {name: of_data(name) for name in ("snr", "si_sdr", "psnr")}
    found |= {name: of_labels(name) for name in ("dice", "iou", "sensitivity", "specificity")}
    found |= {name: of_labels(name, False) for name in ("hausdorff_distance", "average_surface_distance")}
    return found | {
        "ssim": of_data("ssim", sigma=0.8),
        "confusion_matrix": of_labels("confusion_matrix"),
        "frechet_distance": lambda to: torch.tensor(
            every.frechet_distance(to(random(50, 4)), to(random(60, 4)))
        ),
        "crps": lambda to: every.crps(to(many), to(a), to(mask)),
        "spread_skill": lambda to: every.spread_skill(to(many), to(a), to(mask)),
        "coverage": lambda to: every.coverage(to(a) - 1, to(a) + 1, to(b), to(mask)),
        "rank_histogram": lambda to: every.rank_histogram(
            to(many), to(a), to(mask), torch.Generator().manual_seed(0)
        ),
        "summarize": lambda to: summarize(to(many), 0.9),
    }


def metrics(setting: Setting) -> list[Row]:
    def run(n: int, name: str) -> dict[str, float]:
        if name in NEEDS:
            need(NEEDS[name])
        call = calls(n)[name]
        expected, got = (call(lambda x, device=device: x.to(device)) for device in ("cpu", setting.device))
        pairs = [(got, expected)] if isinstance(expected, Tensor) else list(zip(got, expected, strict=True))
        worst = max(error(a, b) for a, b in pairs)
        if not worst <= ALLOWED:
            raise Mismatch(f"off by {worst:.3g}", {"float64": worst})
        return {"float64": worst}

    return [
        Row(f"{name} {n}-D", lambda n=n, name=name: run(n, name))
        for n in ((2,) if setting.quick else (1, 2, 3, 4))
        for name in calls(n)
    ]
