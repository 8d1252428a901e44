"""The user's wishes: one algorithm, a bound on scratch memory, measuring instead of estimating."""

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
    """Convolve by one algorithm inside the ``with`` block.

    It also serves the gradients of what was computed inside, where it applies to them. Calls that are
    compiled, exported or under a :mod:`torch.func` transform do not look at it.

    Args:
        name: the literature's, or in brackets an older one of this package:

            - ``"native"``: torch's kernel, up to three axes.
            - ``"onednn"``: oneDNN's kernel, for one small sample that torch would not give it.
            - ``"channels_last"``: torch's kernel on a channels-last copy, two or three axes.
            - ``"tiles"`` (``"blocks"``): torch's kernel with neighbouring output positions as channels, up to
              three axes.
            - ``"im2col"`` (``"channels"``): the taps of leading axes as input channels.
            - ``"kn2row"`` (``"outputs"``): those taps as output channels, where the axes have stride one.
            - ``"shift_add"`` (``"taps"``): a sum over those taps of shifted inputs.
            - ``"winograd"``: two thirds of the products, for three taps along the first axis.
            - ``"gemm"``: one matrix product.
            - ``"polyphase"`` (``"phases"``): transposed convolution as plain ones.
            - ``"fft"``: in the frequency domain.

            When forced, winograd spreads NaN and infinity over a pair of outputs and fft over all; chosen
            automatically they are checked, and replaced where that happens.

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
    """Bound the scratch memory of a convolution; larger work is cut into pieces, never refused.

    Not bounded: one (padded) copy of the input, what a transposed convolution with stride is put together
    from (as large as its result), and a piece that is one output position of one sample.

    Args:
        limit: bytes, at least 1; None for the default of 512 MiB.
    """
    global workspace_limit
    workspace_limit = DEFAULT_WORKSPACE if limit is None else integer(limit, "limit")


def benchmark(enabled: bool) -> None:
    """Time the algorithms once for each shape instead of estimating, as ``torch.backends.cudnn.benchmark``.

    Results are kept for the life of the process.
    """
    global benchmarking
    if not isinstance(enabled, bool):
        raise TypeError(f"enabled must be a bool, got {enabled!r}")
    benchmarking = enabled
