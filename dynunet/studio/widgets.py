"""Forms that are made from flags, choosing files and folders, and what went wrong, in words."""

from collections.abc import Callable, Iterable, Iterator, MutableMapping
from contextlib import contextmanager
from inspect import isawaitable
from pathlib import Path
from typing import Any

from nicegui import ui

from ..cli.catalogue import Flag
from ..cli.main import in_words
from ..data.errors import printable, shown
from .page import Page

__all__ = ["chooser", "copied", "folded", "form", "problems", "said"]

_LONGEST = 4000  # characters of a message
_PAUSE = 100  # ms without a key, before a text is taken
Texts = MutableMapping[str, str]


def form(flags: Iterable[Flag], texts: Texts, changed: Callable[[], None]) -> None:
    """A field for every flag; what is typed in goes to ``texts``, by the name of the flag."""
    with ui.grid(columns="repeat(auto-fill, minmax(11rem, 1fr))").classes("w-full gap-x-4 gap-y-1"):
        for flag in flags:
            field(flag, texts, changed)


def folded(title: str, flags: Iterable[Flag], texts: Texts, changed: Callable[[], None]) -> None:
    """A form below its title, made when it is unfolded first: a browser renders all that is there anew
    whenever anything on the page changes."""

    def unfolded() -> None:
        if part.value and not part.default_slot.children:
            with part:
                form(flags, texts, changed)

    part = ui.expansion(title, on_value_change=unfolded).classes("w-full").props("dense")


def field(flag: Flag, texts: Texts, changed: Callable[[], None]) -> Any:
    """The field for one flag: a switch, a list to choose from, or a text with the default in grey."""

    def take(value: object) -> None:
        text = "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
        if flag.kind is bool and not flag.several and text == flag.default:
            text = ""
        texts[flag.name] = text
        changed()

    given = texts.get(flag.name, "")
    if flag.kind is bool and not flag.several:
        made: Any = ui.switch(flag.name, value=(given or flag.default) == "true")
    elif flag.choices and not flag.several:
        options = {"": f"{flag.default or 'by itself'} (default)", **{c: c for c in flag.choices}}
        if given:
            options.setdefault(given, given)
        mode: Any = "add-unique" if flag.kind is str and flag.group == "network" else None
        made = ui.select(options, label=flag.name, value=given, new_value_mode=mode)
    else:
        made = ui.input(
            flag.name, value=given, placeholder=flag.default, autocomplete=[*flag.choices] or None
        ).props(f"stack-label debounce={_PAUSE}")
    made.props("dense").classes("w-full").mark(flag.name)
    made.props["data-flag"] = flag.name
    made.on_value_change(lambda event: take(event.value))
    with made:
        ui.tooltip(flag.help).classes("text-sm max-w-sm")
    return made


def said(error: object, command: str = "") -> str:
    """An error as the page shows it, in the words of a command's flags if it is one of a command."""
    lines = in_words(command, error) or [type(error).__name__]
    return "\n".join(printable(line) for line in lines)[:_LONGEST]


@contextmanager
def problems(command: str = "") -> Iterator[None]:
    """Show what is refused, in words, instead of passing it on."""
    try:
        yield
    except (ValueError, TypeError, OSError, ImportError) as error:
        ui.notify(said(error, command), type="negative", multi_line=True, timeout=10000, close_button=True)


def copied(title: str, mark: str) -> Any:
    """A line of text with a button that copies it; ``set_text`` changes it."""
    with ui.row().classes("w-full items-start no-wrap gap-2"):
        ui.button(icon="content_copy", on_click=lambda: ui.clipboard.write(text.text)).props(
            f'flat dense aria-label="copy {title}"'
        )
        with ui.column().classes("gap-0 min-w-0"):
            ui.label(title).classes("text-xs text-gray-500")
            text = ui.label("").classes("font-mono text-sm break-all whitespace-pre-wrap").mark(mark)
            text.props["data-text"] = mark
    return text


def chooser(
    page: Page, label: str, taken: Callable[[Path], Any], files: bool = False, start: Path | None = None
) -> Any:
    """A field for a path below the folders of the studio, with a button that lists them."""

    async def take() -> None:
        text = (path.value or "").strip()
        if text and text != last[0]:
            last[0] = text
            with problems():
                await use_it(page.roots.there(text, label))

    async def use_it(place: Path) -> None:
        made = taken(place)
        if isawaitable(made):
            await made

    async def chosen(place: Path) -> None:
        path.value = last[0] = page.roots.name(place)
        dialog.close()
        await use_it(place)

    def shown_in(place: Path | None) -> None:
        listed.clear()
        with listed:
            for folder in _above(page, place):
                _entry("arrow_upward", "above", lambda f=folder: shown_in(f))
            for folder in page.roots.folders if place is None else page.roots.inner(place):
                name = shown(folder) if place is None else shown(folder.name)
                _entry("folder", name, lambda f=folder: shown_in(f))
            for file in _files(page, place) if files else ():
                _entry("description", shown(file.name), lambda f=file: chosen(f))
        here.set_text("" if place is None else shown(place))
        use.set_visibility(place is not None)
        use_here[0] = place

    use_here: list[Path | None] = [None]
    last = [""]
    with ui.dialog() as dialog, ui.card().classes("w-full max-w-2xl"):
        here = ui.label("").classes("text-sm text-gray-600 break-all")
        listed = ui.list().classes("w-full overflow-auto").style("max-height: 50vh")
        with ui.row():
            use = ui.button("Use this folder", on_click=lambda: chosen(use_here[0] or page.roots.folders[0]))
            ui.button("Cancel", on_click=dialog.close).props("flat")

    def opened() -> None:
        single = page.roots.folders[0] if len(page.roots.folders) == 1 else None
        shown_in(start if start is not None else single)
        dialog.open()

    with ui.row().classes("w-full items-center no-wrap"):
        path = ui.input(label, placeholder="a path below --root").props("dense stack-label").classes("grow")
        path.on("keydown.enter", take)
        path.on("blur", take)
        path.props["data-flag"] = label
        ui.button(icon="folder_open", on_click=opened).props(f'flat dense aria-label="choose {label}"')
    return path


def _entry(icon: str, name: str, clicked: Callable[[], Any]) -> None:
    with ui.item(on_click=clicked).props("dense"):
        with ui.item_section().props("avatar"):
            ui.icon(icon)
        with ui.item_section():
            ui.item_label(name)


def _above(page: Page, place: Path | None) -> list[Path | None]:
    if place is None or (place in page.roots.folders and len(page.roots.folders) == 1):
        return []
    return [None if place in page.roots.folders else place.parent]


def _files(page: Page, place: Path | None) -> list[Path]:
    from ..data.formats import of_path

    found = []
    for path in sorted(place.iterdir()) if place is not None else ():
        if not path.name.startswith(".") and path.is_file() and of_path(path) is not None:
            try:
                found.append(page.roots.inside(path))
            except ValueError:
                continue
    return found[:2000]
