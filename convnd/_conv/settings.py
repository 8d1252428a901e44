"""User settings: a forced algorithm, a limit on scratch memory, measuring instead of estimating."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from ..arguments import choice, integer
from .algorithm import ALGORITHMS, ALIASES, Algorithm, named

DEFAULT_WORKSPACE = 512 << 20

forced: ContextVar[Algorithm | None] = ContextVar("forced", default=None)
workspace_limit = DEFAULT_WORKSPACE
benchmarking = False


@contextmanager
def algorithm(name: str) -> Iterator[None]:
    """Force one convolution algorithm inside the ``with`` block.

    It also computes the gradients of results from inside the block, where it applies to them. Calls that are
    compiled, exported or under a :mod:`torch.func` transform ignore it.

    Args:
        name: the name in the literature, or the older name in brackets:

            - ``"native"``: torch's kernel, up to three axes.
            - ``"onednn"``: oneDNN's kernel, for one small sample that torch would not give it.
            - ``"channels_last"``: torch's kernel on a channels-last copy, two or three axes.
            - ``"tiles"`` (``"blocks"``): torch's kernel with neighbouring output positions as channels, up to
              three axes.
            - ``"im2col"`` (``"channels"``): the taps of leading axes as input channels.
            - ``"kn2row"`` (``"outputs"``): those taps as output channels, if these axes have stride one.
            - ``"shift_add"`` (``"taps"``): one convolution of a shifted input for each of those taps, summed.
            - ``"winograd"``: two thirds of the products, if there are three taps along the first axis.
            - ``"gemm"``: one matrix product.
            - ``"polyphase"`` (``"phases"``): a transposed convolution as several plain ones.
            - ``"fft"``: in the frequency domain.

            If forced, winograd spreads NaN and infinity to a pair of outputs and fft to all of them. If
            chosen automatically, they are replaced by another algorithm where NaN or infinity occurs.

    Raises:
        ValueError: for an unknown name; and from a convolution to which the algorithm does not apply.

    >>> import torch, convnd
    >>> import convnd.functional as F
    >>> with convnd.algorithm("fft"):
    ...     y = F.conv(torch.ones(1, 1, 9), torch.ones(1, 1, 5))
    """
    known = ALIASES if name in ALIASES else ALGORITHMS
    token = forced.set(named(choice(name, tuple(known), "name")))
    try:
        yield
    finally:
        forced.reset(token)


def set_workspace_limit(limit: int | None) -> None:
    """Limit the scratch memory of a convolution; work that needs more is cut into pieces, never refused.

    The limit does not count one (padded) copy of the input or the parts of a strided transposed convolution
    (together as large as its result), and pieces are never smaller than one output position of one sample.

    Args:
        limit: bytes, at least 1; None for the default of 512 MiB.
    """
    global workspace_limit
    workspace_limit = DEFAULT_WORKSPACE if limit is None else integer(limit, "limit")


def benchmark(enabled: bool) -> None:
    """Time the algorithms once per shape instead of estimating, like ``torch.backends.cudnn.benchmark``.

    Results are kept until the process ends.
    """
    global benchmarking
    if not isinstance(enabled, bool):
        raise TypeError(f"enabled must be a bool, got {enabled!r}")
    benchmarking = enabled
