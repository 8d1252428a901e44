"""The Data tab."""

from nicegui import ui

from .page import Page
from .widgets import chooser

__all__ = ["build"]


def build(page: Page) -> None:
    """Make the tab."""
    chooser(page, "folder", lambda path: setattr(page, "source", path))
    ui.label("")
