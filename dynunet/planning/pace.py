"""How long a step of training takes here, measured with numbers that mean nothing."""

from collections.abc import Mapping
from time import perf_counter, process_time
from typing import Any

import torch
from torch import Tensor, nn

from ..training.precision import usual_precision

__all__ = ["seconds_per_step"]

_SHORT = 1.0  # seconds; a shorter step is taken twice, for the first one prepares much


def seconds_per_step(model: nn.Module, batch: Mapping[str, Tensor]) -> float:
    """Seconds of a loss and its gradients in the usual precision of training, see ``TrainOptions.precision``.

    On a CPU they are as if all its threads worked on it and on nothing else.

    Args:
        model: with a ``loss``, on the device that trains; gradients are left in it.
        batch: keywords of its loss; only shapes and dtypes count.
    """
    device = next(model.parameters()).device
    given = {name: _numbers(value, device) for name, value in batch.items()}
    seconds = _timed(model, given, device)
    return seconds if seconds > _SHORT else _timed(model, given, device)


def _numbers(like: Tensor, device: torch.device) -> Tensor:
    """Of labels all 0, which each model has; a mask is True."""
    if like.is_floating_point():
        return torch.rand(like.shape, dtype=like.dtype, device=device)
    return torch.full(like.shape, like.dtype == torch.bool, dtype=like.dtype, device=device)


def _timed(model: Any, batch: Mapping[str, Tensor], device: torch.device) -> float:
    if device.type == "cpu":  # others that share the processor do not count
        start = process_time()
        _step(model, batch, device)
        return (process_time() - start) / torch.get_num_threads()
    start = perf_counter()
    _step(model, batch, device)
    torch.accelerator.synchronize(device)
    return perf_counter() - start


def _step(model: Any, batch: Mapping[str, Tensor], device: torch.device) -> None:
    with torch.autocast(device.type, torch.bfloat16, usual_precision(model, device) == "bf16"):
        loss = model.loss(**batch)
    loss.backward()
