"""What came of a command: pictures, sounds, slices, and the files themselves to download."""

import io
import zipfile
from asyncio import to_thread
from collections.abc import Sequence
from pathlib import Path

import torch
from nicegui import ui
from torch import Tensor

from ..data.errors import count, shown
from ..data.formats import of_path
from ..data.loading import load
from ..data.maps import label_map
from ..data.spec import DataSpec
from ..generation import as_written
from ..plotting import overlay
from ..runs import spec_of_run
from .page import Page
from .pictures import address
from .viewer import Viewer
from .widgets import problems

__all__ = ["Results", "seen"]

_MOST = 500  # files in the list
_TABLE = 20  # lines of a table


class Results:
    """The results on one page, of one run or of several beside each other."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.place = ui.row().classes("w-full items-start gap-6")

    def clear(self) -> None:
        self.place.clear()

    async def show(self, made: Sequence[tuple[Path, Path]], source: Path | None, film: bool = False) -> None:
        """Show folders of results.

        Args:
            made: each with that of the run.
            source: what they were made from, a file or a folder.
            film: show the film, not the picture.
        """
        self.place.clear()
        with self.place:
            for out, run in made:
                with ui.column().classes("grow min-w-80 gap-2"):
                    if len(made) > 1:
                        ui.label(self.page.roots.name(run)).classes("text-base font-medium")
                    await self._one(out, run, source, film)

    async def _one(self, out: Path, run: Path, source: Path | None, film: bool) -> None:
        end, kind = ("-film.gif", "image/gif") if film else ("-overview.png", "image/png")
        picture = out.with_name(out.name + end)
        if source is None and picture.is_file():
            content = self.page.roots.there(picture).read_bytes()
            image = ui.image(address(content, kind)).classes("w-full").props("fit=contain")
            image.props["data-picture"] = "film" if film else "overview"
            self._button("Film" if film else "Picture", picture)
        table = out / "predictions.csv"
        if table.is_file():
            lines = self.page.roots.there(table).read_text(encoding="utf-8").splitlines()[:_TABLE]
            ui.label("\n".join(map(shown, lines))).classes("font-mono text-xs whitespace-pre")
            self._button("Table", table)
        files = _files(out)
        if not files:
            return
        names = {str(path): shown(path.relative_to(out)) for path in files}
        title = f"{count(len(files), 'file')} in {self.page.roots.name(out)}"
        chosen = ui.select(names, value=str(files[0]), label=title)
        chosen.props('dense data-flag="result"').classes("w-full")
        with ui.row():
            one = ui.button("File", icon="download", on_click=lambda: self._download(str(chosen.value)))
            one.props('flat dense data-button="download"')
            every = ui.button("All", icon="folder_zip", on_click=lambda: self._download_all(out, files))
            every.props('flat dense data-button="download-all"')
        viewer = Viewer("result")

        async def view() -> None:
            with problems():
                place = self.page.roots.there(str(chosen.value))
                x, names, spec = await to_thread(seen, place, out, run, source)
                await viewer.show(x, spec, names)

        chosen.on_value_change(view)
        await view()

    def _button(self, title: str, path: Path) -> None:
        ui.button(title, icon="download", on_click=lambda: self._download(path)).props("flat dense")

    def _download(self, path: Path | str) -> None:
        with problems():
            place = self.page.roots.there(path)
            ui.download.content(place.read_bytes(), place.name)

    async def _download_all(self, out: Path, files: Sequence[Path]) -> None:
        with problems():
            places = [self.page.roots.there(path) for path in files]
            ui.download.content(await to_thread(_zipped, out, places), f"{out.name}.zip")


def _files(out: Path) -> list[Path]:
    if not out.is_dir():
        return []
    found = (path for path in sorted(out.rglob("*")) if path.is_file() and not path.is_symlink())
    return [path for path in found if of_path(path) is not None][:_MOST]


def _zipped(out: Path, files: Sequence[Path]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for path in files:
            archive.write(path, path.relative_to(out))
    return made.getvalue()


def seen(file: Path, out: Path, run: Path, source: Path | None) -> tuple[Tensor, list[str], DataSpec]:
    """A result ``(N, C, *spatial)`` to look at, beside what it was made from; a label map lies on that.

    Args:
        file: the result.
        out: the folder it is in.
        run: the folder of the run that made it.
        source: the file or the folder that results were made from.
    """
    spec = as_written(spec_of_run(run))
    before = _before(file, out, source)
    if spec.learned is not None and before is not None and not file.name.endswith("-probabilities.npy"):
        x = _samples(load(before, spec).x, spec)
        if spec.learned.task == "segmentation":
            labels = torch.from_numpy(label_map(file, spec)).expand(len(x), *x.shape[2:])
            return overlay(x, labels), ["prediction"], spec
    made = _samples(load(file, spec).x, spec)
    if before is None:
        return made, ["result"], spec
    given = _samples(load(before, spec).x, spec)
    same = given.shape[1:] == made.shape[1:]
    return (torch.cat([given, made]), ["before", "after"], spec) if same else (made, ["after"], spec)


def _samples(x: Tensor, spec: DataSpec) -> Tensor:
    return x if x.ndim == spec.spatial_dims + 2 else x[None]


def _before(file: Path, out: Path, source: Path | None) -> Path | None:
    """The file that a result was made from: at the same place, whatever its suffix."""
    if source is None or source.is_file():
        return source
    place = source / file.relative_to(out)
    if place.is_file():
        return place
    return next((path for path in place.parent.glob(f"{_stem(file)}.*") if path.is_file()), None)


def _stem(path: Path) -> str:
    return path.name.partition(".")[0]
