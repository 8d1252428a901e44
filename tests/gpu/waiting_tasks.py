"""No step of what is done with a model waits for the device: learning, restoring, answering, streaming.

``pigdm`` is left out: it looks after every eighth iteration of its solver whether all samples are done.
"""

from collections.abc import Callable
from typing import Any
from unittest import mock

import torch

from dynunet import Diffusion, SpectralMask, Stream, UNet
from dynunet.diffusion import APG, Consistency
from dynunet.diffusion.bridges import BRIDGES
from dynunet.diffusion.losses import ERRORS
from dynunet.diffusion.posterior import METHODS
from dynunet.supervised import CLASS_LOSSES
from tests.dynunet.measurements import SIZES, operators

from . import lessons
from .rows import Row, Setting
from .training import QUIET
from .waiting import of_second_step, of_step, of_trainer
from .watching import Waits, told, watched


def tasks(setting: Setting) -> list[Row]:
    rows: list[Row] = []
    for dtype in ("bf16",) if setting.quick else ("bf16", "float32"):
        every = [*_losses(setting, dtype), *_samples(setting, dtype), *_pushes(setting, dtype)]
        rows += [Row(f"{name} {dtype}", run) for name, run in every[:: 4 if setting.quick else 1]]
    if setting.quick:
        return [*rows, Row("step of the trainer", lambda: _trained(setting, "segmentation, augmented"))]
    for name in ("segmentation, augmented", "regression, l2", "masks of spectra", "bridge", "noise2void"):
        rows.append(Row(f"step of the trainer, {name}", lambda name=name: _trained(setting, name)))
    return rows


Named = list[tuple[str, Callable[[], dict[str, Any]]]]


def _losses(setting: Setting, dtype: str) -> Named:
    """Steps of training as one writes them, with all operands on the device."""
    n, rows = 2, list[tuple[str, Callable[[], dict[str, Any]]]]()

    def row(name: str, made: Callable[[], Any], items: list[dict[str, Any]], **given: Any) -> None:
        def run() -> dict[str, Any]:
            model = made().to(setting.device)
            batch = {key: torch.stack([item[key] for item in items[:4]]) for key in items[0]}
            batch = {key: value.to(setting.device) for key, value in batch.items()}
            return of_step(setting, model, lambda: model.loss(**batch, **given), dtype)

        rows.append((f"training {name}", run))

    make = lessons.supervised
    for loss in CLASS_LOSSES:
        options: dict[str, Any] = {"loss": loss, "ignore_index": 1}
        options |= {"class_weights": (1, 2, 3)} if loss == "ce" else {}
        row(f"segmentation, {loss}", lambda o=options: make(n, **o), lessons.examples(n))
    for loss in ERRORS:
        row(
            f"regression, {loss}",
            lambda o=loss: make(n, "regression", loss=o),
            lessons.examples(n, "regression"),
        )
    several = lessons.examples(n, multilabel=True)
    row("several labels", lambda: make(n, multilabel=True), several)
    row("deep supervision", lambda: make(n, network={"deep_supervision": 1}), lessons.examples(n))
    row("classification", lambda: make(n, "classification"), lessons.examples(n, "classification"))
    row("masks of spectra", lambda: lessons.masks(n), lessons.restoring(n), loss="l1+stft")
    for name in BRIDGES:
        row(name, _bridge(n, name), lessons.restoring(n))
    images = [{"x0": item["x0"]} for item in lessons.restoring(n)]
    row("consistency", lambda: Consistency.of(lessons.diffusion(n), 2), images, progress=0.5)
    for norm in ("group", "layer"):
        row(f"causal, {norm}", lambda norm=norm: Diffusion(_causal(n, norm)), images)
    return rows


def _bridge(n: int, name: str) -> Callable[[], Diffusion]:
    return lambda: lessons.diffusion(n, name, 1, prediction="sample")


def _causal(n: int, norm: str, **options: Any) -> UNet:
    network = {**lessons.SMALL, "norm": norm, "attention": (None, "window"), "num_heads": 2}
    return UNet(n, 1, causal=[axis == n - 1 for axis in range(n)], time_embedding=True, **network, **options)


def _samples(setting: Setting, dtype: str) -> Named:
    """Steps of sampling; operators are made on the CPU, as their users make them."""
    n, rows = 2, list[tuple[str, Callable[[], dict[str, Any]]]]()
    x = torch.stack([item["cond"] for item in lessons.restoring(n)[:2]]).to(setting.device)
    own = torch.bfloat16 if dtype == "bf16" else torch.float32

    def placed(model: Diffusion) -> Diffusion:
        return model.to(setting.device, own)

    def row(name: str, model: Callable[[], Diffusion], **given: Any) -> None:
        def run() -> dict[str, Any]:
            made = placed(model())
            how: dict[str, Any] = {"progress": False, **given}
            return of_second_step(setting, lambda after: made.sample(x.shape, 4, callback=after, **how))

        rows.append((f"sampling {name}", run))

    def plain() -> Diffusion:
        return lessons.diffusion(n)

    for name in BRIDGES:
        for sampler in ("ddpm", "heun"):
            row(f"{name}, {sampler}", _bridge(n, name), cond=x, sampler=sampler)
    weaker = placed(lessons.diffusion(n, "edm"))
    row("guided by a weaker model", plain, guide=weaker, guidance_projection=APG(max_norm=0.5))
    row("consistency", lambda: Consistency.of(plain(), 2))
    truth = 0.5 * torch.randn(2, 1, *SIZES[:n], generator=torch.Generator().manual_seed(0))
    for method in (name for name in METHODS if name != "pigdm"):
        for kind, operator in operators(n).items():
            if method == "repaint" and kind != "mask":
                continue
            how: dict[str, Any] = {
                "method": method,
                "shape": truth.shape,
                "progress": False,
                "num_samples": 2,
            }
            how |= {} if method == "repaint" else {"noise_std": 0.1}

            def run(operator: Any = operator, how: dict[str, Any] = how) -> dict[str, Any]:
                made, y = placed(plain()), operator(truth).to(setting.device)
                return of_second_step(
                    setting, lambda after: made.reconstruct(y, operator, steps=4, callback=after, **how)
                )

            rows.append((f"{method}, {kind}", run))
    return rows


def _pushes(setting: Setting, dtype: str) -> Named:
    """A push into a stream, once there is something to remember."""
    own = torch.bfloat16 if dtype == "bf16" else torch.float32

    def run(model: Any, timed: bool) -> dict[str, Any]:
        torch.manual_seed(0)
        stream = Stream(model.to(setting.device, own).eval())
        part = torch.randn(2, 1, 40).to(setting.device, own)
        given = {"t": torch.ones(2, device=setting.device)} if timed else {}
        stream(part, **given)

        def push(mode: str, waits: Waits) -> None:
            with watched(setting, mode, waits):
                stream(part, **given)

        return told(setting, push)

    rows: Named = [
        (f"push, {norm}, {ahead} ahead", lambda norm=norm, a=ahead: run(_causal(1, norm, lookahead=a), True))
        for norm in ("group", "layer", "rms", "batch")
        for ahead in (0, 5)
    ]
    masks: dict[str, Any] = {"causal": True, "norm": "layer", **lessons.SMALL}
    return [*rows, ("push, masks of spectra", lambda: run(SpectralMask(UNet(1, 9, **masks), 16), False))]


def _trained(setting: Setting, name: str) -> dict[str, Any]:
    fit = lessons.lessons(2)[name]
    how: dict[str, Any] = {**QUIET, "batch_size": 4, "log_every": 100, "cpu": not setting.gpu}

    def run(folder: Any) -> None:
        with mock.patch("dynunet.plotting.loss_curve"):
            fit(folder, **how)

    return of_trainer(setting, run)
