"""dynunet: U-Nets from a list of channels, and diffusion models around them, in any dimension."""

from .diffusion import Diffusion
from .encoder import Encoder
from .unet import UNet

__all__ = ["Diffusion", "Encoder", "UNet"]
