"""Measurements and what they were made of: operators, posterior sampling and likelihoods on the device.

Operators are made on the CPU, as their users make them, and measure data on the device.
"""

from collections.abc import Callable
from itertools import product
from typing import Any

import torch
from torch import Tensor

from dynunet import Diffusion, UNet
from dynunet.diffusion.posterior import METHODS
from dynunet.diffusion.samplers import SAMPLERS
from dynunet.operators import Operator
from tests.dynunet.measurements import SIZES
from tests.dynunet.measurements import operators as every
from tests.dynunet.test_filters import ARITHMETIC, RANKS, drawn_values, several
from tests.dynunet.test_operators import LINEAR, OTHERS, Case, cases, composed
from tests.dynunet.test_unet import filled

from .calls import drawn, random
from .compare import Mismatch, error, tf32
from .diffusing import compared, generator
from .rows import Row, Setting

EXACT = {torch.float64: 1e-8}  # what is solved stops where it is near enough, which rounding may decide
PROMISED = 1e-9  # what a projection may leave of the residual, relative to the measurement
SLACK = 1.1  # for the rounding of a hundred steps
MEASURED = {torch.float64: 1e-12, torch.float32: 1e-5}
WITH_GRADIENTS = [name for name in METHODS if name != "repaint"]


def posteriors(setting: Setting) -> list[Row]:
    found = posterior(setting)
    return [
        *operators(setting),
        *arithmetic(setting),
        *found[:: 4 if setting.quick else 1],
        *likelihood(setting),
    ]


def operators(setting: Setting) -> list[Row]:
    """Operators that the tests draw, against NumPy; their adjoints and projections against the CPU."""
    count = 2 if setting.quick else 6
    return [
        Row(
            f"operator {kind}",
            lambda kind=kind: _measured(setting, drawn(cases((kind,)), count), kind in LINEAR),
        )
        for kind in LINEAR + OTHERS
    ]


def _measured(setting: Setting, found: list[Case], linear: bool) -> dict[str, Any]:
    figures: dict[str, Any] = {"cases": len(found)}
    for case in [*found, *map(composed, found)]:
        expected, operator = torch.from_numpy(case.oracle(case.x).copy()), case.operator
        for dtype, allowed in MEASURED.items():
            x = case.data.to(setting.device, dtype)
            y = operator(x)
            errors = [error(y, expected)]
            if y.dtype != dtype or y.device != x.device:
                raise Mismatch(f"{operator} gives {y.dtype} on {y.device}", figures)
            if linear and dtype == torch.float64:
                back = operator.adjoint(y, x.shape)
                errors.append(error(back, operator.adjoint(expected, x.shape)))
                figures["projection"] = max(figures.get("projection", 0.0), _projected(case, expected, y))
            name = str(dtype).removeprefix("torch.")
            figures[name] = max(figures.get(name, 0.0), *errors)
            if not figures[name] <= allowed:
                raise Mismatch(f"{operator} in {name}: off by {errors}, allowed {allowed}", figures)
    return figures


def arithmetic(setting: Setting) -> list[Row]:
    """What networks are not part of keeps its digits where their products are rounded."""
    rounding: dict[str, Callable[[], Any]] = {
        "tf32": lambda: tf32(True),
        "autocast": lambda: torch.autocast(setting.device, torch.bfloat16),
    }

    allowed = MEASURED[torch.float32]

    def run(function: Any) -> dict[str, Any]:
        figures: dict[str, Any] = {}
        for n, (name, rounded) in product(RANKS, rounding.items()):
            x = drawn_values(n)
            with rounded():
                got = several(function(x.to(setting.device, copy=True).requires_grad_()))
            expected = several(function(x.double().requires_grad_()))
            errors = [error(a.detach(), b.detach()) for a, b in zip(got, expected, strict=True)]
            figures[name] = max(figures.get(name, 0.0), *errors)
            if not figures[name] <= allowed:
                raise Mismatch(f"{n}-D under {name}: off by {errors}, allowed {allowed}", figures)
        return figures

    return [Row(f"arithmetic, {kind}", lambda f=function: run(f)) for kind, function in ARITHMETIC.items()]


def _projected(case: Case, expected: Tensor, y: Tensor) -> float:
    """How far a projection is from its measurement, beside what is allowed: what is promised, and on the CPU.

    It is solved in steps to a tolerance. Where the operator nearly loses something, all steps are taken
    without reaching it, and rounding decides about what is nearly lost: so projections are not compared.
    """
    operator, known = case.operator, torch.ones_like(y, dtype=torch.bool)
    nothing = torch.zeros_like(case.data)
    kept = operator.project(nothing.to(y.device), y, known, PROMISED).cpu()
    on_cpu = operator.project(nothing, expected, known.cpu(), PROMISED)
    left, allowed = (float((operator(x) - expected).norm()) for x in (kept, on_cpu))
    allowed = max(allowed, PROMISED * float(expected.norm()))
    if not left <= SLACK * allowed + 1e-12:
        raise Mismatch(f"projection by {operator}: {left:g} from the measurement, {allowed:g} allowed", {})
    return left / allowed if allowed else 0.0


def model(n: int, **options: Any) -> Diffusion:
    """A small one, whose estimates depend on its input, in float64 on the CPU."""
    torch.manual_seed(0)
    options = {"channels": (4, 6), "num_groups": 2, "num_blocks": 1, "time_embedding": True, **options}
    return Diffusion(filled(UNet(n, 1, **options))).double()


def posterior(setting: Setting) -> list[Row]:
    """Data that a measurement may have been made of, with the same noise as on the CPU."""
    ranks = (3,) if setting.quick else (1, 2, 3, 4)
    rows: list[Row] = []

    def row(name: str, n: int, run: Callable[[Diffusion, Any], Tensor], **options: Any) -> None:
        rows.append(Row(f"{n}-D {name}", lambda: compared(model(n, **options), run, setting, EXACT)))

    def reconstruct(n: int, operator: Operator, **given: Any) -> Callable[[Diffusion, Any], Tensor]:
        truth = 0.5 * random(2, 1, *SIZES[:n], low=-1.0, high=1.0)
        y = operator(truth)
        given = {"steps": 2, "num_samples": 2, "shape": truth.shape, "progress": False, **given}

        def run(made: Diffusion, to: Any) -> Tensor:
            more = {name: to(value) if isinstance(value, Tensor) else value for name, value in given.items()}
            return made.reconstruct(to(y), operator, generator=generator(), **more)

        return run

    for n in ranks:
        for i, (name, operator) in enumerate(every(n).items()):
            noise = (0.0, 0.1)[i % 2]
            row(f"mmps, {name}", n, reconstruct(n, operator, noise_std=noise))
    n = 2
    blur = every(n)["blur"]
    for name in WITH_GRADIENTS:
        for kind in ("mask", "both", "fourier"):
            row(f"{name}, {kind}", n, reconstruct(n, every(n)[kind], noise_std=0.1, method=name))
        for sampler in SAMPLERS if not setting.quick else ("heun",):
            row(f"{name}, {sampler}", n, reconstruct(n, blur, noise_std=0.1, method=name, sampler=sampler))
    row("repaint, mask", n, reconstruct(n, every(n)["mask"], method="repaint"))
    seen = random(1, 1, *SIZES[:n]) > 0
    row("mmps, some known", n, reconstruct(n, blur, noise_std=0.1, known=seen))
    level = 0.1 + random(1, 1, *SIZES[:n]).abs()
    row("mmps, other noise everywhere", n, reconstruct(n, blur, noise_std=level))
    row("mmps, windows", n, reconstruct(n, blur, noise_std=0.1, window=4, overlap=2))
    row("mmps, clipped", n, reconstruct(n, blur, noise_std=0.1, clip="dynamic"))
    labels: dict[str, Any] = {"class_labels": torch.tensor([0, 2]), "guidance_scale": 2.0}
    row("mmps, guided", n, reconstruct(n, blur, noise_std=0.1, **labels), num_classes=3)
    return rows


def likelihood(setting: Setting) -> list[Row]:
    """The log density, with an exact trace and with probes."""

    def run(made: Diffusion, to: Any, n: int, probes: int | None) -> dict[str, Tensor]:
        x = to(random(2, 1, *SIZES[:n], low=-1.0, high=1.0))
        how: dict[str, Any] = {"probes": probes, "generator": generator(), "progress": False}
        value, deviation = made.log_likelihood(x, 2, return_error=True, **how)
        return {"value": value, "error": deviation}

    ranks = (2,) if setting.quick else (1, 2, 3, 4)
    return [
        Row(
            f"{n}-D likelihood, {'exact' if probes is None else f'{probes} probes'}",
            lambda n=n, p=probes: compared(model(n), lambda m, to: run(m, to, n, p), setting, EXACT),
        )
        for n in ranks
        for probes in ((None, 4) if n < 3 and not setting.quick else (4,))
    ]
