"""Checks the arguments of a call and turns them into a geometry and the sizes of the result."""

from functools import lru_cache

from torch import Tensor

from .._spatial.pad import check_fits
from .._torch.dtypes import is_numeric
from .._torch.eager import autocasting, eager
from ..arguments import (
    Ints,
    Pairs,
    all_exact,
    batched,
    integer,
    padding_modes,
    padding_rule,
    per_axis,
    same_padding,
)
from .problem import Arguments, Geometry, Op

Shape = tuple[int, ...]


def _check_dtypes(input: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    dtype = input.dtype
    if not is_numeric(dtype):
        raise TypeError(f"input must be a floating-point, complex or integer tensor, got dtype {dtype}")
    for name, other in (("weight", weight), ("bias", bias)):
        if other is not None and other.dtype != dtype and not autocasting(input.device.type):
            raise TypeError(f"{name} must have the dtype of input, {dtype}, got {other.dtype}")


def prepared(
    op: Op, input: Tensor, weight: Tensor, bias: Tensor | None, arguments: Arguments
) -> tuple[Tensor, bool, Geometry, Ints]:
    """The batched input, whether it was batched, the geometry, and the spatial sizes of the result."""
    if not isinstance(weight, Tensor):
        raise TypeError(f"weight must be a torch.Tensor, got {type(weight).__name__}")
    if weight.ndim < 3:
        raise ValueError(f"weight must have at least one spatial axis, got shape {tuple(weight.shape)}")
    x, has_batch = batched(input, weight.ndim - 2)
    _check_dtypes(x, weight, bias)
    shapes = x.shape, weight.shape, None if bias is None else bias.shape
    check = _known_geometry if eager(x, weight) and all_exact(arguments) else geometry_of
    return x, has_batch, *check(op, *shapes, arguments)


def geometry_of(
    op: Op, input: Shape, weight: Shape, bias: Shape | None, arguments: Arguments
) -> tuple[Geometry, Ints]:
    """The geometry and the spatial sizes of the result for operands of these shapes; ``input`` is batched."""
    input, weight = tuple(input), tuple(weight)
    kernel, groups = weight[2:], arguments.groups
    n = len(kernel)
    stride, dilation = per_axis(arguments.stride, n, "stride"), per_axis(arguments.dilation, n, "dilation")
    extra = per_axis(arguments.output_padding, n, "output_padding", 0)
    _check_shapes(op, input, weight, None if bias is None else tuple(bias), groups)
    pads, modes = padding_rule(arguments.padding, n), padding_modes(arguments.padding_mode, n)
    if op == "transpose":
        pads, sizes = _transposed_sizes(input[2:], kernel, stride, pads, dilation, extra)
        padded = sizes
    else:
        pads, sizes = _conv_sizes(input[2:], kernel, stride, pads, dilation)
        padded = input[2:]
    if all(m == "zeros" or not any(p) for m, p in zip(modes, pads, strict=True)):
        return Geometry(stride, pads, dilation, groups), sizes
    check_fits(padded, pads, modes, "padding")
    return Geometry(stride, pads, dilation, groups, modes), sizes


_known_geometry = lru_cache(maxsize=4096)(geometry_of)


def _check_shapes(op: Op, input: Shape, weight: Shape, bias: Shape | None, groups: int) -> None:
    """Check channels and groups; ``input`` is batched."""
    transposed = op == "transpose"
    integer(groups, "groups")
    if min(weight[2:]) < 1:
        raise ValueError(f"weight must have at least one entry on every spatial axis, got shape {weight}")
    if weight[0] % groups:
        which = "in_channels" if transposed else "out_channels"
        raise ValueError(f"groups must divide {which} = weight.shape[0] = {weight[0]}, got {groups}")
    channels = weight[0] if transposed else weight[1] * groups
    if input[1] != channels:
        raise ValueError(
            f"input must have {channels} channels for weight of shape {weight} and "
            f"groups={groups}, got {input[1]} in shape {input}"
        )
    outputs = weight[1] * groups if transposed else weight[0]
    if bias is not None and bias != (outputs,):
        raise ValueError(f"bias must have shape ({outputs},), got {bias}")


def _conv_sizes(
    sizes: Ints, kernel: Ints, stride: Ints, pads: str | Pairs, dilation: Ints
) -> tuple[Pairs, Ints]:
    same = isinstance(pads, str)
    if isinstance(pads, str):
        pads = tuple(map(same_padding, sizes, kernel, stride, dilation))
    for axis, (size, k, d, (a, b)) in enumerate(zip(sizes, kernel, dilation, pads, strict=True)):
        if size < 1 or (not same and d * (k - 1) + 1 > size + a + b):
            raise ValueError(
                f"input must be at least as long as the dilated kernel on every axis: spatial axis {axis} "
                f"of size {size} padded by {(a, b)} is shorter than kernel {k} with dilation {d}"
            )
    return pads, Geometry(stride, pads, dilation, 1).outputs(sizes, kernel)


def _transposed_sizes(
    counts: Ints, kernel: Ints, stride: Ints, pads: str | Pairs, dilation: Ints, extra: Ints
) -> tuple[Pairs, Ints]:
    for axis, (e, s, d) in enumerate(zip(extra, stride, dilation, strict=True)):
        if e >= max(s, d):
            raise ValueError(
                f"output_padding must be less than stride or dilation, got {e} on spatial axis {axis} "
                f"with stride {s} and dilation {d}"
            )
    if isinstance(pads, str):
        pads = tuple(map(same_padding, (0,) * len(stride), kernel, stride, dilation))  # of any multiple of s
        sizes = tuple(i * s for i, s in zip(counts, stride, strict=True))
    else:
        rows = zip(counts, stride, pads, dilation, kernel, extra, strict=True)
        sizes = tuple((i - 1) * s - sum(p) + d * (k - 1) + e + 1 for i, s, p, d, k, e in rows)
    if min(counts) < 1 or min(sizes) < 1:
        raise ValueError(
            f"padding must leave at least one entry on every axis: input of size {counts} with "
            f"kernel {kernel} and padding {pads} would give {sizes}"
        )
    return pads, sizes
