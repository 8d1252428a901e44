"""Tensors on their way to a device."""

import torch
from torch import Tensor

__all__ = ["moved"]


def moved(value: Tensor, device: torch.device | str) -> Tensor:
    """Move a tensor to a device without synchronising; a move to the CPU waits until it is complete."""
    return value.to(device, non_blocking=torch.device(device).type != "cpu")
