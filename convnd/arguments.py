"""Argument checks and normalisation, for convnd's own functions and for networks built on it.

Every public function and module of convnd passes its arguments through this file; the rest of the code
sees only the normal forms: one ``int`` per axis, one ``(before, after)`` pair per axis, one padding mode
per axis. An error names the argument, states the rule and repeats the value received.
"""

from collections.abc import Iterable, Sequence
from math import inf
from typing import Any

import torch
from torch import Tensor

Ints = tuple[int, ...]
Pairs = tuple[tuple[int, int], ...]
PerAxis = int | Sequence[int]
Padding = int | str | Sequence[int] | Sequence[Sequence[int]]

PADDING_MODES = ("zeros", "reflect", "replicate", "circular")
BORDER_MODES = PADDING_MODES[1:]  # modes that pad with entries of the data


def _is_int(value: Any) -> bool:
    return isinstance(value, (int, torch.SymInt)) and not isinstance(value, bool)


def all_exact(values: Iterable[Any]) -> bool:
    """True if the values can key a cache of checked arguments: equal ints, strings and tuples are identical.

    Values of other types can compare equal and yet differ, such as True or 1.0 and 1.
    """
    for value in values:  # a plain loop, for speed: this runs on every call
        kind = type(value)
        if kind is tuple:
            for entry in value:
                if type(entry) is not int:
                    return False
        elif kind is not int and kind is not str and value is not None:
            return False
    return True


def integer(value: Any, name: str, minimum: int | None = 1) -> int:
    """Check one integer argument against its smallest legal value; None allows any value."""
    if not _is_int(value):
        if isinstance(value, bool) or not hasattr(value, "__index__"):
            raise TypeError(f"{name} must be an int, got {value!r}")
        value = value.__index__()
    if minimum is not None and value < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {value}")
    return value


def per_axis(value: Any, n: int, name: str, minimum: int | None = 1) -> Ints:
    """Expand one int for all axes, or a sequence with one int per axis, to a tuple of ``n`` ints."""
    if _is_int(value):
        return (integer(value, name, minimum),) * n
    if not isinstance(value, Sequence) or isinstance(value, str):
        if hasattr(value, "__index__"):
            return (integer(value, name, minimum),) * n
        raise TypeError(f"{name} must be an int or a sequence of {n} ints, got {value!r}")
    if len(value) == 1:
        value = tuple(value) * n
    if len(value) != n:
        raise ValueError(
            f"{name} must be an int or have one entry for each of the {n} spatial axes, "
            f"got {len(value)} entries: {value!r}"
        )
    return tuple(integer(v, f"{name}[{i}]", minimum) for i, v in enumerate(value))


def numbers(value: Any, n: int, name: str, limit: float = inf) -> tuple[float, ...]:
    """Expand a positive number below ``limit``, or a sequence with one per axis, to ``n`` numbers."""
    if isinstance(value, (int, float)):
        values = (value,) * n
    elif isinstance(value, Sequence) and not isinstance(value, str):
        values = tuple(value) * (n if len(value) == 1 else 1)
    else:
        raise TypeError(f"{name} must be a number or a sequence of {n} numbers, got {value!r}")
    if len(values) != n or not all(isinstance(v, (int, float)) and 0 < v < limit for v in values):
        rule = "positive and finite" if limit == inf else f"between 0 and {limit}"
        raise ValueError(
            f"{name} must be {rule}, one number or one for each of the {n} spatial axes, got {value!r}"
        )
    return values


def rank(spatial_dims: Any, input: Tensor, *per_axis_arguments: Any) -> int:
    """The number of spatial axes of a call that has no weight to determine it.

    It comes from ``spatial_dims`` or from the length of an argument given per axis, and by default
    is ``input.ndim - 2``. Arguments that disagree are an error.
    """
    tensor(input)
    lengths = {len(a) for a in per_axis_arguments if isinstance(a, Sequence) and len(a) > 1}
    if spatial_dims is not None:
        lengths.add(integer(spatial_dims, "spatial_dims"))
    if len(lengths) > 1:
        raise ValueError(
            "spatial_dims and the arguments given per axis must agree on the number of spatial "
            f"axes, got {sorted(lengths)}"
        )
    return lengths.pop() if lengths else input.ndim - 2


def tensor(value: Any, name: str = "input") -> Tensor:
    """Refuse anything but a tensor."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(value).__name__}")
    return value


def batched(input: Tensor, n: int) -> tuple[Tensor, bool]:
    """View ``(C, *spatial)`` as ``(1, C, *spatial)``; also returns whether ``input`` had a batch axis."""
    tensor(input)
    if n < 1 or input.ndim not in (n + 1, n + 2):
        raise ValueError(
            f"input must be (N, C, *spatial) or (C, *spatial) with {max(n, 1)} spatial axes, "
            f"got shape {tuple(input.shape)}"
        )
    return (input, True) if input.ndim == n + 2 else (input.unsqueeze(0), False)


def require_floating(input: Tensor, name: str = "input") -> None:
    """Refuse integer, boolean and complex tensors."""
    if not input.is_floating_point():
        raise TypeError(f"{name} must be a floating-point tensor, got dtype {input.dtype}")


def choice(value: Any, known: Sequence[str], name: str) -> str:
    """Check that a value is one of the known names."""
    if value not in known:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, known))}, got {value!r}")
    return value


def padding_modes(mode: Any, n: int) -> tuple[str, ...]:
    """Expand one padding mode for all axes, or one per axis, to a tuple of ``n``."""
    return per_axis_names(mode, n, "padding_mode", PADDING_MODES)


def per_axis_names(value: Any, n: int, name: str, known: Sequence[str]) -> tuple[str, ...]:
    """Expand one of the known names for all axes, or one per axis, to a tuple of ``n``."""
    names = (value,) * n if isinstance(value, str) else tuple(value)
    if len(names) != n:
        raise ValueError(f"{name} must be one name or one for each of the {n} spatial axes, got {value!r}")
    return tuple(choice(v, known, name) for v in names)


def padding_rule(padding: Any, n: int) -> str | Pairs:
    """``"same"``, or the (before, after) pairs given by an int, ints, pairs or ``"valid"``."""
    if isinstance(padding, str):
        choice(padding, ("same", "valid"), "padding")
        return "same" if padding == "same" else ((0, 0),) * n
    if isinstance(padding, Sequence) and padding and isinstance(padding[0], Sequence):
        return _pairs(padding, n)
    return tuple((p, p) for p in per_axis(padding, n, "padding", 0))


def _pairs(padding: Sequence[Any], n: int) -> Pairs:
    """One (before, after) pair for all axes, or one for each."""
    if len(padding) == 1:
        padding = tuple(padding) * n
    if len(padding) != n or any(not isinstance(p, Sequence) or len(p) != 2 for p in padding):
        raise ValueError(
            f"padding must have one (before, after) pair for each of the {n} spatial axes, got {padding!r}"
        )
    return tuple(
        (integer(a, f"padding[{i}][0]", 0), integer(b, f"padding[{i}][1]", 0))
        for i, (a, b) in enumerate(padding)
    )


def same_padding(size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """How many zeros to put before and after an axis so that the output has ``ceil(size / stride)`` entries.

    If the total is odd, the extra zero goes after, as in torch (stride 1), JAX and TensorFlow (any stride).
    """
    extent = dilation * (kernel - 1) + 1
    total = extent - 1 if stride == 1 else (-(-size // stride) - 1) * stride + extent - size
    if extent < stride:  # otherwise never negative, which tracing cannot know of a size
        total = max(total, 0)
    return total // 2, total - total // 2
