"""Examples whose channels are in several files: one example for the files of one name but for its end.

As nnU-Net has them, ``case_0000.nii.gz`` and ``case_0001.nii.gz`` are two channels of ``case.nii.gz``, which
is the name of its target and of a prediction for it. Or each channel has a folder, ``T1/case.nii.gz`` and
``T2/case.nii.gz``. The first file of a case stands for all of them. Where files have scales of their own, as
volumes do, each channel has one.
"""

import os
from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .errors import UnreadableError, attempt, shown
from .files import no_file, stem
from .formats import Format, Header
from .formats.format import misplaced
from .memory import Cache
from .options import DataOptions, missing_value
from .spec import DataSpec
from .values import Region, Scale, limits, present

__all__ = ["case_of", "cases", "stack_of"]

Names = tuple[str, ...]


def cases(paths: Iterable[Path], names: Names | None, skipped: dict[Path, str]) -> list[Path]:
    """The first file of every case; all files, if each has all of its channels.

    Args:
        paths: files of all channels.
        names: of the channels: ends of names such as ``_0000``, or folders such as ``T1/``.
        skipped: where files are noted that are of no case, and why.
    """
    if names is None:
        return list(paths)
    found: dict[Path, dict[int, Path]] = {}
    for path in paths:
        place = _split(path, names)
        if place is None:
            skipped[path] = f"it is none of the channels {' '.join(names)}"
        else:
            found.setdefault(case_of(path, names), {})[place.number] = path
    for channels in found.values():
        if 0 not in channels:
            first = shown(_of_channel(next(iter(channels.values())), names, 0))
            why = f"the first channel is not beside it, or not given: {first}"
            skipped.update(dict.fromkeys(channels.values(), why))
    return [channels[0] for channels in found.values() if 0 in channels]


def case_of(path: Path, names: Names | None) -> Path:
    """The name that the files of all channels have in common."""
    place = None if names is None else _split(path, names)
    return path if place is None else Path(place.before + place.after)


class _Place(NamedTuple):
    """The number of a file's channel, and what stands before and after the channel's name in its path."""

    number: int
    before: str
    after: str


def _split(path: Path, names: Names) -> _Place | None:
    """Where the name of a channel stands in a path; None for a file of none."""
    whole, own = path.as_posix(), stem(path, path.parent)
    without_suffix = whole[: len(whole) - len(path.name) + len(own)]
    for name in sorted(names, key=len, reverse=True):
        if name.endswith("/"):
            at = f"/{whole}".rfind(f"/{name}")
        else:
            at = len(without_suffix) - len(name) if own.endswith(name) and own != name else -1
        if at >= 0:
            return _Place(names.index(name), whole[:at], whole[at + len(name) :])
    return None


def _of_channel(path: Path, names: Names, number: int) -> Path:
    """The file of a channel of the same case."""
    place = _split(path, names)
    if place is None:
        raise UnreadableError(f"it is none of the channels {' '.join(names)}")
    return Path(place.before + names[number] + place.after)


def stack_of(own: Format, names: Names | None) -> Format:
    """The format of files that are the channels of one example; that of each, if it has all of them.

    Args:
        own: of each file.
        names: of the channels.
    """
    return own if names is None else _stack(own, names)


@cache
def _stack(own: Format, names: Names) -> Format:
    made: Any = type("Stack", (_Stack, type(own)), {})()
    made.own, made.names = own, names
    return made


class _Stack(Format):
    """All that is not of the channels is that of the first file."""

    own: Format
    names: Names

    def __reduce__(self) -> Any:
        return _stack, (self.own, self.names)

    def header(self, path: Path, options: DataOptions) -> Header:
        parts: list[Header] = []
        for number in range(len(self.names)):
            other = _of_channel(path, self.names, number)
            try:
                parts.append(self._part(other, replace(options, channel_files=None)))
                why = misplaced(parts[0], parts[-1]) or self._unlike(parts[0], parts[-1])
            except UnreadableError as error:
                why = str(error) if number == 0 else f"cannot be read: {error}"
            if why is not None:
                raise UnreadableError(why if number == 0 else f"its channel {shown(other)} {why}")
        channels = sum(part.channels for part in parts)
        return replace(
            parts[0], format=self, channels=channels, parts=tuple(parts), case=case_of(path, self.names)
        )

    def _part(self, path: Path, options: DataOptions) -> Header:
        if not os.path.lexists(path):
            raise UnreadableError("it is not there")
        why = no_file(path)
        if why is not None:
            raise UnreadableError(why)
        return attempt(lambda: self.own.header(path, options))

    def _unlike(self, *headers: Header) -> str | None:
        """Why the numbers of two channels do not mean the same."""
        first, other = (self.own.scale(DataSpec(h.kind, len(h.shape), h.channels), h).high for h in headers)
        return None if first == other else f"has another full scale: {other:g}, not {first:g}"

    def convertible(self, header: Header, channels: int) -> bool:
        return False

    def read(
        self, header: Header, index: int, spec: DataSpec, cache: Cache, region: Region | None = None
    ) -> np.ndarray:
        found = []
        for part in header.parts:
            own = _of_part(spec, part)
            values = self.own.read(part, index, own, cache, region)
            found.append(self._scaled(values, part, own, cache))
        return np.concatenate(found)

    def values(self, header: Header, spec: DataSpec) -> np.ndarray:
        found = []
        for part in header.parts:
            own = _of_part(spec, part)
            found.append(self._scaled(self.own.values(part, own), part, own, Cache(0)))
        return np.concatenate(found, 1)

    def _scaled(self, values: np.ndarray, part: Header, spec: DataSpec, cache: Cache) -> np.ndarray:
        """With the percentiles of this file at -1 and 1, where files have scales of their own."""
        if spec.percentiles is None:
            return values
        missing = missing_value(spec.missing)

        def own() -> np.ndarray:
            whole = self.own.values(part, spec)
            there = whole[present(whole, missing)]
            low, high = limits(there, spec.percentiles) if there.size else (0.0, 0.0)
            if low == high:
                raise UnreadableError(f"all values of its channel {shown(part.path)} are {low:g}")
            return np.array([low, high])

        low, high = cache.get((part.path, "limits", spec.percentiles), own)
        return np.where(present(values, missing), Scale(float(low), float(high)).to_model(values), values)


def _of_part(spec: DataSpec, part: Header) -> DataSpec:
    return replace(spec, channels=part.channels, channel_files=None)
