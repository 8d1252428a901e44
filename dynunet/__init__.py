"""dynunet: U-Nets from a list of channels, and diffusion models around them, in any dimension."""

from .unet import UNet

__all__ = ["UNet"]
