"""Shared by the examples: finding data, a folder for each run, and one table of all runs."""

import csv
import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from torch import Tensor

from dynunet.jsonable import plain, unflat
from dynunet.nn.flags import network_options, with_flags
from dynunet.training import Trainer
from dynunet.writing import write_text

SHOWN = "shown.npz"  # in the folder of a run: what gallery.py draws of it


@dataclass
class RunOptions:
    """Options of every example that trains: its own are a dataclass that begins with these."""

    seed: int = 0
    """of everything random"""
    data: Path | None = None
    """data of your own"""
    out: Path = Path("runs")
    """where the folders of the runs are"""
    name: str = ""
    """name of this run; numbered if left out"""
    resume: Path | None = None
    """folder of an interrupted run to go on with; it knows its other options"""


# The commonest options of dynunet.UNet, and what a small network that trains in minutes has of them.
_NETWORK: dict[str, Any] = {
    "channels": (32, 64),
    "num_blocks": (1,),
    "block": ...,
    "norm": ...,
    "num_groups": 8,
    "activation": ...,
    "attention": ...,
    "dropout": ...,
}


@dataclass
class NetworkOptions(with_flags(RunOptions, _NETWORK)):
    """Those of an example that trains a network, too; ``with_flags`` gives it other defaults, or more."""

    def network(self) -> dict[str, Any]:
        """As keywords of UNet."""
        return network_options(self)


Options = TypeVar("Options", bound=RunOptions)


def begin(options: Options, kind: str) -> tuple[Options, Path]:
    """The options and the folder of a run: a new one, or with ``--resume`` those of an earlier one."""
    if options.resume is None:
        return options, new_folder(options.out, options.name, kind, options)
    kept = options.resume / "options.json"
    if not kept.is_file():
        raise SystemExit(f"--resume: looked for {kept}, which each run keeps: none there")
    others = [_flag(f) for f in fields(options) if f.name != "resume" and _differs(options, f)]
    if others:
        raise SystemExit(f"--resume: {options.resume} has its own options; leave out {' '.join(others)}")
    saved = json.loads(kept.read_text())
    differing = saved.keys() ^ plain(options).keys()
    if differing:
        raise SystemExit(f"--resume: {kept} is of another example or version: {sorted(differing)}")
    try:
        return unflat(type(options), saved, kept), options.resume
    except ValueError as error:
        raise SystemExit(f"--resume: {error}") from None


@contextmanager
def explained(folder: Path) -> Iterator[None]:
    """A context that makes data and a network: an error in it is one line, and leaves no empty folder."""
    try:
        yield
    except (OSError, TypeError, ValueError, SystemExit) as error:
        if [path.name for path in folder.iterdir()] == ["options.json"]:
            shutil.rmtree(folder)
        raise SystemExit(str(error)) from None


def new_folder(out: Path, name: str, kind: str, options: Any) -> Path:
    """Make a folder of its own for a run and keep its options there; an existing one is never touched."""
    number = 1
    while not name and (out / f"{kind}-{number}").exists():
        number += 1
    folder = out / (name or f"{kind}-{number}")
    if folder.exists():
        raise SystemExit(f"--name: {folder} exists already and is left as it is; choose another name")
    folder.mkdir(parents=True)
    write_text(folder / "options.json", json.dumps(plain(options), indent=2))
    return folder


def fit(trainer: Trainer, folder: Path) -> tuple[Any, str]:
    """Train, or go on: the averaged model, and how many seconds it took in all.

    Ctrl-C, or a kill, loses nothing; it says how to go on. The trainer's folder is ``folder / "model"``.
    """
    try:
        model = trainer.fit(resume=True)  # of a run that is not there yet it is the beginning
    except KeyboardInterrupt as stopped:
        raise SystemExit(f"\n{stopped or 'stopped'}:\n\n  python {sys.argv[0]} --resume {folder}") from None
    with (trainer.out / "log.csv").open(newline="") as file:
        seconds = [float(row["seconds"]) for row in csv.DictReader(file) if row["seconds"]]
    return model, f"{seconds[-1]:.0f}"


def debian(relative: str, *, packages: str, data: Path | None = None, flag: str = "--data") -> Path:
    """The user's own data, or a folder or file of Debian packages, unpacked here or installed.

    Args:
        relative: path below the root of the package, such as ``"usr/share/datasets/fashion-mnist"``.
        packages: names of the packages that have it, with spaces between them.
        data: what the user gave with ``flag``, if anything; then nothing else is looked for.

    Raises:
        SystemExit: saying what was looked for, and the line that fetches it. Nothing is made up instead.
    """
    if data is not None:
        if not data.exists():
            raise SystemExit(f"{flag}: looked for a file or a folder {data}: none there")
        return data
    places = [Path("data") / relative, Path("/") / relative]
    for place in places:
        if place.exists():
            return place
    raise SystemExit(
        f"looked for {' and for '.join(map(str, places))}: none there. It is in Debian's and Ubuntu's "
        f"{packages}, which this line fetches without installing:\n\n"
        f"  apt-get download {packages} && for f in *.deb; do dpkg-deb -x $f data; done\n\n"
        f"For data of your own: {flag} PATH"
    )


def report(folder: Path, options: Any, figures: dict[str, str]) -> None:
    """Add a line with the figures and the flags of a run to results.csv; print it below earlier ones."""
    flags = [
        f"{_flag(f)} {_text(getattr(options, f.name))}"
        for f in fields(options)
        if f.name not in ("out", "name", "resume") and _differs(options, f)
    ]
    row = {"run": folder.name, **figures, "flags": " ".join(flags)}
    table = folder.parent / "results.csv"
    earlier: list[dict[str, str]] = []
    names = list(row)
    if table.exists():
        with table.open(newline="") as file:
            reader = csv.DictReader(file)
            earlier = list(reader)
            names = list(dict.fromkeys([*(reader.fieldnames or ()), *row]))
    with table.open("w" if earlier and list(earlier[0]) != names else "a", newline="") as file:
        writer = csv.DictWriter(file, names, restval="")
        if not earlier or file.mode == "w":
            writer.writeheader()
            writer.writerows(earlier)
        writer.writerow(row)
    shown = [r for r in earlier if all(r.get(name) for name in figures)]  # of the same example
    rows = [{name: name for name in row}, *shown[-9:], row]
    widths = {name: max(len(r.get(name) or "") for r in rows) for name in row}
    for r in rows:
        print("  ".join((r.get(name) or "").ljust(width) for name, width in widths.items()).rstrip())


def keep(folder: Path, **shown: Tensor) -> None:
    """Keep what a run is pictured by, for gallery.py."""
    np.savez_compressed(folder / SHOWN, allow_pickle=False, **{name: x.numpy() for name, x in shown.items()})


def suggest(*flags: str) -> None:
    """Commands to try next."""
    for text in flags:
        print(f"  python {sys.argv[0]} {text}")


def _flag(field: Any) -> str:
    return f"--{field.name.replace('_', '-')}"


def _differs(options: Any, field: Any) -> bool:
    return getattr(options, field.name) != field.default


def _text(value: Any) -> str:
    return (
        " ".join(map(str, value))
        if isinstance(value, Sequence) and not isinstance(value, str)
        else str(value)
    )
