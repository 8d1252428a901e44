"""Diffusion on the device against the CPU: loss, samplers, guidance, restoration, windows.

Generators are on the CPU, so that both draw the same numbers; both run in float64 (then in float32 too).
"""

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from dynunet import Diffusion
from dynunet.diffusion import APG, Consistency
from dynunet.diffusion.predictions import PREDICTIONS
from dynunet.diffusion.samplers import SAMPLERS
from dynunet.diffusion.schedules import SCHEDULES
from dynunet.operators import Mask

from .calls import random
from .compare import Mismatch, error, tf32
from .networks import SIZES, small
from .rows import Row, Setting, need

ALLOWED = {torch.float64: 1e-6, torch.float32: 5e-3}
Run = Callable[[Any, Callable[[Any], Any]], Mapping[str, Tensor] | Tensor]


def model(n: int, **options: Any) -> Diffusion:
    """A small one with labels, in float64 on the CPU."""
    network = small(n, outputs=2, attention=(None, "full"), time_embedding=True, num_classes=3)
    return Diffusion(network, **options).double()


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def compared(
    made: Any, run: Run, setting: Setting, precisions: Mapping[torch.dtype, float] = ALLOWED
) -> dict[str, float]:
    """``run(model, to)`` on both; ``to`` places a tensor."""
    figures: dict[str, float] = {}
    for dtype, allowed in precisions.items():
        found = []
        for device in ("cpu", setting.device):

            def to(x: Any, device: str = device, dtype: torch.dtype = dtype) -> Any:
                return x.to(device, dtype if x.is_floating_point() else None)

            placed = copy.deepcopy(made).to(device, dtype)
            with tf32(False):
                result = run(placed, to)
            found.append({"": result} if isinstance(result, Tensor) else result)
        expected, got = found
        name = str(dtype).removeprefix("torch.")
        figures[name] = max(error(got[k], expected[k]) for k in expected)
        if not figures[name] <= allowed:
            raise Mismatch(f"{name}: off by {figures[name]:.3g}, allowed {allowed}", figures)
    return figures


def _labels() -> Tensor:
    return torch.tensor([1, 2])


def _losses(made: Diffusion, to: Callable[[Any], Any], n: int, **given: Any) -> dict[str, Tensor]:
    x0 = random(2, 2, *SIZES[n], low=-1.0, high=1.0)
    given = {k: to(v) if isinstance(v, Tensor) else v for k, v in given.items()}
    loss = made.loss(to(x0), class_labels=to(_labels()), generator=generator(), **given)
    loss.backward()
    first = next(p for p in made.parameters() if p.grad is not None)
    length = torch.stack([p.grad.norm() for p in made.parameters() if p.grad is not None]).norm()
    assert first.grad is not None
    return {"loss": loss.detach(), "first gradient": first.grad, "length": length}


def diffusion(setting: Setting) -> list[Row]:
    rows: list[Row] = []

    def row(name: str, n: int, run: Callable[..., Any], **options: Any) -> None:
        rows.append(
            Row(f"{name} {n}-D", lambda: compared(model(n, **options), lambda m, to: run(m, to, n), setting))
        )

    def sampled(made: Diffusion, to: Callable[[Any], Any], n: int, **given: Any) -> Tensor:
        return made.sample(
            (2, 2, *SIZES[n]),
            **{
                "steps": 3,
                "generator": generator(),
                "progress": False,
                "class_labels": to(_labels()),
                **given,
            },
        )

    def led(made: Diffusion, to: Callable[[Any], Any], n: int, weaker: Diffusion) -> Tensor:
        weaker = copy.deepcopy(weaker).to(next(made.parameters()))
        return sampled(made, to, n, guide=weaker, guide_scale=2.0)

    ranks = (2,) if setting.quick else (1, 2, 3, 4)
    for n in ranks:
        seen = torch.arange(torch.Size(SIZES[n]).numel()).reshape(SIZES[n]).remainder(3) > 0
        row("loss", n, _losses)
        row(
            "loss with mask",
            n,
            lambda m, to, n, seen=seen: _losses(m, to, n, mask=seen.expand(2, 1, *SIZES[n])),
        )
        row("sample", n, sampled)
        row("sample guided", n, lambda m, to, n: sampled(m, to, n, guidance_scale=2.0, guidance_rescale=0.5))
        row("inpaint", n, lambda m, to, n, seen=seen: _inpainted(m, to, n, seen))
        row("data on the CPU", n, _elsewhere)
        row("windows", n, lambda m, to, n: sampled(m, to, n, window=4, overlap=2))
    n = ranks[-1] if setting.quick else 3
    for name in SAMPLERS:
        row(f"sampler {name}", n, lambda m, to, n, name=name: sampled(m, to, n, sampler=name))
    for name in list(PREDICTIONS)[:: 4 if setting.quick else 1]:
        row(f"prediction {name}", n, _losses, prediction=name)
    for name in list(SCHEDULES)[:: 4 if setting.quick else 1]:
        row(
            f"schedule {name}",
            n,
            lambda m, to, n: {**_losses(m, to, n), "x": sampled(m, to, n)},
            schedule=name,
        )
    for name in ("snr", "min_snr", "edm"):
        row(f"weighting {name}", n, _losses, loss_weighting=name)
    for name in ("l1", "huber"):
        row(f"loss {name}", n, lambda m, to, n, name=name: _losses(m, to, n, loss=name))
    for clip in (1.0, "dynamic"):
        row(f"clip {clip}", n, lambda m, to, n, clip=clip: sampled(m, to, n, clip=clip))
    for spacing in ("trailing", "karras", "log_snr"):
        row(f"spacing {spacing}", n, lambda m, to, n, s=spacing: sampled(m, to, n, spacing=s))
    y = random(2, 2, *SIZES[n], low=-1.0, high=1.0)
    options: dict[str, Any] = {"steps": 2, "progress": False}
    row("denoise", n, lambda m, to, n: m.denoise(to(y), 0.3, generator=generator(), **options))
    row("sdedit", n, lambda m, to, n: m.sdedit(to(y), 0.5, generator=generator(), **options))
    apg = APG(max_norm=0.5)
    row(
        "projected guidance", n, lambda m, to, n: sampled(m, to, n, guidance_scale=2, guidance_projection=apg)
    )
    for schedule in ("cosine", "edm"):
        weaker = model(n, schedule=schedule)  # with the noise levels of another schedule
        row(f"guided by a weaker model, {schedule}", n, lambda m, to, n, w=weaker: led(m, to, n, w))
    for with_ in ("teacher", "data"):
        rows.append(
            Row(
                f"consistency tuning by {with_} {n}-D",
                lambda w=with_: compared(tuned(n, w), of_tuned, setting),
            )
        )
    rows.append(Row("scheduler of diffusers", lambda: _scheduler(setting, n, sampled)))
    return rows


def _elsewhere(made: Diffusion, to: Callable[[Any], Any], n: int) -> Tensor:
    """Data stay where they are, wherever the network is."""
    y = random(2, 2, *SIZES[n], low=-1.0, high=1.0).to(next(made.parameters()).dtype)
    known = torch.arange(y[:1, :1].numel()).view(1, 1, *SIZES[n]).remainder(2) == 0
    given: dict[str, Any] = {"steps": 2, "class_labels": _labels(), "generator": generator()}
    out = made.reconstruct(y * known, Mask(known), 0.1, 2, progress=False, **given)
    if out.device != y.device:
        raise Mismatch(f"samples are on {out.device}, the data on {y.device}", {})
    return out


def tuned(n: int, by: str = "teacher") -> Consistency:
    """A model that is tuned to few steps, by a teacher with guidance or by the data."""
    teacher = model(n)
    student = Consistency.of(teacher, 2, guidance_scale=1.5)
    if by == "data":
        student.teacher = None
    return student


def of_tuned(made: Consistency, to: Callable[[Any], Any]) -> dict[str, Tensor]:
    """A loss half-way in the tuning, its gradient, and samples."""
    network: Any = made.model
    n = network.spatial_dims
    found = _losses(made, to, n, progress=0.5)
    how: dict[str, Any] = {"generator": generator(), "progress": False, "class_labels": to(_labels())}
    return {**found, "x": made.sample((2, 2, *SIZES[n]), **how)}


def _scheduler(setting: Setting, n: int, sampled: Callable[..., Tensor]) -> dict[str, float]:
    need("diffusers")
    from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler

    def run(m: Diffusion, to: Callable[[Any], Any]) -> Tensor:
        return sampled(m, to, n, sampler=DPMSolverMultistepScheduler(prediction_type="v_prediction"))

    return compared(model(n), run, setting)


def _inpainted(made: Diffusion, to: Callable[[Any], Any], n: int, seen: Tensor) -> Tensor:
    y, seen = to(random(2, 2, *SIZES[n], low=-1.0, high=1.0)), to(seen)
    out = made.inpaint(
        y, seen.expand(2, 1, *SIZES[n]), 2, resamplings=2, generator=generator(), progress=False
    )
    if not torch.equal(out.where(seen, 0), y.where(seen, 0)):
        raise Mismatch("what is known has changed", {})
    return out
