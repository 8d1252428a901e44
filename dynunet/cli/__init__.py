"""The command line: ``dynunet train | sample | denoise | inpaint | evaluate | summary``.

Each command is a dataclass in a module of its own, whose fields are its flags and whose ``run`` does it.
"""

from .main import main

__all__ = ["main"]
