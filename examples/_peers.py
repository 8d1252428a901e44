"""MONAI's U-Net to compare with: the same data, loss, optimiser and learning rate, for as many seconds."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any

from _runs import fit
from torch import nn
from torch.utils.data import default_collate

from dynunet import Supervised, Trainer


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
    first, *_ = models.values()
    trained, seconds = {}, {}
    for name, model in models.items():
        enough = steps if model is first else equal_steps((first, model), data, batch_size, steps)
        trainer = Trainer(model, data, folder / name, steps=enough, batch_size=batch_size, **how)
        trained[name], seconds[f"{name} seconds"] = fit(trainer, folder)
    return trained, seconds


def equal_steps(models: Sequence[Supervised], data: Any, batch_size: int, steps: int) -> int:
    """How many steps the second model takes in the seconds that so many take the first.

    Both are timed in turns, on the processor: others that share it then do not change the ratio.
    """
    batch = default_collate([data[i % len(data)] for i in range(batch_size)])
    seconds = [
        [_timed(lambda model=model: model.loss(**batch).backward()) for model in models] for _ in range(6)
    ]
    for model in models:
        model.zero_grad()
    first, second = (median(column) for column in zip(*seconds[1:], strict=True))
    return max(1, round(steps * first / second))


def _timed(run: Callable[[], Any]) -> float:
    start = process_time()
    run()
    return process_time() - start
