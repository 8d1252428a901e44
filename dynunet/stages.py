"""The levels of a U-Net: which blocks they hold, and which sizes they can take."""

from collections.abc import Sequence
from math import prod
from typing import Any

from torch import Tensor, nn

from .attention import ATTENTIONS
from .blocks import BLOCKS, Parts
from .options import Level


class Stage(nn.Module):
    """The blocks of one level on one side of the U, each followed by its attention."""

    def __init__(self, parts: Parts, level: Level, inputs: Sequence[int]) -> None:
        super().__init__()
        make = BLOCKS[level.block]
        self.blocks = nn.ModuleList(
            make(parts, i, level.channels, level.kernel_size, level.dropout) for i in inputs
        )
        self.attentions = nn.ModuleList(_attention(parts, level, level.attention) for _ in inputs)
        self.down: nn.Module | None = None
        self.up: nn.Module | None = None


class Middle(nn.Module):
    """The bottleneck: block, attention, block."""

    def __init__(self, parts: Parts, level: Level, attention: str | None) -> None:
        super().__init__()
        make = BLOCKS[level.block]
        args: Any = (parts, level.channels, level.channels, level.kernel_size, level.dropout)
        self.block1 = make(*args)
        self.attention = _attention(parts, level, attention)
        self.block2 = make(*args)

    def forward(self, x: Tensor, embedding: Tensor | None) -> Tensor:
        return self.block2(self.attention(self.block1(x, embedding)), embedding)


def _attention(parts: Parts, level: Level, name: str | None) -> nn.Module:
    return nn.Identity() if name is None else ATTENTIONS[name](parts, level.channels, level.num_heads)


def resampling_kernel(level: Level, stride: Sequence[int]) -> tuple[int, ...]:
    """A down-sampling kernel reads every entry: it is at least as long as the stride."""
    return tuple(max(k, s) for k, s in zip(level.kernel_size, stride, strict=True))


def check_axis(
    size: int, axis: int, mode: str, levels: Sequence[Level], strides: Sequence[Sequence[int]]
) -> None:
    """Refuse a size that cannot be padded in its mode at every level, naming the nearest that can."""
    if mode not in ("circular", "reflect") or _fits(size, axis, mode, levels, strides):
        return
    widest = max(max(level.kernel_size) for level in levels) + 1
    reach = prod(stride[axis] for stride in strides) * (widest + 1)
    below = (n for n in range(size - 1, 0, -1) if _fits(n, axis, mode, levels, strides))
    above = (n for n in range(size + 1, size + reach + 1) if _fits(n, axis, mode, levels, strides))
    nearest = [n for n in (next(below, None), next(above, None)) if n is not None]
    rule = "divide by the product of the strides and " if mode == "circular" else ""
    raise ValueError(
        f"x with {mode} padding must {rule}hold the padding at every level: spatial axis {axis} of size "
        f"{size} does not; nearest that does: {' or '.join(map(str, nearest))}"
    )


def _fits(size: int, axis: int, mode: str, levels: Sequence[Level], strides: Sequence[Sequence[int]]) -> bool:
    factors = [stride[axis] for stride in strides]
    if mode == "circular" and size % prod(factors):
        return False
    for i, level in enumerate(levels):
        around = strides[max(i - 1, 0) : i + 1]  # down-sampling out of the level, up-sampling out of it
        kernels = [level.kernel_size[axis], *(resampling_kernel(level, s)[axis] for s in around)]
        if max(kernels) // 2 > (size if mode == "circular" else size - 1):
            return False
        if i < len(factors):
            size = -(-size // factors[i])
    return True
