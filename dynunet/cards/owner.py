"""Whose a card is, and under what licence it puts a model."""

import re
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ..data.errors import shown

CARD = "README.md"
_SEAL = "<!-- Written by dynunet, which replaces this card only while nobody has changed it: {} -->"
_SEALED = re.compile(rf"(.*)\n{re.escape(_SEAL).replace(re.escape('{}'), '([0-9a-f]{64})')}\n*", re.DOTALL)
_LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]*")
_FIELD = re.compile(rf"(?m)^license: ({_LICENSE.pattern})$")


def sealed(text: str) -> str:
    """A card with the line that tells whether it was changed."""
    return f"{text}\n{_SEAL.format(_checksum(text))}"


def is_own(text: str) -> bool:
    """True for a card that was written here and not changed since."""
    found = _SEALED.fullmatch(text)
    return found is not None and _checksum(found[1]) == found[2]


def read(folder: Path) -> str | None:
    """The card in a folder, lines ending alike; None if there is none, no text for what is no text."""
    path = folder / CARD
    if not path.exists() and not path.is_symlink():
        return None
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def on_hub(api: Any, repository: str, revision: str | None) -> str | None:
    """The card of a repository as it is there now; None if it has none.

    Args:
        api: a ``huggingface_hub.HfApi``.
    """
    from huggingface_hub.errors import EntryNotFoundError, RevisionNotFoundError

    with TemporaryDirectory() as folder:
        try:
            api.hf_hub_download(repository, CARD, revision=revision, local_dir=folder)
        except (EntryNotFoundError, RevisionNotFoundError):
            return None
        return read(Path(folder))


def check_license(license: str | None) -> None:
    """Refuse what the Hub would not know as the name of a licence.

    Raises:
        TypeError, ValueError: saying what it must be.
    """
    if license is None:
        return
    if not isinstance(license, str):
        raise TypeError(f"license must be a str, got {license!r}")
    if not _LICENSE.fullmatch(license):
        raise ValueError(
            f"license must be a name that the Hub has for it, such as 'mit' or 'cc-by-4.0', got {license!r}"
        )


def license_of(text: str | None, license: str | None, place: Path | str) -> str | None:
    """The licence that a card in place of another one has: what is given, or that of the other one.

    Args:
        text: of the card that is there, if any.
        license: that is given.
        place: of the card, for the message.

    Raises:
        ValueError: a licence is given, and the card is not ours to write it into.
    """
    check_license(license)
    if license is not None and text is not None and not is_own(text):
        raise ValueError(
            f"license must be left out where {shown(place)} was written by hand, got {license!r}: write it "
            "there, as the field license between the first lines ---, or remove that file"
        )
    found = _FIELD.search(text) if license is None and text is not None else None
    return license if found is None else found[1]


def _checksum(text: str) -> str:
    return sha256(text.encode()).hexdigest()
