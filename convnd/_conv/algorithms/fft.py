r"""``fft``: convolution in the frequency domain.

A circular convolution of length ``L`` is a product of spectra. If ``L`` is at least the input size plus the
larger padding, only zeros wrap around. Axes are transformed one by one, last first, so that the zeros that
extend a short kernel are not transformed; on the way back only the positions needed are kept after each
axis. A few output channels are computed at a time, so that their spectra fit in one small buffer. Half
precision is computed in single precision. Writes in place, so it cannot be traced.
"""

from collections.abc import Iterator
from functools import partial
from math import log2, prod

import torch
from torch import Tensor

from ..._spatial.pad import cropped, zero_pad
from ..._spatial.windows import every, spaced
from ..._torch.dtypes import INTEGERS, wide
from ...arguments import Ints
from ..cost import CALL, COPY, FFT_RATE, RATE, workspace
from ..execution import convolution
from ..problem import Geometry, Problem
from .transposed import ByConvolutions, upsampled_transpose

CHUNK_BYTES = 1 << 24


def fast_length(n: int) -> int:
    """The smallest number from ``n`` on with no prime factors but 2, 3, 5 and 7."""
    while True:
        rest = n
        for factor in (2, 3, 5, 7):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return n
        n += 1


def lengths(sizes: Ints, counts: Ints, kernel: Ints, g: Geometry) -> Ints:
    """Lengths of the transforms, for an input of ``sizes`` and an output of ``counts``."""
    rows = zip(sizes, counts, g.stride, g.extents(kernel), g.pads, strict=True)
    return tuple(fast_length(max(i + max(a, b, 0), (q - 1) * s + 1, e)) for i, q, s, e, (a, b) in rows)


def spectrum(x: Tensor, length: Ints, steps: Ints, reverse: bool) -> Tensor:
    """Transform of the spatial axes, optionally reversed, with the entries ``steps`` apart."""
    # flip copies; MKL refuses some strides that a view may have.
    x = x.flip(tuple(range(2, x.ndim))) if reverse else x.clone(memory_format=torch.contiguous_format)
    for axis in range(len(length) - 1, -1, -1):
        x = spaced(x, 2 + axis, steps[axis])
        if not x.is_complex():
            x = torch.fft.rfft(x, n=length[axis], dim=2 + axis)
        elif length[axis] > 1:
            x = torch.fft.fft(x, n=length[axis], dim=2 + axis)
    return x


def signal(spectra: Tensor, length: Ints, starts: Ints, steps: Ints, counts: Ints, real: bool) -> Tensor:
    """Inverse transform of ``(A, B, *frequencies)`` at positions ``start, start + step, ...`` of an axis."""
    last = len(length) - 1
    for axis, (n, start, step, count) in enumerate(zip(length, starts, steps, counts, strict=True)):
        dim = 2 + axis
        if real and axis == last:
            spectra = torch.fft.irfft(spectra, n=n, dim=dim)
        elif n > 1:
            spectra = torch.fft.ifft(spectra, n=n, dim=dim)
        start, reach = start % n, (count - 1) * step + 1
        if start + reach <= n:
            spectra = spectra.narrow(dim, start, reach)
        else:
            parts = spectra.narrow(dim, start, n - start), spectra.narrow(dim, 0, start + reach - n)
            spectra = torch.cat(parts, dim)
        spectra = every(spectra, dim, 0, step, count)
    return spectra


def _crop(x: Tensor, g: Geometry) -> tuple[Tensor, Geometry]:
    """Apply negative padding, which crops."""
    pairs = cropped(x, g.pads)
    pads = tuple((min(a, 0), min(b, 0)) for a, b in pairs)
    kept = tuple((max(a, 0), max(b, 0)) for a, b in pairs)
    return zero_pad(x, pads), g._replace(pads=kept)


def fft_conv(x: Tensor, w: Tensor, bias: Tensor | None, g: Geometry) -> Tensor:
    dtype, kernel, n = x.dtype, tuple(w.shape[2:]), len(g.stride)
    x, g = _crop(x, g)
    counts = g.outputs(tuple(x.shape[2:]), kernel)
    length = lengths(tuple(x.shape[2:]), counts, kernel, g)
    x, w = wide(x), wide(w)
    real = not x.is_complex()
    # The reversed kernel starts extent - 1 before the position it belongs to.
    starts = tuple(e - 1 - p for e, (p, _) in zip(g.extents(kernel), g.pads, strict=True))
    y = x.new_zeros(x.shape[0], w.shape[0], *counts)
    if x.numel():  # otherwise the kernel reads only padding
        a = spectrum(x, length, (1,) * n, False).unflatten(1, (g.groups, -1))
        per_group, step = w.shape[0] // g.groups, _chunk(w, length)
        for first, last in _ranges(w.shape[0], per_group, step):
            b = spectrum(w[first:last], length, g.dilation, True)
            product = _summed(a[:, first // per_group].unsqueeze(1), b.unsqueeze(0), 2)
            y[:, first:last] = signal(product, length, starts, g.stride, counts, real)
    if bias is not None:
        y += bias.to(y.dtype).view(-1, *(1,) * n)
    return y.to(dtype)


def _ranges(outputs: int, per_group: int, step: int) -> Iterator[tuple[int, int]]:
    """Ranges of at most ``step`` output channels of one group."""
    for group in range(0, outputs, per_group):
        for first in range(group, group + per_group, step):
            yield first, min(first + step, group + per_group)


def fft_weight(x: Tensor, y: Tensor, g: Geometry, kernel: Ints) -> Tensor:
    dtype, n = x.dtype, len(kernel)
    x, g = _crop(x, g)
    counts = tuple(y.shape[2:])
    length = lengths(tuple(x.shape[2:]), counts, kernel, g)
    x, y = wide(x), wide(y)
    real = not x.is_complex()
    if not x.numel():  # the kernel reads only padding
        return x.new_zeros(y.shape[1], x.shape[1] // g.groups, *kernel).to(dtype)
    a = spectrum(x, length, (1,) * n, False).unflatten(1, (g.groups, -1))
    b = spectrum(y, length, g.stride, True).unflatten(1, (g.groups, -1))
    starts = tuple((q - 1) * s - p for q, s, (p, _) in zip(counts, g.stride, g.pads, strict=True))
    w = x.new_empty(y.shape[1], x.shape[1] // g.groups, *kernel)
    for o in range(y.shape[1]):
        group, member = divmod(o, y.shape[1] // g.groups)
        product = _summed(a[:, group].transpose(0, 1), b[:, group, member].unsqueeze(0), 1)
        w[o] = signal(product.unsqueeze(1), length, starts, g.dilation, kernel, real)[:, 0]
    return w.to(dtype)


def _chunk(w: Tensor, length: Ints) -> int:
    """How many output channels to compute at once: their kernels' spectra fill one reusable buffer."""
    size = 2 * max(w.dtype.itemsize, 4) * w.shape[1] * prod(length)
    return max(CHUNK_BYTES // size, 1)


def _summed(a: Tensor, b: Tensor, dim: int) -> Tensor:
    """Sum of products over an axis."""
    parts = zip(a.unbind(dim), b.unbind(dim), strict=True)
    one, other = next(parts)
    total = one * other
    for one, other in parts:
        total.addcmul_(one, other)
    return total


def spectra_bytes(
    batch: int, inputs: int, outputs: int, length: Ints, groups: int, dtype: torch.dtype
) -> int:
    """Bytes of the spectra that are in memory at the same time."""
    half = length[-1] if dtype.is_complex else length[-1] // 2 + 1
    size = dtype.itemsize if dtype.is_complex else 2 * max(dtype.itemsize, 4)
    one = prod(length[:-1]) * half * size
    return batch * (inputs + outputs) * one + max(CHUNK_BYTES, inputs // groups * one)


class FFT(ByConvolutions):
    """For any map; a transposed convolution is a convolution of its input with zeros inserted."""

    name = "fft"
    margin = 2.0  # its error is relative to the largest value, so it must be clearly faster
    spreads = True

    def applies(self, p: Problem) -> bool:
        return p.dtype not in INTEGERS

    def considered(self, p: Problem) -> bool:
        ones = p.op != "transpose" or max(p.geometry.stride) == 1
        return p.device == "cpu" and ones and self.applies(p)

    def workspace(self, p: Problem) -> int:
        if p.op == "transpose":
            return super().workspace(p)
        length = lengths(p.sizes, p.counts, p.kernel, p.geometry)
        return spectra_bytes(p.batch, p.inputs, p.outputs, length, p.geometry.groups, p.dtype)

    def seconds(self, p: Problem) -> float:
        points = prod(lengths(p.sizes, p.counts, p.kernel, p.geometry))
        transforms = p.batch * (p.inputs + p.outputs) + p.outputs * p.inputs // p.geometry.groups
        ops = transforms * 2.5 * points * log2(max(points, 2))
        products = 4 * p.flops / prod(p.kernel) / prod(p.counts) * points
        moved = workspace(p, self) / COPY
        return 10 * CALL * len(p.kernel) + ops / FFT_RATE + products / RATE + moved

    def conv(self, p: Problem, x: Tensor, w: Tensor, bias: Tensor | None) -> Tensor:
        return fft_conv(x, w, bias, p.geometry)

    def transpose(self, p: Problem, y: Tensor, w: Tensor, bias: Tensor | None) -> Tensor:
        convolve = partial(convolution, forced=self)
        return upsampled_transpose(y, w, bias, p.geometry, p.sizes, convolve)

    def weight(self, p: Problem, x: Tensor, y: Tensor) -> Tensor:
        return fft_weight(x, y, p.geometry, p.kernel)


ALGORITHM = FFT()
