"""Model cards: ``README.md`` beside the files of a model, which the Hub shows on the model's page.

A card says what the network is, what it was trained on and how, and the lines that use it, of what the model
and the record of its run hold; it names no file or folder of the machine that it was written on.

A card belongs to whoever wrote it last. The last line of one of ours has a checksum of all before it: where
that fits, the card is replaced by that of the model which is saved; any other ``README.md`` stays as it is.
"""

from .owner import CARD, check_license, is_own, license_of, on_hub, read
from .text import card

__all__ = ["CARD", "card", "check_license", "is_own", "license_of", "on_hub", "read"]
