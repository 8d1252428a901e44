"""``dynunet summary``: the parts of a network and the cost of training it, before anything is computed."""

from dataclasses import dataclass, field, replace
from math import prod
from typing import TYPE_CHECKING, Literal

from tyro.conf import OmitArgPrefixes

from ..arguments import integer, positive
from ..data.errors import count
from .options import DiffusionOptions, NetworkOptions, build

if TYPE_CHECKING:
    from ..nn.unet import UNet
    from ..summary import Summary

_GIB = 2**30
_COPIES = 5  # of the weights in training: themselves, gradients, Adam's two moments, their moving average
_USABLE = 0.9  # of a GPU's memory: the rest is CUDA's own, and lost between blocks of memory


@dataclass(frozen=True)
class SummaryCommand:
    """Print the levels, parameters, FLOPs and memory of a network, and the memory that training it takes."""

    spatial_dims: int
    """number of spatial axes"""
    size: tuple[int, ...]
    """of an example: one number for all axes, or one for each"""
    in_channels: int = 1
    """channels of the data"""
    cond_channels: int = 0
    """channels of a condition, such as the noisy recording"""
    num_classes: int | None = None
    """number of class labels"""
    batch_size: int = 1
    """examples at a time"""
    precision: Literal["no", "bf16", "fp16"] = "no"
    """mixed precision"""
    memory: float = 24.0
    """of a GPU, in GiB: the largest batch for it is estimated"""
    network: OmitArgPrefixes[NetworkOptions] = field(default_factory=NetworkOptions)

    def check(self) -> None:
        more = {"cond_channels": self.cond_channels, "num_classes": self.num_classes}
        self.network.check(self.spatial_dims, in_channels=self.in_channels, **more)
        if len(self._size) != self.spatial_dims:
            raise ValueError(f"size must be one number or {self.spatial_dims}, got {self.size}")
        integer(self.batch_size, "batch_size")
        positive(self.memory, "memory")

    def run(self) -> None:
        import torch

        from ..runs import out_of_memory

        shape = (self.batch_size, self.in_channels, *self._size)
        # On the meta device nothing is computed.
        with out_of_memory("this network, with data of this size,"), torch.device("meta"):
            counted = self._unet(self.network).summary(shape)
            text = f"{counted}\n\n{self._memory(counted, shape)}"
        print(text)

    @property
    def _size(self) -> tuple[int, ...]:
        return self.size * self.spatial_dims if len(self.size) == 1 else self.size

    def _unet(self, network: NetworkOptions) -> "UNet":
        from ..nn.unet import UNet

        model = build(
            network,
            DiffusionOptions(),
            spatial_dims=self.spatial_dims,
            channels=self.in_channels,
            cond_channels=self.cond_channels,
            num_classes=self.num_classes,
        ).model
        assert isinstance(model, UNet)
        return model

    def _memory(self, counted: "Summary", shape: tuple[int, ...]) -> str:
        """An estimate of the memory of training."""
        fixed = _COPIES * 4 * counted.parameters
        kept = counted.activations / (1 if self.precision == "no" else 2)
        again = self._again(shape) / (1 if self.precision == "no" else 2)
        data = 4 * prod(shape) * 4  # clean data, noise, their mixture, output
        total = fixed + kept + again + data
        each = (kept + again + data) / self.batch_size
        most = int((self.memory * _USABLE * _GIB - fixed) // each)
        rows = [
            ("weights, gradients, two moments of Adam, moving average", fixed),
            (f"activations of {count(self.batch_size, 'example')}, {_precision(self.precision)}", kept),
            *([("one block computed again (gradient checkpointing)", again)] if again else []),
            ("data", data),
            ("training step", total),
        ]
        width = max(len(name) for name, _ in rows)
        lines = [f"{name.ljust(width)}  {value / _GIB:8.2f} GiB" for name, value in rows]
        largest = f"at most about {most} examples at a time" if most > 0 else "not even one example"
        lines.append(
            f"Into {self.memory:g} GiB fit {largest}. An estimate: algorithms take more while they work."
        )
        return "\n".join(lines)

    def _again(self, shape: tuple[int, ...]) -> float:
        """With gradient checkpointing one block at a time is computed again, with all that is inside."""
        if not self.network.gradient_checkpointing:
            return 0.0
        from ..summary import summarize

        unet = self._unet(replace(self.network, gradient_checkpointing=False))
        parts = (
            (part, getattr(unet.get_submodule(part.name), "blocks", ()))
            for part in summarize(unet, shape).parts
        )
        return max(part.activations / max(1, len(blocks)) for part, blocks in parts)


def _precision(name: str) -> str:
    return "in single precision" if name == "no" else f"with {name}, about half"
