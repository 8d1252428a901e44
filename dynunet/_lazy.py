"""Names of a package that are imported when they are asked for (PEP 562)."""

from collections.abc import Collection, Mapping
from importlib import import_module
from typing import Any


def attribute(package: str, name: str, home: Mapping[str, str], modules: Collection[str] = ()) -> Any:
    """The value of a package's attribute; for its ``__getattr__``.

    Args:
        package: its name.
        name: of the attribute.
        home: the module of each name, relative to the package.
        modules: modules of the package that are attributes, too.

    Raises:
        AttributeError: if it has no such name.
    """
    if name in modules and name not in home:
        return import_module(f"{package}.{name}")
    if name not in home:
        raise AttributeError(f"module {package!r} has no attribute {name!r}")
    return getattr(import_module(home[name], package), name)
