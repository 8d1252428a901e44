"""What a card says in Markdown: text that is nothing but text, and tables."""

import re
from collections.abc import Iterable

from ..data.errors import printable

_MOST = 12  # names that are listed


def plain(text: str) -> str:
    """A text of somebody's, such as the name of a class, without what Markdown or HTML make of it.

    >>> print(plain("a_b | <c>"))
    a\\_b \\| &lt;c>
    """
    text = " ".join(printable(text).split()).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"([\\`*_{}\[\]()#|!~$])", r"\\\1", text)


def listed(names: Iterable[str]) -> str:
    """Names one after the other, the first of many."""
    names = [*names]
    more = f" and {len(names) - _MOST} more" if len(names) > _MOST else ""
    return ", ".join(map(plain, names[:_MOST])) + more


def table(rows: Iterable[tuple[str, str]]) -> str:
    """A table of what has a value."""
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows if value)])


def number(value: float) -> str:
    """With four digits.

    >>> number(0.123456), number(30.0)
    ('0.1235', '30')
    """
    return f"{value:.4g}"
