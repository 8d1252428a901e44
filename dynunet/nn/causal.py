"""Layers of causal networks: along a causal axis nothing that they give depends on later entries.

A window of k entries that moves by s begins ``k - 1 - a`` entries before its own place i s and ends a entries
after it: a is 0, or what the layer looks ahead. Means are over all entries so far.

Each of these layers can also be given a signal part by part. Then it has a :class:`Memory` of what came
before, and gives what it would give for the whole, as soon as that is known: fewer entries than it was given
where it looks ahead or moves by more than one, and more at the end. :class:`dynunet.Stream` lends the layers
their memories while it runs, so that a network can be in several streams.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

import convnd.functional as F
from convnd import ConvNd
from convnd.arguments import padding_modes

_LONG = 1024  # entries of a part


@dataclass
class Memory:
    """What a layer keeps of a stream, from part to part.

    Attributes:
        axis: the spatial axis along which the parts follow each other.
        kept: what the layer needs of the past; None at the beginning.
        count: entries, along the axis, that it has done with; negative: that it has to leave out first.
        ended: whether no more entries will come.
        matrix: the kernel of a convolution, as what the windows are multiplied by.
    """

    axis: int
    kept: Any = None
    count: int = 0
    ended: bool = False
    matrix: Tensor | None = None

    @property
    def dim(self) -> int:
        """The axis of tensors ``(N, C, *spatial)``."""
        return 2 + self.axis


class Remembers:
    """Base of layers that need a memory in a stream.

    Attributes:
        memory: None for a signal that is given as a whole.
    """

    memory: Memory | None = None

    def cannot_stream(self, axis: int) -> str | None:
        """Why it cannot be given parts along an axis, as a sentence; None if it can."""
        return None


def channels_last(x: Tensor) -> Tensor:
    """``(N, C, *spatial)`` as ``(N, *spatial, C)``; quicker than movedim."""
    return x.permute(0, *range(2, x.ndim), 1)


def channels_first(x: Tensor) -> Tensor:
    """``(N, *spatial, C)`` as ``(N, C, *spatial)``."""
    return x.permute(0, x.ndim - 1, *range(1, x.ndim - 1))


def windows_of(
    memory: Memory, x: Tensor, size: int, stride: int = 1, ahead: int = 0, mode: str = "zeros"
) -> Tensor | None:
    """The entries of all windows that have become whole with x; None if no window has.

    Args:
        memory: of the layer.
        x: the next part, ``(N, *spatial, C)``: tensors with their channels last are joined the quickest.
        size, stride, ahead: of the windows.
        mode: ``"zeros"`` or ``"replicate"``, what is before the first entry and after the last.
    """
    dim, before, kept = 1 + memory.axis, size - 1 - ahead, memory.kept
    if kept is None:
        if not x.shape[dim]:
            return None
        memory.count, kept = min(before, 0), _padding(x, dim, 0, before, mode)
    kept = _followed_by(kept, x, dim)
    if memory.ended and ahead:
        kept = _followed_by(kept, _padding(kept, dim, -1, ahead, mode), dim)
    if memory.count < 0:
        left_out = min(-memory.count, kept.shape[dim])
        kept = kept.narrow(dim, left_out, kept.shape[dim] - left_out)
        memory.count += left_out
    length = kept.shape[dim]
    number = max((length - size) // stride + 1, 0) if memory.count == 0 else 0
    memory.kept = _part(kept, dim, number * stride, length - number * stride) if number else kept
    used = (number - 1) * stride + size
    if not number:
        return None
    return kept if used == length else kept.narrow(dim, 0, used)


def _part(x: Tensor, dim: int, start: int, length: int) -> Tensor:
    """Some entries, which do not keep all of a long part in memory."""
    part = x.narrow(dim, start, length)
    return part.clone() if x.shape[dim] > _LONG else part


def _padding(x: Tensor, dim: int, index: int, amount: int, mode: str) -> Tensor:
    """What is before the first entry (index 0) of x, or after the last (-1)."""
    shape = [*x.shape]
    shape[dim] = max(amount, 0)
    if mode == "zeros" or not x.shape[dim]:
        return x.new_zeros(shape)
    return x.select(dim, index).unsqueeze(dim).expand(shape)


def _followed_by(x: Tensor, y: Tensor, dim: int) -> Tensor:
    """Both along an axis."""
    if not x.shape[dim] or not y.shape[dim]:
        return x if x.shape[dim] else y
    return torch.cat((x, y), dim)


def empty(x: Tensor, dim: int, channels: int, sizes: Sequence[int]) -> Tensor:
    """No entries along an axis, of these channels and sizes of the others."""
    shape = [len(x), channels, *sizes]
    shape[dim] = 0
    return x.new_empty(shape)


def coarse(sizes: Sequence[int], stride: Sequence[int]) -> list[int]:
    """Sizes after down-sampling."""
    return [-(-n // s) for n, s in zip(sizes, stride, strict=True)]


class CausalConv(Remembers, ConvNd):
    """A convolution that is padded before, but for the entries that it looks ahead.

    Args:
        ahead: entries after its own place that it reads, one per axis; matters along causal axes.
        args, options: of :class:`convnd.ConvNd`; the padding gives ``ceil(size / stride)`` entries.
    """

    def __init__(self, ahead: Sequence[int], *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.ahead = tuple(ahead)
        self.modes = padding_modes(self.padding_mode, self.spatial_dims)

    def forward(self, input: Tensor) -> Tensor:
        memory = self.memory
        if memory is None:
            return super().forward(input)
        axis = memory.axis
        window, x = (self.kernel_size[axis], self.stride[axis], self.ahead[axis]), channels_last(input)
        if window != (1, 1, 0):
            x = windows_of(memory, x, *window, self.modes[axis])
        if x is None or not x.shape[1 + axis]:
            return empty(input, memory.dim, self.out_channels, coarse(input.shape[2:], self.stride))
        if self.groups == 1 and prod(self.kernel_size) == window[0]:
            return self._product(memory, x)
        padding: Any = [*self.padding]
        padding = [p if isinstance(p, tuple) else (p, p) for p in padding]
        padding[axis] = (0, 0)
        args = self.stride, tuple(padding), self.dilation, self.groups
        return F.conv(channels_first(x), self.weight, self.bias, *args, padding_mode=self.padding_mode)

    def _product(self, memory: Memory, x: Tensor) -> Tensor:
        """With a kernel along one axis: on short parts a product of matrices takes a fraction of the time."""
        if memory.matrix is None:
            memory.matrix = self.weight.flatten(2).permute(2, 1, 0).flatten(0, 1).contiguous()
        size, stride, dim = self.kernel_size[memory.axis], self.stride[memory.axis], 1 + memory.axis
        if size > 1 or stride > 1:
            shape, steps = [*x.shape[:-1], size, x.shape[-1]], [*x.stride()[:-1], x.stride(dim), x.stride(-1)]
            shape[dim], steps[dim] = (x.shape[dim] - size) // stride + 1, stride * x.stride(dim)
            x = x.as_strided(shape, steps)
        rows = x.reshape(-1, len(memory.matrix))
        out = rows @ memory.matrix if self.bias is None else torch.addmm(self.bias, rows, memory.matrix)
        return channels_first(out.view(*x.shape[: self.spatial_dims + 1], self.out_channels))


def padded(x: Tensor, pads: Sequence[tuple[int, int]], mode: str = "constant") -> Tensor:
    """Padded by pairs, one for each axis; negative ones crop."""
    return F.pad(x, [n for pair in reversed(pads) for n in pair], mode)


class CausalPool(Remembers, nn.Module):
    """A pool whose windows end at their place, but for what they look ahead; the first entry comes before it.

    Args:
        pool: of windows side by side.
        stride: of the windows.
        causal: whether an axis is.
        ahead: entries after its own place that a window reads, one per axis.
    """

    def __init__(
        self, pool: nn.Module, stride: Sequence[int], causal: Sequence[bool], ahead: Sequence[int]
    ) -> None:
        super().__init__()
        self.pool = pool
        self.stride, self.causal, self.ahead = tuple(stride), tuple(causal), tuple(ahead)

    def forward(self, x: Tensor) -> Tensor:
        memory, pads = self.memory, []
        if memory is not None:
            length = self.stride[memory.axis]
            rows, ahead = channels_last(x), self.ahead[memory.axis]
            part = windows_of(memory, rows, length, length, ahead, "replicate")
            if part is None:
                return empty(x, memory.dim, x.shape[1], coarse(x.shape[2:], self.stride))
            x = channels_first(part)
        for axis, (n, s) in enumerate(zip(x.shape[2:], self.stride, strict=True)):
            whole = not self.causal[axis] or (memory is not None and axis == memory.axis)
            before = 0 if whole else s - 1 - self.ahead[axis]
            pads.append((before, 0 if whole else -(-n // s) * s - n - before))
        return self.pool(padded(x, pads, "replicate"))


class Ahead(Remembers, nn.Module):
    """What comes some entries later, and zeros after the end.

    Args:
        ahead: the entries, one number per axis.
    """

    def __init__(self, ahead: Sequence[int]) -> None:
        super().__init__()
        self.ahead = tuple(ahead)

    def forward(self, x: Tensor) -> Tensor:
        memory, ahead = self.memory, [*self.ahead]
        if memory is not None:
            part = windows_of(memory, channels_last(x), 1, 1, ahead[memory.axis])
            x = empty(x, memory.dim, x.shape[1], x.shape[2:]) if part is None else channels_first(part)
            ahead[memory.axis] = 0
        least = [min(a, n) for a, n in zip(ahead, x.shape[2:], strict=True)]
        return padded(x, [(-a, a) for a in least])


class RunningMean(Remembers, nn.Module):
    """The mean of all entries so far: of those up to each along causal axes, and of all along the others.

    ``(N, C, *spatial)`` to the same with size 1 along axes that are not causal, in float64: an hour of sound
    has more samples than float32 can count.

    Args:
        causal: whether an axis is.
    """

    def __init__(self, causal: Sequence[bool]) -> None:
        super().__init__()
        self.causal = tuple(causal)

    def forward(self, x: Tensor) -> Tensor:
        whole = [2 + axis for axis, causal in enumerate(self.causal) if not causal]
        x = x.double()
        x = x.mean(whole, keepdim=True) if whole else x
        for axis, causal in enumerate(self.causal):
            x = self._along(x, axis) if causal else x
        return x

    def _along(self, x: Tensor, axis: int) -> Tensor:
        memory, dim, before = self.memory, 2 + axis, 0
        size = x.shape[dim]
        total = x.cumsum(dim)
        if memory is not None and memory.axis == axis and size:
            total = total if memory.kept is None else total + memory.kept
            before, memory.kept = memory.count, total.narrow(dim, size - 1, 1).clone()
            memory.count += size
        counts = torch.arange(before + 1, before + size + 1, device=x.device, dtype=x.dtype)
        return total / counts.view(-1, *(1,) * (x.ndim - 1 - dim))

    def latest(self, x: Tensor) -> Tensor:
        """The mean of all, ``(N, C)``."""
        memory = self.memory
        mean = self(x)
        if memory is not None and not x.shape[memory.dim]:
            assert memory.kept is not None  # a network gives an entry for its first sample
            mean = memory.kept / memory.count
            for axis in range(memory.axis + 1, len(self.causal)):
                mean = self._along(mean, axis) if self.causal[axis] else mean
        for _ in self.causal:
            mean = mean.select(2, mean.shape[2] - 1)
        return mean.to(x.dtype)


class RunningGroupNorm(nn.GroupNorm):
    """Group normalisation by mean and variance of all entries so far (with one group: the cumulative layer
    norm of Luo and Mesgarani 2019, section II-C); at the last entry it is group normalisation.

    Args:
        causal: whether an axis is.
        args, options: of ``torch.nn.GroupNorm``.
    """

    def __init__(self, causal: Sequence[bool], *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.mean = RunningMean(causal)

    def forward(self, input: Tensor) -> Tensor:
        x = input.unflatten(1, (self.num_groups, -1))
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        mean, square = self.mean(torch.cat((x.mean(2), x.square().mean(2)), 1)).chunk(2, 1)
        scale = (square - mean.square()).clamp(min=0).add(self.eps).rsqrt()
        x = (x - mean.unsqueeze(2).to(x.dtype)) * scale.unsqueeze(2).to(x.dtype)
        x = channels_last(x.flatten(1, 2)) * self.weight + self.bias
        return channels_first(x).to(input.dtype)


class Aligned(Remembers, nn.Module):
    """Two signals of one size, of which in a stream one may be behind the other: as much as both have."""

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        memory = self.memory
        if memory is None:
            return x, y
        dim = 1 + memory.axis
        if memory.kept is None and x.shape[1 + dim] == y.shape[1 + dim]:
            return x, y
        rows = [channels_last(x), channels_last(y)]
        if memory.kept is not None:
            rows = [_followed_by(kept, new, dim) for kept, new in zip(memory.kept, rows, strict=True)]
        sizes = [t.shape[dim] for t in rows]
        both = min(sizes)
        rest = [_part(t, dim, both, n - both) for t, n in zip(rows, sizes, strict=True)]
        memory.kept = rest if any(t.shape[dim] for t in rest) else None
        x, y = (channels_first(t.narrow(dim, 0, both)) for t in rows)
        return x, y
