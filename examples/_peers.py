"""MONAI's U-Net to compare with: the same data, loss, optimiser and learning rate, for as many seconds."""

from collections.abc import Callable, Sequence
from statistics import median
from time import process_time
from typing import Any

from torch import Tensor, nn
from torch.utils.data import Dataset, default_collate

from dynunet import Supervised


def monai_unet(spatial_dims: int, in_channels: int, out_channels: int, channels: Sequence[int]) -> nn.Module:
    """DynUNet, of nnU-Net's design, with this list of channels; 2-D or 3-D."""
    try:
        from monai.networks.nets.dynunet import DynUNet
    except ImportError:
        raise SystemExit("--peer trains a network of MONAI, too: pip install monai") from None
    strides = [1] + [2] * (len(channels) - 1)
    sizes: Any = [3] * len(channels), strides, strides[1:]
    return DynUNet(spatial_dims, in_channels, out_channels, *sizes, filters=[*channels], norm_name="instance")


def equal_steps(
    models: Sequence[Supervised], data: Dataset[dict[str, Tensor]], batch_size: int, steps: int
) -> int:
    """How many steps the second model takes in the seconds that so many take the first.

    Both are timed in turns, on the processor: others that share it then do not change the ratio.
    """
    batch = default_collate([data[i] for i in range(batch_size)])
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
