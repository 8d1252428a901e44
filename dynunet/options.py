"""Options of a network, normalised once: every error names the option, the rule and the value.

A per-level option is one value for all levels or a flat sequence with one value per level. A nested
sequence is per level and per axis; a flat sequence is never read as axes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from convnd.arguments import choice, integer, per_axis

from .attention import ATTENTIONS
from .blocks import BLOCKS


@dataclass(frozen=True)
class Level:
    """What one level of the U is made of."""

    channels: int
    num_blocks: int
    kernel_size: tuple[int, ...]
    block: str
    attention: str | None
    num_heads: int
    dropout: float


def channel_list(channels: Any) -> tuple[int, ...]:
    if isinstance(channels, str) or not isinstance(channels, Sequence):
        raise TypeError(f"channels must be a sequence of ints, one per level, got {channels!r}")
    if not channels:
        raise ValueError(f"channels must have at least one level, got {channels!r}")
    return tuple(integer(c, f"channels[{i}]") for i, c in enumerate(channels))


def per_level(value: Any, count: int, name: str, check: Callable[[Any, str], Any]) -> list[Any]:
    """One value for all levels, or one for each; ``check(value, name)`` returns its normal form."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        return [check(value, name)] * count
    if len(value) != count:
        raise ValueError(
            f"{name} must be one value or have one for each of {count} "
            f"{'transitions' if name == 'strides' else 'levels'} (a flat sequence is per level, a nested "
            f"one per level and per axis), got {len(value)}: {value!r}"
        )
    return [check(v, f"{name}[{i}]") for i, v in enumerate(value)]


def levels(
    spatial_dims: int,
    channels: tuple[int, ...],
    num_blocks: Any,
    kernel_size: Any,
    block: Any,
    attention: Any,
    num_heads: Any,
    dropout: Any,
) -> list[Level]:
    """The options of every level, checked."""
    count = len(channels)
    made = [
        Level(*options)
        for options in zip(
            channels,
            per_level(num_blocks, count, "num_blocks", integer),
            per_level(kernel_size, count, "kernel_size", lambda v, n: per_axis(v, spatial_dims, n)),
            per_level(block, count, "block", lambda v, n: choice(v, tuple(BLOCKS), n)),
            per_level(attention, count, "attention", attention_name),
            per_level(num_heads, count, "num_heads", integer),
            per_level(dropout, count, "dropout", _probability),
            strict=True,
        )
    ]
    for i, level in enumerate(made):
        if level.attention is not None:
            check_heads(level, f"level {i}")
    return made


def attention_name(value: Any, name: str) -> str | None:
    return None if value is None else choice(value, tuple(ATTENTIONS), f"{name}, if not None,")


def check_heads(level: Level, where: str) -> None:
    if level.channels % level.num_heads:
        raise ValueError(
            f"num_heads must divide the channels of a level with attention, got {level.num_heads} heads "
            f"for {level.channels} channels at {where}"
        )


def strides_between(spatial_dims: int, strides: Any, count: int) -> list[tuple[int, ...]]:
    """The stride into each level but the first."""
    return per_level(strides, count - 1, "strides", lambda v, n: per_axis(v, spatial_dims, n))


def _probability(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, got {value!r}")
    if not 0 <= value < 1:
        raise ValueError(f"{name} must be in [0, 1), got {value}")
    return float(value)
