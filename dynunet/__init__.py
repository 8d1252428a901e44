"""dynunet: U-Nets from a list of channels, and diffusion models around them, in any dimension."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .data import FolderDataset
    from .diffusion import Diffusion
    from .encoder import Encoder
    from .training import Trainer
    from .unet import UNet

__all__ = ["Diffusion", "Encoder", "FolderDataset", "Trainer", "UNet"]

# Imported when they are asked for: torch takes seconds, and some need packages that others do without.
_LAZY = {
    "Diffusion": ".diffusion",
    "Encoder": ".encoder",
    "FolderDataset": ".data",
    "Trainer": ".training",
    "UNet": ".unet",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name], __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
