"""The summary of a network as a table."""

from collections.abc import Sequence
from html import escape
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from convnd.arguments import integer

from .counting import CostCounter, on_meta, probe


class Part(NamedTuple):
    """One row of a summary.

    Attributes:
        name: name of a module, including everything inside it.
        shape: shape of its output; None if it did not run.
        parameters: number of parameters.
        flops: FLOPs of one forward pass.
        activations: bytes kept for the backward pass.
    """

    name: str
    shape: tuple[int, ...] | None
    parameters: int
    flops: int
    activations: int


class Summary(NamedTuple):
    """The parts of a network in the order in which they run; printed as a table, below a diagram if any."""

    parts: tuple[Part, ...]
    drawing: str = ""

    @property
    def parameters(self) -> int:
        return sum(part.parameters for part in self.parts)

    @property
    def flops(self) -> int:
        return sum(part.flops for part in self.parts)

    @property
    def activations(self) -> int:
        return sum(part.activations for part in self.parts)

    def _repr_html_(self) -> str:
        """For notebooks, which would show the tuple."""
        return f'<pre style="line-height: 1.2; overflow-x: auto">{escape(str(self))}</pre>'

    def cells(self) -> list[tuple[str, ...]]:
        """The table as texts: the titles of its columns, a row for each part, and one for all of them."""
        total = Part("total", None, self.parameters, self.flops, self.activations)
        head = ("part", "output shape", "parameters", "FLOPs", "activations")
        return [head, *map(_cells, (*self.parts, total))]

    def __str__(self) -> str:
        rows = self.cells()
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = []
        for row in rows:
            padded = [
                cell.ljust(width) if i < 2 else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            ]
            lines.append("  ".join(padded))
        rule = "-" * len(lines[0])
        notes = (
            "FLOPs: multiplications and additions of one forward pass, about a third of a training step.",
            "Activations: kept for the backward pass, an estimate; autocast halves convolutions' inputs.",
        )
        above = [self.drawing, ""] if self.drawing else []
        return "\n".join([*above, lines[0], rule, *lines[1:-1], rule, lines[-1], *notes])


def summarize(network: nn.Module, input_shape: Sequence[int], **inputs: Any) -> Summary:
    """Shapes, parameters, FLOPs and activation memory of every part of a network; nothing is computed.

    The parts are the children of the network; a ``ModuleList`` is replaced by its entries. An entry that is
    never called itself (a level) stands for the lists inside it, and its other children (``down``, ``up``)
    are parts of their own. Everything outside these parts is called ``(other)``.

    Args:
        network: a :class:`dynunet.UNet`, a :class:`dynunet.Encoder` or any other module; it is not changed.
        input_shape: ``(N, C, *spatial)``, as long as ``network.spatial_dims`` (if it has that) plus 2.
        inputs: further arguments of its ``forward``; tensors may be on any device. A time and an image-like
            condition are created if the network needs them.

    Returns:
        The table, with its numbers as fields. Time and memory do not grow with the input.

    Raises:
        ValueError: if ``input_shape`` is not a sequence of so many positive ints.

    >>> from torch import nn
    >>> from dynunet.summary import summarize
    >>> print(summarize(nn.Sequential(nn.Conv1d(1, 4, 3), nn.ReLU()), (2, 1, 10)))
    part   output shape  parameters  FLOPs  activations
    ---------------------------------------------------
    0      2 x 4 x 8             16    384         80 B
    1      2 x 4 x 8              0      0        256 B
    ---------------------------------------------------
    total                        16    384        336 B
    FLOPs: multiplications and additions of one forward pass, about a third of a training step.
    Activations: kept for the backward pass, an estimate; autocast halves convolutions' inputs.
    """
    shape = _checked(input_shape, getattr(network, "spatial_dims", None))
    with torch.inference_mode(False), torch.enable_grad():
        copied = on_meta(network)
        with CostCounter(copied) as counter:
            copied(probe(_empty(copied, shape)), **_arguments(copied, shape, inputs))
    return Summary(tuple(Part(*row) for row in counter.rows()))


def _checked(input_shape: Any, n: int | None) -> tuple[int, ...]:
    axes = "" if n is None else f", with {n} spatial axes"
    error = ValueError(
        f"input_shape must be (N, C, *spatial){axes}, all of them ints of at least 1, got {input_shape!r}"
    )
    try:
        shape = tuple(integer(size, "size") for size in input_shape)
    except (TypeError, ValueError):
        raise error from None
    if len(shape) < 3 or (n is not None and len(shape) != n + 2):
        raise error
    return shape


def _empty(network: nn.Module, shape: Sequence[int]) -> Tensor:
    """An empty input in the dtype of the network."""
    floating = (p.dtype for p in network.parameters() if p.is_floating_point())
    return torch.empty(shape, dtype=next(floating, torch.get_default_dtype()), device="meta")


def _arguments(network: nn.Module, shape: Sequence[int], given: dict[str, Any]) -> dict[str, Any]:
    """The arguments of ``forward`` other than ``x``: those given and those the network needs."""
    n, _, *sizes = shape
    made: dict[str, Any] = {}
    if getattr(network, "time_embedding", None) is not None:
        made["t"] = _empty(network, (n,))
    channels = getattr(network, "cond_channels", 0)
    if isinstance(channels, int) and channels:
        made["cond"] = _empty(network, (n, channels, *sizes))
    return {name: probe(value) for name, value in {**made, **given}.items()}


def _cells(part: Part) -> tuple[str, ...]:
    shape = "" if part.shape is None else " x ".join(map(str, part.shape))
    memory = _short(part.activations, 1024, ("B", "KiB", "MiB", "GiB", "TiB", "PiB"))
    return (
        part.name,
        shape,
        f"{part.parameters:,}",
        _short(part.flops, 1000, ("", "k", "M", "G", "T", "P")),
        memory,
    )


def _short(value: float, base: int, units: Sequence[str]) -> str:
    """Format a value with three digits and a unit."""
    i = 0
    while value >= 999.5 and i < len(units) - 1:
        value, i = value / base, i + 1
    return f"{value:.3g} {units[i]}".rstrip()
