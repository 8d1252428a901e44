"""Builds a network for more axes from a trained network for fewer."""

from .networks import inflate

__all__ = ["inflate"]
