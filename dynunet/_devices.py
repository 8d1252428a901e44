"""Tensors on their way to a device."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

__all__ = ["moved", "placed"]

# The CPU would read what has not arrived; Apple's devices (torch 2.13) what may have been freed.
_WAITED_FOR = ("cpu", "mps")


def moved(value: Tensor, device: torch.device | str) -> Tensor:
    """Move a tensor to a device, without waiting until it is there where that is safe."""
    return value.to(device, non_blocking=torch.device(device).type not in _WAITED_FOR)


def placed(values: Mapping[str, Any], device: torch.device | str) -> dict[str, Any]:
    """Move all tensors of a batch or of conditions, also those in lists and dictionaries."""
    placed: dict[str, Any] = tree_map_only(Tensor, lambda value: moved(value, device), dict(values))
    return placed
