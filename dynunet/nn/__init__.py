"""The networks: a U-Net and its encoder alone, built from the options of :mod:`dynunet.nn.spec`.

Reading order: ``spec`` (every option), ``unet`` and ``encoder``, ``network`` (what they share), ``levels``,
``resampling`` between levels, ``blocks``, ``attention`` with ``gates`` and ``positions``, ``embeddings``.
``interop`` converts networks of other libraries.
"""

from typing import TYPE_CHECKING, Any

from .._lazy import attribute

if TYPE_CHECKING:
    from .encoder import Encoder
    from .spec import NetworkSpec
    from .unet import UNet

__all__ = ["Encoder", "NetworkSpec", "UNet"]

_FROM = {"Encoder": ".encoder", "NetworkSpec": ".spec", "UNet": ".unet"}


def __getattr__(name: str) -> Any:
    return attribute(__name__, name, _FROM)


def __dir__() -> list[str]:
    return __all__
