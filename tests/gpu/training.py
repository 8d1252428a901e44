"""Training on the device: mixed precision, resuming, compiling, and the same bits in deterministic mode."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from dynunet import Diffusion, UNet

from .compare import Mismatch
from .rows import Row, Setting, Skip, need, need_gpu

SIZES = {1: (32,), 2: (16, 16), 3: (8, 8, 8), 4: (6, 6, 6, 6)}
QUIET: dict[str, Any] = {"progress": False, "sample_every": 0, "tensorboard": False, "validate_every": 0}
STEPS = 6


def made(n: int, **options: Any) -> Diffusion:
    torch.manual_seed(0)
    network = UNet(
        n, 1, channels=(8, 16), num_groups=4, num_heads=2, time_embedding=True, num_blocks=1, **options
    )
    return Diffusion(network)


def data(n: int) -> Tensor:
    return torch.rand(12, 1, *SIZES[n], generator=torch.Generator().manual_seed(1)) * 2 - 1


class Stop(Exception):
    pass


def trained(
    setting: Setting, n: int, out: Path, stop_at: int = STEPS + 1, resume: bool = False, **options: Any
) -> Any:
    """The averaged model of a run, and the losses of its log."""
    from dynunet import Trainer

    network = options.pop("network", {})
    losses: list[float] = []

    def note(step: int, row: Any) -> None:
        losses.append(row["loss"])
        if step >= stop_at:
            raise Stop

    options = {**QUIET, "batch_size": 4, "log_every": 1, "save_every": 3, "cpu": not setting.gpu, **options}
    run = Trainer(made(n, **network), data(n), out, callbacks=[note], steps=STEPS, **options)
    with mock.patch("dynunet.plotting.loss_curve"):  # drawing would take longer than training
        return run.fit(resume=resume), losses


def trainer(setting: Setting) -> list[Row]:
    need("accelerate")
    ranks = (4,) if setting.quick else (1, 2, 3, 4)
    rows = [
        Row(f"{n}-D {precision}", lambda n=n, p=precision: _finite(setting, n, p))
        for n in ranks
        for precision in (("bf16",) if setting.quick else ("no", "bf16", "fp16"))
    ]
    rows += [Row(f"{n}-D resumed", lambda n=n: _resumed(setting, n)) for n in ranks]
    rows += [Row(f"{n}-D deterministic", lambda n=n: _deterministic(setting, n)) for n in ranks]
    rows += [Row(f"{n}-D checkpointing", lambda n=n: _checkpointing(setting, n)) for n in ranks[-1:]]
    return [*rows, Row("two devices", lambda: _two(setting), limit=120)]


def compiled(setting: Setting) -> list[Row]:
    """Compiling takes minutes on few cores, so that a quick run leaves it out."""
    return [
        Row(f"{n}-D compiled, {p}", lambda n=n, p=p: _compiled(setting, n, p), limit=150)
        for n in (2, 3, 4, 1)
        for p in ("no", "bf16")
    ]


def _run(setting: Setting, n: int, **options: Any) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        return trained(setting, n, Path(folder), **options)


def _check_finite(losses: list[float]) -> dict[str, float]:
    figures = {"first loss": losses[0], "last loss": losses[-1]}
    if not all(0 < loss < 10 for loss in losses):
        raise Mismatch(f"losses {losses}", figures)
    return figures


def _finite(setting: Setting, n: int, precision: str) -> dict[str, float]:
    if precision == "fp16":
        need_gpu(setting)
    figures = _check_finite(_run(setting, n, precision=precision)[1])
    if precision != "no":
        exact = _run(setting, n)[1]
        figures["first loss in float32"] = exact[0]
        if not abs(figures["first loss"] - exact[0]) <= 0.05 * exact[0]:
            raise Mismatch("the first loss differs from that in float32", figures)
    return figures


def _difference(a: torch.nn.Module, b: torch.nn.Module) -> float:
    """The largest difference of a weight against the largest weight."""
    pairs = list(zip(a.state_dict().values(), b.state_dict().values(), strict=True))
    largest = max(float(x.abs().max()) for x, _ in pairs)
    return max(float((x.double() - y.double()).abs().max()) for x, y in pairs) / largest


def _resumed(setting: Setting, n: int) -> dict[str, float]:
    """In deterministic mode, where a run that was broken off must end with the same bits."""
    with _deterministically():
        whole, _ = _run(setting, n)
        with tempfile.TemporaryDirectory() as folder:
            try:
                trained(setting, n, Path(folder), stop_at=4)
            except Stop:
                pass
            resumed, losses = trained(setting, n, Path(folder), resume=True)
    figures = {"difference": _difference(whole, resumed), "rows": len(losses)}
    if figures["difference"]:
        raise Mismatch("a resumed run ends elsewhere", figures)
    return figures


def _deterministic(setting: Setting, n: int) -> dict[str, float]:
    options = {"attention": (None, "full"), "mid_attention": "full"}
    with _deterministically():
        a, b = (_run(setting, n, network=options)[0] for _ in range(2))
    figures = {"difference": _difference(a, b)}
    if figures["difference"]:
        raise Mismatch("two runs of one seed differ in deterministic mode", figures)
    return figures


@contextmanager
def _deterministically() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def _checkpointing(setting: Setting, n: int) -> dict[str, float]:
    plain, _ = _run(setting, n)
    again, _ = _run(setting, n, network={"gradient_checkpointing": True})
    figures = {"difference": _difference(plain, again)}
    if not figures["difference"] <= 1e-3:
        raise Mismatch("gradient checkpointing changes what is learned", figures)
    return figures


def _compiled(setting: Setting, n: int, precision: str) -> dict[str, float]:
    if setting.quick:
        raise Skip("left out of a quick run")
    need("triton") if setting.gpu else None
    eager, expected = _run(setting, n, precision=precision)
    torch._dynamo.reset()
    found, losses = _run(setting, n, precision=precision, compile=True)
    figures = {"difference": _difference(eager, found), **_check_finite(losses), "eager loss": expected[-1]}
    if not abs(losses[-1] - expected[-1]) <= 0.05 * expected[-1]:
        raise Mismatch("a compiled run has other losses", figures)
    return figures


def _two(setting: Setting) -> dict[str, float]:
    if not setting.gpu or torch.cuda.device_count() < 2:
        raise Skip("needs two devices")
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    done = subprocess.run(
        [*command, "-m", "tests.gpu.training"], capture_output=True, text=True, timeout=100, check=False
    )
    if done.returncode:
        raise Mismatch(done.stderr[-2000:], {})
    return {"loss": float(done.stdout.split()[-1])}


if __name__ == "__main__":  # one of two processes
    print(_run(Setting("cuda", True), 2, batch_size=2)[1][-1])
