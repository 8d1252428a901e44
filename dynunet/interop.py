"""Networks of diffusers and MONAI as a :class:`~dynunet.UNet`; see :mod:`dynunet.nn.interop`."""

from .nn.interop import from_diffusers, from_monai

__all__ = ["from_diffusers", "from_monai"]
