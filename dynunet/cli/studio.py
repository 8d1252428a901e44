"""``dynunet studio``: networks, data, training and use in the browser, on this machine alone."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from ..data.errors import check_exists, shown


@dataclass(frozen=True)
class Studio:
    """Open a page in the browser: draw a network, look at data, train, stop and resume, and use what was
    trained.

    The page is for this machine alone (127.0.0.1), and reads and writes below --root alone. Training goes on
    when the page, the browser or this command ends.
    """

    root: tuple[Path, ...]
    """folders that may be read and written to, with all below them"""
    port: int = 8080
    """of the page: http://127.0.0.1:8080; 0 for any that is free"""
    show: Annotated[bool, arg(name="open")] = True
    """open the page in the browser"""

    def check(self) -> None:
        if not self.root:
            raise ValueError("--root must be one folder at least")
        for folder in self.root:
            check_exists(folder, "--root")
            if not folder.is_dir():
                raise ValueError(f"--root must be folders, got the file {shown(folder)}")
        if not 0 <= self.port < 2**16:
            raise ValueError(f"--port must be from 0 to 65535, got {self.port}")

    def run(self) -> None:
        from ..studio.server import serve

        serve(self.root, self.port, self.show)
