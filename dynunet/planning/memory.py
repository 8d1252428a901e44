"""The memory that training takes, before anything is computed.

A dry run (:mod:`dynunet.planning.dry_run`) records the blocks of memory of one step. On a GPU, torch's
allocator has their sum in use. On the CPU the process has more resident, for the allocator of the C library
leaves gaps: :mod:`dynunet.planning.heap` replays them.
"""

from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

from torch import Tensor, nn

from ..arguments import choice
from .dry_run import Event, dry_run
from .heap import resident

__all__ = ["DEVICES", "USABLE", "Device", "TrainingMemory", "training_memory"]

Device = Literal["cpu", "gpu"]
DEVICES = ("cpu", "gpu")
USABLE = 0.9  # of a GPU's memory: the rest is CUDA's own, and cuDNN's scratch memory
_COPIES = 4  # of the weights, from the first step on: themselves, Adam's two moments, the moving average


class TrainingMemory(NamedTuple):
    """Bytes of a step of training.

    Attributes:
        tensors: the most that tensors have in use at once.
        resident: the most that the device's memory holds: on a GPU the same, on the CPU with the gaps of the
            allocator.
        state: of ``tensors`` what stays from step to step, whatever the batch: the weights, Adam's two
            moments and the moving average. The rest are gradients and what is computed on the way.
    """

    tensors: int
    resident: int
    state: int


def training_memory(model: nn.Module, batch: Mapping[str, Tensor], device: Device = "cpu") -> TrainingMemory:
    """Estimate the memory of training a model, weights and optimiser included, in float32.

    Beyond it come torch and the other libraries (about 0.4 GB on the CPU), files that are kept decoded, and
    on a GPU the scratch memory of cuDNN and what CUDA takes for itself.

    Args:
        model: a :class:`dynunet.Diffusion`, a :class:`dynunet.Supervised` or another module with a ``loss``,
            on any device; it is not changed.
        batch: keywords of its loss as a step has them; only shapes and dtypes count, so tensors on the
            ``meta`` device will do.
        device: ``"cpu"``, or ``"gpu"``.

    Raises:
        ValueError, TypeError: naming the argument, the rule and the value received, also those of the loss.

    >>> import torch
    >>> from dynunet import Diffusion, UNet
    >>> model = Diffusion(UNet(3, 1, channels=(8, 16), time_embedding=True))
    >>> small, large = (training_memory(model, {"x0": torch.empty(n, 1, 32, 32, 32)}) for n in (1, 4))
    >>> small.resident < large.resident < 4 * small.resident
    True
    """
    choice(device, DEVICES, "device")
    trace = dry_run(model, batch)
    state = _COPIES * sum(trace.weights)
    tensors = state + most_in_use([*trace.forward, *trace.backward])
    return TrainingMemory(tensors, tensors if device == "gpu" else max(resident(trace), tensors), state)


def most_in_use(events: Iterable[Event]) -> int:
    """The most bytes that blocks have at once."""
    sizes: dict[int, int] = {}
    now = most = 0
    for block, size, _ in events:
        now += size if size else -sizes.pop(block)
        most = max(most, now)
        if size:
            sizes[block] = size
    return most
