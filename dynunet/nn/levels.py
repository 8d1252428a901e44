"""The levels of a network: their blocks, and the sizes they accept."""

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor, nn

from .attention import CrossAttention, make_attention
from .blocks import BLOCKS, Parts
from .causal import Ahead, Aligned
from .checkpointing import checkpointed
from .gates import SPATIAL_KERNEL, AttentionGate
from .option import attention_names
from .resampling import resampling_kernel
from .spec import LevelSpec, NetworkSpec


def joined(x: Tensor, skip: Tensor) -> Tensor:
    """Concatenate the channels of both, in channels-last memory if ``x`` is."""
    if x.stride(1) == 1:
        return torch.cat((x.movedim(1, -1), skip.movedim(1, -1)), dim=-1).movedim(-1, 1)
    return torch.cat((x, skip), dim=1)


class Level(nn.Module):
    """The blocks of one level on one side of the U, each followed by its attention.

    Args:
        parts: makes the layers.
        spec: the options of the network.
        index: index of the level, 0 for the finest.
        inputs: input channels of each block, including those of its skip.
        skips: channels of the skip of each block, 0 for none; empty in the encoder.

    Attributes:
        skips: for each block of the decoder, whether it takes a skip.
    """

    def __init__(
        self, parts: Parts, spec: NetworkSpec, index: int, inputs: Sequence[int], skips: Sequence[int] = ()
    ) -> None:
        super().__init__()
        level = spec.levels[index]
        channels, make = level.channels, BLOCKS[level.block]
        self.blocks = nn.ModuleList(
            make(parts, width, channels, level.kernel_size, level.dropout) for width in inputs
        )
        names = attention_names(level.attention)
        self.attentions = nn.ModuleList(
            make_attention(parts, channels, level.num_heads, names, spec.positions, shifted=i % 2 == 1)
            for i in range(len(inputs))
        )
        self.contexts = nn.ModuleList()
        if spec.context_features is not None and names:
            self.contexts.extend(
                CrossAttention(parts, channels, level.num_heads, spec.context_features) for _ in inputs
            )
        self.channels = channels
        self.skips = tuple(map(bool, skips))
        self.aligned = nn.ModuleList(Aligned() for skip in skips if skip and parts.causal)
        self.gated = level.skip_attention is True
        self.gates = nn.ModuleList()
        if level.skip_attention:
            self.gates.extend(
                self._gate(parts, spec, level, skip, width - skip)
                for skip, width in zip(skips, inputs, strict=False)
                if skip
            )
        self.checkpointing = spec.gradient_checkpointing
        self.down: nn.Module | None = None
        self.up: nn.Module | None = None

    @staticmethod
    def _gate(parts: Parts, spec: NetworkSpec, level: LevelSpec, skip: int, width: int) -> nn.Module:
        if isinstance(level.skip_attention, str):
            names = attention_names(level.skip_attention)
            return make_attention(parts, skip, level.num_heads, names, spec.positions)
        return AttentionGate(parts, skip, width)

    def step(
        self,
        i: int,
        x: Tensor,
        embedding: Tensor | None,
        context: Tensor | None,
        skip: Tensor | None = None,
    ) -> Tensor:
        """Run block ``i`` of the level on ``x``, joined with its skip, and the attention after it."""
        if self.checkpointing and self.training and torch.is_grad_enabled():
            return checkpointed(self, self._step, i, x, embedding, context, skip)
        return self._step(i, x, embedding, context, skip)

    def _step(
        self, i: int, x: Tensor, embedding: Tensor | None, context: Tensor | None, skip: Tensor | None
    ) -> Tensor:
        if skip is not None and len(self.aligned):
            x, skip = self.aligned[i](x, skip)
        if 0 in x.shape[2:]:  # a stream has nothing new for this level
            return x.new_empty(len(x), self.channels, *x.shape[2:])
        if skip is not None:
            gate = self.gates[i] if len(self.gates) else nn.Identity()
            x = joined(x, gate(skip, x) if self.gated else gate(skip))
        x = self.attentions[i](self.blocks[i](x, embedding))
        return self.contexts[i](x, context) if len(self.contexts) else x


class Bottleneck(nn.Module):
    """Block, attention, block, at the size of the last level; or fewer blocks, see ``mid_blocks``.

    Args:
        parts: makes the layers.
        spec: the options of the network.
    """

    def __init__(self, parts: Parts, spec: NetworkSpec) -> None:
        super().__init__()
        level = spec.levels[-1]
        channels = level.channels

        def block(number: int) -> nn.Module | None:
            made = number <= spec.mid_blocks
            return (
                BLOCKS[level.block](parts, channels, channels, level.kernel_size, level.dropout)
                if made
                else None
            )

        ahead = spec.ahead(len(spec.transitions))
        self.ahead = Ahead(ahead) if any(ahead) else None
        self.block1 = block(1)
        names = attention_names(spec.mid_attention)
        self.attention = make_attention(parts, channels, level.num_heads, names, spec.positions)
        self.context: nn.Module | None = None
        if spec.context_features is not None:
            self.context = CrossAttention(parts, channels, level.num_heads, spec.context_features)
        self.block2 = block(2)

    def forward(self, x: Tensor, embedding: Tensor | None, context: Tensor | None) -> Tensor:
        if self.ahead is not None:
            x = self.ahead(x)
        if 0 in x.shape[2:]:  # a stream has nothing new for it
            return x
        if self.block1 is not None:
            x = self.block1(x, embedding)
        x = self.attention(x)
        if self.context is not None:
            x = self.context(x, context)
        return x if self.block2 is None else self.block2(x, embedding)


def check_sizes(spec: NetworkSpec, sizes: Sequence[int]) -> None:
    """Refuse input sizes that cannot be padded at every level; the error names the nearest valid size."""
    for axis, size in enumerate(sizes):
        if not takes(spec, axis, size):
            _refuse_size(spec, axis, size)


def takes(spec: NetworkSpec, axis: int, size: int) -> bool:
    """True if an axis of this size can be padded at every level."""
    return spec.padding_mode[axis] not in ("circular", "reflect") or _fits(spec, axis, size)


def _refuse_size(spec: NetworkSpec, axis: int, size: int) -> None:
    widest = max(max(*level.kernel_size, SPATIAL_KERNEL) for level in spec.levels) + 1
    reach = prod(step.strides[axis] for step in spec.transitions) * (widest + 1)
    below = (n for n in range(size - 1, 0, -1) if _fits(spec, axis, n))
    above = (n for n in range(size + 1, size + reach + 1) if _fits(spec, axis, n))
    nearest = [n for n in (next(below, None), next(above, None)) if n is not None]
    mode = spec.padding_mode[axis]
    rule = "divide by the product of the strides and " if mode == "circular" else ""
    raise ValueError(
        f"x with {mode} padding must {rule}hold the padding at every level: spatial axis {axis} of size "
        f"{size} does not; nearest that does: {' or '.join(map(str, nearest))}"
    )


def _fits(spec: NetworkSpec, axis: int, size: int) -> bool:
    factors = [step.strides[axis] for step in spec.transitions]
    circular = spec.padding_mode[axis] == "circular"
    if circular and size % prod(factors):
        return False
    for i, factor in enumerate([*factors, 1]):
        if _widest_kernel(spec, i, axis) // 2 > (size if circular else size - 1):
            return False
        size = -(-size // factor)
    return True


def _widest_kernel(spec: NetworkSpec, i: int, axis: int) -> int:
    """The longest kernel along an axis in a level, its resampling and its attention."""
    level = spec.levels[i]
    around = spec.transitions[max(i - 1, 0) : i + 1]  # up-sampling and down-sampling out of the level
    kernels = [level.kernel_size[axis], *(resampling_kernel(level, step.strides)[axis] for step in around)]
    attention = [level.attention, level.skip_attention]
    if i == len(spec.levels) - 1:
        attention.append(spec.mid_attention)
    if any(isinstance(names, str) and "spatial" in attention_names(names) for names in attention):
        kernels.append(SPATIAL_KERNEL)
    return max(kernels)
