"""The Train tab: begin, stop and resume runs, and watch them, whoever began them."""

import shlex
import time
from asyncio import to_thread
from pathlib import Path
from typing import Any

from nicegui import ui

from ..nn.flags import as_flags
from ..training.background import stop
from ..training.overview import runs_below
from .launch import begin, groups, resume, train_arguments
from .page import Page
from .run_card import RunCard, Seen, charted, watched
from .widgets import chooser, copied, folded, problems

__all__ = ["build"]

_LOOK, _SEARCH = 2.0, 10.0  # seconds between looks at the runs that are shown, and between searches for runs
_SHARE = 50  # at least so many times as long as they took: the processor is for training


def build(page: Page) -> None:
    """Make the tab."""
    Training(page)


class Training:
    """The tab of one page."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.runs: list[Path] = []
        self.cards: dict[Path, RunCard] = {}
        self.look_at, self.search_at = 0.0, 0.0
        self.drawn: dict[str, Any] = {}
        self.followed = False
        with ui.row().classes("w-full no-wrap items-start gap-8"):
            with ui.column().classes("w-4/12 min-w-80"):
                self._new()
            with ui.column().classes("w-8/12 min-w-0"):
                self._there()
        page.listeners.append(self._follow)
        self._follow()
        ui.timer(_LOOK, self._look)

    def _new(self) -> None:
        ui.label("New run").classes("text-lg")
        self.source = chooser(self.page, "source", self._take_source)
        self.out = ui.input("out", placeholder="runs/first", on_change=self._show_command)
        self.out.props('dense stack-label data-flag="out"').classes("w-full")
        self.designed = ui.switch("the network of the Design tab", on_change=self._show_command)
        self.designed.props('data-flag="designed"')
        ui.label("Else a network that suits the data and this machine is chosen.").classes("text-xs")
        self.command = copied("command line", "train-command")
        ui.button("Start", icon="play_arrow", on_click=self._start).props('data-button="start"')
        for title, flags in groups().items():
            folded(title, flags, self.page.data, self.page.changed)

    def _there(self) -> None:
        with ui.row().classes("w-full items-center"):
            ui.label("Runs").classes("text-lg")
            self.chosen = ui.select(
                [], multiple=True, label="shown beside each other", on_change=self._choose
            )
            self.chosen.props('dense use-chips data-flag="runs"').classes("grow")
        self.none = ui.label("There is no run below --root yet.").classes("text-gray-500")
        self.chart = ui.echart(charted({})).classes("w-full h-72").props('data-chart="loss"')
        self.chart.set_visibility(False)
        self.shown = ui.row().classes("w-full items-stretch gap-4")

    def _take_source(self, path: Path) -> None:
        self.page.source = path
        self.page.changed()

    def _network(self) -> list[str]:
        dims = self.page.shape.get("spatial_dims", "")
        axes = [] if self.page.data.get("spatial-dims", "").strip() else ["--spatial-dims", dims]
        return [*axes, *as_flags(self.page.network)] if self.designed.value else []

    def _arguments(self) -> list[str]:
        page = self.page
        return train_arguments(page.roots, page.source, self.out.value or "", page.data, self._network())

    def _follow(self) -> None:
        """What was chosen on other tabs."""
        page = self.page
        if page.designed and not self.followed:
            self.followed = self.designed.value = True
        if page.source is not None:
            self.source.value = page.roots.name(page.source)
            self.out.value = self.out.value or f"runs/{page.source.name}"
        self._show_command()

    def _show_command(self) -> None:
        try:
            self.command.set_text(shlex.join(["dynunet", "train", *self._arguments()]))
        except (ValueError, TypeError, OSError) as error:
            self.command.set_text(f"({error})")

    async def _start(self) -> None:
        with problems("train"):
            folder = await to_thread(begin, self.page.roots, self._arguments())
            self.search_at = 0.0
            await self._look(now=True)
            self._add(folder)

    def _add(self, folder: Path) -> None:
        name = self.page.roots.name(folder)
        if name in self.chosen.options and name not in self.chosen.value:
            self.chosen.value = [*self.chosen.value, name]

    async def _look(self, now: bool = False) -> None:
        """At the runs that are shown, and now and then for new ones."""
        began = time.monotonic()
        if began < self.look_at and not now:
            return
        if began >= self.search_at:
            self._take_runs(await to_thread(self._search))
            searched = time.monotonic()
            self.search_at = searched + max(_SEARCH, _SHARE * (searched - began))
            began = searched
        if self.cards:
            before = {folder: card.seen for folder, card in self.cards.items()}
            found = await to_thread(watched, self.page.roots, before)
            self._show(found)
        ended = time.monotonic()
        self.look_at = ended + _SHARE * (ended - began) - _LOOK

    def _show(self, found: dict[Path, Seen]) -> None:
        for folder, seen in found.items():
            if folder in self.cards:
                self.cards[folder].show(seen)
        drawn = charted({self.page.roots.name(f): seen for f, seen in found.items() if f in self.cards})
        if drawn != self.drawn:
            self.drawn = drawn
            self.chart.options.update(drawn)
            self.chart.update()

    def _search(self) -> list[Path]:
        return [folder for root in self.page.roots.folders for folder in runs_below(root)]

    def _take_runs(self, runs: list[Path]) -> None:
        first = not self.runs
        self.runs = runs
        names = [self.page.roots.name(folder) for folder in runs]
        self.none.set_visibility(not runs)
        kept = [name for name in self.chosen.value or [] if name in names]
        if first and runs and not kept:  # the one that was written to last
            kept = [self.page.roots.name(max(runs, key=_written))]
        self.chosen.set_options(names, value=kept)

    def _choose(self, event: Any) -> None:
        """Show the runs that are chosen, and no others."""
        wanted = {self.page.roots.name(folder): folder for folder in self.runs}
        folders = [wanted[name] for name in event.value or [] if name in wanted]
        for folder in [f for f in self.cards if f not in folders]:
            self.cards.pop(folder).delete()
        for folder in folders:
            if folder not in self.cards:
                with self.shown:
                    name = self.page.roots.name(folder)
                    self.cards[folder] = RunCard(self.page, folder, name, self._stop, self._resume)
        self.chart.set_visibility(bool(self.cards))

    async def _stop(self, folder: Path) -> None:
        with problems("train"):
            await to_thread(stop, self.page.roots.there(folder))
            await self._look(now=True)

    async def _resume(self, folder: Path, steps: str) -> None:
        with problems("train"):
            await to_thread(resume, self.page.roots, folder, steps)
            await self._look(now=True)


def _written(folder: Path) -> float:
    return max((path.stat().st_mtime for path in folder.iterdir() if path.is_file()), default=0.0)
