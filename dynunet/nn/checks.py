"""Checks of option values: each returns the normal form of a value, or raises an error.

An error names the option, states the rule and repeats the value received.
"""

from collections.abc import Sequence
from typing import Any, Protocol

from .. import arguments
from ..rules import shown


class Check(Protocol):
    """Called with a value, its name, and the number of spatial axes if it matters."""

    def __call__(self, value: Any, name: str, n: int = 0, /) -> Any: ...


def whole(least: int = 1, most: int | None = None) -> Check:
    """An int within these bounds, or an object whose ``__index__`` gives one."""

    def check(value: Any, name: str, n: int = 0) -> int:
        value = arguments.integer(value, name, least)
        if most is not None and value > most:
            raise ValueError(f"{name} must be at most {most}, got {shown(value)}")
        return value

    return check


def positive(value: Any, name: str, n: int = 0) -> float:
    """A finite number above 0."""
    return arguments.positive(value, name)


def probability(value: Any, name: str, n: int = 0) -> float:
    """A number in [0, 1)."""
    value = arguments.real(value, name)
    if not 0 <= value < 1:
        raise ValueError(f"{name} must be in [0, 1), got {value:g}")
    return value


def flag(value: Any, name: str, n: int = 0) -> bool:
    """True or False."""
    return arguments.flag(value, name)


def layer(value: Any, name: str, n: int = 0) -> Any:
    """None, or a module or function to use as a layer."""
    if value is not None and not callable(value):
        raise TypeError(f"{name} must be None or a callable, got {value!r}")
    return value


def choice(known: Sequence[str], otherwise: str = "") -> Check:
    """One of the known names; ``otherwise`` is added to the error to say what else is allowed."""

    return lambda value, name, n=0: arguments.choice(value, known, name + otherwise)


def optional(check: Check) -> Check:
    """None, or a value that passes a check."""
    return lambda value, name, n=0: None if value is None else check(value, name, n)


def optional_choice(known: Sequence[str]) -> Check:
    """None, or one of the known names."""
    return optional(choice(known, ", if not None,"))


def sizes(value: Any, name: str, n: int = 0) -> tuple[int, ...]:
    """A positive int for all axes, or one for each, as a tuple of ``n``."""
    if hasattr(value, "__index__"):
        return (whole()(value, name),) * n
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise TypeError(f"{name} must be an int or a sequence of {n} ints, got {value!r}")
    values = tuple(value) * n if len(value) == 1 else tuple(value)
    if len(values) != n:
        raise ValueError(
            f"{name} must be an int or have one entry for each of the {n} spatial axes, "
            f"got {len(values)} entries: {value!r}"
        )
    return tuple(whole()(v, f"{name}[{i}]") for i, v in enumerate(values))


def per_axis(check: Check, kind: type = str, what: str = "name") -> Check:
    """A value of a type for all axes, or a sequence with one for each, as a tuple."""

    def each(value: Any, name: str, n: int = 0) -> tuple[Any, ...]:
        if not isinstance(value, (kind, Sequence)):
            raise TypeError(f"{name} must be one {what} or a sequence of {n} {what}s, got {value!r}")
        values = (value,) * n if isinstance(value, kind) else tuple(value)
        if len(values) != n:
            raise ValueError(
                f"{name} must be one {what} or one for each of the {n} spatial axes, got {value!r}"
            )
        return tuple(check(v, name, n) for v in values)

    return each


def per_level(check: Check, value: Any, name: str, n: int, count: int, each: str) -> tuple[Any, ...]:
    """A value for all levels (or transitions), or a flat sequence with one for each, as a tuple."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        return (check(value, name, n),) * count
    if len(value) != count:
        raise ValueError(
            f"{name} must be one value or have one for each of {count} {each} (a flat sequence is per "
            f"level, a nested one per level and per axis), got {len(value)}: {value!r}"
        )
    return tuple(check(v, f"{name}[{i}]", n) for i, v in enumerate(value))
