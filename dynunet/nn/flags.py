"""The options of a network as command-line flags, with the help texts of :mod:`dynunet.nn.spec`.

Flags have plain types that can be written as JSON: a tuple for several values (levels, transitions or axes),
``none`` for None, ``1x2x2`` for a value per axis.
"""

from collections.abc import Mapping
from dataclasses import Field, make_dataclass
from typing import Annotated, Any

from typing_extensions import Doc

from .spec import Option, option_fields


def flag_names() -> list[str]:
    """Names of the options that are flags; the others are Python objects or follow from the data."""
    return [f.name for f in option_fields() if f.metadata["option"].kind is not None]


def with_flags(
    base: type,
    defaults: Mapping[str, Any],
    *,
    notes: Mapping[str, str] | None = None,
    frozen: bool = False,
) -> Any:
    """A dataclass with the fields of another class, followed by flags for options of a network.

    Args:
        base: the other class, a dataclass if it has fields.
        defaults: default by option name, in the order of the flags; ``...`` for the network's own default.
        notes: text to add to the help of an option, by name.
        frozen: whether the dataclass is frozen; must be the same for ``base``.

    >>> from dataclasses import dataclass
    >>> @dataclass
    ... class Base:
    ...     seed: int = 0
    >>> with_flags(Base, {"channels": (4, 8), "attention": ..., "num_groups": 2})()
    Base(seed=0, channels=(4, 8), attention=('none',), num_groups=2)
    """
    known, notes = {f.name: f for f in option_fields()}, notes or {}
    made = [_flag(known[name], default, notes.get(name, "")) for name, default in defaults.items()]
    return make_dataclass(base.__name__, made, bases=(base,), frozen=frozen)


def _flag(option_field: Field[Any], default: Any, note: str) -> tuple[str, Any, Any]:
    option: Option = option_field.metadata["option"]
    several = bool(option.per) or isinstance(option_field.default, tuple)
    if default is ...:
        default = "none" if option_field.default is None else option_field.default
    if several and default is not None:
        given = default if isinstance(default, tuple) else (default,)
        default = tuple(map(str, given)) if option.kind is str else given
    kind: Any = tuple[option.kind, ...] if several else option.kind
    kind = kind if default is not None else kind | None
    return option_field.name, Annotated[kind, Doc(flag_help(option) + note)], default


def flag_help(option: Option) -> str:
    """The help text of a flag."""
    text = option.help.rstrip(".").replace('"', "").replace("None", "none")
    as_text = ", per axis as 1x2x2" if len(option.per) == 2 and option.kind is str else ""
    return f"{text} (per {option.per[0]}{as_text})" if option.per else text


def network_options(given: Any) -> dict[str, Any]:
    """Arguments of a network from a dataclass with flags; a flag that is None is left out.

    Raises:
        ValueError: if a per-axis value does not consist of numbers.
    """
    found = {}
    for option_field in option_fields():
        value = getattr(given, option_field.name, None)
        if value is not None:
            found[option_field.name] = _value(option_field, value)
    return found


def _value(option_field: Field[Any], value: Any) -> Any:
    option, optional = option_field.metadata["option"], str(option_field.type).endswith("| None")
    if isinstance(value, (tuple, list)):
        values = [_value(option_field, v) for v in value]
        # A tuple by itself, of axes, would be read as one of levels.
        alone = len(values) == 1 and option.per and not isinstance(values[0], tuple)
        return values[0] if alone else values
    if optional and value == "none":
        return None
    return _sizes(value, option_field.name) if option.kind is str and len(option.per) == 2 else value


def _sizes(text: Any, name: str) -> int | tuple[int, ...]:
    """Parse ``2``, or per axis ``1x2x2``."""
    try:
        numbers = tuple(int(number) for number in str(text).split("x"))
    except ValueError:
        raise ValueError(f"{name} must be numbers such as 2, or per axis 1x2x2, got {text!r}") from None
    return numbers[0] if len(numbers) == 1 else numbers
