"""Rows that go wrong in every way a row can, for the tests of what runs them."""

import os
import time
from typing import Any

from .rows import Row, Setting, Skip


def rows(setting: Setting) -> list[Row]:
    def raises() -> dict[str, Any]:
        raise ArithmeticError("wrong")

    def skips() -> dict[str, Any]:
        raise Skip("nothing to do")

    return [
        Row("good", lambda: {"error": 0.5}),
        Row("raises", raises),
        Row("dies", lambda: os._exit(3)),
        Row("hangs", lambda: time.sleep(600) or {}, limit=0.5),
        Row("skips", skips),
        Row("last", lambda: {"error": 0.25}),
    ]


def slow(setting: Setting) -> list[Row]:
    return [Row("slow", lambda: time.sleep(600) or {}), Row("late", dict)]
