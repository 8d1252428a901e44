"""Data of any number of axes: a player for sound, a grid of images, slices with a slider for each axis."""

from asyncio import to_thread
from collections.abc import Sequence

from nicegui import ui
from torch import Tensor

from ..data.spec import DataSpec
from .pictures import picture, sound

__all__ = ["Viewer"]

_SLICED = 3  # axes, from which on there are sliders
_PLAYERS = 12


class Viewer:
    """A place for data on one page."""

    def __init__(self, mark: str) -> None:
        self.x: Tensor | None = None
        self.spec: DataSpec | None = None
        self.shape: Sequence[int] = ()
        self.at: list[int] = []
        with ui.column().classes("w-full"):
            self.players = ui.column().classes("w-full gap-1")
            self.sliders = ui.column().classes("w-full gap-0")
            self.image = ui.image().classes("max-w-full").props("no-spinner no-transition fit=contain")
            self.image.props["data-picture"] = mark
        self.image.set_visibility(False)

    async def show(self, x: Tensor, spec: DataSpec, names: Sequence[str] = ()) -> None:
        """Show samples ``(N, C, *spatial)`` in the network's units."""
        self.x, self.spec, shape = x, spec, tuple(x.shape[2:])
        if shape != self.shape:
            self.shape, self.at = shape, [n // 2 for n in shape]
            self._make_sliders()
        self.players.clear()
        if len(shape) == 1:
            for i, sample in enumerate(x[:_PLAYERS]):
                address = await to_thread(sound, sample, spec)
                with self.players, ui.row().classes("w-full items-center no-wrap"):
                    ui.label(names[i] if i < len(names) else f"{i}").classes("w-24 text-sm")
                    ui.audio(address).classes("grow")
        await self._draw()

    def clear(self) -> None:
        self.x, self.shape = None, ()
        self.players.clear()
        self.sliders.clear()
        self.image.set_visibility(False)

    def _make_sliders(self) -> None:
        self.sliders.clear()
        if len(self.shape) < _SLICED:
            return
        with self.sliders:
            for axis, size in enumerate(self.shape):
                with ui.row().classes("w-full items-center no-wrap"):
                    label = ui.label(f"axis {axis}: {self.at[axis]}").classes("w-24 text-sm")
                    slider = ui.slider(min=0, max=max(size - 1, 1), value=self.at[axis]).classes("grow")
                    slider.props["data-axis"] = str(axis)
                    slider.on_value_change(
                        lambda event, axis=axis, label=label: self._slid(axis, int(event.value or 0), label)
                    )

    async def _slid(self, axis: int, value: int, label: ui.label) -> None:
        self.at[axis] = min(value, self.shape[axis] - 1)
        label.set_text(f"axis {axis}: {self.at[axis]}")
        await self._draw()

    async def _draw(self) -> None:
        if self.x is None or self.spec is None:
            return
        at = list(self.at)
        address = await to_thread(picture, self.x, self.spec, at)
        if at == self.at:  # no slider has moved meanwhile
            self.image.set_source(address)
            self.image.set_visibility(True)
