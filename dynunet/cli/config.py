"""Flags as JSON and back: what ``--config`` and ``--resume`` read.

The file is one object with a field for every flag, named like it, with ``_`` for ``-``::

    {"source": "pictures", "out": "runs/cats", "spatial_dims": 2, "size": [32], "channels": [32, 64, 128]}

Fields may be left out. The ``run.json`` of a run holds such an object, and can be given itself. Values are
checked as if they had been typed; null is for flags that are left out.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

RUN = "run.json"
_RENAMED = {("data", "channels"): "data_channels", ("data", "seed"): "data_seed"}  # as the flags are


def flags(options: Any) -> dict[str, Any]:
    """The values of all flags of a command, in JSON's types, by name."""
    return {name: _plain(value) for name, value in _walk(options, "")}


def _walk(options: Any, group: str) -> Iterator[tuple[str, Any]]:
    for field in fields(options):
        value = getattr(options, field.name)
        if is_dataclass(value):
            yield from _walk(value, field.name)
        else:
            yield _RENAMED.get((group, field.name), field.name), value


def _plain(value: Any) -> Any:
    if isinstance(value, (tuple, list)):
        return [_plain(v) for v in value]
    return str(value) if isinstance(value, Path) else value


def read(file: Path) -> dict[str, Any]:
    """The flags in a file.

    Raises:
        ValueError: naming the file and the rule.
    """
    try:
        found = json.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ValueError(f"{file}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ValueError(f"{file} must be JSON in UTF-8: {error}") from None
    if isinstance(found, Mapping) and isinstance(found.get("options"), Mapping):  # the record of a run
        last = [{}, *found.get("resumed", [])][-1]  # says what was other than at first
        found = last.get("flags", found.get("flags"))
        if found is None:
            raise ValueError(f"{file} is of a run that was not started by dynunet train, and holds no flags")
    if not isinstance(found, dict):
        raise ValueError(f"{file} must be a JSON object with a field for every flag, got {found!r}")
    return found


def arguments(values: Mapping[str, Any], known: list[str], file: Path) -> list[str]:
    """The command line that gives these values, without positional arguments.

    Args:
        values: by name of a flag.
        known: names of all flags.
        file: where they come from, for errors.
    """
    line = []
    for name, value in values.items():
        if value is None:
            continue
        if name not in known:
            near = get_close_matches(name, known, 1)
            raise ValueError(f"{file}: {name!r} is no flag{f'; did you mean {near[0]!r}?' if near else ''}")
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            line.append(f"--{flag}" if value else f"--no-{flag}")
        elif isinstance(value, list):
            line += [f"--{flag}", *map(str, value)]
        elif isinstance(value, Mapping):
            raise ValueError(f"{file}: {name!r} must be a value or a list of values, got {value!r}")
        else:
            line.append(f"--{flag}={value}")  # so that -1 is no flag
    return line
