"""Models on the Hugging Face Hub, by the names of their repositories: ``owner/name``."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .data.errors import shown

__all__ = ["CONFIG", "WEIGHTS", "check_run", "fetched", "is_hub_name", "run_folder"]

CONFIG, WEIGHTS = "config.json", "model.safetensors"  # the files of a model
_NAME = re.compile(r"[A-Za-z0-9_][\w.-]*/[A-Za-z0-9_][\w.-]*", re.ASCII)


def is_hub_name(path: Path | str) -> bool:
    """True for ``owner/name`` where nothing on this machine has that name, nor the folder it would be in."""
    return (
        _NAME.fullmatch(str(path)) is not None and not Path(path).exists() and not Path(path).parent.exists()
    )


def check_run(run: Path | str, name: str = "run") -> None:
    """Refuse what is neither a folder nor the name of a repository, without looking for the latter.

    Raises:
        ValueError: naming the argument.
    """
    if Path(run).is_dir() or is_hub_name(run):
        return
    where = "nor owner/name on the Hub"
    if _NAME.fullmatch(str(run)) and not Path(run).exists():  # a name that is mistyped is nobody else's
        where += f": it was not looked for there, because {shown(Path(run).parent)} is on this machine"
    raise ValueError(f"{name} must be the folder of a run, got {shown(run)}, which is none, {where}")


def run_folder(run: Path | str, name: str = "run") -> Path:
    """The folder of a run, with its model alone if that is fetched from the Hub.

    Raises:
        ValueError: there is none, naming the argument and the reason.
    """
    check_run(run, name)
    if Path(run).is_dir():
        return Path(run)
    return fetched(str(run), [CONFIG, WEIGHTS], f"{name}: there is no folder {shown(run)}")


def fetched(repository: str, files: Sequence[str], rule: str, **options: Any) -> Path:
    """A folder with files of a repository, fetched if they are not on this machine yet.

    Args:
        rule: what is said before the reason, if that fails.
        options: of ``huggingface_hub.snapshot_download``.

    Raises:
        ValueError: the message says why.
    """
    from huggingface_hub import snapshot_download  # takes longer to import than this package
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return Path(snapshot_download(repository, allow_patterns=list(files), **options))
    except (OSError, ValueError, HfHubHTTPError) as error:
        raise ValueError(f"{rule}, and from the Hub: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError

    if isinstance(error, GatedRepoError):
        return "its owner has to allow it first; then log in (hf auth login)"
    if isinstance(error, RepositoryNotFoundError):
        return "there is no such repository, or it is private: log in (hf auth login)"
    if isinstance(error, (LocalEntryNotFoundError, ConnectionError, TimeoutError)):
        return "it cannot be reached (is there a network, is HF_HUB_OFFLINE set?), and was not fetched before"
    return " ".join(str(error).split())
