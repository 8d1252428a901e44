"""The Use tab: what a trained run is good for, on its data and on files."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nicegui import ui

from ..cli.denoise import Denoise
from ..cli.inpaint import Inpaint
from ..cli.predict import Predict
from ..cli.sample import Sample
from ..hub import CONFIG, WEIGHTS
from ..training.overview import runs_below
from .jobs import Job, command_line, fields_of
from .page import Page
from .paint import Painter
from .results import Results
from .widgets import chooser, form, problems

__all__ = ["build"]

_RAW = ("rate", "channels", "format", "part")  # of dynunet denoise, for a pipe
_APART = ("out", "source", "run-folder", "mask", "guide")


@dataclass(frozen=True)
class Action:
    """Something that is done with a run.

    Attributes:
        title: on the page.
        name: of the command.
        command: its dataclass.
        files: it is for a file or a folder of files.
        runs: how many are used, on the same noise.
        paints: what is to be made anew is painted.
        fixed: flags that are given.
    """

    title: str
    name: str
    command: Any
    files: bool = False
    runs: int = 1
    paints: bool = False
    fixed: dict[str, str] = field(default_factory=dict)


_ACTIONS = (
    Action("Sample", "sample", Sample),
    Action("Film", "sample", Sample, fixed={"film": "true", "num": "4"}),
    Action("Compare", "sample", Sample, runs=2),
    Action("Inpaint", "inpaint", Inpaint, files=True, paints=True),
    Action("Restore", "denoise", Denoise, files=True),
    Action("Predict", "predict", Predict, files=True),
)


def build(page: Page) -> None:
    """Make the tab."""
    Use(page)


class Use:
    """The tab of one page."""

    def __init__(self, page: Page) -> None:
        self.page, self.action = page, _ACTIONS[0]
        self.texts: dict[str, dict[str, str]] = {a.title: dict(a.fixed) for a in _ACTIONS}
        self.source: Path | None = None
        self.guide: Path | None = None
        self.painter: Painter | None = None
        self.jobs: list[Job] = []
        with ui.row().classes("w-full no-wrap items-start gap-8"):
            with ui.column().classes("w-5/12 min-w-80"):
                with ui.row().classes("w-full items-center no-wrap"):
                    self.runs = [self._run_field("run"), self._run_field("and run")]
                    ui.button(icon="refresh", on_click=self._find).props('flat dense aria-label="find runs"')
                ui.toggle([a.title for a in _ACTIONS], value="Sample", on_change=self._choose).props(
                    'dense data-flag="action"'
                )
                self.out = ui.input("out").props('dense stack-label data-flag="results"').classes("w-full")
                with ui.row():
                    self.go = ui.button("Run", icon="play_arrow", on_click=self._go)
                    self.go.props('data-button="use"')
                    self.end = ui.button("Stop", icon="stop", on_click=self._stop)
                    self.end.props('outline data-button="end"')
                self.fields = ui.column().classes("w-full")
            with ui.column().classes("w-7/12 min-w-0"):
                self.said = ui.label("").classes("font-mono text-xs whitespace-pre-wrap break-all w-full")
                self.said.props('data-text="use-said"')
                self.results = Results(page)
        self.end.set_visibility(False)
        self.runs[1].set_visibility(False)
        self._find()
        self._make_fields()
        page.tabs.append(self._find)

    def _run_field(self, label: str) -> Any:
        made = ui.select([], label=label, on_change=self._name_results).classes("grow")
        return made.props(f'dense data-flag="use-{label.replace(" ", "-")}"')

    def _find(self) -> None:
        """The runs that hold a model."""
        folders = (f for root in self.page.roots.folders for f in runs_below(root))
        trained = [f for f in folders if (f / CONFIG).is_file() and (f / WEIGHTS).is_file()]
        names = [self.page.roots.name(f) for f in trained]
        for chosen in self.runs:
            value = chosen.value if chosen.value in names else (names[0] if names else None)
            chosen.set_options(names, value=value)
        self._name_results()

    def _choose(self, event: Any) -> None:
        self.action = next(a for a in _ACTIONS if a.title == event.value)
        self.runs[1].set_visibility(self.action.runs > 1)
        self.results.clear()
        self._say("")
        self._make_fields()
        self._name_results()

    def _name_results(self) -> None:
        run = (self.runs[0].value or "run").replace("/", "-")
        self.out.value = f"results/{run}-{self.action.title.lower()}"

    def _make_fields(self) -> None:
        action, self.painter = self.action, None
        self.fields.clear()
        with self.fields:
            if action.files:
                chooser(self.page, "file or folder", self._take_source, files=True)
            if action.paints:
                self.painter = Painter()
            if action.command is Sample:
                chooser(self.page, "guide", self._take_guide)
            apart = (*_APART, *action.fixed) if "film" in action.fixed else (*_APART, *_RAW)
            flags = [f for f in fields_of(action.command, apart) if f.name != "film"]
            form(flags, self.texts[action.title], lambda: None)

    async def _take_source(self, path: Path) -> None:
        self.source = path
        if self.painter is not None:
            with problems():
                run = self.page.roots.there(self.runs[0].value or "", "run")
                await self.painter.show(path, run)

    def _take_guide(self, path: Path) -> None:
        self.guide = path

    async def _go(self) -> None:
        """Run the command for one run or several, and show what came of it."""
        action, made = self.action, []
        self.results.clear()
        self.go.set_enabled(False)
        self.end.set_visibility(True)
        try:
            with problems(action.name):
                for i in range(action.runs):
                    line, out, folder = await self._line(i)
                    job = Job(line, self.page.roots.folders[0], self._say)
                    self.jobs = [job]
                    if not await job.run():
                        ui.notify("it did not succeed; what it says is beside", type="negative")
                        return
                    made.append((out, folder))
                source = self.source if action.files else None
                await self.results.show(made, source, film=action.title == "Film")
        finally:
            self.go.set_enabled(True)
            self.end.set_visibility(False)

    async def _line(self, number: int) -> tuple[list[str], Path, Path]:
        """The command line, the folder of its results, and that of the run."""
        action, roots = self.action, self.page.roots
        run = roots.there(self.runs[number].value or "", "run")
        out = f"{self.out.value}-{number}" if action.runs > 1 else self.out.value or ""
        texts = {**self.texts[action.title], "run-folder": str(run)}
        must = ["run-folder"]
        if action.files:
            texts["source"] = "" if self.source is None else str(self.source)
            must.append("source")
        if action.command is Sample and self.guide is not None:
            texts["guide"] = str(self.guide)
        if self.painter is not None and not texts.get("missing", "").strip():
            texts["mask"] = str(await self.painter.save(roots.inside(f"{out}-mask", "out")))
        return command_line(roots, action.name, action.command, texts, out, must), roots.inside(out), run

    def _say(self, text: str) -> None:
        self.said.set_text(text)

    def _stop(self) -> None:
        for job in self.jobs:
            job.stop()
