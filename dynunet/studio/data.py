"""The Data tab: what is in a folder, what is left out and why, and examples as the network will see them."""

from asyncio import to_thread
from pathlib import Path

import torch
from nicegui import ui
from torch import Tensor

from ..data import FolderDataset
from ..data.spec import DataSpec
from ..plotting import overlay
from .launch import data_flags, data_of
from .page import Page
from .viewer import Viewer
from .widgets import chooser, form, problems

__all__ = ["build", "parts_of"]

_GRID = 16  # images at once


def build(page: Page) -> None:
    """Make the tab."""
    Data(page)


class Data:
    """The tab of one page."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.dataset: FolderDataset | None = None
        self.looks = 0
        with ui.row().classes("w-full no-wrap items-start gap-8"):
            with ui.column().classes("w-5/12 min-w-80"):
                self.source = chooser(page, "folder", self._take)
                ui.button("Look", icon="visibility", on_click=self._look).props('data-button="look"')
                form(data_flags(), page.data, page.changed)
            with ui.column().classes("w-7/12 min-w-0"):
                self.report = ui.label("").classes("font-mono text-xs whitespace-pre overflow-x-auto w-full")
                self.report.props('data-text="report"')
                self.busy = ui.spinner(size="lg")
                with ui.row().classes("w-full items-center no-wrap") as self.choice:
                    self.number = ui.label("").classes("text-sm w-40")
                    self.slider = ui.slider(min=0, max=1, value=0, on_change=self._examine).classes("grow")
                    self.slider.props('data-flag="example"')
                self.viewer = Viewer("example")
        self.busy.set_visibility(False)
        self.choice.set_visibility(False)
        page.listeners.append(self._follow)
        self._follow()

    def _follow(self) -> None:
        if self.page.source is not None:
            self.source.value = self.page.roots.name(self.page.source)

    async def _take(self, path: Path) -> None:
        self.page.source = path
        self.page.changed()
        await self._look()

    async def _look(self) -> None:
        """Read the headers of the files, and show what is found."""
        if self.page.source is None:
            ui.notify("choose a folder first")
            return
        self.looks += 1
        number = self.looks
        self.busy.set_visibility(True)
        self.dataset = None
        self.viewer.clear()
        self.choice.set_visibility(False)
        self.report.set_text("")
        try:
            with problems("train"):
                given = self.page.roots, self.page.source, dict(self.page.data)
                found = await to_thread(data_of, *given)
                if number != self.looks:  # another folder was chosen meanwhile
                    return
                self.dataset = found
                self.report.set_text(self.dataset.report())
                self.slider.props(f"max={max(1, len(self.dataset) - 1)}")
                self.choice.set_visibility(len(self.dataset) > 1)
                await self._examine()
        finally:
            self.busy.set_visibility(number != self.looks)

    async def _examine(self) -> None:
        """The examples from the one that is chosen on."""
        if self.dataset is None:
            return
        first = min(int(self.slider.value or 0), len(self.dataset) - 1)
        images = len(self.dataset.shape) == 3
        last = min(first + (_GRID if images else 1), len(self.dataset))
        self.number.set_text(f"example {first}{f' to {last - 1}' * images} of {len(self.dataset)}")
        with problems("train"):
            dataset = self.dataset
            x, names = await to_thread(parts_of, dataset, range(first, last))
            if dataset is not self.dataset:
                return
            await self.viewer.show(x, DataSpec.of(dataset.units), names)


def parts_of(dataset: FolderDataset, numbers: range) -> tuple[Tensor, list[str]]:
    """Examples ``(N, C, *spatial)`` as the network will see them, each followed by what it is learned from.

    That is the degraded version, or the example with its label map in colours.
    """
    found, names = [], []
    for item in (dataset[i] for i in numbers):
        x = item["x0"]
        if "mask" in item:
            x = torch.where(item["mask"], x, torch.nan)
        found.append(x)
        names.append("x0")
        if dataset.options.restores:
            found.append(item["cond"][: len(x)])
            names.append("degraded")
        target = item.get("target")
        labels = target is not None and target.shape == x.shape[1:] and not target.is_floating_point()
        if target is not None and labels and x.ndim > 2:
            found[-1] = overlay(item["x0"][None], target[None])[0]
            names[-1] = "x0 and target"
    return torch.stack(found), names
