"""The command line: ``dynunet train``, ``sample``, ``denoise``, ``reconstruct``, ``predict``, and others.

Each command is a dataclass in a module of its own, whose fields are its flags. ``check`` refuses flags that
are wrong, without torch, so that the answer comes at once; ``run`` calls the library, which does the work.
"""

from .main import main

__all__ = ["main"]
