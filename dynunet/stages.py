"""The levels of a network: which blocks they hold, and which sizes they can take."""

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor, nn

from .attention import CrossAttention, make_attention, needs_heads
from .blocks import BLOCKS, Parts
from .gates import SPATIAL_KERNEL, AttentionGate
from .options import Level, check_heads
from .recomputing import recomputed
from .resizing import resampling_kernel


def joined(x: Tensor, skip: Tensor) -> Tensor:
    """The channels of both, next to each other in memory where they are in ``x``."""
    if x.stride(1) == 1:
        return torch.cat((x.movedim(1, -1), skip.movedim(1, -1)), dim=-1).movedim(-1, 1)
    return torch.cat((x, skip), dim=1)


class Stage(nn.Module):
    """The blocks of one level on one side of the U, each followed by its attention.

    ``inputs`` has the input channels of each block; of these, ``skips`` come from the other side.
    """

    def __init__(
        self,
        parts: Parts,
        level: Level,
        inputs: Sequence[int],
        where: str,
        skips: Sequence[int] = (),
        positions: str | None = None,
        context_features: int | None = None,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        make = BLOCKS[level.block]
        c, heads, names = level.channels, level.num_heads, level.attention
        self.blocks = nn.ModuleList(make(parts, i, c, level.kernel_size, level.dropout) for i in inputs)
        self.attentions = nn.ModuleList(
            make_attention(parts, c, heads, names, positions, shifted=i % 2 == 1) for i in range(len(inputs))
        )
        self.contexts = nn.ModuleList()
        if context_features is not None and names:
            check_heads(level, c, f"{where}, which attends to the context")
            self.contexts.extend(CrossAttention(parts, c, heads, context_features) for _ in inputs)
        self.gates = nn.ModuleList()
        for skip, width in zip(skips, inputs, strict=False):
            if level.skip_attention is True:
                self.gates.append(AttentionGate(parts, skip, width - skip))
            elif level.skip_attention:
                if needs_heads(level.skip_attention):
                    check_heads(level, skip, f"{where} (skip_attention)")
                self.gates.append(make_attention(parts, skip, heads, level.skip_attention, positions))
        self.gated = level.skip_attention is True
        self.checkpointing = checkpointing
        self.down: nn.Module | None = None
        self.up: nn.Module | None = None

    def step(
        self,
        i: int,
        x: Tensor,
        embedding: Tensor | None,
        context: Tensor | None,
        skip: Tensor | None = None,
    ) -> Tensor:
        """Block ``i`` of the level, on ``x`` beside its skip, and what attends after it."""
        if self.checkpointing and self.training and torch.is_grad_enabled():
            return recomputed(self, self._step, i, x, embedding, context, skip)
        return self._step(i, x, embedding, context, skip)

    def _step(
        self, i: int, x: Tensor, embedding: Tensor | None, context: Tensor | None, skip: Tensor | None
    ) -> Tensor:
        if skip is not None:
            gate = self.gates[i] if len(self.gates) else nn.Identity()
            x = joined(x, gate(skip, x) if self.gated else gate(skip))
        x = self.attentions[i](self.blocks[i](x, embedding))
        return self.contexts[i](x, context) if len(self.contexts) else x


class Middle(nn.Module):
    """The bottleneck: block, attention, block."""

    def __init__(
        self,
        parts: Parts,
        level: Level,
        attention: tuple[str, ...],
        positions: str | None = None,
        context_features: int | None = None,
    ) -> None:
        super().__init__()
        make, c = BLOCKS[level.block], level.channels
        self.block1 = make(parts, c, c, level.kernel_size, level.dropout)
        if needs_heads(attention):
            check_heads(level, c, "the bottleneck (mid_attention)")
        self.attention = make_attention(parts, c, level.num_heads, attention, positions)
        self.context: nn.Module | None = None
        if context_features is not None:
            check_heads(level, c, "the bottleneck, which attends to the context")
            self.context = CrossAttention(parts, c, level.num_heads, context_features)
        self.block2 = make(parts, c, c, level.kernel_size, level.dropout)

    def forward(self, x: Tensor, embedding: Tensor | None, context: Tensor | None) -> Tensor:
        x = self.attention(self.block1(x, embedding))
        if self.context is not None:
            x = self.context(x, context)
        return self.block2(x, embedding)


def check_axis(
    size: int, axis: int, mode: str, levels: Sequence[Level], strides: Sequence[Sequence[int]]
) -> None:
    """Refuse a size that cannot be padded in its mode at every level, naming the nearest that can."""
    if mode not in ("circular", "reflect") or _fits(size, axis, mode, levels, strides):
        return
    widest = max(max(*level.kernel_size, SPATIAL_KERNEL) for level in levels) + 1
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
        gates = () if isinstance(level.skip_attention, bool) else level.skip_attention
        if "spatial" in (*level.attention, *gates):
            kernels.append(SPATIAL_KERNEL)
        if max(kernels) // 2 > (size if mode == "circular" else size - 1):
            return False
        if i < len(factors):
            size = -(-size // factors[i])
    return True
