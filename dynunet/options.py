"""Options of a network, normalised once: every error names the option, the rule and the value.

A per-level option is one value for all levels or a flat sequence with one value per level. A nested
sequence is per level and per axis; a flat sequence is never read as axes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from sys import float_info
from typing import Any

from convnd.arguments import choice, integer, per_axis

from .attention import attention_names, needs_heads
from .blocks import BLOCKS
from .rules import shown

DOWNSAMPLES = ("conv", "max", "avg")
UPSAMPLES = ("nearest", "linear", "transpose", "shuffle")
MOST_AXES, MOST_BLOCKS = 62, 1000  # torch has 64 axes at most, two of which are for samples and channels


@dataclass(frozen=True)
class Level:
    """What one level of the U is made of."""

    channels: int
    num_blocks: int
    kernel_size: tuple[int, ...]
    block: str
    attention: tuple[str, ...]
    num_heads: int
    dropout: float
    skip_attention: bool | tuple[str, ...] = False


@dataclass(frozen=True)
class Transition:
    """How one level and the next are connected."""

    stride: tuple[int, ...]
    downsample: str
    upsample: str


def channel_list(channels: Any) -> tuple[int, ...]:
    if isinstance(channels, str) or not isinstance(channels, Sequence):
        raise TypeError(f"channels must be a sequence of ints, one per level, got {channels!r}")
    if not channels:
        raise ValueError(f"channels must have at least one level, got {channels!r}")
    return tuple(integer(c, f"channels[{i}]") for i, c in enumerate(channels))


def per_level(
    value: Any, count: int, name: str, check: Callable[[Any, str], Any], each: str = "levels"
) -> list[Any]:
    """One value for all levels, or one for each; ``check(value, name)`` returns its normal form."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        return [check(value, name)] * count
    if len(value) != count:
        raise ValueError(
            f"{name} must be one value or have one for each of {count} {each} (a flat sequence is per "
            f"level, a nested one per level and per axis), got {len(value)}: {value!r}"
        )
    return [check(v, f"{name}[{i}]") for i, v in enumerate(value)]


def levels(spatial_dims: int, options: dict[str, Any]) -> list[Level]:
    """The options of every level, checked."""
    channels = channel_list(options["channels"])
    checks: dict[str, Callable[[Any, str], Any]] = {
        "num_blocks": lambda v, n: at_most(integer(v, n), MOST_BLOCKS, n),
        "kernel_size": lambda v, n: per_axis(v, spatial_dims, n),
        "block": lambda v, n: choice(v, tuple(BLOCKS), n),
        "attention": attention_names,
        "num_heads": integer,
        "dropout": _probability,
        "skip_attention": lambda v, n: v if isinstance(v, bool) else attention_names(v, n),
    }
    given = {
        name: per_level(options.get(name, False), len(channels), name, check)
        for name, check in checks.items()
    }
    made = [
        Level(width, **{name: values[i] for name, values in given.items()})
        for i, width in enumerate(channels)
    ]
    for i, level in enumerate(made):
        if needs_heads(level.attention):
            check_heads(level, level.channels, f"level {i}")
    return made


def transitions(spatial_dims: int, count: int, options: dict[str, Any]) -> list[Transition]:
    """How each level but the first is reached."""

    def each(name: str, default: Any, check: Callable[[Any, str], Any]) -> list[Any]:
        return per_level(options.get(name, default), count - 1, name, check, "transitions between levels")

    strides = each("strides", 2, lambda v, n: per_axis(v, spatial_dims, n))
    downs = each("downsample", "conv", lambda v, n: choice(v, DOWNSAMPLES, n))
    ups = each("upsample", "nearest", lambda v, n: choice(v, UPSAMPLES, n))
    return [Transition(*chosen) for chosen in zip(strides, downs, ups, strict=True)]


def check_heads(level: Level, channels: int, where: str) -> None:
    if channels % level.num_heads:
        raise ValueError(
            f"num_heads must divide the channels where there is attention, got {level.num_heads} heads "
            f"for {channels} channels at {where}"
        )


def at_most(value: int, most: int, name: str) -> int:
    """Refuse what would take no end of time and memory."""
    if value > most:
        raise ValueError(f"{name} must be at most {most}, got {shown(value)}")
    return value


def optional_choice(value: Any, known: Sequence[str], name: str) -> str | None:
    return None if value is None else choice(value, known, f"{name}, if not None,")


def positive(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, got {value!r}")
    if not 0 < value <= float_info.max:
        raise ValueError(f"{name} must be positive and finite, got {value!r}")
    return float(value)


def flag(value: Any, name: str) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {value!r}")
    return value


def layer(value: Any, name: str) -> Any:
    """None, or a module or function that is run as a layer."""
    if value is not None and not callable(value):
        raise TypeError(f"{name} must be None or a callable, got {value!r}")
    return value


def _probability(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, got {value!r}")
    if not 0 <= value < 1:
        raise ValueError(f"{name} must be in [0, 1), got {value}")
    return float(value)
