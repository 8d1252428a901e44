"""The Use tab."""

from .page import Page

__all__ = ["build"]


def build(page: Page) -> None:
    """Make the tab."""
