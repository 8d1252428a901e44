"""The arguments a module was built with, as JSON and back.

A configuration can be read and edited by hand::

    {
      "_class": "UNet",
      "_format": 1,
      "_pass_again": ["in_layer"],
      "spatial_dims": 2,
      ...
    }

Modules and functions cannot be written as JSON. They are left out, ``_pass_again`` names them, and whoever
builds the module again has to give them. An argument that is itself :class:`Configured`, or one of this
package's :class:`Data`, becomes an object of the same kind in its place. What wraps a module to run it in
another way, compiled or on several devices, is not part of it (:func:`unwrapped`).
"""

import dataclasses
import inspect
import json
from collections.abc import Mapping
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any, Self, cast

from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from .jsonable import plain
from .rules import read_json

FORMAT = 1
_OWN = ("_class", "_format", "_pass_again")


class Data:
    """A frozen dataclass of values, such as a schedule; those of this package are saved as what they hold."""


def unwrapped(value: Any) -> Any:
    """The module that runs compiled, on several devices or as a running average; anything else as it is."""
    inner = wrapped_as(value)
    return value if inner is None else unwrapped(getattr(value, inner))


def wrapped_as(value: Any) -> str | None:
    """The name under which a module holds the one that it wraps; None if it wraps none."""
    if isinstance(value, nn.Module) and "_orig_mod" in value._modules:  # of torch.compile
        return "_orig_mod"
    return "module" if isinstance(value, (DataParallel, DistributedDataParallel, AveragedModel)) else None


class Configured:
    """Keeps the arguments of its constructor in ``config``, as JSON holds them.

    The constructor has to name all its arguments; that of a subclass may hand ``*args, **kwargs`` on.
    """

    config: dict[str, Any]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        self = object.__new__(cls)
        try:
            given = inspect.Signature(_parameters(cls)).bind_partial(*args, **kwargs)
        except TypeError:
            return self  # the constructor knows better what is wrong
        given.apply_defaults()
        self.__dict__["config"] = constructor_config(cls, given.arguments)
        return self


class AroundNetwork(Configured):
    """A model around a network: its constructor has arguments ``model``, the network, and ``data``."""

    @property
    def data(self) -> dict[str, Any] | None:
        """The argument of this name, the units of the numbers; it may be set later."""
        return self.config["data"]

    @data.setter
    def data(self, value: Mapping[str, Any] | None) -> None:
        if not (value is None or isinstance(value, Mapping)):
            raise TypeError(f"data must be None or a dict, got {type(value).__name__}")
        try:
            self.config["data"] = _plain(value)
        except TypeError as error:
            raise TypeError(f"data must be None or a dict that JSON can hold, got {value!r}") from error

    def _inflate_(self, axes: Any) -> None:
        """The configuration of the network is part of this one."""
        network = unwrapped(cast(Any, self).model)
        if isinstance(network, Configured):
            self.config["model"] = document(network)


def constructor_config(cls: type, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the arguments of a constructor that JSON can hold, as it holds them: tuples become lists."""
    config = {}
    for parameter in _parameters(cls):
        if parameter.name in arguments:
            try:
                config[parameter.name] = _plain(arguments[parameter.name])
            except TypeError:
                pass  # a module or a function, which document() names
    return config


def _parameters(cls: type) -> list[inspect.Parameter]:
    """Of the first constructor in the order of inheritance that names all of them, without ``self``."""
    for base in cls.__mro__:
        if "__init__" in base.__dict__:
            found = list(inspect.signature(base.__dict__["__init__"]).parameters.values())
            if all(p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in found):
                return found[1:]
    return []


def _plain(value: Any) -> Any:
    """As JSON reads it back; TypeError if it cannot."""
    return plain(value, _object)


def _object(value: Any) -> Any:
    value = unwrapped(value)
    if isinstance(value, Configured) and "config" in value.__dict__:
        return document(value)
    if isinstance(value, Data) and type(value) in _own_data():
        fields = {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(cast(Any, value))}
        return {"_class": type(value).__name__, **fields}
    raise TypeError(f"JSON cannot hold {value!r}")


def document(value: Configured) -> dict[str, Any]:
    """Class and arguments, as an object of JSON.

    Raises:
        ValueError: if the module could not be built from it again.
    """
    cls = type(value)
    names = [p.name for p in _parameters(cls)]
    config = value.__dict__.get("config")
    foreign = "no config" if config is None else next((name for name in config if name not in names), None)
    if config is None or foreign is not None:
        raise ValueError(
            f"config of {cls.__name__} must hold the arguments of its constructor, which has to name them "
            f"all, got {foreign!r} beside {names}"
        )
    absent = [name for name in names if name not in config]
    return {"_class": cls.__name__, **({"_pass_again": absent} if absent else {}), **config}


def to_text(value: Configured) -> str:
    """The document, with its format, to be read and edited by hand."""
    fields = document(value)
    return _laid_out({"_class": fields["_class"], "_format": FORMAT, **fields}) + "\n"


def _laid_out(value: Any, indent: str = "") -> str:
    """JSON with one field to a line."""
    if not isinstance(value, dict) or not value:
        return json.dumps(value, ensure_ascii=False)
    inside = indent + "  "
    lines = (f"{inside}{_laid_out(name)}: {_laid_out(v, inside)}" for name, v in value.items())
    return "{\n" + ",\n".join(lines) + f"\n{indent}}}"


def read(file: Path, cls: type) -> dict[str, Any]:
    """The fields of a file that holds a configuration of a class.

    Raises:
        ValueError: naming the file, the field, the rule and the value.
    """
    fields = _read(file)
    if fields.get("_class") != cls.__name__:
        raise ValueError(
            f"{file}: _class must be {cls.__name__!r} to be loaded as one, got {fields.get('_class')!r}"
        )
    return fields


def saved_class(file: Path) -> type:
    """The class of the module whose configuration a file holds.

    Raises:
        ValueError: naming the file, the field, the rule and the value.
    """
    return _known_class(_read(file).get("_class"), file, "")


def _read(file: Path) -> dict[str, Any]:
    """The fields of a configuration of a format that is known."""
    fields = read_json(file, _once)
    if not isinstance(fields, dict):
        raise ValueError(f"{file} must be a JSON object, got {fields!r}")
    version = fields.get("_format")
    if type(version) is not int or not 1 <= version <= FORMAT:
        raise ValueError(
            f"{file}: _format must be an int from 1 to {FORMAT}, got {version!r}; a newer version of dynunet "
            f"writes a higher one"
        )
    return fields


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"each field must be given once, got {name!r} {names.count(name)} times")
    return dict(pairs)


def build(cls: Any, fields: dict[str, Any], given: Mapping[str, Any], file: Path, at: str = "") -> Any:
    """The module of a class with the arguments that a file and the caller give.

    Args:
        cls: the class.
        fields: what :func:`read` returned, or such an object inside it.
        given: arguments of the constructor that complete those of the file, or replace them. For one that
            is an object of its own, a dict gives some of its arguments.
        file, at: where the fields come from, for errors: the file, and the names of the outer fields.

    Raises:
        ValueError, TypeError: naming the file, the field, the rule and the value.
    """
    _check_names(cls, fields, given, file, at)
    _check_passed_again(fields, given, file, at)
    arguments = {**{name: value for name, value in fields.items() if name not in _OWN}, **given}
    for name, value in fields.items():
        inner = given.get(name, {})
        if isinstance(value, dict) and "_class" in value and isinstance(inner, Mapping):
            kind = _known_class(value["_class"], file, at + name)
            arguments[name] = build(kind, value, inner, file, f"{at}{name}.")
    try:
        return cls(**arguments)
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{file}: {at[:-1] + ': ' if at else ''}{one_line(error)}") from error


def _check_names(cls: type, fields: Mapping[str, Any], given: Mapping[str, Any], file: Path, at: str) -> None:
    """Refuse what is no argument of the class."""
    names = [p.name for p in _parameters(cls)]
    for name, value in fields.items():
        if name not in names and name not in _OWN:
            raise ValueError(
                f"{file}: field {at + name!r} must be an argument of {cls.__name__}, which this version does "
                f"not have, got {value!r}{_nearest(name, names)}"
            )
    for name in given:
        if name not in names:
            raise TypeError(f"{cls.__name__} takes no argument {at + name!r}{_nearest(name, names)}")


def _check_passed_again(fields: Mapping[str, Any], given: Mapping[str, Any], file: Path, at: str) -> None:
    """Refuse to do without what could not be saved."""
    again = fields.get("_pass_again", [])
    if not isinstance(again, list):
        raise ValueError(f"{file}: field {at + '_pass_again'!r} must be a list of names, got {again!r}")
    for name in again:
        if name not in given and name not in fields:
            raise ValueError(
                f"{file}: field {at + name!r} was a module or a function, which is not saved; it must be "
                f"passed to from_pretrained again, {_spelled(name, at)}"
            )


def one_line(error: Exception) -> str:
    """The message of an error, without the frames that torch adds to some."""
    return " ".join(str(error).partition("Exception raised from")[0].split())


def _known_class(name: Any, file: Path, field: str) -> type:
    """A class of ours, or one that is defined already: a file has nothing else imported."""
    for module in ("nn.encoder", "nn.spectral_mask", "diffusion", "supervised"):
        import_module(f".{module}", __package__)
    known = {cls.__name__: cls for cls in (*_own_data(), *_descendants(Configured))}
    if not isinstance(name, str) or name not in known:
        raise ValueError(
            f"{file}: field {f'{field}._class'.lstrip('.')!r} must be a class that is imported, got {name!r}"
            f"{_nearest(str(name), list(known))}"
        )
    return known[name]


def _descendants(cls: type) -> list[type]:
    return [cls, *(found for kind in cls.__subclasses__() for found in _descendants(kind))]


def _own_data() -> list[type]:
    """This package's: a class of a user may hold more than its fields, and need not be there on loading."""
    package = __name__.partition(".")[0]
    return [
        cls
        for cls in _descendants(Data)
        if cls.__module__.partition(".")[0] == package and dataclasses.is_dataclass(cls)
    ]


def _spelled(name: str, at: str) -> str:
    """The keyword argument for a field inside others."""
    text = f"{name}=..."
    for outer in reversed(at.split(".")[:-1]):
        text = f"{outer}=dict({text})"
    return text


def _nearest(name: str, known: list[str]) -> str:
    found = get_close_matches(name, known, 1)
    return f"; did you mean {found[0]!r}?" if found else ""
