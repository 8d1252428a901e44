r"""Convolution and its weight gradient in the frequency domain.

A circular correlation of length ``L`` is a product of spectra. With ``L`` no less than the input and
its longer padding together, what wraps around falls on zeros. Transforms go axis by axis, last first,
so that the zeros a short kernel is extended with are not transformed; on the way back only the wanted
positions are kept after each axis. Half precision is computed in single precision.
"""

from math import prod

import torch
from torch import Tensor

from ..arguments import Ints
from .conv import LOW_PRECISION
from .geometry import Geometry
from .pad import zero_pad


def fast_length(n: int) -> int:
    """The least number no less than ``n`` whose prime factors are 2, 3, 5 and 7."""
    while True:
        rest = n
        for factor in (2, 3, 5, 7):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return n
        n += 1


def lengths(sizes: Ints, counts: Ints, kernel: Ints, g: Geometry) -> Ints:
    """Of the transforms, for an input of ``sizes`` and an output of ``counts``."""
    rows = zip(sizes, counts, g.stride, g.extents(kernel), g.pads, strict=True)
    return tuple(fast_length(max(i + max(a, b, 0), (q - 1) * s + 1, e)) for i, q, s, e, (a, b) in rows)


def spectrum(x: Tensor, length: Ints, steps: Ints, conjugate: bool) -> Tensor:
    """Transform of the spatial axes with entries ``steps`` apart; of the reversed signal if ``conjugate``."""
    x = x.conj() if conjugate and x.is_complex() else x
    for axis in range(len(length) - 1, -1, -1):
        if steps[axis] > 1:
            x = zero_pad(x.unsqueeze(3 + axis), ((0, steps[axis] - 1), *((0, 0),) * (x.ndim - 3 - axis)))
            x = x.flatten(2 + axis, 3 + axis)
        transform = torch.fft.fft if x.is_complex() else torch.fft.rfft
        x = transform(x, n=length[axis], dim=2 + axis)
    return x.conj() if conjugate else x


def signal(spectra: Tensor, length: Ints, wanted: list[Tensor], real: bool) -> Tensor:
    """Back from ``(A, B, *frequencies)``, at the wanted positions of each axis."""
    last = len(length) - 1
    for axis, at in enumerate(wanted):
        if real and axis == last:
            spectra = torch.fft.irfft(spectra, n=length[axis], dim=2 + axis)
        else:
            spectra = torch.fft.ifft(spectra, n=length[axis], dim=2 + axis)
        spectra = spectra.index_select(2 + axis, at % length[axis])
    return spectra


def _crop(x: Tensor, g: Geometry) -> tuple[Tensor, Geometry]:
    """Negative padding crops."""
    pads = tuple((min(a, 0), min(b, 0)) for a, b in g.pads)
    kept = tuple((max(a, 0), max(b, 0)) for a, b in g.pads)
    return zero_pad(x, pads), g._replace(pads=kept)


def fft_conv(x: Tensor, w: Tensor, bias: Tensor | None, g: Geometry) -> Tensor:
    dtype, kernel, n = x.dtype, tuple(w.shape[2:]), len(g.stride)
    x, g = _crop(x, g)
    counts = g.outputs(tuple(x.shape[2:]), kernel)
    length = lengths(tuple(x.shape[2:]), counts, kernel, g)
    if dtype in LOW_PRECISION:
        x, w = x.float(), w.float()
    real = not x.is_complex()
    a = spectrum(x, length, (1,) * n, False).unflatten(1, (g.groups, -1))
    b = spectrum(w, length, g.dilation, True).unflatten(0, (g.groups, -1))
    y = torch.einsum("ngc...,goc...->ngo...", a, b).flatten(1, 2)
    wanted = [
        torch.arange(q, device=x.device) * s - p
        for q, s, (p, _) in zip(counts, g.stride, g.pads, strict=True)
    ]
    y = signal(y, length, wanted, real)
    if bias is not None:
        y = y + bias.to(y.dtype).view(-1, *(1,) * n)
    return y.to(dtype)


def fft_weight(x: Tensor, y: Tensor, g: Geometry, kernel: Ints) -> Tensor:
    dtype, n = x.dtype, len(kernel)
    x, g = _crop(x, g)
    length = lengths(tuple(x.shape[2:]), tuple(y.shape[2:]), kernel, g)
    if dtype in LOW_PRECISION:
        x, y = x.float(), y.float()
    real = not x.is_complex()
    a = spectrum(x, length, (1,) * n, False).unflatten(1, (g.groups, -1))
    b = spectrum(y, length, g.stride, True).unflatten(1, (g.groups, -1))
    w = torch.einsum("ngc...,ngo...->goc...", a, b).flatten(0, 1)
    wanted = [
        torch.arange(k, device=x.device) * d - p
        for k, d, (p, _) in zip(kernel, g.dilation, g.pads, strict=True)
    ]
    return signal(w, length, wanted, real).to(dtype)


def spectra_bytes(
    batch: int, inputs: int, outputs: int, length: Ints, groups: int, dtype: torch.dtype
) -> int:
    """What the three spectra take."""
    half = length[-1] if dtype.is_complex else length[-1] // 2 + 1
    entries = batch * (inputs + outputs) + outputs * inputs // groups
    size = dtype.itemsize if dtype.is_complex else 2 * max(dtype.itemsize, 4)
    return entries * prod(length[:-1]) * half * size
