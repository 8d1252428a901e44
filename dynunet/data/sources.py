"""Kinds of files: what each must be able to tell and to read.

A reader is an object without state, so that worker processes can have it; no file stays open. It first
looks at a file (:meth:`Reader.look`), reading as little as shows that the rest can be read, and later reads
one example of it, or a region of one (:meth:`Reader.read`), on the grid that :class:`Units` ask for.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ..rules import Rule, both, check_fields, flag, optional, ordered, real, several, table, text, whole
from .cache import Cache
from .numbers import Numbers
from .options import DataOptions, missing_value

Region = Sequence[tuple[int, int]]  # (start, stop) along every spatial axis


_FLOATS = Numbers("float32")


class VanishedError(RuntimeError):
    """No file of a data set can be read any more."""


class UnreadableError(Exception):
    """A file that cannot be used; the message is the reason, without the file's name."""


@dataclass(frozen=True)
class Info:
    """What is known of a file without holding its values."""

    path: Path
    format: str  # the name of its reader
    kind: str  # audio, images, volumes or arrays
    channels: int
    shape: tuple[int, ...]  # spatial sizes of an example as stored (volumes: in canonical orientation)
    entries: int = 1  # examples in this file
    series: bool = False  # whether an axis of the file counts examples
    stored: str = ""  # how numbers are stored: PCM_16, uint8, float32, ...
    numbers: Numbers = _FLOATS  # and what they mean
    lost: str | None = None  # what is in the file and is not read
    exact: bool = True  # whether the format can give back what is written: a jpg cannot
    sample_rate: int | None = None  # Hz
    spacing: tuple[float, ...] | None = None
    labels: np.ndarray | None = field(default=None, compare=False)  # one per example


@dataclass(frozen=True)
class Units:
    """What the numbers of an example mean: enough to read a new file alike and to write one."""

    kind: str
    spatial_dims: int
    channels: int
    size: tuple[int, ...] | None = None
    resize: bool = False
    sample_rate: int | None = None
    spacing: tuple[float, ...] | None = None  # volumes are resampled to it; 0 for an axis that is not
    step: tuple[float, ...] | None = None  # the spacing that new volumes are written with
    channel_axis: int | None = None
    series: bool = False
    stored: str = ""
    range: tuple[float, float] | None = (
        None  # what becomes -1 and 1; of volumes scaled each by its own: typical
    )
    percentiles: tuple[float, float] | None = None  # what becomes -1 and 1, in every file
    missing: str | None = None
    classes: tuple[str, ...] | None = None
    coordinates: bool = False
    cond_channels: int = 0
    restoration: dict[str, Any] | None = None

    def document(self) -> dict[str, Any]:
        """These units in JSON's types."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def of(cls, document: "Mapping[str, Any] | Units") -> "Units":
        """The units that :meth:`document` gave.

        Raises:
            TypeError, ValueError: naming the field that is not one, or is missing.
        """
        if isinstance(document, Units):
            return document
        if not isinstance(document, Mapping):
            raise TypeError(f"units must be a dict, such as those of a dataset, got {document!r}")
        names = [f.name for f in fields(cls)]
        for name in document:
            if name not in names:
                raise ValueError(f"units must have no field but {', '.join(names)}, got {name!r}")
        for name in ("kind", "spatial_dims", "channels"):
            if name not in document:
                raise ValueError(f"units must have a field {name!r}, got {dict(document)!r}")
        plain: dict[str, Any] = {k: list(v) if isinstance(v, tuple) else v for k, v in document.items()}
        check_fields(plain, _UNITS, "units: ", tuple(names))
        check_fields(plain.get("restoration") or {}, _RESTORATION, "units: restoration: ", (*_RESTORATION,))
        given: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in plain.items()}
        for name in ("size", "spacing", "step"):
            if given.get(name) is not None and len(given[name]) != given["spatial_dims"]:
                raise ValueError(
                    f"units: field {name!r} must have a number for each of {given['spatial_dims']} axes, got "
                    f"{given[name]!r}"
                )
        units = cls(**given)
        least = units.spatial_dims * units.coordinates + (units.restoration is not None)
        if units.cond_channels < least or (units.restoration is None and units.cond_channels != least):
            raise ValueError(
                f"units: field 'cond_channels' must count the coordinates and what is to be restored, got "
                f"{units.cond_channels}"
            )
        return units


_RESTORATION = {
    "noise": flag(),
    "coloured": flag(),
    "pairs": flag(),
    "snr": ordered(equal=True),
    "level": real(above=0),
    "channels": whole(1),
}
_UNITS = {
    "kind": text("audio", "images", "volumes", "arrays"),
    "spatial_dims": whole(1, 62),
    "channels": whole(1),
    "size": optional(several(whole(1))),
    "resize": flag(),
    "sample_rate": optional(whole(1)),
    "spacing": optional(several(real(0))),
    "step": optional(several(real(0))),
    "channel_axis": optional(whole(-63, 62)),
    "series": flag(),
    "stored": text(),
    "range": optional(ordered()),
    "percentiles": optional(both(ordered(), several(real(0, 100)))),
    "missing": optional(
        Rule("'nan' or a number, as a string", lambda v: isinstance(v, str) and _is_missing(v))
    ),
    "classes": optional(several(text(), least=1)),
    "coordinates": flag(),
    "cond_channels": whole(),
    "restoration": optional(table()),
}


def _is_missing(value: str) -> bool:
    try:
        missing_value(value)
    except ValueError:
        return False
    return True


class Reader(ABC):
    """One format of files."""

    format: ClassVar[str]
    kind: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]]

    def matches(self, name: str) -> bool:
        """Whether a file of this name, in lower case, is of this format."""
        return name.endswith(self.suffixes)

    @abstractmethod
    def look(self, path: Path, options: DataOptions) -> Info:
        """What is in a file; :class:`UnreadableError` or any other exception if it cannot be used."""

    def grid(self, info: Info, units: Units) -> tuple[int, ...]:
        """Spatial sizes of an example once read, before it is cropped or resized."""
        return info.shape

    @abstractmethod
    def read(
        self, info: Info, index: int, units: Units, cache: Cache, region: Region | None = None
    ) -> np.ndarray:
        """Example ``index``, ``(channels, *spatial)``, in the units of the file: all of it, or a region."""

    def stored(self, info: Info, index: int, units: Units, cache: Cache) -> np.ndarray:
        """Example ``index``, ``(info.channels, *info.shape)``, in the file's own numbers and on its grid."""
        own = replace(units, channels=info.channels, spacing=None, sample_rate=None)
        return self.read(info, index, own, cache)

    def convertible(self, info: Info, channels: int) -> bool:
        """Whether a file can be read with another number of channels than it has."""
        return False


def cut(values: np.ndarray, region: Region | None) -> np.ndarray:
    """A region of ``(channels, *spatial)``."""
    return values if region is None else values[:, *(slice(a, b) for a, b in region)]


def is_series(ndim: int, options: DataOptions, series: bool) -> bool:
    """Whether an axis of an array counts examples.

    Args:
        ndim: axes of the array.
        options: how many of them are spatial, and whether one counts channels.
        series: whether one more may count examples.

    Raises:
        UnreadableError: it has another number of axes.
    """
    spatial = ndim - (options.channel_axis is not None)
    dims = options.spatial_dims or max(spatial - series, 1)
    if spatial == dims:
        return False
    if series and spatial == dims + 1:
        return True
    channel = "no channel axis" if options.channel_axis is None else "a channel axis"
    raise UnreadableError(
        f"it has {ndim} axes, and {dims + ndim - spatial} were expected ({dims} spatial, {channel}); "
        f"channel_axis says which one counts channels, series that one more counts examples"
    )


def shown(path: Path | str) -> str:
    """A file's name as it can be printed, whatever its bytes are."""
    return printable(os.fsencode(path).decode("utf-8", "backslashreplace"))


def printable(text: str) -> str:
    """Text without what would steer a terminal, or hide or turn around what is beside it."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def missing_package(name: str, error: ImportError) -> ImportError:
    return ImportError(
        f"these files are read by {name}, which is not installed: pip install 'dynunet[files]' ({error})"
    )


def attempt(read: Callable[[], Any]) -> Any:
    """The result of reading a file, or an :class:`UnreadableError` with the reason.

    What a damaged file makes a decoder raise is anybody's guess, so every exception is a reason here; but a
    package that is not installed is no fault of the file.
    """
    try:
        return read()
    except (UnreadableError, ImportError):
        raise
    except Exception as error:
        text = printable(" ".join(str(error).split())) or "no reason given"
        raise UnreadableError(f"{type(error).__name__}: {text[:200]}") from error
