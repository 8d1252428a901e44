"""Options as JSON and back: one way from Python's objects to a document, and one from a document to them.

``plain`` gives what JSON holds: tuples become lists, paths strings and dataclasses objects of their fields.
``typed`` reads a value back as its annotation says. ``flat`` and ``unflat`` do so for the flags of a command,
whose groups of options lie in one object::

    {"source": "pictures", "out": "runs/cats", "spatial_dims": 2, "size": [32], "channels": [32, 64, 128]}

A value may be written as it would be typed: ``8`` for ``[8]``, ``"8"`` for ``8``. Nothing here imports torch.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from numbers import Integral, Real
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from .rules import shown

_T = TypeVar("_T")


def _fields(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value)}
    raise TypeError(f"JSON cannot hold {value!r}")


def plain(value: Any, objects: Callable[[Any], Any] = _fields) -> Any:
    """A value as JSON reads it back.

    Args:
        value: None, a bool, number or string, also NumPy's or of a tensor without axes; lists, tuples, ranges
            and mappings with string keys of such values.
        objects: ``objects(value)`` for anything else; by default paths and dataclasses.

    Raises:
        TypeError: JSON cannot hold it.
    """
    if isinstance(value, (NoneType, bool, str)):
        return value
    if getattr(value, "shape", None) == ():  # one number of an array or a tensor
        return plain(value.item(), objects)
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: plain(v, objects) for key, v in value.items()}
    if isinstance(value, (list, tuple, range)):
        return [plain(v, objects) for v in value]
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value)
    return objects(value)


def typed(hint: Any, value: Any, name: str) -> Any:
    """A value of JSON as an annotation says: a plain type, a path, ``Literal``, a union or a tuple.

    Raises:
        ValueError: naming the field, the rule and the value.
    """
    return _OF_ORIGIN.get(get_origin(hint), _single)(hint, value, name)


def _union(hint: Any, value: Any, name: str) -> Any:
    members = [member for member in get_args(hint) if member is not NoneType]
    if value is None and len(members) < len(get_args(hint)):
        return None
    return typed(members[0] if len(members) == 1 else _member(members, value, name), value, name)


def _member(members: list[Any], value: Any, name: str) -> Any:
    """The first of several types that takes a value, else the last, whose error is the one that is told."""
    for member in members[:-1]:
        try:
            typed(member, value, name)
        except ValueError:
            continue
        return member
    return members[-1]


def _tuple(hint: Any, value: Any, name: str) -> tuple[Any, ...]:
    kinds = get_args(hint)
    given = list(value) if isinstance(value, (list, tuple)) else [value]
    if kinds[-1] is ...:
        kinds = (kinds[0],) * len(given)
    if len(kinds) != len(given):
        raise ValueError(f"{name} must have {len(kinds)} values, got {shown(value)}")
    return tuple(typed(kind, v, f"{name}[{i}]") for i, (kind, v) in enumerate(zip(kinds, given, strict=True)))


def _literal(hint: Any, value: Any, name: str) -> Any:
    if value in get_args(hint) and not isinstance(value, bool):
        return value
    raise ValueError(f"{name} must be one of {', '.join(map(repr, get_args(hint)))}, got {shown(value)}")


_WORDS = {int: "a whole number", float: "a number", str: "a string", Path: "a path", bool: "true or false"}
_WRITTEN: dict[Any, tuple[type, ...]] = {  # as which types of JSON a value may be written
    int: (int, str),
    float: (int, float, str),
    str: (str, int, float),
    Path: (str,),
    bool: (bool,),
}


def _single(kind: Any, value: Any, name: str) -> Any:
    try:
        if isinstance(value, _WRITTEN[kind]) and (kind is bool or not isinstance(value, bool)):
            return kind(value)
    except (ValueError, OverflowError):
        pass
    raise ValueError(f"{name} must be {_WORDS[kind]}, got {shown(value)}")


_OF_ORIGIN = {Union: _union, UnionType: _union, tuple: _tuple, Literal: _literal}


def flat(options: Any) -> dict[str, Any]:
    """The values of all flags of a dataclass of options and of the groups in it, by name."""
    return dict(_walk(options))


def _walk(options: Any) -> Iterator[tuple[str, Any]]:
    for field in fields(options):
        value = getattr(options, field.name)
        if is_dataclass(value):
            yield from _walk(value)
        else:
            yield _flag(type(options), field.name), plain(value)


def _flag(kind: Any, name: str) -> str:
    """The name of a field among those of other groups: a class may give another in its ``flag_names``."""
    return getattr(kind, "flag_names", {}).get(name, name)


def unflat(kind: type[_T], values: Mapping[str, Any], where: object, others: bool = False) -> _T:
    """The dataclass of options whose flags have these values.

    Null is None where that is a value of a flag, else it stands for one that is left out.

    Args:
        kind: its class. A group of options in it is a field with a ``default_factory``.
        values: by name of a flag.
        where: they come from, such as a file, for errors.
        others: pass over values of other names, instead of refusing them.

    Raises:
        ValueError: naming the flag, the rule and the value.
    """
    known = [*_names(kind)]
    for name, value in values.items():
        if name not in known and not others and value is not None:
            near = get_close_matches(name, known, 1)
            raise ValueError(f"{where}: {name!r} is no flag{f'; did you mean {near[0]!r}?' if near else ''}")
        if name in known and isinstance(value, Mapping):
            raise ValueError(f"{where}: {name!r} must be a value or a list of values, got {shown(value)}")
    try:
        return _built(kind, values)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{where} must have values as flags have them: {error}") from None


def _names(kind: Any) -> Iterator[str]:
    hints = get_type_hints(kind)
    for field in fields(kind):
        if is_dataclass(hints[field.name]):
            yield from _names(hints[field.name])
        else:
            yield _flag(kind, field.name)


def _built(kind: Any, values: Mapping[str, Any]) -> Any:
    hints, given = get_type_hints(kind), {}
    for field in fields(kind):
        hint, flag = hints[field.name], _flag(kind, field.name)
        if is_dataclass(hint):
            given[field.name] = _built(hint, values)
        elif flag in values and (values[flag] is not None or NoneType in get_args(hint)):
            given[field.name] = typed(hint, values[flag], flag)
    return kind(**given)
