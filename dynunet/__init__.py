"""dynunet: U-Nets from a list of channels, and diffusion models around them, in any dimension."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .diffusion import Diffusion
from .encoder import Encoder
from .unet import UNet

if TYPE_CHECKING:
    from .data import FolderDataset
    from .training import Trainer

__all__ = ["Diffusion", "Encoder", "FolderDataset", "Trainer", "UNet"]

# Imported when they are asked for: they need packages that networks and samplers do without.
_LAZY = {"FolderDataset": ".data", "Trainer": ".training"}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name], __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
