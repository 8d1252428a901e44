"""Files people have, as training examples and back: audio, images, volumes and arrays of any rank."""

from typing import TYPE_CHECKING, Any

from .._lazy import attribute

if TYPE_CHECKING:
    from .augmentation import Augment
    from .dataset import FolderDataset
    from .files import find
    from .formats import SUFFIXES
    from .loading import Loaded, Source, load
    from .options import DataOptions
    from .saving import save
    from .values import loudness

__all__ = [
    "SUFFIXES",
    "Augment",
    "DataOptions",
    "FolderDataset",
    "Loaded",
    "Source",
    "find",
    "load",
    "loudness",
    "save",
]

# Imported when they are asked for: options are read before torch is.
_FROM = {
    "SUFFIXES": ".formats",
    "Augment": ".augmentation",
    "DataOptions": ".options",
    "FolderDataset": ".dataset",
    "Loaded": ".loading",
    "Source": ".loading",
    "find": ".files",
    "load": ".loading",
    "loudness": ".values",
    "save": ".saving",
}


def __getattr__(name: str) -> Any:
    return attribute(__name__, name, _FROM)


def __dir__() -> list[str]:
    return __all__
