"""One run as the Train tab shows it: its state, loss, samples and what it says."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from nicegui import ui

from ..training.background import output
from ..training.folder import LOG, OUTPUT
from ..training.overview import Overview, overview, samples_of
from ..training.record import RUN
from ..training.run import read_log
from .page import Page
from .pictures import address
from .roots import Roots

__all__ = ["RunCard", "Seen", "charted", "watched"]

_POINTS = 500  # of a curve
_DIGITS = "value => value == null ? '' : `${{Number(Number(value).toPrecision({}))}}`"
_SAID = 3000  # characters of the output
_COLOURS = {
    "starting": "blue-grey",
    "training": "primary",
    "stopping": "orange",
    "finished": "positive",
    "stopped": "grey",
    "failed": "negative",
}


class Seen(NamedTuple):
    """A run as its files are now; ``stamp`` changes with its log."""

    stamp: tuple[int, int]
    state: Overview | None
    rows: list[dict[str, str]]
    samples: list[Path]
    said: str
    problem: str


def watched(roots: Roots, before: Mapping[Path, Seen | None]) -> dict[Path, Seen]:
    """Look at runs, given what was seen of them before: a log that is as it was is not read again."""
    return {folder: _seen(roots, folder, seen) for folder, seen in before.items()}


def _seen(roots: Roots, folder: Path, before: Seen | None) -> Seen:
    try:
        roots.check_links([folder / name for name in (RUN, LOG, OUTPUT)], "a file of the run")
    except ValueError as error:
        return Seen((0, 0), None, [], [], "", str(error))
    log = folder / LOG
    stamp = (log.stat().st_mtime_ns, log.stat().st_size) if log.is_file() else (0, 0)
    rows = before.rows if before is not None and before.stamp == stamp else read_log(log)
    try:
        state, problem = overview(folder), ""
    except (ValueError, OSError) as error:
        state, problem = None, str(error)
    said = output(folder)[1][-_SAID:].strip()
    return Seen(stamp, state, rows, samples_of(folder), said, problem)


class RunCard:
    """The card of one run on one page."""

    def __init__(
        self,
        page: Page,
        folder: Path,
        name: str,
        stop: Callable[[Path], Any],
        resume: Callable[[Path, str], Any],
    ) -> None:
        self.page, self.folder = page, folder
        self.seen: Seen | None = None
        self.pictures: list[Path] = []
        with ui.card().classes("grow min-w-80 max-w-2xl") as self.card:
            with ui.row().classes("w-full items-center"):
                ui.label(name).classes("text-base font-medium break-all")
                self.badge = ui.badge("").props('data-text="status"')
            self.bar = ui.linear_progress(0, show_value=False).props("instant-feedback")
            self.figures = ui.label("").classes("text-sm").props('data-text="progress"')
            self.words = ui.label("").classes("text-sm whitespace-pre-wrap").props('data-text="words"')
            with ui.row().classes("items-center"):
                self.stop = ui.button("Stop", icon="stop", on_click=lambda: stop(folder))
                self.stop.props('outline data-button="stop"')
                self.resume = ui.button(
                    "Resume", icon="play_arrow", on_click=lambda: resume(folder, self.steps.value or "")
                ).props('outline data-button="resume"')
                self.steps = (
                    ui.input("steps").props('dense stack-label data-flag="more-steps"').classes("w-24")
                )
            self.image = ui.image().classes("w-full").props("fit=contain no-transition")
            self.slider = ui.slider(min=0, max=1, value=0, on_change=self._slid)
            self.step = ui.label("").classes("text-xs text-gray-500").props('data-text="sample"')
            with ui.expansion("what it says").classes("w-full").props("dense"):
                self.said = ui.label("").classes("font-mono text-xs whitespace-pre-wrap break-all")
        for part in (self.image, self.slider):
            part.set_visibility(False)

    def delete(self) -> None:
        self.card.delete()

    def show(self, seen: Seen) -> None:
        """What the files of the run say now."""
        self.seen, state = seen, seen.state
        if state is None:
            self.badge.set_text("unreadable")
            self.badge.props("color=negative")
            self.words.set_text(seen.problem)
            return
        self.badge.set_text(state.status)
        self.badge.props(f"color={_COLOURS[state.status]}")
        self.bar.value = state.step / state.steps if state.steps else 0
        self.figures.set_text(_figures(state, seen.rows))
        self.words.set_text(state.message)
        self.words.classes(replace="text-negative" if state.status == "failed" else "text-gray-600")
        running = state.status in ("starting", "training")
        self.stop.set_visibility(state.status in ("starting", "training", "stopping"))
        self.stop.set_enabled(running)
        ended = state.status in ("finished", "stopped", "failed") and bool(state.record)
        self.resume.set_visibility(ended)
        self.steps.set_visibility(ended)
        if not self.steps.value and state.steps:
            self.steps.value = str(state.steps)
        self.said.set_text(seen.said)
        self._samples(seen.samples)

    def _samples(self, pictures: list[Path]) -> None:
        """The last picture, unless an earlier one is looked at."""
        if pictures == self.pictures:
            return
        last = int(self.slider.value or 0) >= len(self.pictures) - 1
        self.pictures = pictures
        self.image.set_visibility(bool(pictures))
        self.slider.set_visibility(len(pictures) > 1)
        self.slider.props(f"max={max(1, len(pictures) - 1)}")
        if last:
            self.slider.value = len(pictures) - 1
            self._draw(len(pictures) - 1)

    def _slid(self) -> None:
        self._draw(int(self.slider.value or 0))

    def _draw(self, number: int) -> None:
        if not 0 <= number < len(self.pictures):
            return
        file = self.pictures[number]
        try:
            self.image.set_source(address(self.page.roots.there(file).read_bytes()))
        except (ValueError, OSError):  # it was removed, or is a link that leads elsewhere
            return
        self.step.set_text(f"samples after step {int(file.stem.rpartition('-')[2])}")


def _figures(state: Overview, rows: Sequence[Mapping[str, str]]) -> str:
    """The step, and the last of each figure."""
    parts = [f"step {state.step} of {state.steps}" if state.steps else "reading data"]
    for name, title in (
        ("loss", "loss"),
        ("validation_loss", "validation"),
        ("samples_per_second", "samples/s"),
    ):
        values = [row[name] for row in rows if row.get(name)]
        if values:
            parts.append(f"{title} {float(values[-1]):.4g}")
    return ", ".join(parts)


def charted(runs: Mapping[str, Seen]) -> dict[str, Any]:
    """The losses of runs over their steps, for the chart."""
    series = []
    for name, seen in runs.items():
        for column, kind in (("loss", "solid"), ("validation_loss", "dashed")):
            points = [[int(r["step"]), float(r[column])] for r in seen.rows if _drawn(r.get(column))]
            if points:
                every = -(-len(points) // _POINTS)
                title = f"{name}: {column.replace('_', ' ')}"
                line = {"width": 1.5, "type": kind}
                series.append(
                    {
                        "type": "line",
                        "name": title,
                        "data": points[::-1][::every][::-1],
                        "showSymbol": len(points) < 20,
                        "lineStyle": line,
                    }
                )
    return {
        "animation": False,
        "tooltip": {"trigger": "axis", ":valueFormatter": _DIGITS.format(4)},
        "legend": {"type": "scroll", "top": 0},
        "grid": {"left": 60, "right": 20, "top": 30, "bottom": 30},
        "xAxis": {
            "type": "value",
            "name": "step",
            "min": "dataMin",
            "max": "dataMax",
            "axisPointer": {"label": {"precision": 0}},
        },
        "yAxis": {
            "type": "log",
            "min": "dataMin",
            "max": "dataMax",
            "axisLabel": {":formatter": _DIGITS.format(2)},
        },
        "series": series,
    }


def _drawn(text: str | None) -> bool:
    """True for a number that a logarithmic axis has."""
    try:
        return 0 < float(text or "") < float("inf")
    except ValueError:
        return False
