"""``dynunet summary``: the parts of a network and the cost of training it, before anything is computed."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

from tyro.conf import OmitArgPrefixes

from ..arguments import integer, positive
from ..data.errors import count
from .options import DiffusionOptions, NetworkOptions, build

_GIB = 2**30
_MIXED = 5 / 6  # of what is kept: of a convolution's input, and norm's and activation's, the first is halved
_CLASS = "class"  # a name, of which there is no need to have different ones


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

        # On the meta device nothing is computed.
        with out_of_memory("this network, with data of this size,"), torch.device("meta"):
            model = self._model()
            table = model.model.summary((self.batch_size, self.in_channels, *self._size))
            text = f"{table}\n\n{self._memory(model)}"
        print(text)

    @property
    def _size(self) -> tuple[int, ...]:
        return self.size * self.spatial_dims if len(self.size) == 1 else self.size

    def _model(self) -> Any:
        return build(
            self.network,
            DiffusionOptions(),
            spatial_dims=self.spatial_dims,
            channels=self.in_channels,
            cond_channels=self.cond_channels,
            num_classes=self.num_classes,
        )

    def _memory(self, model: Any) -> str:
        """An estimate of the memory of training, that of ``dynunet plan``."""
        from ..data.spec import DataSpec
        from ..planning.memory import USABLE, training_memory
        from ..planning.models import inputs_of

        classes = None if self.num_classes is None else (_CLASS,) * self.num_classes
        more = {"cond_channels": self.cond_channels, "classes": classes}
        spec = DataSpec("arrays", self.spatial_dims, self.in_channels, **more)

        @cache
        def parts(examples: int) -> tuple[float, float]:
            """What stays from step to step, and what is computed on the way."""
            found = training_memory(model, inputs_of(spec, examples, self._size), "gpu")
            passing = found.tensors - found.state
            return found.state, passing * (1 if self.precision == "no" else _MIXED)

        state, passing = parts(self.batch_size)
        most = _most(lambda n: sum(parts(n)), USABLE * self.memory * _GIB)
        mixed = "" if self.precision == "no" else f", with {self.precision} about 5/6"
        examples = count(self.batch_size, "example") + mixed
        rows = [
            ("weights, two moments of Adam, moving average", state),
            (f"gradients, activations of {examples}", passing),
            ("training step", state + passing),
        ]
        width = max(len(name) for name, _ in rows)
        lines = [f"{name.ljust(width)}  {value / _GIB:8.2f} GiB" for name, value in rows]
        largest = f"at most about {count(most, 'example')} at a time" if most > 0 else "not even one example"
        lines.append(
            f"Into {self.memory:g} GiB fit {largest}. An estimate: algorithms take more while they work."
        )
        return "\n".join(lines)


def _most(memory: Callable[[int], float], budget: float) -> int:
    """Examples whose memory fits.

    It grows as the largest of several lines, one for each moment of a step. So the line through one and two
    examples leads to enough of them, and the line from one to those to hardly too few.
    """
    one, many = memory(1), 2
    for _ in range(2):
        each = (memory(many) - one) / (many - 1)
        many = 1 + int((budget - one) // each)
        if many < 2:
            break
    return many if one <= budget else 0
