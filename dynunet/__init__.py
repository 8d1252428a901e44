"""dynunet: U-Nets from a list of channels, and diffusion models around them, in any dimension."""

from typing import TYPE_CHECKING, Any

from ._lazy import attribute

if TYPE_CHECKING:
    from . import (
        attention,
        data,
        diffusion,
        embeddings,
        interop,
        metrics,
        nn,
        operators,
        plotting,
        summary,
        testing,
        training,
    )
    from .averages import average
    from .checkpoints import load
    from .data import FolderDataset
    from .diffusion import Diffusion
    from .ensembles import summarize
    from .nn.encoder import Encoder
    from .nn.spectral_mask import SpectralMask
    from .nn.unet import UNet
    from .streaming import Stream
    from .supervised import Supervised
    from .training import Trainer

__all__ = [
    "Diffusion",
    "Encoder",
    "FolderDataset",
    "SpectralMask",
    "Stream",
    "Supervised",
    "Trainer",
    "UNet",
    "attention",
    "average",
    "data",
    "diffusion",
    "embeddings",
    "interop",
    "load",
    "metrics",
    "nn",
    "operators",
    "plotting",
    "summarize",
    "summary",
    "testing",
    "training",
]

# Imported when they are asked for: torch takes seconds, and some need packages that others do without.
_FROM = {
    "Diffusion": ".diffusion",
    "Encoder": ".nn.encoder",
    "FolderDataset": ".data",
    "SpectralMask": ".nn.spectral_mask",
    "Stream": ".streaming",
    "Supervised": ".supervised",
    "Trainer": ".training",
    "UNet": ".nn.unet",
    "average": ".averages",
    "load": ".checkpoints",
    "summarize": ".ensembles",
}


def __getattr__(name: str) -> Any:
    return attribute(__name__, name, _FROM, __all__)


def __dir__() -> list[str]:
    return __all__
