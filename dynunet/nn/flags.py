"""The options of a network as command-line flags, with the help texts of :mod:`dynunet.nn.spec`.

Flags have plain types that can be written as JSON: a tuple for several values (levels, transitions or axes),
``none`` for None, ``1x2x2`` for a value per axis. What is typed into a form reads the same
(:func:`typed_in`), also for the options that are no flags, and becomes a line for the command line or Python.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import Field, make_dataclass
from typing import Annotated, Any

from typing_extensions import Doc

from ..jsonable import typed
from . import checks
from .option import Option
from .spec import option_fields

_WORDS = {"none": None, "true": True, "false": False}


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


def fields_to_type_in(of: str) -> list[Field[Any]]:
    """The options of a class that can be written down: all but modules and functions."""
    return [f for f in option_fields(of) if f.metadata["option"].check is not checks.layer]


def typed_in(texts: Mapping[str, str], of: str) -> dict[str, Any]:
    """Arguments of a network from what is typed in for each; what is blank is left out.

    Args:
        texts: by the name of the option, as on the command line: ``"8 16"`` for one value per level.
        of: the class.

    Raises:
        ValueError: naming the option, the rule and the text.

    >>> typed_in({"channels": "8 16", "strides": "1x2", "skip_attention": "true", "norm": " "}, "UNet")
    {'channels': [8, 16], 'strides': [(1, 2)], 'skip_attention': True}
    """
    found = {}
    for option_field in fields_to_type_in(of):
        words = texts.get(option_field.name, "").split()
        if words:
            found[option_field.name] = _typed_in(option_field, words)
    return found


def _typed_in(option_field: Field[Any], words: list[str]) -> Any:
    option, name = option_field.metadata["option"], option_field.name
    several = bool(option.per) or isinstance(option_field.default, tuple)
    if len(words) > 1 and not several:
        raise ValueError(f"{name} must be one value, got {' '.join(words)!r}")
    values = [_word(option, word, name) for word in words]
    return _value(option_field, values if several else values[0])


def _word(option: Option, word: str, name: str) -> Any:
    if option.kind not in (None, bool):
        return word if word == "none" else typed(option.kind, word, name)
    if word.lower() in _WORDS:
        return word if word == "none" and option.kind else _WORDS[word.lower()]
    for kind in (int, float):
        with suppress(ValueError):
            return kind(word)
    return word


def as_flags(texts: Mapping[str, str]) -> list[str]:
    """What is typed in as flags of the command line, without the options that are none.

    >>> as_flags({"channels": "8 16", "gradient_checkpointing": "true", "norm": "", "skip_attention": "true"})
    ['--channels', '8', '16', '--gradient-checkpointing']
    """
    found = []
    for option_field in option_fields():
        option, words = option_field.metadata["option"], texts.get(option_field.name, "").split()
        flag = option_field.name.replace("_", "-")
        if words and option.kind is bool and not option.per:
            found.append(f"--{'' if words[0].lower() == 'true' else 'no-'}{flag}")
        elif words and option.kind is not None:
            found += [f"--{flag}", *(w.capitalize() if option.kind is bool else w for w in words)]
    return found


def as_call(name: str, first: Sequence[Any], arguments: Mapping[str, Any]) -> str:
    """The line of Python that builds a network.

    >>> as_call("UNet", (2, 3), {"channels": [8, 16], "norm": None})
    'UNet(2, 3, channels=(8, 16), norm=None)'
    """
    values = ((k, tuple(v) if isinstance(v, list) else v) for k, v in arguments.items())
    return f"{name}({', '.join([*map(repr, first), *(f'{k}={v!r}' for k, v in values)])})"


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
