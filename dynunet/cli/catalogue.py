"""The flags of a command as data, for other surfaces than a terminal: what each takes, and what it is for.

They are read from the dataclass of the command, from which the command line is made too.
"""

import ast
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache
from pathlib import Path
from textwrap import dedent
from types import NoneType
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

from typing_extensions import Doc

from ..nn.spec import options

__all__ = ["Flag", "arguments_of", "flags_of_form"]


class Flag(NamedTuple):
    """One flag.

    Attributes:
        name: without the dashes before it.
        group: what it belongs to, in words; empty for the command itself.
        help: what it is for.
        kind: of a value: bool, int, float, str or Path.
        several: it takes several values.
        choices: the values it takes, if they are known; of a network's option some may be joined by ``+``.
        default: as it would be typed; empty if there is none.
        positional: it has no name on the command line.
    """

    name: str
    group: str
    help: str
    kind: type
    several: bool
    choices: tuple[str, ...]
    default: str
    positional: bool


@cache
def flags_of_form(command: Any) -> tuple[Flag, ...]:
    """All flags of a command, in their order."""
    return tuple(_walk(command, ""))


def arguments_of(command: Any, texts: Mapping[str, str]) -> list[str]:
    """The command line for what is typed in, without what is blank.

    Args:
        command: the dataclass.
        texts: by the name of the flag; ``"true"`` and ``"false"`` for those that are switched.
    """
    named, places = [], []
    for flag in flags_of_form(command):
        text = texts.get(flag.name, "").strip()
        words = [text] if flag.kind is Path and not flag.several else text.split()
        if not text:
            continue
        if flag.positional:
            places += words
        elif flag.kind is bool and not flag.several:
            named.append(f"--{'' if text == 'true' else 'no-'}{flag.name}")
        else:
            named += [f"--{flag.name}", *words]
    # First, for a flag with any number of values would take them.
    return [*places, *named]


def _walk(command: Any, group: str) -> Iterator[Flag]:
    hints, texts = get_type_hints(command, include_extras=True), _texts(command)
    for field in fields(command):
        kind, about = _plain(hints[field.name])
        if is_dataclass(kind):
            yield from _walk(kind, _title(kind))
        else:
            yield _flag(command, field, kind, about, group, texts)


def _flag(command: Any, field: Field[Any], kind: Any, about: list[Any], group: str, texts: Any) -> Flag:
    written = next((a.documentation for a in about if isinstance(a, Doc)), texts.get(field.name, ""))
    name = getattr(command, "flag_names", {}).get(field.name, field.name).replace("_", "-")
    one, several = _single(kind)
    choices = tuple(map(str, get_args(one))) if get_origin(one) is Literal else _known(group, field.name)
    if get_origin(one) is Literal:
        one = str
    positional = any("Positional" in repr(a) for a in about)
    return Flag(name, group, " ".join(written.split()), one, several, choices, _typed(field), positional)


def _plain(hint: Any) -> tuple[Any, list[Any]]:
    """A type without what is noted about it, and that."""
    about: list[Any] = []
    while get_origin(hint) is Annotated:
        hint, *more = get_args(hint)
        about += more
    return hint, about


def _single(kind: Any) -> tuple[Any, bool]:
    """The type of one value, and whether there may be several."""
    members = [m for m in get_args(kind) if m is not NoneType]
    if get_origin(kind) not in (tuple, Literal) and members:
        kind = members[-1]
    if get_origin(kind) is tuple:
        return get_args(kind)[0], True
    return kind, False


def _typed(field: Field[Any]) -> str:
    if field.default is MISSING or field.default is None:
        return ""
    values = field.default if isinstance(field.default, tuple) else (field.default,)
    return " ".join(str(v).lower() if isinstance(v, bool) else f"{v}" for v in values)


def _known(group: str, name: str) -> tuple[str, ...]:
    """Names that an option of the network may have."""
    return next((o.known for n, o in options() if n == name and group == "network"), ())


def _title(kind: Any) -> str:
    """``network`` for NetworkOptions: as the groups are called in the help of the command line."""
    words = "".join(f" {c.lower()}" if c.isupper() else c for c in kind.__name__).split()
    return " ".join(w for w in words if w not in ("options", "flags"))


@cache
def _texts(command: Any) -> dict[str, str]:
    """The strings below the fields of a dataclass in its source, those of its bases first."""
    found: dict[str, str] = {}
    for base in reversed(command.__mro__):
        if "__annotations__" in base.__dict__:
            try:
                tree = ast.parse(dedent(inspect.getsource(base)))
            except (OSError, TypeError):  # it was made by a function, and has its texts with the types
                continue
            found |= _below(tree.body[0])
    return found


def _below(body: Any) -> dict[str, str]:
    found = {}
    for one, text in zip(body.body, body.body[1:], strict=False):
        if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name):
            if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
                found[one.target.id] = str(text.value.value)
    return found
