"""Down-sampling to ``ceil(size / stride)`` entries, and up-sampling back to the size of a skip.

Entry ``i`` of the coarse level corresponds to the fine entries from ``i * stride`` on: a convolution reads
around that position, a pool reads from it and up-sampling writes from it; entries beyond the size are
cropped. So a cyclic shift of a periodic axis by the stride shifts the coarse level by one.
"""

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

import convnd.functional as F
from convnd import AvgPoolNd, ConvTransposeNd, MaxPoolNd

from .blocks import Parts
from .causal import CausalPool, Memory, Remembers, padded, windows_of
from .spec import LevelSpec, TransitionSpec


def resampling_kernel(level: LevelSpec, stride: Sequence[int]) -> tuple[int, ...]:
    """The size of a resampling kernel: at least the stride, so that every entry is read."""
    return tuple(max(k, s) for k, s in zip(level.kernel_size, stride, strict=True))


def downsample(parts: Parts, level: LevelSpec, step: TransitionSpec, ahead: Sequence[int] = ()) -> nn.Module:
    """The down-sampling layer: a strided convolution, or a pool without parameters.

    Along causal axes it reads the entries before ``i * stride`` and ``ahead`` after it.
    """
    if step.downsample == "conv":
        kernel = resampling_kernel(level, step.strides)
        return parts.conv(level.channels, level.channels, kernel, step.strides, ahead=ahead)
    pool = MaxPoolNd if step.downsample == "max" else AvgPoolNd
    made = pool(parts.spatial_dims, step.strides, ceil_mode=True)
    return CausalPool(made, step.strides, parts.causal, ahead) if parts.causal else made


class _Upsample(Remembers, nn.Module):
    """``forward(x, size)`` up-samples by the stride and crops the result to ``size``.

    In a stream it is not cropped along the axis of that: what it is joined with then comes later.
    """

    def __init__(self, stride: Sequence[int]) -> None:
        super().__init__()
        self.stride = tuple(stride)

    def forward(self, x: Tensor, size: Sequence[int]) -> Tensor:
        memory = self.memory
        if memory is not None:
            size = [*size]
            size[memory.axis] = x.shape[memory.dim] * self.stride[memory.axis]
            if not size[memory.axis]:
                return x.new_empty([*x.shape[:2], *size])
        return self.up(x, size)

    def up(self, x: Tensor, size: Sequence[int]) -> Tensor:
        raise NotImplementedError

    def _inflate_(self, axes: Any) -> None:
        self.stride = axes.extend(self.stride, axes.strides(self.stride))


def _cropped(x: Tensor, size: Sequence[int]) -> Tensor:
    if torch.compiler.is_compiling():  # a view is dense at even sizes only, which would be two graphs
        ends = [(0, n - m) for n, m in zip(size, x.shape[2:], strict=True)]
        return nn.functional.pad(x, [end for axis in reversed(ends) for end in axis])
    for axis, n in enumerate(size, start=2):
        x = x.narrow(axis, 0, n)
    return x


class Interpolate(_Upsample):
    """Nearest or linear interpolation, periodic on circular axes, then a convolution."""

    def __init__(self, parts: Parts, level: LevelSpec, step: TransitionSpec) -> None:
        super().__init__(step.strides)
        self.mode = step.upsample
        self.periodic = tuple(m == "circular" for m in parts.padding_mode)
        self.causal = parts.causal
        self.conv = parts.conv(level.channels, level.channels, resampling_kernel(level, step.strides))

    def up(self, x: Tensor, size: Sequence[int]) -> Tensor:
        factors = tuple(map(float, self.stride))
        if self.mode == "nearest":
            return self.conv(_cropped(F.interpolate(x, scale_factor=factors, mode="nearest"), size))
        for axis, causal in enumerate(self.causal):
            if causal:
                x, factors = self._ramps(x, axis), (*factors[:axis], 1.0, *factors[axis + 1 :])
        around = [int(p and s > 1) for p, s in zip(self.periodic, self.stride, strict=True)]
        if any(around):
            x = F.pad(x, [a for amount in reversed(around) for a in (amount, amount)], "circular")
        x = F.interpolate(x, scale_factor=factors, mode="linear")
        for axis, (amount, s) in enumerate(zip(around, self.stride, strict=True), start=2):
            x = x.narrow(axis, amount * s, x.shape[axis] - amount * s)
        return self.conv(_cropped(x, size))

    def _ramps(self, x: Tensor, axis: int) -> Tensor:
        """From the entry before to each entry along a causal axis, which is reached at its last place."""
        memory: Memory | None = self.memory
        if memory is None or memory.axis != axis:
            found = padded(x, [(int(a == axis), 0) for a in range(x.ndim - 2)], "replicate")
        else:
            rows = windows_of(memory, x.movedim(1, -1), 2, mode="replicate")
            assert rows is not None  # every entry ends a window of two
            found = rows.movedim(-1, 1)
        dim, n, s = 2 + axis, x.shape[2 + axis], self.stride[axis]
        before, after = (found.narrow(dim, first, n).unsqueeze(dim + 1) for first in (0, 1))
        share = torch.arange(1, s + 1, device=x.device, dtype=found.dtype) / s
        return torch.lerp(before, after, share.view(-1, *(1,) * (x.ndim - 1 - dim))).flatten(dim, dim + 1)

    def _inflate_(self, axes: Any) -> None:
        super()._inflate_(axes)
        self.periodic = axes.extend(self.periodic, axes.padding_mode == "circular")


class Transpose(_Upsample):
    """Transposed convolution with kernel size equal to the stride."""

    def __init__(self, parts: Parts, level: LevelSpec, step: TransitionSpec) -> None:
        super().__init__(step.strides)
        c = level.channels
        self.conv = ConvTransposeNd(parts.spatial_dims, c, c, step.strides, step.strides)

    def up(self, x: Tensor, size: Sequence[int]) -> Tensor:
        return _cropped(self.conv(x), size)


class Shuffle(_Upsample):
    """Sub-pixel convolution (Shi et al. 2016): a convolution to more channels, then a pixel shuffle."""

    def __init__(self, parts: Parts, level: LevelSpec, step: TransitionSpec) -> None:
        super().__init__(step.strides)
        self.conv = parts.conv(level.channels, level.channels * prod(step.strides), level.kernel_size)

    def up(self, x: Tensor, size: Sequence[int]) -> Tensor:
        return _cropped(F.pixel_shuffle(self.conv(x), self.stride), size)

    def _inflate_(self, axes: Any) -> None:
        if max(axes.strides(self.stride)) > 1:
            raise ValueError("pixel shuffling has no channels for a stride on the new axes; use stride=1")
        super()._inflate_(axes)


def upsample(parts: Parts, level: LevelSpec, step: TransitionSpec) -> nn.Module:
    made = {"transpose": Transpose, "shuffle": Shuffle}
    return made.get(step.upsample, Interpolate)(parts, level, step)
