"""What belongs to one open page. Two pages share nothing but the folders and the runs in them."""

from collections.abc import Callable, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .roots import Roots

__all__ = ["Page"]

_TYPED = ("network", "shape", "designed", "source", "data")


@dataclass
class Page:
    """The state of a page.

    Attributes:
        roots: the folders that may be read.
        network: what is typed in on the Design tab, by the name of the option of the network.
        shape: what is typed in there beside it: ``spatial_dims``, ``size``, ``in_channels``, ``batch_size``,
            and ``of``, the class.
        designed: something was changed there.
        source: the folder of data, chosen on the Data tab; None before.
        data: what is typed in there, by the name of the flag of ``dynunet train``.
        listeners: are called when something was chosen that other tabs show.
        tabs: are called when another tab is opened.
        restored: are called when all of that is as it was before the page was loaded anew.
        memory: of the browser's tab, which outlives the page; None before the browser has said which it is.
    """

    roots: Roots
    network: dict[str, str] = field(default_factory=dict)
    shape: dict[str, str] = field(default_factory=dict)
    designed: bool = False
    source: Path | None = None
    data: dict[str, str] = field(default_factory=dict)
    listeners: list[Callable[[], None]] = field(default_factory=list)
    tabs: list[Callable[[], None]] = field(default_factory=list)
    restored: list[Callable[[], None]] = field(default_factory=list)
    memory: MutableMapping[str, Any] | None = None

    def remember(self, memory: MutableMapping[str, Any]) -> None:
        """Take what was typed in before the page was loaded anew, and keep what is typed in from now on."""
        first, self.memory = self.memory is None, memory
        if first and _TYPED[0] in memory:
            for name in _TYPED:
                setattr(self, name, _own(memory[name]))
            for listener in self.restored:
                listener()

    def keep(self) -> None:
        """Keep what is typed in for a reload of the page."""
        if self.memory is not None:
            self.memory.update({name: _own(getattr(self, name)) for name in _TYPED})

    def changed(self) -> None:
        """Tell the tabs that show what is chosen on others."""
        self.keep()
        for listener in self.listeners:
            listener()


def _own(value: Any) -> Any:
    return dict(value) if isinstance(value, MutableMapping) else value
