"""The Design tab: options of a network, and the U that they are."""

import asyncio
from asyncio import to_thread
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from nicegui import background_tasks, ui

from ..cli.catalogue import Flag
from .describe import NETWORKS, Described, describe, memory_of, network_flags, usual
from .page import Page
from .widgets import copied, form, said

__all__ = ["build", "prepare"]

_FIRST = {"of": "UNet", "spatial_dims": "2", "in_channels": "1", "batch_size": "1"}
_SIZES = {1: "4096", 2: "64", 3: "32", 4: "16"}
_MOST_AXES = 6  # in the list; the library takes any number
_SHAPE = (
    Flag("size", "", "of an example: one number for all axes, or one for each", int, True, (), "", False),
    Flag("in_channels", "", "channels of the data", int, False, (), "1", False),
    Flag("batch_size", "", "examples at a time", int, False, (), "1", False),
)


def build(page: Page) -> None:
    """Make the tab."""
    Design(page)


def prepare() -> None:
    """Draw the first network of every page: what that imports, which takes seconds, none then waits for."""
    dims = int(_FIRST["spatial_dims"])
    given = _key(usual(dims, _FIRST["of"])), _key({**_FIRST, "size": _SIZES[dims]})
    _described(*given)
    _memory(*given)


Key = tuple[tuple[str, str], ...]


def _key(texts: Mapping[str, str]) -> Key:
    return tuple(sorted((name, text) for name, text in texts.items() if text.strip()))


@lru_cache(64)
def _described(texts: Key, shape: Key) -> Described:
    return describe(dict(texts), dict(shape))


@lru_cache(64)
def _memory(texts: Key, shape: Key) -> str:
    return memory_of(dict(texts), dict(shape))


async def _found(function: Callable[..., Any], *given: Key) -> Any:
    """What a function gives in a thread of its own, or the error that it raises."""
    try:
        return await to_thread(function, *given)
    except (ValueError, TypeError) as error:
        return error


class Design:
    """The tab of one page."""

    def __init__(self, page: Page) -> None:
        self.page, self.waiting = page, 0
        self.turn, self.memory_turn = asyncio.Lock(), asyncio.Lock()
        page.shape |= _FIRST
        self._begin()
        with ui.row().classes("w-full no-wrap items-start gap-8"):
            with ui.column().classes("w-5/12 min-w-80"):
                self._first()
                self.options = ui.column().classes("w-full")
            with ui.column().classes("w-7/12 min-w-0"):
                self._result()
        self._fields()
        given = _key(page.network), _key(page.shape)
        self._show(_described(*given))  # at once, as it is prepared
        self.memory.set_text(_memory(*given))
        page.restored.append(self._restore)

    def _begin(self) -> None:
        """What is usual for data of so many axes."""
        dims = int(self.page.shape["spatial_dims"])
        self.page.network = usual(dims, self.page.shape["of"])
        self.page.shape["size"] = _SIZES.get(dims, "8")

    def _first(self) -> None:
        with ui.row().classes("w-full items-end"):
            axes = {str(n): f"{n}-D" for n in range(1, _MOST_AXES + 1)}
            self.first = {
                "spatial_dims": ui.toggle(axes, value=self.page.shape["spatial_dims"]),
                "of": ui.select([*NETWORKS], value=self.page.shape["of"], label="network").classes("w-32"),
            }
        for name, made in self.first.items():
            made.props(f'dense data-flag="{name}"')
            made.on_value_change(lambda event, name=name: self._take(name, event.value))

    def _take(self, name: str, value: str) -> None:
        """Begin anew with what is usual for so many axes, or for the class."""
        if value == self.page.shape[name]:  # it was restored
            return
        self.page.shape[name] = value
        self._begin()
        self._fields()
        self._changed()

    def _restore(self) -> None:
        if not self.page.designed:
            return
        for name, made in self.first.items():
            made.value = self.page.shape[name]
        self._fields()
        self._draw_soon()

    def _fields(self) -> None:
        """The form, made anew from the options of the class."""
        flags = network_flags(self.page.shape["of"])
        main = [flag for flag in flags if flag.name == "channels"]
        self.options.clear()
        with self.options:
            form(main, self.page.network, self._changed)
            form(_SHAPE, self.page.shape, self._changed)
            ui.separator()
            form([flag for flag in flags if flag not in main], self.page.network, self._changed)

    def _result(self) -> None:
        self.problem = ui.label("").classes("text-negative whitespace-pre-wrap").mark("problem")
        self.problem.props["data-text"] = "problem"
        self.figures = ui.label("").classes("text-base").props('data-text="figures"')
        self.memory = ui.label("").classes("text-sm text-gray-700").props('data-text="memory"')
        self.python = copied("Python", "python")
        self.command = copied("command line", "command")
        self.apart = ui.label("").classes("text-sm text-gray-500")
        self.drawing = (
            ui.label("")
            .classes("font-mono text-xs whitespace-pre overflow-x-auto w-full leading-tight")
            .props('data-text="drawing"')
        )
        self.table = ui.table(rows=[], row_key="part").props("dense flat hide-no-data").classes("w-full")

    def _changed(self) -> None:
        self.page.designed = True
        self.page.keep()
        self._draw_soon()

    def _draw_soon(self) -> None:
        self.waiting += 1
        background_tasks.create(self._draw(self.waiting))

    async def _draw(self, number: int) -> None:
        """Draw the network, unless something else has changed before the last one was drawn."""
        async with self.turn:
            if number != self.waiting:
                return
            given = _key(self.page.network), _key(self.page.shape)
            found = await _found(_described, *given)
            if number != self.waiting:
                return
            self._show(found)
            self.page.changed()
        if not isinstance(found, Exception):
            await self._say_memory(number, *given)

    async def _say_memory(self, number: int, *given: Key) -> None:
        """In a turn of its own, as it takes as long as the drawing, and the next one need not wait for it."""
        async with self.memory_turn:
            if number != self.waiting:
                return
            words = await _found(_memory, *given)
            if number != self.waiting:
                return
            self._show(words) if isinstance(words, Exception) else self.memory.set_text(words)

    def _show(self, found: Described | Exception) -> None:
        wrong = isinstance(found, Exception)
        self.problem.set_text(said(found) if wrong else "")
        for part in (self.figures, self.memory, self.drawing, self.table):
            part.classes(add="opacity-30") if wrong else part.classes(remove="opacity-30")
        if isinstance(found, Exception):
            return
        head, *parts, total = found.summary.cells()
        _, _, parameters, flops, activations = total
        self.figures.set_text(f"{parameters} parameters, {flops}FLOPs forward, {activations} of activations")
        self.memory.set_text("")
        self.python.set_text(found.python)
        self.command.set_text(found.command)
        self.apart.set_text(found.apart)
        self.drawing.set_text(found.summary.drawing)
        self.table.columns = [
            {"name": name, "label": name, "field": name, "align": "left" if i < 2 else "right"}
            for i, name in enumerate(head)
        ]
        self.table.rows = [dict(zip(head, part, strict=True)) for part in parts]
        self.table.update()
