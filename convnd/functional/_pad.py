"""The public function of padding: argument checks and dispatch."""

from collections.abc import Sequence
from typing import Any

import torch.nn.functional
from torch import Tensor

from .._fx import leaf_function
from .._spatial.pad import pad_axes
from ..arguments import BORDER_MODES, choice, integer, tensor


@leaf_function
def pad(
    input: Tensor,
    pad: Sequence[int],
    mode: str = "constant",
    value: float | None = None,
    *,
    spatial_dims: int | None = None,
) -> Tensor:
    """Pad the last axes of a tensor; negative amounts crop.

    If an axis is cropped at one end and padded at the other, reflection and replication read the whole axis,
    circular padding only what the crop leaves.

    Args:
        input: a tensor of any rank and dtype.
        pad: ``(before, after)`` of the last axis, then of the one before it, and so on, flat (torch's order).
        mode: ``"constant"``, ``"reflect"``, ``"replicate"`` or ``"circular"``.
        value: the fill value of ``"constant"``; 0 by default.
        spatial_dims: if given, ``pad`` must have two entries for each of this many axes.

    Returns:
        The padded tensor; each padded axis grows by its two amounts.

    Raises:
        ValueError, TypeError: naming the argument, the rule and the value received.

    >>> import torch
    >>> import convnd.functional as F
    >>> F.pad(torch.arange(3), (2, 2), mode="circular")
    tensor([1, 2, 0, 1, 2, 0, 1])
    """
    choice(mode, ("constant", *BORDER_MODES), "mode")
    _check_length(pad, tensor(input).ndim, spatial_dims)
    pad = [integer(amount, f"pad[{i}]", None) for i, amount in enumerate(pad)]
    pairs = tuple((pad[i], pad[i + 1]) for i in range(len(pad) - 2, -1, -2))
    sizes = input.shape[input.ndim - len(pairs) :]
    for axis, (size, pair) in enumerate(zip(sizes, pairs, strict=True), start=input.ndim - len(pairs)):
        if size + sum(pair) < 0 or min(pair) < -size:
            raise ValueError(
                f"pad must not crop more than an axis holds, got {pair} on axis {axis} of size {size}"
            )
    if mode == "constant":
        return torch.nn.functional.pad(input, pad, value=value)
    if value not in (None, 0):
        raise ValueError(f"value must be left out with mode {mode!r}, got {value!r}")
    return pad_axes(input, pairs, (mode,) * len(pairs))


def _check_length(pad: Any, ndim: int, spatial_dims: int | None) -> None:
    """Refuse what is not two entries for each of some axes."""
    if not isinstance(pad, Sequence):
        raise TypeError(f"pad must be a sequence of ints, got {pad!r}")
    if len(pad) % 2 or not 2 <= len(pad) <= 2 * ndim:
        raise ValueError(
            "pad must have two entries, before and after, for each padded axis of an input with "
            f"{ndim} axes, got {tuple(pad)}"
        )
    if spatial_dims is not None and len(pad) != 2 * spatial_dims:
        raise ValueError(
            f"pad must have {2 * spatial_dims} entries for spatial_dims={spatial_dims}, got {tuple(pad)}"
        )
