"""Begin and resume training for a page: the command line for what is typed in, and where it may read."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from ..cli.catalogue import Flag, arguments_of, flags_of_form
from ..cli.main import parsed
from ..cli.train import Train, flags_of
from ..data import FolderDataset, find
from ..data.errors import shown
from ..training.background import start
from ..training.record import RUN
from .roots import Roots

__all__ = ["begin", "data_flags", "data_of", "groups", "resume", "train_arguments"]

_APART = ("source", "out", "resume", "config")  # that have fields of their own
_DATA, _NETWORK = "data", "network"  # groups with tabs of their own
_TITLES = {
    "": "Beginning",
    "augment": "Augmentation",
    "diffusion": "Diffusion model",
    "supervised": "Learning classes",
    "train": "Training",
}


def groups() -> dict[str, list[Flag]]:
    """The flags of ``dynunet train`` by what they belong to, but for those of the data and the network."""
    found: dict[str, list[Flag]] = {}
    for flag in flags_of_form(Train):
        if flag.group not in (_DATA, _NETWORK) and flag.name not in _APART:
            title = _TITLES.get(flag.group, flag.group.capitalize())
            found.setdefault(title, []).append(flag)
    return found


def data_flags() -> list[Flag]:
    """Those of the data."""
    return [flag for flag in flags_of_form(Train) if flag.group == _DATA]


def data_of(roots: Roots, source: Path, texts: Mapping[str, str]) -> FolderDataset:
    """The examples that a run would be trained on, of files that all lie below the roots.

    Raises:
        ValueError, TypeError, OSError, ImportError: naming the flag or the file, the rule and the value.
    """
    own = {flag.name: texts.get(flag.name, "") for flag in data_flags()}
    line = arguments_of(Train, {**own, **_there(roots, own), "source": str(source)})
    command = _checked(roots, ["train", *line])
    for name, path in command.reads():
        roots.check_links(find(path) if path.is_dir() else [path], name)
    return command.dataset()


def train_arguments(
    roots: Roots, source: Path | None, out: str, texts: Mapping[str, str], network: Sequence[str]
) -> list[str]:
    """The flags of a new run, which are checked as the command line does.

    Args:
        roots: where it may read and write.
        source: the folder of data.
        out: the folder of the run, as it is typed in.
        texts: by the name of the flag.
        network: flags of the network, or none for that of the data and the machine.

    Raises:
        ValueError, TypeError, OSError: naming the flag, the rule and the value.
    """
    if source is None:
        raise ValueError("choose a folder of data first")
    if not out.strip():
        raise ValueError("out must be a folder for the run")
    folder = roots.inside(out, "out")
    given = {**texts, **_there(roots, texts), "source": str(source), "out": str(folder)}
    arguments = [*arguments_of(Train, given), *network]
    _checked(roots, ["train", *arguments]).check()
    return arguments


def begin(roots: Roots, arguments: Sequence[str]) -> Path:
    """Begin a run in the background, and give its folder."""
    command = _checked(roots, ["train", *arguments])
    command.check()
    if command.out is None:
        raise ValueError("out must be a folder for the run")
    start(command.out, arguments, roots.folders[0])
    return command.out


def resume(roots: Roots, folder: Path, steps: str = "") -> None:
    """Go on with a run in the background, for its own number of steps or another.

    Raises:
        ValueError, TypeError, OSError: it cannot be resumed, or reads what is not below the roots.
    """
    folder = roots.there(folder, "run")
    arguments = ["--resume", str(folder), *(["--steps", steps.strip()] if steps.strip() else [])]
    if not (folder / RUN).is_file():
        raise ValueError(f"run: {shown(folder)} has not begun: begin it anew")
    flags_of(folder / RUN)
    _checked(roots, ["train", *arguments]).check()
    start(folder, arguments, roots.folders[0])


def _there(roots: Roots, texts: Mapping[str, str]) -> dict[str, str]:
    """What is typed in as paths that are read, resolved."""
    names = [f.name for f in flags_of_form(Train) if f.kind is Path and f.name not in _APART]
    return {name: str(roots.there(texts[name], name)) for name in names if texts.get(name, "").strip()}


def _checked(roots: Roots, arguments: list[str]) -> Train:
    """The command, whose paths are all below the roots, whatever was typed in."""
    command = parsed(arguments)
    places = dict(command.reads())
    if command.start is not None:
        places["from"] = command.start
    for name, path in (("out", command.out), ("resume", command.resume), ("config", command.config)):
        if path is not None:
            roots.inside(path, name)
    for name, path in places.items():
        roots.there(path, name)
    return command
