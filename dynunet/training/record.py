"""The record of a run, ``run.json``: what was run, enough to run it again."""

import platform
import subprocess
import sys
from collections.abc import Mapping
from datetime import datetime
from importlib import metadata
from json import dumps
from pathlib import Path
from typing import Any

from ..rules import Rule, check_fields, optional, read_document, read_json, several, shown, table, text, whole
from ..writing import write_text

RUN = "run.json"
_PACKAGES = ("dynunet", "torch", "numpy", "accelerate", "safetensors", "huggingface-hub")
_RULES: dict[str, Rule] = {
    "command": several(text()),
    "folder": text(),
    "git": optional(text()),
    "python": text(),
    "versions": table(optional(text())),
    "platform": text(),
    "seed": whole(most=2**64 - 1),
    "options": table(),
    "processes": whole(1),
    "device": text(),
    "dataset": text(),
    "data_report": optional(text()),
    "started": text(),
    "finished": text(),
    "resumed": several(table()),
    "flags": table(),
}
_MAY_MISS = ("finished", "resumed", "flags")


def read_record(file: Path) -> dict[str, Any]:
    """The record of a run.

    Raises:
        ValueError: if it is none, naming the file, the field, the rule and the value.
    """
    record = read_document(file, _RULES, _MAY_MISS)
    for number, again in enumerate(record.get("resumed", [])):
        check_fields(again, {"at": text(), **_RULES}, f"{file}: resumed[{number}]: ", tuple(_RULES))
    return record


def read_flags(file: Path) -> dict[str, Any]:
    """The flags of ``dynunet train`` in a JSON file, by name, as :func:`dynunet.jsonable.flat` gives them.

    The file holds them as one object, or is the record of a run: its last ones, where it was resumed.

    Raises:
        ValueError: naming the file and the rule.
    """
    try:
        found = read_json(file)
    except OSError as error:
        raise ValueError(f"{file}: cannot be read: {error.strerror}") from None
    if isinstance(found, dict) and isinstance(found.get("options"), dict):  # the record of a run
        check_fields(found, {"resumed": several(table())}, f"{file}: ", ("resumed",))
        last = [{}, *found.get("resumed", [])][-1]  # says what was other than at first
        found = last.get("flags", found.get("flags"))
        if found is None:
            raise ValueError(f"{file} is of a run that was not started by dynunet train, and holds no flags")
    if not isinstance(found, dict):
        raise ValueError(f"{file} must be a JSON object with a field for every flag, got {shown(found)}")
    return found


def write_record(file: Path, about: Mapping[str, Any]) -> None:
    """Begin a record, or note in the one that is there that the run was resumed, and what changed."""
    now = datetime.now().astimezone().isoformat(timespec="seconds")
    if file.is_file():
        record = read_record(file)
        again = {"at": now, **{k: about[k] for k in about if about[k] != record.get(k)}}
        record["resumed"] = [*record.get("resumed", []), again]
    else:
        record = {**about, "started": now}
    write_text(file, dumps(record, indent=2))


def finished(file: Path) -> None:
    """Note the time at which a run was complete."""
    now = datetime.now().astimezone().isoformat(timespec="seconds")
    write_text(file, dumps({**read_record(file), "finished": now}, indent=2))


def surroundings() -> dict[str, Any]:
    """Command line, commit of the current folder's repository if it is one, versions, machine."""
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return {
        "command": sys.argv,
        "folder": str(Path.cwd()),
        "git": _commit(),
        "python": platform.python_version(),
        "versions": versions,
        "platform": platform.platform(),
    }


def _commit() -> str | None:
    command = ["git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() or None if result.returncode == 0 else None
