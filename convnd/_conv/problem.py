"""One bilinear map as plain data, and the arguments of the call it comes from."""

from collections.abc import Sequence
from math import prod
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from .._spatial.pad import evens, of_mode_zeros, pad_axes, pad_axes_adjoint, zero_pad
from .._torch.conv import MAX_AXES
from .._torch.dtypes import emulated
from ..arguments import Ints, Padding, Pairs, PerAxis

Op = Literal["conv", "transpose", "weight"]
# For each map and operand: the map that computes the operand's gradient, and that map's two operands
# (2 stands for the gradient of the result).
GRADIENTS: dict[tuple[Op, int], tuple[Op, int, int]] = {
    ("conv", 0): ("transpose", 2, 1),
    ("conv", 1): ("weight", 0, 2),
    ("transpose", 0): ("conv", 2, 1),
    ("transpose", 1): ("weight", 2, 0),
    ("weight", 0): ("transpose", 1, 2),
    ("weight", 1): ("conv", 0, 2),
}


class Arguments(NamedTuple):
    """The six arguments of a call other than its tensors, as given."""

    stride: PerAxis
    padding: Padding
    dilation: PerAxis
    groups: int
    output_padding: PerAxis
    padding_mode: str | Sequence[str]


class Geometry(NamedTuple):
    """The positions that a convolution reads: each field has one entry per axis.

    ``modes`` is None if all padding is zeros. Zero padding may be negative, which crops.
    """

    stride: Ints
    pads: Pairs
    dilation: Ints
    groups: int
    modes: tuple[str, ...] | None = None

    def extents(self, kernel: Ints) -> Ints:
        """How far a kernel reaches along each axis."""
        return tuple(d * (k - 1) + 1 for d, k in zip(self.dilation, kernel, strict=True))

    def others(self, lead: int) -> "Geometry":
        """The geometry without the first ``lead`` axes."""
        return self._replace(stride=self.stride[lead:], pads=self.pads[lead:], dilation=self.dilation[lead:])

    def outputs(self, sizes: Ints, kernel: Ints) -> Ints:
        """The sizes of the result; each is one quotient, since compilers divide products of sums badly."""
        return tuple(
            (i + a + b - e + s) // s
            for i, (a, b), e, s in zip(sizes, self.pads, self.extents(kernel), self.stride, strict=True)
        )

    def reaching(self, sizes: Ints, counts: Ints, kernel: Ints) -> "Geometry":
        """The geometry cropped to at most ``counts`` outputs.

        The output padding of a transposed convolution may exceed its stride (up to the dilation); the plain
        convolution of its result would then have more outputs than the transposed one had inputs.
        """
        if self.outputs(sizes, kernel) == counts:
            return self
        rows = zip(sizes, counts, self.stride, self.extents(kernel), self.pads, strict=True)
        return self._replace(pads=tuple((a, (q - 1) * s + e - i - a) for i, q, s, e, (a, _) in rows))

    def even(self, x: Tensor) -> tuple[Tensor, "Geometry"]:
        """Pad ``x`` so that the remaining zero padding is equal on both sides, as native kernels require."""
        inside = evens(self.pads)
        x = zero_pad(x, tuple((a - i, b - i) for (a, b), i in zip(self.pads, inside, strict=True)))
        return x, self._replace(pads=tuple((i, i) for i in inside))

    def padded(self, x: Tensor) -> tuple[Tensor, "Geometry"]:
        """Apply every padding but zeros to ``x``; returns it with a geometry of the remaining zeros."""
        if self.modes is None:
            return x, self
        return pad_axes(x, self._gathered, self.modes), self._zeros

    def padded_adjoint(self, x: Tensor) -> Tensor:
        """The adjoint of the padding applied by :meth:`padded`."""
        return x if self.modes is None else pad_axes_adjoint(x, self._gathered, self.modes)

    def before_padding(self, sizes: Ints) -> tuple[Ints, "Geometry"]:
        """The sizes after :meth:`padded`, for an input of ``sizes``, and the geometry that remains."""
        if self.modes is None:
            return sizes, self
        return tuple(n + a + b for n, (a, b) in zip(sizes, self._gathered, strict=True)), self._zeros

    @property
    def _gathered(self) -> Pairs:
        assert self.modes is not None
        return tuple(p if m != "zeros" else (0, 0) for p, m in zip(self.pads, self.modes, strict=True))

    @property
    def _zeros(self) -> "Geometry":
        assert self.modes is not None
        return self._replace(pads=of_mode_zeros(self.pads, self.modes), modes=None)


class Problem(NamedTuple):
    """One bilinear map: ``x`` (N, inputs, sizes), ``y`` (N, outputs, counts), ``w``; zero padding only."""

    op: Op
    batch: int
    inputs: int
    outputs: int
    sizes: Ints
    counts: Ints
    kernel: Ints
    geometry: Geometry
    dtype: torch.dtype
    device: str

    @property
    def flops(self) -> int:
        """Multiplications and additions of the definition; a complex product counts as four."""
        pairs = self.inputs // self.geometry.groups * self.outputs
        each = 8 if self.dtype.is_complex else 2
        return each * self.batch * pairs * prod(self.counts) * prod(self.kernel)

    @property
    def result_bytes(self) -> int:
        """The bytes of ``y``."""
        return self.dtype.itemsize * self.batch * self.outputs * prod(self.counts)


def leading(n: int) -> int:
    """How many of ``n`` axes are not left to the native kernels: all but the last three, at least one."""
    return max(n - MAX_AXES, 1)


def problem_of(
    op: Op, a: Ints, b: Ints, g: Geometry, sizes: Ints, dtype: torch.dtype, device: str
) -> Problem:
    """The problem with operands of shapes ``a`` and ``b`` and a result of spatial ``sizes``.

    ``g`` has zero padding only. The ``meta`` device stands for the CPU.
    """
    device = "cpu" if device == "meta" else device
    if emulated(dtype, device):
        dtype = torch.float32
    if op == "conv":
        x, y, kernel, inputs, outputs = a[2:], sizes, b[2:], a[1], b[0]
    elif op == "transpose":
        x, y, kernel, inputs, outputs = sizes, a[2:], b[2:], b[1] * g.groups, a[1]
    else:
        x, y, kernel, inputs, outputs = a[2:], b[2:], sizes, a[1], b[1]
    return Problem(op, a[0], inputs, outputs, x, y, kernel, g, dtype, device)


def rows_and_columns(op: Op, a: Tensor, b: Tensor, groups: int) -> tuple[int, int]:
    """The first two sizes of the result of a map."""
    if op == "weight":
        return b.shape[1], a.shape[1] // groups
    return a.shape[0], b.shape[0] if op == "conv" else b.shape[1] * groups


def before_padding(
    op: Op, a: Tensor, bias: Tensor | None, g: Geometry, sizes: Ints
) -> tuple[Tensor, Tensor | None, Geometry, Ints]:
    """Reduce a map with any padding to one with zero padding: its ``a``, bias, geometry and sizes.

    :func:`after_padding` turns its result into that of the original map.
    """
    if op != "transpose":
        a, g = g.padded(a)
        return a, bias, g, sizes
    inside, zeros = g.before_padding(sizes)
    return a, bias if g.modes is None else None, zeros, inside


def after_padding(op: Op, out: Tensor, bias: Tensor | None, g: Geometry) -> Tensor:
    """The result of the map with geometry ``g``, from the result of the map with zero padding."""
    if op != "transpose" or g.modes is None:
        return out
    out = g.padded_adjoint(out)
    return out if bias is None else out + bias.to(out.dtype).view(-1, *(1,) * len(g.stride))


def map_of_nothing(op: Op, a: Tensor, b: Tensor, bias: Tensor | None, g: Geometry, sizes: Ints) -> Tensor:
    """The result for an empty batch or no channels: empty sums are zero, and so are their gradients."""
    rows, columns = rows_and_columns(op, a, b, g.groups)
    zero = a.narrow(0, 0, 0).sum() + b.narrow(0, 0, 0).sum()  # empty, so that autograd records both
    y = zero.to(a.dtype).expand(rows, columns, *sizes)  # sums of integers are int64
    return y.clone() if bias is None else y + bias.view(-1, *(1,) * len(sizes))
