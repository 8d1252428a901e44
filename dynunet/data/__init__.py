"""Files people have, as training examples and back: audio, images, volumes and arrays of any rank."""

from .files import SUFFIXES, find
from .folder import FolderDataset
from .loading import Loaded, Source, load
from .options import DataOptions
from .saving import save

__all__ = ["SUFFIXES", "DataOptions", "FolderDataset", "Loaded", "Source", "find", "load", "save"]
