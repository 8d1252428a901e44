"""Pooling beside torch; beyond three axes alone."""

import sys
from typing import Any

from torch import nn

import convnd.functional as F

from .harness import OURS, Case, Table, of
from .report import main

OVERLAPPING = {"kernel_size": 3, "stride": 1, "padding": 1}
APART = {"kernel_size": 2}


def _case(operator: str, shape: tuple[int, ...], **options: Any) -> Case:
    n = len(shape) - 2
    given = {"spatial_dims": n, **options}
    contenders = {OURS: of(getattr(F, operator), **given)}
    if n <= 3:
        contenders["torch"] = of(getattr(nn.functional, f"{operator}{n}d"), **options)
    words = {"kernel_size": "k", "stride": "s", "padding": "p", "output_size": "to "}
    details = [f"{word}{options[key]}" for key, word in words.items() if key in options]
    details += ["indices"] if options.get("return_indices") else []
    name = " ".join([f"{n}-D {operator}", *details, "x".join(map(str, shape))])
    return Case(name, [shape], contenders)


def tables() -> list[Table]:
    volume, image = (2, 16, 32, 32, 32), (32, 32, 32, 32)
    within = [
        _case("max_pool", volume, **OVERLAPPING),
        _case("max_pool", volume, **OVERLAPPING, return_indices=True),
        _case("max_pool", volume, **APART),
        _case("max_pool", volume, **APART, return_indices=True),
        _case("max_pool", image, **OVERLAPPING),
        _case("max_pool", image, **OVERLAPPING, return_indices=True),
        _case("max_pool", image, **APART),
        _case("avg_pool", volume, **OVERLAPPING),
        _case("avg_pool", volume, **APART),
        _case("avg_pool", image, **OVERLAPPING),
        _case("avg_pool", image, **APART),
        _case("adaptive_avg_pool", volume, output_size=5),
        _case("adaptive_max_pool", volume, output_size=5),
        _case("adaptive_avg_pool", image, output_size=7),
        _case("adaptive_max_pool", image, output_size=7),
    ]
    four = (1, 16, 12, 12, 12, 12)
    beyond = [
        *(_case(f"{kind}_pool", four, **how) for kind in ("max", "avg") for how in (OVERLAPPING, APART)),
        _case("max_pool", four, **OVERLAPPING, return_indices=True),
        *(_case(f"adaptive_{kind}_pool", four, output_size=5) for kind in ("max", "avg")),
    ]
    small = (1, 4, 8, 8)
    tiny = [
        *(_case(f"{kind}_pool", small, **how) for kind in ("max", "avg") for how in (OVERLAPPING, APART)),
        _case("adaptive_avg_pool", small, output_size=3),
        _case("max_pool", (1, 4, 8, 8, 8), **APART),
    ]
    return [
        Table("Two and three axes", within, mean_of=("torch",)),
        Table("Four axes", beyond, memory=True),
        Table("Tiny calls", tiny, tiny=True),
    ]


if __name__ == "__main__":
    sys.exit(main("tests.benchmarks.pool"))
