"""``dynunet summary``: the parts of a network and the cost of training it, before anything is computed."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

from tyro.conf import OmitArgPrefixes, Positional

from ..arguments import integer, positive
from ..data.errors import count, shown
from ..hub import check_run
from .options import DiffusionOptions, NetworkOptions, build

_GIB = 2**30
_MIXED = 5 / 6  # of what is kept: of a convolution's input, and norm's and activation's, the first is halved
_CLASS = "class"  # a name, of which there is no need to have different ones


@dataclass(frozen=True)
class SummaryCommand:
    """Print the levels, parameters, FLOPs and memory of a network, and the memory that training it takes.

    Of a model that is trained already it is printed without the last.
    """

    run_folder: Positional[Path | None] = None
    """folder of the run, or owner/name of one on the Hub, whose network it is; else that of the flags"""
    spatial_dims: int | None = None
    """number of spatial axes"""
    size: tuple[int, ...] | None = None
    """of an example: one number for all axes, or one for each; of a run by default that of training"""
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
        integer(self.batch_size, "batch_size")
        if self.run_folder is not None:
            check_run(self.run_folder)
            if self != SummaryCommand(self.run_folder, size=self.size, batch_size=self.batch_size):
                raise ValueError(
                    "with the folder of a run, whose network it is, give --size and --batch-size only"
                )
            return
        if self.spatial_dims is None or self.size is None:
            raise ValueError("--spatial-dims and --size must be given, or the folder of a run")
        more = {"cond_channels": self.cond_channels, "num_classes": self.num_classes}
        self.network.check(self.spatial_dims, in_channels=self.in_channels, **more)
        _for_each(self.size, self.spatial_dims)
        positive(self.memory, "memory")

    def run(self) -> None:
        from ..runs import out_of_memory

        with out_of_memory("this network, with data of this size,"):
            print(self._planned() if self.run_folder is None else self._trained(self.run_folder))

    def _trained(self, run: Path) -> str:
        from ..checkpoints import load
        from ..hub import run_folder

        model = load(run_folder(run))
        network: Any = getattr(model, "model", model)
        size = self.size or (getattr(model, "data", None) or {}).get("size")
        if size is None:
            raise ValueError(f"give --size, too: {shown(run)} does not say on which it was trained")
        sizes = _for_each(tuple(size), network.spatial_dims)
        return str(network.summary((self.batch_size, network.in_channels, *sizes)))

    def _planned(self) -> str:
        import torch

        dims = self.spatial_dims or 0
        sizes = _for_each(self.size or (), dims)
        more = {"cond_channels": self.cond_channels, "num_classes": self.num_classes}
        common = {"spatial_dims": dims, "channels": self.in_channels, **more}
        with torch.device("meta"):  # where nothing is computed
            model: Any = build(self.network, DiffusionOptions(), **common)
            table = model.model.summary((self.batch_size, self.in_channels, *sizes))
            return f"{table}\n\n{self._memory(model, dims, sizes)}"

    def _memory(self, model: Any, dims: int, sizes: tuple[int, ...]) -> str:
        """An estimate of the memory of training, that of ``dynunet plan``."""
        from ..data.spec import DataSpec
        from ..planning.memory import USABLE, training_memory
        from ..planning.models import inputs_of

        classes = None if self.num_classes is None else (_CLASS,) * self.num_classes
        spec = DataSpec("arrays", dims, self.in_channels, cond_channels=self.cond_channels, classes=classes)

        @cache
        def parts(examples: int) -> tuple[float, float]:
            """What stays from step to step, and what is computed on the way."""
            found = training_memory(model, inputs_of(spec, examples, sizes), "gpu")
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


def _for_each(size: tuple[int, ...], dims: int) -> tuple[int, ...]:
    """A size for each axis, of one for all or one for each."""
    sizes = size * dims if len(size) == 1 else size
    if len(sizes) != dims:
        raise ValueError(f"size must be one number or {dims}, got {size}")
    return sizes


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
