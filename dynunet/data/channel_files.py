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
from typing import Any

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


def cases(paths: Iterable[Path], names: Names, skipped: dict[Path, str]) -> list[Path]:
    """The first file of every case.

    Args:
        paths: files of all channels.
        names: of the channels: ends of names such as ``_0000``, or folders such as ``T1/``.
        skipped: where files are noted that are of no case, and why.
    """
    found: dict[Path, dict[int, Path]] = {}
    for path in paths:
        place = _split(path, names)
        if place is None:
            skipped[path] = f"it is none of the channels {' '.join(names)}"
        else:
            found.setdefault(place[1], {})[place[0]] = path
    for channels in found.values():
        if 0 not in channels:
            first = shown(_of_channel(next(iter(channels.values())), names, 0))
            skipped |= dict.fromkeys(channels.values(), f"there is no first channel beside it, {first}")
    return [channels[0] for channels in found.values() if 0 in channels]


def case_of(path: Path, names: Names | None) -> Path:
    """The name that the files of all channels have in common."""
    place = None if names is None else _split(path, names)
    return path if place is None else place[1]


def _split(path: Path, names: Names) -> tuple[int, Path] | None:
    """The number of the channel, and the name of the case; None for a file of none."""
    own = stem(path, path.parent)
    for name in sorted(names, key=len, reverse=True):
        if name.endswith("/"):
            folders = [i for i, part in enumerate(path.parts[:-1]) if part == name[:-1]]
            if folders:
                parts = path.parts[: folders[-1]] + path.parts[folders[-1] + 1 :]
                return names.index(name), Path(*parts)
        elif own.endswith(name) and len(own) > len(name):
            return names.index(name), path.with_name(own[: -len(name)] + path.name[len(own) :])
    return None


def _of_channel(path: Path, names: Names, number: int) -> Path:
    """The file of a channel of the same case."""
    place = _split(path, names)
    if place is None:
        raise UnreadableError(f"it is none of the channels {' '.join(names)}")
    here, there = names[place[0]], names[number]
    if here.endswith("/"):
        at = max(i for i, part in enumerate(path.parts[:-1]) if part == here[:-1])
        return Path(*path.parts[:at], there[:-1], *path.parts[at + 1 :])
    own = stem(path, path.parent)
    return path.with_name(own[: -len(here)] + there + path.name[len(own) :])


@cache
def stack_of(own: Format, names: Names) -> Format:
    """The format of files that are the channels of one example.

    Args:
        own: of each file.
        names: of the channels.
    """
    made: Any = type("Stack", (_Stack, type(own)), {})()
    made.own, made.names = own, names
    return made


class _Stack(Format):
    """All that is not of the channels is that of the first file."""

    own: Format
    names: Names

    def __reduce__(self) -> Any:
        return stack_of, (self.own, self.names)

    def header(self, path: Path, options: DataOptions) -> Header:
        parts: list[Header] = []
        for number in range(len(self.names)):
            other = _of_channel(path, self.names, number)
            try:
                parts.append(self._part(other, replace(options, channel_files=None)))
                why = misplaced(parts[0], parts[-1])
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
