"""Words of Python in what the library says, as words of the command line.

The library speaks of its keywords (``resize=True``, ``batch_size must be at least 1``), whose flags are
``--resize`` and ``--batch-size``.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, get_type_hints

_SPECIAL = {"True": "--{}", "False": "--no-{}", "None": "no --{}"}


def flags_of_command(command: Any) -> dict[str, str]:
    """The flag of each keyword; of none that several flags stand for."""
    found = list(_walk(command))
    often = Counter(name for name, _ in found)
    return {name: flag for name, flag in found if often[name] == 1}


def as_flags(text: str, flags: Mapping[str, str]) -> str:
    """A text with flags in place of keywords.

    >>> as_flags("lr=3 or resize=True", {"lr": "lr", "resize": "resize"})
    '--lr 3 or --resize'
    >>> as_flags("give lr, the rate of learning", {"lr": "lr"})
    'give --lr, the rate of learning'
    """
    if not flags:
        return text
    name = "|".join(map(re.escape, sorted(flags, key=len, reverse=True)))
    long = "|".join(re.escape(n) for n in flags if "_" in n) or "(?!)"

    def given(match: re.Match[str]) -> str:
        flag, value = flags[match["name"]], match["value"]
        if value in _SPECIAL:
            return _SPECIAL[value].format(flag)
        return f"--{flag} {value.strip(chr(39))}"

    value = r"(?P<value>'[^']*'|\([^()]*\)|[\w.+-]*\w)"
    text = re.sub(rf"\b\w+\((?P<name>{name})=(?P<value>True|False)\)", given, text)
    text = re.sub(rf"(?<![-\w.'])(?P<name>{name})={value}", given, text)
    text = re.sub(rf"\bgive ({name})\b(?!=)", lambda m: f"give --{flags[m[1]]}", text)
    text = re.sub(rf"^({name})(?=:? (?:must|needs|is)\b)", lambda m: f"--{flags[m[1]]}", text)
    return re.sub(rf"(?<![-\w./'\"])({long})(?![\w./'\"])", lambda m: f"--{flags[m[1]]}", text)


def _walk(command: Any) -> Iterator[tuple[str, str]]:
    hints = get_type_hints(command, include_extras=True)
    for field in fields(command):
        kind = getattr(hints[field.name], "__origin__", hints[field.name])
        if is_dataclass(kind):
            yield from _walk(kind)
        elif "Positional" not in repr(hints[field.name]):
            flag = getattr(command, "flag_names", {}).get(field.name, field.name)
            yield field.name, flag.replace("_", "-")
