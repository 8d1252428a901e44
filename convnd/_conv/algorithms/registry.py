"""The algorithms, one line each; of equal estimates the earlier algorithm wins.

Each file defines ``ALGORITHM``, an :class:`~convnd._conv.algorithm.Algorithm`.
"""

from importlib import import_module

from ..algorithm import ALGORITHMS, ALIASES

_FILES = (
    "native",
    "onednn",
    "channels_last",
    "tiles",
    "im2col",
    "shift_add",
    "gemm",
    "kn2row",
    "winograd",
    "polyphase",
    "fft",
)

for _file in _FILES:
    _algorithm = import_module(f".{_file}", __package__).ALGORITHM
    ALGORITHMS[_algorithm.name] = _algorithm
    if _algorithm.old_name is not None:
        ALIASES[_algorithm.old_name] = _algorithm.name
