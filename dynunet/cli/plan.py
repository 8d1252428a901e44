"""``dynunet plan``: network, patch and batch for a data set and a budget of memory."""

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tyro.conf import OmitArgPrefixes, Positional

from ..arguments import integer, positive
from ..data.errors import check_exists
from ..planning.sizes import memory_size
from .options import DataFlags
from .words import as_flags, flags_of_command


@dataclass(frozen=True)
class PlanCommand:
    """Plan the training of a model on a folder of files: network, patch and batch for a budget of memory.

    The plan is a file for dynunet train --config: it goes to the standard output, and the reasons for it to
    the standard error. With --targets the model predicts them, with --noise, --coloured, --pairs or
    --self-supervised it restores, else it makes new data.
    """

    source: Positional[Path]
    """folder of files, searched with all below it, or one file"""
    memory: str
    """what training may take, such as 8GB or 512MiB: of the whole process, or with a GPU of its memory"""
    device: Literal["auto", "cpu", "gpu"] = "auto"
    """what will train: auto takes a GPU if there is one"""
    width: int | None = None
    """channels of the first level, doubled with every level; by default by the number of axes"""
    hours: float | None = None
    """of training on this machine, if they are limited: then steps are planned, and few enough channels"""
    out: Path | None = None
    """file for the plan, in place of the standard output, where the reasons go then"""
    data: OmitArgPrefixes[DataFlags] = field(default_factory=DataFlags)

    def check(self) -> None:
        given = {"source": self.source, **{name: getattr(self.data, name) for name in DataFlags.paths}}
        for name, path in given.items():
            if path is not None:
                check_exists(path, name)
        memory_size(self.memory)
        if self.width is not None:
            integer(self.width, "width")
        if self.hours is not None:
            positive(self.hours, "hours")

    def run(self) -> None:
        from ..planning.planner import plan
        from ..runs import chosen_device
        from ..writing import write_text

        device = self.device
        if device == "auto":
            device = "cpu" if chosen_device(None).type == "cpu" else "gpu"
        how = {"options": self.data, "width": self.width, "hours": self.hours}
        found = plan(self.source, self.memory, device=device, **how)
        text, why = _laid_out(found.flags()), as_flags(str(found), flags_of_command(PlanCommand))
        if self.out is None:
            print(why, file=sys.stderr)
            print(text)
        else:
            write_text(self.out, text)
            print(why)


def _laid_out(flags: dict[str, object]) -> str:
    """JSON with one flag to a line."""
    lines = (f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in flags.items())
    return "{\n" + ",\n".join(lines) + "\n}"
