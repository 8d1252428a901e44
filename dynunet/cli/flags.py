"""Checks of flags that several commands have."""

from collections.abc import Sequence

from ..arguments import average_length, integer


def check_counts(**flags: int | None) -> None:
    """Refuse flags that count something and are below 1."""
    for name, value in flags.items():
        if value is not None:
            integer(value, f"--{name.replace('_', '-')}")


def check_length(length: float | None) -> None:
    """Refuse a length that no average of weights has."""
    if length is not None:
        average_length(length, "--length")


def check_seed(seed: int) -> None:
    """Refuse a seed that no generator takes; samples have those that follow."""
    if not -(2**63) <= seed < 2**63:
        raise ValueError(f"--seed must be a whole number of 64 bits, from -2^63 to 2^63 - 1, got {seed}")


def check_windows(window: Sequence[int] | None, overlap: Sequence[int] | None) -> None:
    """Refuse windows of no size; which of them a model takes is known when it is loaded."""
    for name, sizes, least in (("window", window, 1), ("overlap", overlap, 0)):
        for size in sizes or ():
            integer(size, name, least)
