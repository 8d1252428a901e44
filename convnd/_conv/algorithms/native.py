"""``native``: torch's own kernels, up to three axes."""

import torch
from torch import Tensor

from ..._torch import conv as kernels
from ...arguments import Ints
from ..algorithm import Algorithm
from ..cost import native_seconds
from ..problem import Geometry, Problem


def native_conv(x: Tensor, w: Tensor, bias: Tensor | None, g: Geometry) -> Tensor:
    """Convolution of ``x``, batched or not; traceable."""
    x, g = g.even(x)
    kernel = w.shape[2:]
    if kernels.needs_wider_type(
        x.dtype, x.device.type, x.shape[-len(kernel) :], kernel, g.stride, g.dilation
    ):
        return kernels.in_wider_type(native_conv, x, w, bias, g)
    x, w = kernels.usual_strides(x), kernels.usual_weight(w)
    padding, dilation = tuple([a for a, _ in g.pads]), kernels.dilation_between_taps(g.dilation, kernel)
    convolve = kernels.CONV[len(kernel)] if len(kernel) > 1 else kernels.conv_one_axis
    return convolve(x, w, bias, g.stride, padding, dilation, g.groups)


def native_weight(x: Tensor, y: Tensor, g: Geometry, kernel: Ints) -> Tensor:
    """The weight gradient; autograd cannot differentiate it."""
    x, g = g.even(x)
    shape = y.shape[1], x.shape[1] // g.groups, *kernel
    x, dilation = kernels.usual_strides(x), kernels.dilation_between_taps(g.dilation, kernel)
    if kernels.needs_wider_type(x.dtype, x.device.type, x.shape[2:], kernel, g.stride, dilation):
        return kernels.in_wider_type(native_weight, x, y, g, kernel)
    if x.is_complex():  # torch splits complex convolutions in the same way, but not their gradients
        parts = [[native_weight(a, b, g, kernel) for a in (x.real, x.imag)] for b in (y.real, y.imag)]
        (rr, ir), (ri, ii) = parts
        return torch.complex(rr - ii, ri + ir)
    padding, empty = [a for a, _ in g.pads], x.new_empty(1).expand(shape)
    geometry = list(g.stride), padding, list(dilation), False, [0] * len(kernel), g.groups
    return torch.ops.aten.convolution_backward(y, x, empty, None, *geometry, (False, True, False))[1]


def transpose_arguments(counts: Ints, kernel: Ints, g: Geometry, sizes: Ints) -> tuple[Ints, Ints]:
    """Padding and output padding for torch's kernel, whose result must contain all the wanted positions."""
    both = tuple(max(min(pair), 0) for pair in g.pads)
    extra = []
    for q, s, p, e, size, (a, _) in zip(
        counts, g.stride, both, g.extents(kernel), sizes, g.pads, strict=True
    ):
        reach = (q - 1) * s + e - 2 * p
        # What remains after cropping on the left must be at least as long as the wanted result.
        extra.append(max(a - p + size - reach, 0))
    return both, tuple(extra)


def native_transpose(y: Tensor, w: Tensor, bias: Tensor | None, g: Geometry, sizes: Ints) -> Tensor:
    """Transposed convolution; traceable."""
    counts, kernel = tuple(y.shape[2:]), tuple(w.shape[2:])
    both, extra = transpose_arguments(counts, kernel, g, sizes)
    rows = zip(counts, g.stride, both, g.extents(kernel), extra, strict=True)
    whole = ((q - 1) * s - 2 * p + e + o for q, s, p, e, o in rows)
    if kernels.needs_wider_type(y.dtype, y.device.type, whole, kernel, g.stride, g.dilation):
        return kernels.in_wider_type(native_transpose, y, w, bias, g, sizes)
    y, w = kernels.usual_strides(y), kernels.usual_weight(w)
    x = kernels.CONV_TRANSPOSE[len(kernel)](y, w, bias, g.stride, both, extra, g.groups, g.dilation)
    for axis, (size, p, (before, _)) in enumerate(zip(sizes, both, g.pads, strict=True), start=2):
        if x.shape[axis] != size:
            x = x.narrow(axis, before - p, size)
    return x


class Native(Algorithm):
    """torch's kernel as it is."""

    name = "native"
    copies_result = False

    def applies(self, p: Problem) -> bool:
        return len(p.kernel) <= kernels.MAX_AXES

    def seconds(self, p: Problem) -> float:
        return native_seconds(p, (1,) * len(p.kernel))

    def conv(self, p: Problem, x: Tensor, w: Tensor, bias: Tensor | None) -> Tensor:
        return native_conv(x, w, bias, p.geometry)

    def transpose(self, p: Problem, y: Tensor, w: Tensor, bias: Tensor | None) -> Tensor:
        return native_transpose(y, w, bias, p.geometry, p.sizes)

    def weight(self, p: Problem, x: Tensor, y: Tensor) -> Tensor:
        return native_weight(x, y, p.geometry, p.kernel)


ALGORITHM = Native()
