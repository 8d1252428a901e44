"""MONAI's U-Net to compare with: the same data, loss, optimiser and learning rate, for as many seconds."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any

import torch
from _runs import fit
from torch import nn
from torch.utils.data import default_collate

from dynunet import Supervised, Trainer
from dynunet.runs import chosen_device


def monai_unet(spatial_dims: int, in_channels: int, out_channels: int, channels: Sequence[int]) -> nn.Module:
    """DynUNet, of nnU-Net's design, with this list of channels; 2-D or 3-D."""
    try:
        from monai.networks.nets.dynunet import DynUNet
    except ImportError:
        raise SystemExit("--peer trains a network of MONAI, too: pip install monai") from None
    strides = [1] + [2] * (len(channels) - 1)
    sizes: Any = [3] * len(channels), strides, strides[1:]
    return DynUNet(spatial_dims, in_channels, out_channels, *sizes, filters=[*channels], norm_name="instance")


def fit_all(
    models: Mapping[str, Supervised], data: Any, folder: Path, *, steps: int, batch_size: int, **how: Any
) -> tuple[dict[str, Supervised], dict[str, str]]:
    """Train the first model for so many steps, and the others on the same data for as many seconds.

    Returns:
        the trained models, and how many seconds each took.
    """
    trainers = {
        name: Trainer(model, data, folder / name, batch_size=batch_size, **how)
        for name, model in models.items()
    }
    first, *_ = trainers.values()
    trained, seconds = {}, {}
    for name, trainer in trainers.items():
        enough = steps if trainer is first else equal_steps((first, trainer), batch_size, steps)
        trainer.options = replace(trainer.options, steps=enough)
        trained[name], seconds[f"{name} seconds"] = fit(trainer, folder)
    return trained, seconds


def equal_steps(trainers: Sequence[Trainer], batch_size: int, steps: int) -> int:
    """How many steps the second one takes in the seconds that so many take the first.

    Both are timed in turns with reading their data, on a CPU by the seconds of the process: others that share
    it then do not change the ratio.
    """
    device = chosen_device(None)
    clock = process_time if device.type == "cpu" else perf_counter
    taken: list[list[float]] = [[], []]
    for _ in range(6):
        for trainer, seconds in zip(trainers, taken, strict=True):
            start = clock()
            _step(trainer, batch_size, device)
            if device.type != "cpu":
                torch.accelerator.synchronize()
            seconds.append(clock() - start)
    first, second = (median(seconds[1:]) for seconds in taken)
    return max(1, round(steps * first / second))


def _step(trainer: Trainer, batch_size: int, device: torch.device) -> None:
    """Data and gradients as in a step of training."""
    items = [trainer.dataset[i % len(trainer.dataset)] for i in range(batch_size)]
    batch = default_collate([trainer.augment(item) if trainer.augment else item for item in items])
    trainer.model.to(device).loss(**{name: x.to(device) for name, x in batch.items()}).backward()
    trainer.model.zero_grad()
