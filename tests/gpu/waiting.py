"""No step of training or sampling waits for the device, see :mod:`tests.gpu.watching`.

What is read back on purpose is outside the steps: the start of a call of ``sample``, rows of the log, the
scaler of float16. On the CPU the rows only prove that the steps run.
"""

import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from dynunet import Diffusion, UNet
from dynunet.diffusion.samplers import SAMPLERS

from .compare import Mismatch
from .rows import Row, Setting, need
from .training import data, trained
from .watching import Waits, told, watched


def steps(setting: Setting) -> list[Row]:
    rows: list[Row] = []

    def row(name: str, run: Callable[[], dict[str, Any]]) -> None:
        rows.append(Row(name, run))

    ranks = (4,) if setting.quick else (1, 2, 3, 4)
    for dtype in ("bf16",) if setting.quick else ("bf16", "float32"):
        for n in ranks:
            row(f"{n}-D training {dtype}", lambda n=n, d=dtype: _training(setting, n, d))
        for with_ in WITH:
            name = f"training {dtype}, {' and '.join(with_)}"
            row(name, lambda w=with_, d=dtype: _training(setting, 2, d, w))
        for optimizer in ("AdamW", "SGD"):
            row(
                f"training {dtype}, {optimizer}", lambda o=optimizer, d=dtype: _training(setting, 2, d, (), o)
            )
        for given in ATTENDING:
            label = ", ".join(f"{k}={v}" for k, v in given.items())
            row(
                f"training {dtype}, {label}",
                lambda g=given, d=dtype: _training(setting, 3, d, (), "AdamW", g),
            )
        row(f"step of the trainer {dtype}", lambda d=dtype: _trainer(setting, d))
        for n in ranks:
            row(f"{n}-D sampling {dtype}", lambda n=n, d=dtype: _sampling(setting, n, d))
        for sampler in SAMPLERS:
            row(
                f"sampling {dtype}, {sampler}", lambda s=sampler, d=dtype: _sampling(setting, 2, d, sampler=s)
            )
        for name, given in GUIDED.items():
            row(f"sampling {dtype}, {name}", lambda g=given, d=dtype: _sampling(setting, 2, d, **g))
        row(f"inpainting {dtype}", lambda d=dtype: _sampling(setting, 2, d, inpaint=True))
    return rows


WITH = (("mask",), ("labels",), ("mask", "labels"), ("context",), ("cond",), ("generator",))
GUIDED: dict[str, dict[str, Any]] = {
    "labels": {"labels": True},
    "guided": {"labels": True, "guidance_scale": 2.0},
    "guided, rescaled": {"labels": True, "guidance_scale": 2.0, "guidance_rescale": 0.5},
    "guided in an interval": {"labels": True, "guidance_scale": 2.0, "guidance_interval": (0.1, 10.0)},
    "clipped": {"clip": 1.0},
    "clipped dynamically": {"clip": "dynamic"},
    "in windows": {"window": 8, "overlap": 4},
}
ATTENDING: tuple[dict[str, Any], ...] = (
    {"attention": "window"},
    {"attention": "axial", "positions": "rotary"},
    {"attention": "linear", "upsample": "linear"},
    {"block": "convnext", "norm": "batch", "downsample": "max", "upsample": "transpose"},
    {"norm": "instance", "padding_mode": "circular", "gradient_checkpointing": True, "dropout": 0.1},
)


def _model(setting: Setting, n: int, with_: tuple[str, ...] = (), **options: Any) -> Diffusion:
    torch.manual_seed(0)
    options = {"attention": (None, "full"), "num_heads": 2, **options}
    options |= {"num_classes": 3} if "labels" in with_ else {}
    options |= {"context_features": 4} if "context" in with_ else {}
    options |= {"cond_channels": 1} if "cond" in with_ else {}
    network = UNet(n, 1, channels=(8, 16), num_groups=4, num_blocks=1, time_embedding=True, **options)
    return Diffusion(network).to(setting.device)


def _training(
    setting: Setting,
    n: int,
    dtype: str,
    with_: tuple[str, ...] = (),
    optimizer: str = "AdamW",
    options: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """A step as the examples have it: loss, backward, optimiser; all operands are on the device."""
    model, x0 = _model(setting, n, with_, **options or {}), data(n)[:4].to(setting.device)
    given: dict[str, Any] = {}
    if "mask" in with_:
        given["mask"] = x0 > -0.5
    if "labels" in with_:
        given["class_labels"] = torch.arange(4, device=setting.device) % 3
    if "context" in with_:
        given["context"] = torch.ones(4, 2, 4, device=setting.device)
    if "cond" in with_:
        given["cond"] = x0.clone()
    if "generator" in with_:
        given["generator"] = torch.Generator(setting.device).manual_seed(0)
    return of_step(setting, model, lambda: model.loss(x0, **given), dtype, optimizer)


def of_step(
    setting: Setting, model: nn.Module, loss: Callable[[], Tensor], dtype: str, optimizer: str = "AdamW"
) -> dict[str, Any]:
    """A step of training a model by a loss."""
    fused = {"fused": True} if optimizer == "AdamW" else {}
    optim = getattr(torch.optim, optimizer)(model.parameters(), lr=1e-4, **fused)

    def run(mode: str, waits: Waits) -> None:
        with watched(setting, mode, waits):
            with torch.autocast(setting.device, torch.bfloat16, enabled=dtype == "bf16"):
                value = loss()
            value.backward()
            optim.step()
            optim.zero_grad()

    return told(setting, run)


def _sampling(setting: Setting, n: int, dtype: str, **given: Any) -> dict[str, Any]:
    with_ = ("labels",) if given.pop("labels", False) else ()
    inpaint = given.pop("inpaint", False)
    model = _model(setting, n, with_).to(torch.bfloat16 if dtype == "bf16" else torch.float32)
    options: dict[str, Any] = {"steps": 4, "progress": False, **given}
    if with_:
        options["class_labels"] = torch.tensor([1, 2], device=setting.device)
    x = data(n)[:2].to(setting.device)

    def draw(callback: Callable[..., None]) -> None:
        if inpaint:
            model.inpaint(x, x > 0, callback=callback, resamplings=2, **options)
        else:
            model.sample(x.shape, callback=callback, **options)

    return of_second_step(setting, draw)


def of_second_step(setting: Setting, draw: Callable[[Callable[..., None]], Any]) -> dict[str, Any]:
    """The second step of sampling, from the callback after the first to that after the second."""

    def run(mode: str, waits: Waits) -> None:
        seen: list[int] = []
        with ExitStack() as inside:

            def after(step: int, *_: Any) -> None:
                seen.append(step)
                if step == 1 and mode != "default":
                    inside.enter_context(watched(setting, mode, waits))
                elif step == 2:
                    inside.close()

            draw(after)
        if mode != "error" and not {1, 2} <= {*seen}:  # an error ends it
            raise Mismatch(f"no second step was seen, but {seen}", {})

    return told(setting, run)


def _trainer(setting: Setting, dtype: str) -> dict[str, Any]:
    """The trainer's own step, whatever it does around the loss: clipping, averaging, its random numbers."""
    precision = "no" if dtype == "float32" else "bf16"
    return of_trainer(setting, lambda out: trained(setting, 2, out, log_every=100, precision=precision))


def of_trainer(setting: Setting, fit: Callable[[Path], Any]) -> dict[str, Any]:
    """The later steps of a run of a trainer."""
    need("accelerate")
    from dynunet.training.engine import Engine

    plain = Engine.step

    def run(mode: str, waits: Waits) -> None:
        seen: list[int] = []

        def step(self: Any, number: int, *given: Any) -> Tensor:
            seen.append(number)
            if mode == "default" or number < 2:
                return plain(self, number, *given)
            out: list[Tensor] = []
            with watched(setting, mode, waits):
                out.append(plain(self, number, *given))
            return out[0] if out else torch.zeros(2, device=setting.device)

        with mock.patch.object(Engine, "step", step), tempfile.TemporaryDirectory() as folder:
            fit(Path(folder))
        if not seen:
            raise Mismatch("no step was seen", {})

    return told(setting, run)
