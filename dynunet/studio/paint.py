"""Painting what is to be made anew, as a mask in a file of the same kind."""

from asyncio import to_thread
from base64 import b64encode
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from einops import repeat
from nicegui import events, ui
from PIL import Image, ImageDraw

from ..data.loading import load
from ..data.marking import save_mask, shape_of
from ..data.spec import DataSpec
from ..generation import as_written
from ..plotting.tiles import tiles, trace
from ..runs import spec_of_run

__all__ = ["Painter", "plane", "spread"]

_SIDE = 480  # pixels of the picture, about
_BRUSH = 24


class Painter:
    """A picture to paint on, on one page: of volumes and beyond the plane of the last two axes."""

    def __init__(self) -> None:
        self.file: Path | None = None
        self.spec: DataSpec | None = None
        self.shape: tuple[int, ...] = ()
        self.strokes: list[list[tuple[float, float]]] = []
        self.size = (1, 1)
        ui.label("Choose a file, and paint what is to be made anew.").classes("text-sm")
        self.image: Any = ui.interactive_image(
            on_mouse=self._painted, events=["mousedown", "mousemove", "mouseup"], cross=False
        ).classes("w-full max-w-xl")
        self.image.props["data-paint"] = "mask"
        with ui.row().classes("items-center w-full no-wrap"):
            ui.label("brush").classes("text-sm")
            self.brush = ui.slider(min=2, max=120, value=_BRUSH).classes("w-40")
            ui.button("Clear", icon="clear", on_click=self._clear).props("flat dense")
        self.ranges = ui.column().classes("w-full gap-0")
        self.extents: list[Any] = []

    async def show(self, file: Path, run: Path) -> None:
        """The file to paint on."""
        if file.is_dir():
            raise ValueError("choose one file to paint on, or say what is missing")
        spec = spec_of_run(run)
        self.shape = await to_thread(shape_of, file, spec)
        self.file, self.spec = file, spec
        picture = await to_thread(plane, file, spec)
        self.size = picture.size
        made = BytesIO()
        picture.save(made, "PNG")
        self.image.set_source(f"data:image/png;base64,{b64encode(made.getvalue()).decode()}")
        self._clear()
        self._make_ranges()

    def _make_ranges(self) -> None:
        """How far what is painted goes along the axes that are not seen."""
        self.ranges.clear()
        self.extents = []
        with self.ranges:
            for axis, size in enumerate(self.shape[:-2]):
                with ui.row().classes("w-full items-center no-wrap"):
                    ui.label(f"axis {axis}").classes("w-16 text-sm")
                    whole: dict[str, float] = {"min": 0, "max": size - 1}
                    made = ui.range(min=0, max=max(size - 1, 1), value=whole).props("label").classes("grow")
                self.extents.append(made)

    def _clear(self) -> None:
        self.strokes = []
        self.image.content = ""

    def _painted(self, event: events.MouseEventArguments) -> None:
        place = event.image_x, event.image_y
        if event.type == "mousedown":
            self.strokes.append([place])
        elif event.type == "mousemove" and event.buttons & 1 and self.strokes:
            self.strokes[-1].append(place)
        else:
            return
        width = self.brush.value
        lines = (" ".join(f"{x:.1f},{y:.1f}" for x, y in [*s, s[-1]]) for s in self.strokes)
        self.image.content = "".join(
            f'<polyline points="{points}" fill="none" stroke="#40b8af" stroke-opacity="0.7" '
            f'stroke-width="{width}" stroke-linecap="round" stroke-linejoin="round" />'
            for points in lines
        )

    async def save(self, beside: Path) -> Path:
        """Write the mask, and give its path.

        Args:
            beside: its path, but for the suffix of its kind.

        Raises:
            ValueError: nothing is painted.
        """
        if self.file is None or self.spec is None or not self.strokes:
            raise ValueError("mask: paint what is to be made anew, or say what is missing")
        painted = Image.new("L", self.size)
        draw, width = ImageDraw.Draw(painted), int(self.brush.value or _BRUSH)
        for stroke in self.strokes:
            draw.line(stroke, fill=255, width=width, joint="curve")
            for x, y in stroke:
                r = width / 2
                draw.ellipse((x - r, y - r, x + r, y + r), fill=255)
        extents = [(int(e.value["min"]), int(e.value["max"])) for e in self.extents]
        mask = spread(np.asarray(painted) > 0, self.shape, extents)
        if not mask.any():
            raise ValueError("mask: what is painted is outside of the picture")
        beside.parent.mkdir(parents=True, exist_ok=True)
        return await to_thread(save_mask, beside, mask, self.file, self.spec)


def plane(file: Path, spec: DataSpec) -> Image.Image:
    """A file to paint on: the curve of a signal, an image, or the last two axes in the middle of the rest."""
    x = load(file, as_written(spec)).x
    x = x[0] if x.ndim > spec.spatial_dims + 1 else x
    if x.ndim == 2:
        return Image.fromarray(trace(x, -1, 1, _SIDE // (2 * len(x)), 2 * _SIDE))
    while x.ndim > 3:
        x = x[:, x.shape[1] // 2]
    return Image.fromarray(tiles(x[None], -1, 1, _SIDE)[0])


def spread(
    painted: np.ndarray, shape: tuple[int, ...], extents: list[tuple[int, int]] | None = None
) -> np.ndarray:
    """What is painted on a picture as a mask of a file.

    Args:
        painted: bool, rows and columns of the picture; channels of it stand beside each other.
        shape: of the file. Its last two axes are those of the picture; of a signal the only one goes right.
        extents: the first and the last index along each of the other axes, by default all.

    >>> spread(np.array([[False, True], [False, False]]), (2, 4)).astype(int).tolist()
    [[0, 0, 1, 1], [0, 0, 0, 0]]
    """
    if len(shape) == 1:
        return np.any(painted, axis=0, keepdims=True)[0, _nearest(shape[0], painted.shape[1])]
    rows, columns = shape[-2:]
    mask = painted[_nearest(rows, painted.shape[0])][:, _nearest(columns, painted.shape[1])]
    for axis, size in reversed(list(enumerate(shape[:-2]))):
        first, last = (extents or [])[axis] if extents else (0, size - 1)
        index = np.arange(size)
        inside = (index >= first) & (index <= last)
        mask = repeat(mask, "... -> n ...", n=size) & inside.reshape(-1, *(1,) * mask.ndim)
    return mask


def _nearest(size: int, pixels: int) -> np.ndarray:
    """The pixel in which the middle of each entry falls."""
    return ((np.arange(size) + 0.5) * pixels / size).astype(int)
