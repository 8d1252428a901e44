"""Predictions of supervised models on the device as on the CPU, changes of examples, and metrics."""

from typing import Any

import torch
from torch import nn

from dynunet import Supervised

from .calls import random
from .changing import changes
from .compare import Mismatch, error, tf32
from .lessons import supervised
from .measuring import metrics
from .rows import Row, Setting
from .training import SIZES


def predicting(setting: Setting) -> list[Row]:
    return [*predictions(setting), *changes(setting), *metrics(setting)]


def predictions(setting: Setting) -> list[Row]:
    """Data on the CPU or on the device, in windows and reflections or as a whole."""
    ways: dict[str, dict[str, Any]] = {
        "whole": {},
        "windows": {"window": 5, "overlap": 2, "batch_size": 3},
        "reflected windows": {"window": 5, "overlap": 2, "mirror": (0,)},
    }
    tasks: dict[str, dict[str, Any]] = {
        "segmentation": {},
        "several labels": {"multilabel": True},
        "regression": {"task": "regression"},
        "classification": {"task": "classification"},
    }
    ranks = (2,) if setting.quick else (1, 2, 3, 4)
    return [
        Row(
            f"{n}-D predicted {task}, {way}",
            lambda n=n, t=tasks[task], w=ways[way]: _predicted(setting, supervised(n, **t), n, w),
        )
        for n in ranks
        for task in tasks
        for way in (ways if task != "classification" else ("whole",))
    ]


def _predicted(setting: Setting, model: Supervised, n: int, how: dict[str, Any]) -> dict[str, Any]:
    if "window" in how:  # along the first axis alone: many windows take long
        how = {**how, "window": (how["window"], *SIZES[n][1:]), "overlap": (how["overlap"], *[0] * (n - 1))}
    for p in model.parameters():
        nn.init.normal_(p, std=0.2)
    model = model.double()
    x = random(2, 1, *SIZES[n])
    expected, labels = model.predict(x, probabilities=True, **how), model.predict(x, **how)
    model = model.to(setting.device)
    figures: dict[str, Any] = {}
    with tf32(False):
        for place in {"cpu", setting.device}:
            given = x.to(place)
            found, chosen = model.predict(given, probabilities=True, **how), model.predict(given, **how)
            figures[f"from {place}"] = off = error(found, expected)
            where = torch.device("cpu" if "window" in how else place).type
            if not off <= 1e-6 or not found.device.type == chosen.device.type == where:
                raise Mismatch(f"off by {off:.3g} on {found.device}", figures)
            if model.task != "regression" and not torch.equal(chosen.cpu(), labels.cpu()):
                raise Mismatch("other labels", figures)
    return figures
