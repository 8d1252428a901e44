"""Pictures of data with one axis, two, three, four or more. Needs matplotlib, and :func:`gif` pillow.

Data are ``(N, C, *spatial)`` in model units, about [-1, 1]. The channels of one sample stand beside each
other, below each other in 1-D; three channels in 2-D and beyond are red, green and blue. Entries that are
missing (NaN) are drawn in a colour of their own, turquoise, which no colour map here contains.
"""

from .notebook import Shown, show
from .progress import film_strip, gif, loss_curve
from .samples import image_grid, mosaic, overlay, pictures, slices
from .signals import spectrogram, waveform

__all__ = [
    "Shown",
    "film_strip",
    "gif",
    "image_grid",
    "loss_curve",
    "mosaic",
    "overlay",
    "pictures",
    "show",
    "slices",
    "spectrogram",
    "waveform",
]
