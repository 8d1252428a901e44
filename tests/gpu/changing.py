"""Random changes of examples that are on the device, as of those on the CPU."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from dynunet.data.self_supervision import blinded, recorrupted
from tests.dynunet.test_augmentation import everything, example

from .calls import random
from .compare import Mismatch, error
from .rows import Row, Setting
from .training import SIZES

ALLOWED = 1e-4
Place = Callable[[Tensor], Tensor]


def changes(setting: Setting) -> list[Row]:
    """Augmentation by every change there is, and pairs made of one noisy example."""

    def row(name: str, make: Callable[[int, Place], Mapping[str, Tensor]]) -> None:
        for n in (2,) if setting.quick else (1, 2, 3, 4):
            rows.append(Row(f"{n}-D {name}", lambda n=n: _same(setting, lambda to: make(n, to))))

    def augmented(n: int, to: Place, **options: Any) -> Mapping[str, Tensor]:
        change = everything(n, probability=1, **options)
        return change({key: to(value) for key, value in example(SIZES[n]).items()})

    def in_pairs(n: int, to: Place) -> Mapping[str, Tensor]:
        x = random(2, *SIZES[n])
        x0, cond = recorrupted(to(x), to(0.1 * x.flip(1)))
        return {"x0": x0, "cond": cond}

    def hidden(n: int, to: Place) -> Mapping[str, Tensor]:
        x = random(2, *SIZES[n])
        cond, mask = blinded(to(x), there=to((x > -1.5).any(0, keepdim=True).expand(x.shape)))
        return {"cond": cond, "mask": mask}

    rows: list[Row] = []
    for padding in ("reflection", "missing"):
        row(f"augmented, {padding}", lambda n, to, p=padding: augmented(n, to, padding=p))
    row("augmented, nearest labels", lambda n, to: augmented(n, to, labels="nearest"))
    row("recorrupted", in_pairs)
    row("blinded", hidden)
    return rows


def _same(setting: Setting, make: Callable[[Place], Mapping[str, Tensor]]) -> dict[str, float]:
    """With the same random numbers."""
    found = []
    for device in ("cpu", setting.device):
        torch.manual_seed(1)
        found.append(make(lambda x, device=device: x.to(device)))
    expected, got = found
    off = {name: error(got[name].double(), expected[name].double()) for name in expected}
    elsewhere = [k for k, v in got.items() if v.device.type != torch.device(setting.device).type]
    if elsewhere or not max(off.values()) <= ALLOWED:
        raise Mismatch(f"elsewhere {elsewhere}, off by {off}", off)
    return off
