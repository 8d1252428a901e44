"""Linear operators: some entries, fewer entries, blurred ones, Fourier coefficients."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

import convnd.functional as F
from convnd.arguments import PerAxis, per_axis

from .._devices import moved
from .._filters import exact_conv
from ..arguments import choice, flag
from ..masks import expanded_mask
from .operator import LinearOperator


@dataclass(frozen=True, eq=False, repr=False)
class Mask(LinearOperator):
    """Some entries; the others are 0 in the measurement, whatever they are in the data.

    Args:
        known: bool, True where an entry is measured, with the axes of the data, each of its size or 1.
    """

    known: Tensor

    def measure(self, x: Tensor) -> Tensor:
        return torch.where(self.measured(x), x, 0)

    def project(self, x: Tensor, y: Tensor, known: Tensor, tolerance: float) -> Tensor:
        """x with the entries of y where it is measured, to the bit."""
        return torch.where(known & self.measured(x), y, x)

    def measured(self, x: Tensor) -> Tensor:
        """bool in the shape of x, True where an entry is measured."""
        return expanded_mask(self.known, x, "known", "the data", "an entry is measured")


@dataclass(frozen=True, eq=False, repr=False)
class Downsample(LinearOperator):
    """Fewer entries along each axis.

    Args:
        factor: int, or one per axis.
        mode: ``"average"`` of ``factor`` neighbours, which must divide the size of the axis, or ``"stride"``:
            the first of every ``factor`` entries, ``ceil(size / factor)`` of them.
    """

    factor: PerAxis
    mode: str = "average"

    def __post_init__(self) -> None:
        choice(self.mode, ("average", "stride"), "mode")
        per_axis(self.factor, len(self.factor) if isinstance(self.factor, Sequence) else 1, "factor")

    def measure(self, x: Tensor) -> Tensor:
        factors = per_axis(self.factor, x.ndim - 2, "factor")
        if self.mode == "stride":
            return x[(..., *(slice(None, None, factor) for factor in factors))]
        for axis, (size, factor) in enumerate(zip(x.shape[2:], factors, strict=True)):
            if size % factor:
                raise ValueError(
                    f"factor must divide the size of each spatial axis to average, got {factor} on axis "
                    f"{axis} of size {size}"
                )
        return F.avg_pool(x, factors)

    def data_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The sizes times the factors."""
        factors = per_axis(self.factor, len(shape) - 2, "factor")
        return *shape[:2], *(size * factor for size, factor in zip(shape[2:], factors, strict=True))


@dataclass(frozen=True, eq=False, repr=False)
class Blur(LinearOperator):
    """Convolution of every channel with a kernel, such as a point spread function.

    It is a convolution as mathematicians define it, ``y[n] = sum_k kernel[k] x[n + c - k]``, with the centre
    c at ``size // 2`` of each axis of the kernel, as in ``scipy.ndimage.convolve``; the size of the data
    stays. On CUDA and under autocast it is computed in float64 (on Apple's GPUs in the dtype of x): settings
    for networks round it nowhere.

    Args:
        kernel: a tensor with one axis for each spatial axis, or a sequence with a kernel of one axis for
            each, None for no blur along it.
        padding_mode: what lies around the data: ``"zeros"``, ``"reflect"``, ``"replicate"`` or
            ``"circular"``, or one per axis.
    """

    kernel: Tensor | Sequence[Tensor | None]
    padding_mode: str | Sequence[str] = "zeros"

    def __post_init__(self) -> None:
        for kernel in [self.kernel] if isinstance(self.kernel, Tensor) else self._along_axes():
            if not kernel.is_floating_point() or not kernel.numel() or not kernel.isfinite().all():
                raise ValueError(
                    f"kernel must be of finite floating-point numbers, got {kernel.dtype} of shape "
                    f"{tuple(kernel.shape)}"
                )

    def measure(self, x: Tensor) -> Tensor:
        each = x.flatten(0, 1).unsqueeze(1)  # channels are blurred alike
        for kernel in self._kernels(x.ndim - 2):
            weight = moved(kernel.to(x.dtype), x.device).flip(tuple(range(kernel.ndim)))[None, None]
            each = exact_conv(each, weight, padding="same", padding_mode=self.padding_mode)
        return each.view(x.shape)

    def _along_axes(self) -> list[Tensor]:
        """The kernels of single axes."""
        if not isinstance(self.kernel, Sequence):
            raise TypeError(
                f"kernel must be a tensor or a sequence of tensors, got a {type(self.kernel).__name__}"
            )
        given: list[Any] = [kernel for kernel in self.kernel if kernel is not None]
        for kernel in given:
            if not isinstance(kernel, Tensor) or kernel.ndim != 1:
                got = tuple(kernel.shape) if isinstance(kernel, Tensor) else type(kernel).__name__
                raise ValueError(f"kernel must have tensors of one axis, or None, for each axis, got {got}")
        return given

    def _kernels(self, spatial_dims: int) -> list[Tensor]:
        """The kernels to convolve with one after another, each with all spatial axes."""
        if isinstance(self.kernel, Tensor):
            if self.kernel.ndim != spatial_dims:
                raise ValueError(
                    f"kernel must have one axis for each of the {spatial_dims} spatial axes, got shape "
                    f"{tuple(self.kernel.shape)}"
                )
            return [self.kernel]
        if len(self.kernel) != spatial_dims:
            raise ValueError(
                f"kernel must have one entry for each of the {spatial_dims} spatial axes, got "
                f"{len(self.kernel)}"
            )
        return [
            kernel.view([-1 if i == axis else 1 for i in range(spatial_dims)])
            for axis, kernel in enumerate(self.kernel)
            if kernel is not None
        ]


@dataclass(frozen=True, eq=False, repr=False)
class Fourier(LinearOperator):
    """Some Fourier coefficients, as magnetic resonance measures them: undersampled k-space.

    The discrete Fourier transform is unitary (``norm="ortho"``), in the order of :func:`torch.fft.fftn`, zero
    frequency first; ``torch.fft.ifftshift`` brings a centred mask into it. Coefficients that are not measured
    are 0. A complex channel is two real ones, first the real then the imaginary part.

    Args:
        mask: bool, True where a coefficient is measured, with the axes of the data, each of its size or 1;
            channels are counted as complex.
        axes: the spatial axes to transform, all by default.
        complex_data: whether the data is complex, with two channels for each. Otherwise it is real, and the
            measurement has twice as many channels.
    """

    mask: Tensor
    axes: Sequence[int] | None = None
    complex_data: bool = False

    def __post_init__(self) -> None:
        flag(self.complex_data, "complex_data")

    def measure(self, x: Tensor) -> Tensor:
        axes = self._axes(x.ndim - 2)
        coefficients = torch.fft.fftn(self._complex(x), dim=axes, norm="ortho")
        mask = expanded_mask(self.mask, coefficients, "mask", "the coefficients", "one is measured")
        pairs = torch.view_as_real(torch.where(mask, coefficients, 0))
        return rearrange(pairs, "n c ... two -> n (c two) ...")

    def data_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        return tuple(shape) if self.complex_data else (shape[0], shape[1] // 2, *shape[2:])

    def _complex(self, x: Tensor) -> Tensor:
        if not self.complex_data:
            return x
        if x.shape[1] % 2:
            raise ValueError(
                f"data must have two channels for each complex one, got {x.shape[1]} channels for {self}"
            )
        return torch.view_as_complex(rearrange(x, "n (c two) ... -> n c ... two", two=2).contiguous())

    def _axes(self, spatial_dims: int) -> tuple[int, ...]:
        axes = range(spatial_dims) if self.axes is None else self.axes
        return tuple(spatial_axis(axis, spatial_dims, "axes") + 2 for axis in axes)


def spatial_axis(axis: Any, spatial_dims: int, name: str) -> int:
    """One of the spatial axes, which may be counted from the last one, as an index from 0."""
    if isinstance(axis, bool) or not hasattr(axis, "__index__"):
        raise TypeError(f"{name} must be of ints, got {axis!r}")
    if not -spatial_dims <= axis < spatial_dims:
        raise ValueError(f"{name} must be from {-spatial_dims} to {spatial_dims - 1}, got {axis}")
    return int(axis) % spatial_dims
