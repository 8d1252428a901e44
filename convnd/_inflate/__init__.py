"""A network for more axes out of a trained one for fewer."""

from .networks import inflate

__all__ = ["inflate"]
