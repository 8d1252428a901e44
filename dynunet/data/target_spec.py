"""TargetSpec: what a model predicts of an example, as a checkpoint keeps it."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from ..jsonable import plain
from ..rules import Rule, check_fields, optional, ordered, several, text, whole
from .options import TASKS

__all__ = ["Classes", "TargetSpec"]

Classes = Mapping[str, int] | tuple[str, ...]  # names and their values in label maps; or names alone


@dataclass(frozen=True)
class TargetSpec:
    """What is predicted, in which files it was, and in which numbers.

    It is the field ``target`` of the ``units``. The names and values of classes are the ``classes`` of
    :class:`dynunet.Supervised`.
    """

    task: str
    kind: str | None = None  # of the files of maps; None for labels and values of whole examples
    channels: int = 1  # of maps of values; or the number of values of an example
    stored: str = ""  # how most maps store their numbers
    palette: tuple[int, ...] | None = None  # colours of the labels, red, green and blue of each in turn
    columns: tuple[str, ...] | None = None  # of the table that labels or values came from
    scales: tuple[tuple[float, float], ...] = ()  # of values, what becomes -1 and 1: one, or one per column

    @property
    def maps(self) -> bool:
        """True if a target has the grid of its example."""
        return self.kind is not None

    def document(self) -> dict[str, Any]:
        """All fields in JSON's types."""
        return plain(self)

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> "TargetSpec":
        """Check and read back what :meth:`document` gave.

        Raises:
            ValueError: naming the field that is wrong or missing.
        """
        names = tuple(f.name for f in fields(cls))
        for name in document:
            if name not in names:
                raise ValueError(f"units: target must have no field but {', '.join(names)}, got {name!r}")
        given = {k: list(v) if isinstance(v, tuple) else v for k, v in document.items()}
        check_fields(given, _RULES, "units: target: ", names[1:])
        found: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
        found["scales"] = tuple((low, high) for low, high in found.get("scales", ()))
        return cls(**found)


_RULES: dict[str, Rule] = {
    "task": text(*TASKS),
    "kind": optional(text()),
    "channels": whole(1),
    "stored": text(),
    "palette": optional(several(whole(0, 255))),
    "columns": optional(several(text(), least=1)),
    "scales": several(ordered()),
}
