"""Rules for the fields of a JSON document, written down as data and checked when it is read.

RULES = {"step": whole(), "sums": several(real(), 3), "best": optional(several(real(), 2))}
fields = read_document(file, RULES)
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf, isfinite
from pathlib import Path
from typing import Any

_LONGEST = 80  # characters of a value that are repeated in an error
_MOST = 2**63 - 1  # of an integer without a bound of its own


@dataclass(frozen=True)
class Rule:
    """A rule for a value, in words and as a test, which must not fail itself."""

    text: str
    holds: Callable[[Any], bool]


def whole(least: int = 0, most: int = _MOST) -> Rule:
    """An integer."""
    bounds = f"of at least {least}" if most == _MOST else f"from {least} to {most}"
    return Rule(f"a whole number {bounds}", lambda v: type(v) is int and least <= v <= most)


def real(least: float = -inf, most: float = inf, above: float = -inf) -> Rule:
    """A finite number."""
    parts = [f"above {above:g}"] if above > -inf else [f"at least {least:g}"] if least > -inf else []
    parts += [f"at most {most:g}"] if most < inf else []
    return Rule(
        " ".join(["a finite number", " and ".join(parts)]).strip(),
        lambda v: _is_real(v) and v > above and least <= v <= most,
    )


def text(*known: str) -> Rule:
    """A string; one of some, if there are any."""
    if known:
        return Rule(f"one of {', '.join(map(repr, known))}", lambda v: isinstance(v, str) and v in known)
    return Rule("a string", lambda v: isinstance(v, str))


def flag() -> Rule:
    return Rule("true or false", lambda v: isinstance(v, bool))


def ordered(equal: bool = False) -> Rule:
    """A list of two finite numbers, the first of which is the lower one."""
    pair = several(real(), 2)
    rule = "at most" if equal else "below"
    return Rule(
        f"two finite numbers, the first {rule} the second",
        lambda v: pair.holds(v) and (v[0] < v[1] or (equal and v[0] == v[1])),
    )


def several(rule: Rule, length: int | None = None, least: int = 0) -> Rule:
    """A list."""
    count = "" if length is None else f"{length} values, each "
    return Rule(
        f"a list of {count}{rule.text}",
        lambda v: (
            isinstance(v, list)
            and (len(v) == length if length is not None else len(v) >= least)
            and all(map(rule.holds, v))
        ),
    )


def table(rule: Rule | None = None) -> Rule:
    """An object with any fields."""
    inside = "" if rule is None else f" of {rule.text}"
    return Rule(
        f"an object{inside}",
        lambda v: isinstance(v, Mapping) and (rule is None or all(map(rule.holds, v.values()))),
    )


def optional(rule: Rule) -> Rule:
    return Rule(f"null or {rule.text}", lambda v: v is None or rule.holds(v))


def both(*rules: Rule) -> Rule:
    return Rule(", ".join(r.text for r in rules), lambda v: all(r.holds(v) for r in rules))


def read_document(file: Path, rules: Mapping[str, Rule], left_out: tuple[str, ...] = ()) -> dict[str, Any]:
    """The object in a file.

    Args:
        file: of JSON in UTF-8.
        rules: of the fields that are looked at; others may be there.
        left_out: fields that need not be there.

    Raises:
        ValueError: naming the file, the field, the rule and the value; OSError if it cannot be read.
    """
    fields = read_json(file)
    if not isinstance(fields, dict):
        raise ValueError(f"{file} must be a JSON object, got {shown(fields)}")
    check_fields(fields, rules, f"{file}: ", left_out)
    return fields


def read_json(file: Path, hook: Any = None) -> Any:
    """Read a file of JSON.

    Raises:
        ValueError: naming the file.
    """
    try:
        return json.loads(file.read_text(encoding="utf-8-sig"), object_pairs_hook=hook)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} must be JSON in UTF-8: {error}") from None


def check_fields(
    fields: Mapping[str, Any], rules: Mapping[str, Rule], where: str = "", left_out: tuple[str, ...] = ()
) -> None:
    """Refuse fields that are missing or break their rule."""
    for name, rule in rules.items():
        if name not in fields:
            if name not in left_out:
                raise ValueError(f"{where}field {name!r} is missing, it must be {rule.text}")
        elif not rule.holds(fields[name]):
            raise ValueError(f"{where}field {name!r} must be {rule.text}, got {shown(fields[name])}")


def shown(value: Any) -> str:
    """A value as it can be repeated in an error."""
    told = repr(value) if not isinstance(value, int) or abs(value) < 10**_LONGEST else "a huge number"
    return told if len(told) <= _LONGEST else f"{told[:_LONGEST]}..."


def _is_real(value: Any) -> bool:
    """True for a finite number of the range of floats."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return isfinite(value) if isinstance(value, float) else abs(value) < 10**300
