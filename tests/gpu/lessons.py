"""What the Trainer is given to learn: a small model of every kind, and examples for it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dynunet import Diffusion, Encoder, SpectralMask, Supervised, UNet
from dynunet.data import Augment, FolderDataset
from dynunet.diffusion.bridges import BRIDGES
from dynunet.diffusion.losses import ERRORS
from dynunet.supervised import CLASS_LOSSES

from .calls import random
from .training import SIZES, STEPS, data

CLASSES = 3
SMALL: dict[str, Any] = {"channels": (8, 16), "num_groups": 4, "num_blocks": 1}
Fit = Callable[..., nn.Module]  # of a folder and options of the trainer


def supervised(n: int, task: str = "segmentation", network: Any = None, **options: Any) -> Supervised:
    """A small one for a task."""
    torch.manual_seed(0)
    if task == "classification":
        return Supervised(Encoder(n, 1, CLASSES, **SMALL), task, **options)
    outputs = 1 if task == "regression" else CLASSES
    return Supervised(UNet(n, 1, outputs, **SMALL, **network or {}), task, **options)


def examples(n: int, task: str = "segmentation", multilabel: bool = False) -> list[dict[str, Tensor]]:
    """Data, and a target that follows from it."""
    found = []
    for x in data(n):
        labels = ((x[0] + 1) * CLASSES / 2).long().clamp(max=CLASSES - 1)
        several = torch.stack([labels >= k for k in range(CLASSES)])
        targets = {"segmentation": several if multilabel else labels, "regression": x.square() - 0.5}
        found.append({"x0": x, "target": targets.get(task, labels.flatten()[0])})
    return found


def restoring(n: int) -> list[dict[str, Tensor]]:
    """Data, and itself with noise."""
    return [{"x0": x, "cond": x + 0.3 * random(*x.shape).float()} for x in data(n)]


def by_trainer(made: Callable[[], nn.Module], dataset: Callable[[Path], Any], **given: Any) -> Fit:
    def fit(folder: Path, **options: Any) -> nn.Module:
        from dynunet import Trainer

        items = dataset(folder)
        return Trainer(made(), items, folder / "run", steps=STEPS, **{**options, **given}).fit()

    return fit


def lessons(n: int) -> dict[str, Fit]:
    """What there is to be learnt."""

    def of_task(task: str, several: bool = False, augment: Any = None, **options: Any) -> Fit:
        return by_trainer(
            lambda: supervised(n, task, **options, **({"multilabel": True} if several else {})),
            lambda _: examples(n, task, several),
            validation=examples(n, task, several)[:4],
            validate_every=STEPS,
            augment=augment,
        )

    def of_bridge(name: str) -> Fit:
        made = {"prediction": "sample", "cond_channels": 1}
        return by_trainer(lambda: diffusion(n, name, **made), lambda _: restoring(n))

    def of_noise(way: str) -> Fit:
        made = {"prediction": "sample", "shift": 1000, "cond_channels": 1}
        return by_trainer(lambda: diffusion(n, **made), lambda folder: _noisy(folder / "noisy", n, way))

    features = Augment(task="generation").num_features(n)
    return {
        **{f"segmentation, {loss}": of_task("segmentation", loss=loss) for loss in CLASS_LOSSES},
        **{f"regression, {loss}": of_task("regression", loss=loss) for loss in ERRORS},
        "classification": of_task("classification"),
        "segmentation, several labels": of_task("segmentation", several=True),
        "segmentation, weights": of_task("segmentation", loss="ce", class_weights=(1, 2, 3), ignore_index=1),
        "segmentation, deep": of_task("segmentation", network={"deep_supervision": 1}),
        "segmentation, augmented": of_task("segmentation", augment=Augment()),
        "augmented, told": by_trainer(
            lambda: diffusion(n, cond_features=features), lambda _: data(n), augment=Augment()
        ),
        "masks of spectra": by_trainer(lambda: masks(n), lambda _: restoring(n), loss="l1+stft"),
        "consistency tuning": lambda folder, **options: diffusion(n).distill(
            data(n), folder, train_steps=STEPS, **options
        ),
        **{name: of_bridge(name) for name in BRIDGES},
        **{way: of_noise(way) for way in ("r2r", "noise2void")},
    }


def masks(n: int) -> Diffusion:
    torch.manual_seed(0)
    return Diffusion(SpectralMask(UNet(n, 9, **SMALL), 16), prediction="sample")


def diffusion(n: int, schedule: str = "cosine", cond_channels: int = 0, **options: Any) -> Diffusion:
    torch.manual_seed(0)
    features = options.pop("cond_features", 0)
    network = UNet(n, 1, time_embedding=True, cond_channels=cond_channels, cond_features=features, **SMALL)
    return Diffusion(network, schedule, **options)


def _noisy(folder: Path, n: int, way: str) -> FolderDataset:
    folder.mkdir()
    for i, x in enumerate(data(n)):
        np.save(folder / f"{i}.npy", x[0].numpy())
    noise: dict[str, Any] = {"noise_std": 0.1} if way == "r2r" else {}
    return FolderDataset(folder, spatial_dims=n, size=SIZES[n], self_supervised=way, **noise)
