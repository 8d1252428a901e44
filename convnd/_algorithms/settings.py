"""What the user asks of the planner: one algorithm, a bound on scratch memory, measuring instead."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from ..arguments import choice, integer
from .problems import ALGORITHMS

DEFAULT_WORKSPACE = 512 << 20

forced: ContextVar[str | None] = ContextVar("forced", default=None)
workspace_limit = DEFAULT_WORKSPACE
benchmarking = False


def asked() -> bool:
    """Whether the user wants another choice than the planner's own."""
    return benchmarking or forced.get() is not None


@contextmanager
def algorithm(name: str) -> Iterator[None]:
    """Convolve by one algorithm inside the ``with`` block.

    It also serves the gradients of what was computed inside, where it applies to them. Calls that are
    compiled, exported or under a :mod:`torch.func` transform do not look at it.

    Args:
        name: ``"native"`` (torch's kernel, up to three axes), ``"onednn"`` (oneDNN's, for one small
            sample that torch would not give it), ``"channels_last"`` (torch's on a
            channels-last copy, two or three axes), ``"blocks"`` (torch's with neighbouring output positions
            as channels, up to three axes), ``"channels"`` (taps of leading axes as input channels),
            ``"outputs"`` (as output channels, where those axes have stride one), ``"taps"`` (a sum over
            those taps), ``"winograd"`` (two thirds of the products, for three taps along the first axis),
            ``"gemm"`` (one matrix product), ``"phases"`` (transposed convolution as plain ones) or
            ``"fft"``. When forced, winograd spreads NaN and infinity over a pair of outputs and fft over
            all; chosen automatically they are checked, and replaced where that happens.

    Raises:
        ValueError: for an unknown name; and from a convolution to which the algorithm does not apply.

    >>> import torch, convnd
    >>> import convnd.functional as F
    >>> with convnd.algorithm("fft"):
    ...     y = F.conv(torch.ones(1, 1, 9), torch.ones(1, 1, 5))
    """
    token = forced.set(choice(name, ALGORITHMS, "name"))
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
