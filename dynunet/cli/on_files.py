"""What the commands have in common that use a model on files, one result for each."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from ..hub import check_run
from .flags import check_seed, check_windows


@dataclass(frozen=True)
class OnFiles:
    """A model, the files that it is used on, and where the results go."""

    run_folder: Positional[Path]
    """folder of the run, or owner/name of one on the Hub"""
    source: Positional[Path]
    """a file, or a folder with all below it"""
    out: Path
    """folder for the results, with the names of the files; for one file also the file to write"""
    window: tuple[int, ...] | None = None
    """work in windows of this size, one number or one per axis; by default that of training"""
    overlap: tuple[int, ...] | None = None
    """of the windows; by default a quarter"""
    device: str | None = None
    """cpu, cuda, cuda:1, mps, ...; by default the fastest"""
    overwrite: bool = False
    """make results again that exist"""

    def check(self) -> None:
        check_windows(self.window, self.overlap)
        check_run(self.run_folder)

    def use(self, call: Callable[..., Any], without: Collection[str] = ()) -> None:
        """Call a function of the library with the flags, but for some, and say what became of the files."""
        apart = {"run_folder", *without}
        outcome = call(
            self.run_folder, **{f.name: getattr(self, f.name) for f in fields(self) if f.name not in apart}
        )
        print(outcome)
        if outcome.failed:
            raise SystemExit(1)


@dataclass(frozen=True)
class Sampling(OnFiles):
    """The same, for models that start from noise."""

    seed: int = 0
    """of the noise it starts from: another one gives another guess"""

    def check(self) -> None:
        check_seed(self.seed)
        super().check()
