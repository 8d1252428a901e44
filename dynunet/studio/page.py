"""What belongs to one open page. Two pages share nothing but the folders and the runs in them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from .roots import Roots

__all__ = ["Page"]


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
    """

    roots: Roots
    network: dict[str, str] = field(default_factory=dict)
    shape: dict[str, str] = field(default_factory=dict)
    designed: bool = False
    source: Path | None = None
    data: dict[str, str] = field(default_factory=dict)
    listeners: list[Callable[[], None]] = field(default_factory=list)
    tabs: list[Callable[[], None]] = field(default_factory=list)

    def changed(self) -> None:
        """Tell the tabs that show what is chosen on others."""
        for listener in self.listeners:
            listener()
