"""Kinds of files, each in a file of its own with all that is known of it, and the list of them.

A new format is a file with a subclass of :class:`Format`, and one line in ``FORMATS``.
"""

from collections.abc import Mapping
from pathlib import Path

from ..errors import shown
from .arrays import Npy, Npz
from .audio import Audio, AudioToRead
from .format import Format, Header
from .images import Images, ImagesToRead
from .mnist_cifar import Cifar, Mnist
from .volumes import Volumes

FORMATS: tuple[Format, ...] = (
    Audio(),
    AudioToRead(),
    Images(),
    ImagesToRead(),
    Volumes(),
    Npy(),
    Npz(),
    Mnist(),
    Cifar(),
)

KINDS = tuple(dict.fromkeys(f.kind for f in FORMATS))
SUFFIXES: Mapping[str, tuple[str, ...]] = {
    kind: tuple(suffix for f in FORMATS if f.kind == kind for suffix in f.suffixes) for kind in KINDS
}

__all__ = ["FORMATS", "KINDS", "SUFFIXES", "Format", "Header", "of_kind", "of_path", "to_write"]


def of_path(path: Path) -> Format | None:
    """The format of a file by its name; None if it is not known."""
    name = path.name.lower()
    return None if name.startswith(".") else next((f for f in FORMATS if f.matches(name)), None)


def of_kind(kind: str) -> Format:
    """The first format of a kind, which knows what holds for all of that kind."""
    return next(f for f in FORMATS if f.kind == kind)


def to_write(path: Path) -> Format:
    """The format that a path is to be written in, by its suffix.

    Raises:
        ValueError: there is none.
    """
    writable = [f for f in FORMATS if f.writable]
    found = next((f for f in writable if path.name.lower().endswith(f.suffixes)), None)
    if found is None:
        known = " ".join(suffix for f in writable for suffix in f.suffixes)
        raise ValueError(f"path must end with one of {known}, got {shown(path)}")
    return found
