"""convnd on the device against the CPU in float64."""

import importlib
from dataclasses import replace
from itertools import islice
from typing import Any

import torch

import convnd
import convnd.functional as F
from tests.convnd.planning import ALGORITHMS

from . import calls
from .calls import RANKS, STRATEGIES, drawn, of_case
from .compare import BF16, FLOAT32, Call, Mismatch, Precision, check, precisions
from .rows import Row, Setting, need


def functions(setting: Setting) -> list[Row]:
    """Every function of :mod:`convnd.functional`, and its results of an empty batch."""

    def run(n: int, name: str) -> dict[str, Any]:
        found = calls.functions(n)[name]
        figures = check(found[:2] if setting.quick else found, setting, layouts=not setting.quick)
        return {**figures, "empty": _empty(found, setting)}

    return [
        Row(f"{name} {n}-D", lambda n=n, name=name: run(n, name))
        for name in F.__all__
        for n in _ranks(setting)
    ]


def _ranks(setting: Setting) -> tuple[int, ...]:
    return (2, 4) if setting.quick else RANKS


def _empty(found: list[Call], setting: Setting) -> int:
    """No sample: the shapes of the CPU, forward and backward."""
    wrong: list[str] = []
    count = 0
    for call in found:
        if call.constants or "affine_grid" in call.name:
            continue
        count += 1
        # The first operand has the batch, and so has a grid.
        last = 2 if "grid_sample" in call.name else 1
        empty = replace(call, tensors=[x[:0] if i < last else x for i, x in enumerate(call.tensors)])
        expected = {name: tuple(x.shape) for name, x in empty.results().items()}
        try:
            got = {
                name: tuple(x.shape) for name, x in empty.at(setting.device, torch.float32).results().items()
            }
        except RuntimeError as error:
            wrong.append(f"{call.name}: {error}".splitlines()[0])
            continue
        if got != expected:
            wrong.append(f"{call.name}: shapes {got}, not {expected}")
    if wrong:
        raise Mismatch("\n".join(["without a sample", *wrong[:4]]), {"empty": count, "wrong": wrong})
    return count


def operators(setting: Setting) -> list[Row]:
    """Calls drawn by the strategies of :mod:`convnd.testing`, with whatever arguments there are."""
    count = 2 if setting.quick else 12

    def run(n: int, name: str) -> dict[str, Any]:
        cases = drawn(STRATEGIES[name](dims=(n,)), count)
        return check(map(of_case, cases), setting, layouts=not setting.quick)

    ranks = (1, 3, 5) if setting.quick else RANKS
    return [
        Row(f"{name} {n}-D, drawn", lambda n=n, name=name: run(n, name)) for name in STRATEGIES for n in ranks
    ]


def modules(setting: Setting) -> list[Row]:
    def run(n: int, name: str) -> dict[str, Any]:
        return check(calls.modules(n)[name], setting, layouts=False)

    def dropout(n: int) -> dict[str, Any]:
        x = torch.ones(64, 32, *calls.SIZES[n], device=setting.device)
        out = convnd.DropoutNd(n, 0.25)(x).flatten(2)
        if not bool((out == out[..., :1]).all()):
            raise Mismatch("channels are not dropped as wholes", {})
        share = (out[..., 0] == 0).float().mean().item()
        if not 0.2 < share < 0.3:
            raise Mismatch("a quarter of the channels should be dropped", {"dropped": share})
        return {"dropped": share}

    names = [name for name in convnd.__all__ if name.endswith("Nd")]
    rows = [
        Row(f"{name} {n}-D", lambda n=n, name=name: run(n, name)) for name in names for n in _ranks(setting)
    ]
    return rows + [Row(f"DropoutNd {n}-D in training", lambda n=n: dropout(n)) for n in _ranks(setting)]


def algorithms(setting: Setting) -> list[Row]:
    """Every algorithm of convolution where it applies, forward and both gradients."""
    chosen = (FLOAT32, BF16) if setting.quick else precisions(setting)

    def run(n: int, name: str) -> dict[str, Any]:
        cases = drawn(calls.conv_cases(dims=(n,)), 2 if setting.quick else 8)
        cases += drawn(calls.conv_transpose_cases(dims=(n,)), 1 if setting.quick else 4)
        x, w = calls.random(1, 8, *calls.SIZES[n]), calls.random(8, 8, *(3,) * n)
        found = [*map(of_case, cases), Call(f"{n}-D 8->8 k3", lambda x, w: F.conv(x, w, padding=1), [x, w])]
        applied = [call for call in found if _applies(call, name)]
        if not applied:
            return {"cases": 0}
        forced = [replace(c, name=f"{name}: {c.name}", function=_forced(name, c.function)) for c in applied]
        return check(forced, setting, _loosened(name, chosen), layouts=False)

    names = [a for a in ALGORITHMS if a != "onednn"]
    ranks = (4,) if setting.quick else RANKS
    return [Row(f"{name} {n}-D", lambda n=n, name=name: run(n, name)) for n in ranks for name in names]


def _applies(call: Call, name: str) -> bool:
    try:
        with convnd.algorithm(name):
            call.function(*call.tensors)
    except ValueError as reason:
        if "does not apply" in str(reason):
            return False
        raise
    return True


def _forced(name: str, function: Any) -> Any:
    def run(*tensors: torch.Tensor) -> Any:
        with convnd.algorithm(name):
            return function(*tensors)

    return run


def _loosened(name: str, chosen: tuple[Precision, ...]) -> tuple[Precision, ...]:
    """Filters of Winograd are sums that are rounded before they are multiplied."""
    return chosen if name != "winograd" else tuple(p for p in chosen if p.dtype.itemsize > 2 and not p.tf32)


OF_NETWORKS = ("conv", "conv_transpose", "max_pool", "avg_pool", "interpolate", "pad")


def deterministic(setting: Setting) -> list[Row]:
    """With ``torch.use_deterministic_algorithms``, the same bits twice; torch's refusals are told."""

    def run(n: int, name: str) -> dict[str, Any]:
        figures: dict[str, Any] = {"same": 0, "refused": 0}
        torch.use_deterministic_algorithms(True)
        try:
            for call in calls.functions(n)[name]:
                placed = call.at(setting.device, torch.float32)
                try:
                    first, second = placed.results(), placed.results()
                except RuntimeError as reason:
                    if "deterministic" not in str(reason):
                        raise
                    figures |= {"refused": figures["refused"] + 1, "reason": str(reason).split(".")[0]}
                    continue
                if any(not torch.equal(first[key], second[key]) for key in first):
                    raise Mismatch(f"{call.name}: other bits the second time", figures)
                figures["same"] += 1
        finally:
            torch.use_deterministic_algorithms(False)
        if n > 3 and name in OF_NETWORKS and figures["refused"]:
            raise Mismatch(f"{name}: {figures['reason']}", figures)
        return figures

    ranks = (4,) if setting.quick else RANKS
    names = OF_NETWORKS if setting.quick else F.__all__
    return [Row(f"{name} {n}-D", lambda n=n, name=name: run(n, name)) for name in names for n in ranks]


def conformance(setting: Setting) -> list[Row]:
    """torch's own sample inputs and modules in float64, on the device by torch and by convnd."""

    def run(what: str, **given: Any) -> dict[str, Any]:
        need("expecttest")  # which torch's collection of samples imports
        conforming = importlib.import_module(f"tests.convnd.conformance.{what}")
        make = conforming.modules if what == "moduleinfo" else conforming.samples
        wrong: list[str] = []
        count = 0
        for name, test in islice(make(device=setting.device, **given), 0, None, 200 if setting.quick else 1):
            count += 1
            try:
                test()
            except Exception as error:
                wrong.append(f"{name}: {type(error).__name__}: {str(error).strip().splitlines()[0][:150]}")
        figures = {"cases": count, "wrong": len(wrong), "which": wrong[:50]}
        if wrong:
            raise Mismatch("\n".join([f"{len(wrong)} of {count}", *wrong[:4]]), figures)
        return figures

    rows = [
        Row("torch's samples, own rank", lambda: run("opinfo", ranks=(0,)), 150),
        Row("torch's samples, lifted to 4 axes", lambda: run("opinfo", ranks=(4,)), 200),
        Row("torch's modules", lambda: run("moduleinfo"), 150),
    ]
    return rows[: 1 if setting.quick else None]
