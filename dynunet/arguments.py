"""Arguments, checked once: each error names the argument, states the rule and repeats the value received.

Nothing here imports torch, unlike :mod:`convnd.arguments`: options are checked before anything is computed,
and the command line answers a wrong flag at once.
"""

from collections.abc import Sequence
from math import inf, isfinite
from numbers import Real
from typing import Any

from .rules import shown


def integer(value: Any, name: str, least: int | None = 1) -> int:
    """An int, or what is one by ``__index__``, of at least ``least``; None for any."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be an int, got {value!r}")
    value = value.__index__()
    if least is not None and value < least:
        raise ValueError(f"{name} must be at least {least}, got {shown(value)}")
    return value


def check_counts(least: int = 1, /, **given: Any) -> None:
    """Refuse what is neither None nor an int of at least ``least``, for arguments by their names."""
    for name, value in given.items():
        if value is not None:
            integer(value, name, least)


def real(value: Any, name: str) -> float:
    """A number: Python's, NumPy's, or the one entry of an array or tensor without axes."""
    if not isinstance(value, (bool, int, float)) and getattr(value, "shape", None) == ():
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, got {value!r}")
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"{name} must be in the range of floats, got an int beyond it") from None


def number(value: Any, name: str, low: float = -inf, high: float = inf) -> float:
    """A number from ``low`` to ``high``; NaN is in no range."""
    value = real(value, name)
    if not low <= value <= high:
        raise ValueError(f"{name} must be in [{low:g}, {high:g}], got {value}")
    return value


def positive(value: Any, name: str) -> float:
    """A number above 0 and below infinity."""
    value = real(value, name)
    if not 0 < value < inf:
        raise ValueError(f"{name} must be positive and finite, got {value}")
    return value


LONGEST_AVERAGE = 12**-0.5  # of the plain mean of all steps


def average_length(value: Any, name: str) -> float:
    """The length of an average of weights, see :mod:`dynunet.averages`."""
    length = real(value, name)
    if not 0 < length < LONGEST_AVERAGE:
        raise ValueError(f"{name} must be above 0 and below {LONGEST_AVERAGE:.3f}, got {value}")
    return length


def interval(
    value: Any, name: str, low: float = -inf, high: float = inf, *, equal: bool = False
) -> tuple[float, float]:
    """Two finite numbers ``(lower, upper)`` in ``[low, high]``; ``equal`` ones only where that is allowed."""
    lower, upper = _pair(value, name)
    ordered = lower <= upper if equal else lower < upper
    if not (ordered and low <= lower and upper <= high and isfinite(lower) and isfinite(upper)):
        within = f" in [{low:g}, {high:g}]" if isfinite(low) else ""
        raise ValueError(
            f"{name} must be finite, low {'at most' if equal else 'below'} high{within}, got {value!r}"
        )
    return lower, upper


def _pair(value: Any, name: str) -> tuple[float, float]:
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != 2:
        raise TypeError(f"{name} must be two numbers, low and high, got {value!r}")
    return real(value[0], f"{name}[0]"), real(value[1], f"{name}[1]")


def several(value: Any, name: str) -> tuple[Any, ...]:
    """One number, or a sequence of them, as a tuple."""
    if isinstance(value, str):
        raise TypeError(f"{name} must be a number or a sequence of numbers, got {value!r}")
    return tuple(value) if isinstance(value, Sequence) else (value,)


def flag(value: Any, name: str) -> bool:
    """True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {value!r}")
    return value


def choice(value: Any, known: Sequence[str], name: str) -> str:
    """One of the known names."""
    if value not in known:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, known))}, got {value!r}")
    return value
