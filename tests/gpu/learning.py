"""Training by the Trainer of every kind of model, on the device beside the CPU.

Random numbers of the losses are drawn on the CPU in both, so that both learn from the same.
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from dynunet import average

from .compare import Mismatch, error
from .lessons import Fit, by_trainer, examples, lessons, supervised
from .rows import Row, Setting, need
from .training import QUIET

FIRST, ALL = 1e-4, 1e-2  # by how much of themselves the first loss, and all, may differ


def trainers(setting: Setting) -> list[Row]:
    need("accelerate")
    n = 2
    every = list(lessons(n).items())[:: 6 if setting.quick else 1]
    rows = [Row(f"{n}-D {name}", lambda fit=fit: learnt(setting, fit)) for name, fit in every]
    if not setting.quick:
        for rank in (1, 3, 4):
            chosen = lessons(rank)
            for name in ("segmentation, augmented", "classification", "masks of spectra", "bridge", "r2r"):
                rows.append(Row(f"{rank}-D {name}", lambda fit=chosen[name]: learnt(setting, fit)))
    return [*rows, Row("averages of any length", lambda: _averaged(setting))]


def learnt(setting: Setting, fit: Fit) -> dict[str, float]:
    """The losses and figures of a run on the device, and of the same on the CPU."""
    from dynunet.training.order import Stream

    plain = Stream.chance

    def on_cpu(self: Stream, numbers: Any, device: torch.device) -> dict[str, Any]:
        return plain(self, numbers, torch.device("cpu"))

    found: list[list[float]] = []
    for device in ("cpu", setting.device):
        told: list[float] = []

        def note(_: int, row: Mapping[str, float], told: list[float] = told) -> None:
            told.extend(v for k, v in row.items() if k == "loss" or k.startswith("validation_"))

        how = {**QUIET, "batch_size": 4, "log_every": 1, "tf32": False, "cpu": device == "cpu"}
        with (
            tempfile.TemporaryDirectory() as folder,
            mock.patch.object(Stream, "chance", on_cpu),
            mock.patch("dynunet.plotting.loss_curve"),
        ):
            model = fit(Path(folder), callbacks=[note], **how)
        place = next(model.parameters()).device.type
        if place != torch.device(device).type:
            raise Mismatch(f"trained on {place}", {})
        found.append(told)
    expected, got = found
    off = [abs(a - b) / max(abs(a), 1e-3) for a, b in zip(expected, got, strict=True)]
    figures = {"loss": got[0], "first": off[0], "all": max(off)}
    if not (figures["first"] <= FIRST and figures["all"] <= ALL):
        raise Mismatch(f"{got}, on the CPU {expected}", figures)
    return figures


def _averaged(setting: Setting) -> dict[str, float]:
    """Averages that are kept on the device, put together there and on the CPU, at equal weights."""
    lengths = {"ema_lengths": (0.05, 0.1), "save_every": 2}
    fit = by_trainer(lambda: supervised(2), lambda _: examples(2), **lengths)
    with tempfile.TemporaryDirectory() as name, mock.patch("dynunet.plotting.loss_curve"):
        folder = Path(name)
        fit(folder, **{**QUIET, "batch_size": 4, "cpu": not setting.gpu})
        there, here = (average(folder / "run", 0.07, device=d) for d in (setting.device, "cpu"))
    pairs = zip(there.state_dict().values(), here.state_dict().values(), strict=True)
    off = max(error(a, b) for a, b in pairs)
    place = next(there.parameters()).device.type
    if off or place != torch.device(setting.device).type:
        raise Mismatch(f"an average on {place}, off by {off:.3g}", {"off": off})
    return {"off": off}
