"""The building blocks of a level: normalisation, activation, convolution blocks.

Everything here works on ``(N, C, *spatial)`` for any number of axes. A block is called as
``block(x, embedding)``, where ``embedding`` (of time, class and features) is ``(N, E)`` or None.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm, rms_norm, silu

from convnd import BatchNormNd, ConvNd

from .causal import CausalConv, Remembers, RunningGroupNorm, channels_first, channels_last
from .spec import NetworkSpec

__all__ = [
    "ACTIVATIONS",
    "BLOCKS",
    "Activation",
    "Block",
    "ChannelNorm",
    "ConvNextBlock",
    "Function",
    "GroupNorm",
    "Parts",
    "PlainBlock",
    "ResidualBlock",
    "make_activation",
    "zero_init",
]

Activation = Callable[[Tensor], Tensor]

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
}


class Function(nn.Module):
    """A plain function as a layer."""

    def __init__(self, function: Activation) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def make_activation(activation: str | Activation | type[nn.Module]) -> nn.Module:
    """The layer for a known name, a module class, a module (copied, so that parameters are not shared) or
    a function."""
    if isinstance(activation, str):
        return ACTIVATIONS[activation]()
    if isinstance(activation, type) and issubclass(activation, nn.Module):
        return activation()
    return copy.deepcopy(activation) if isinstance(activation, nn.Module) else Function(activation)


class GroupNorm(nn.GroupNorm):
    """Group normalisation (Wu and He 2018) that also takes groups of a single element."""

    def forward(self, input: Tensor) -> Tensor:
        # All positions are alike, and over two or three axes torch's kernel keeps channels-last memory.
        x = input.unsqueeze(2) if input.ndim == 3 else input
        x = x.flatten(2, x.ndim - 3) if x.ndim > 5 else x
        return torch.group_norm(x, self.num_groups, self.weight, self.bias, self.eps).view(input.shape)


class ChannelNorm(nn.Module):
    """Normalisation over the channels at each position: layer norm (Ba et al. 2016), or RMS norm (Zhang and
    Sennrich 2019), which has neither mean nor bias."""

    def __init__(self, channels: int, eps: float, centred: bool) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels)) if centred else None

    def forward(self, x: Tensor) -> Tensor:
        x, shape = channels_last(x), self.weight.shape
        if self.bias is None:
            return channels_first(rms_norm(x, shape, self.weight, self.eps))
        return channels_first(layer_norm(x, shape, self.weight, self.bias, self.eps))


@dataclass(frozen=True)
class Parts:
    """Makes the layers of one network with the options that they share."""

    spatial_dims: int
    norm_name: str | None
    activation_name: Any
    num_groups: int
    norm_eps: float
    padding_mode: tuple[str, ...]
    embedding_features: int = 0
    modulation: str = "shift"
    causal: tuple[bool, ...] = ()

    @classmethod
    def of(cls, spec: NetworkSpec) -> Self:
        return cls(
            spatial_dims=spec.spatial_dims,
            norm_name=spec.norm,
            activation_name=spec.activation,
            num_groups=spec.num_groups,
            norm_eps=spec.norm_eps,
            padding_mode=tuple(spec.padding_mode),
            embedding_features=spec.embedding_features,
            modulation=spec.modulation,
            causal=spec.causal_axes if any(spec.causal_axes) else (),
        )

    def groups(self, channels: int) -> int:
        """The largest number of groups up to ``num_groups`` that divides the channels."""
        if self.norm_name == "instance":
            return channels
        return max(g for g in range(1, min(self.num_groups, channels) + 1) if channels % g == 0)

    def norm(self, channels: int) -> nn.Module:
        if self.norm_name in ("group", "instance"):
            if self.causal:
                return RunningGroupNorm(self.causal, self.groups(channels), channels, eps=self.norm_eps)
            return GroupNorm(self.groups(channels), channels, eps=self.norm_eps)
        if self.norm_name == "batch":
            return BatchNormNd(self.spatial_dims, channels, eps=self.norm_eps)
        if self.norm_name is not None:
            return ChannelNorm(channels, self.norm_eps, centred=self.norm_name == "layer")
        return nn.Identity()

    def forgets_shifts(self, channels: int) -> bool:
        """True if the norm cancels whatever is added to a whole channel of a sample."""
        return self.norm_name in ("group", "instance") and self.groups(channels) == channels

    def activation(self) -> nn.Module:
        return make_activation(self.activation_name)

    def conv(
        self,
        inputs: int,
        outputs: int,
        kernel_size: Sequence[int],
        stride: Sequence[int] | int = 1,
        groups: int = 1,
        ahead: Sequence[int] = (),
    ) -> ConvNd:
        """Centred convolution: ``ceil(size / stride)`` outputs, whatever the size and kernel.

        Along causal axes it ends ``ahead`` entries after its place.
        """
        after, ahead = [k // 2 for k in kernel_size], tuple(ahead) or (0,) * self.spatial_dims
        if self.causal:
            after = [a if c else n for n, a, c in zip(after, ahead, self.causal, strict=True)]
        padding = [(k - 1 - n, n) for k, n in zip(kernel_size, after, strict=True)]
        options: Any = {"groups": groups, "padding_mode": self.padding_mode}
        args: Any = self.spatial_dims, inputs, outputs, kernel_size, stride, padding
        return CausalConv(ahead, *args, **options) if self.causal else ConvNd(*args, **options)

    def pointwise(self, inputs: int, outputs: int) -> ConvNd:
        if self.causal:
            return self.conv(inputs, outputs, (1,) * self.spatial_dims)
        return ConvNd(self.spatial_dims, inputs, outputs, 1)

    def embedding(self, outputs: int) -> nn.Linear | None:
        """The linear layer from the embedding to the shift (with ``scale_shift`` also scale) of channels."""
        if not self.embedding_features:
            return None
        return nn.Linear(self.embedding_features, outputs * (2 if self.modulation == "scale_shift" else 1))


def zero_init(layer: Any) -> Any:
    """Set a layer's parameters to zero, so that its residual block starts as the identity."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


class Block(Remembers, nn.Module):
    """Base of all blocks: applies the embedding of a sample to its channels.

    ``shift``: it is added before the norm, as in DDPM, or after the norm if the norm would cancel it.
    ``scale_shift``: it scales and shifts the output of the norm (FiLM, Perez et al. 2018; AdaGN, Dhariwal
    and Nichol 2021, section 3).
    """

    def __init__(self, parts: Parts, channels: int, shift_first: bool = True) -> None:
        super().__init__()
        self.embedding = parts.embedding(channels)
        self.modulation = parts.modulation
        self.shift_first = shift_first and not parts.forgets_shifts(channels)

    def normed(self, h: Tensor, norm: nn.Module, embedding: Tensor | None) -> Tensor:
        if self.embedding is None or embedding is None:
            return norm(h)
        e = self._of_channels(embedding, h.ndim - 2)
        if self.modulation == "scale_shift":
            scale, shift = e.chunk(2, dim=1)
            return norm(h) * (1 + scale) + shift
        return norm(h + e) if self.shift_first else norm(h) + e

    def _of_channels(self, embedding: Tensor, dims: int) -> Tensor:
        """What the embedding means for each channel; in a stream it is the same for part after part."""
        memory = self.memory
        if memory is not None and memory.kept is not None and memory.kept[0] is embedding:
            return memory.kept[1]
        assert self.embedding is not None
        e = self.embedding(silu(embedding))
        e = e.view(*e.shape, *(1,) * dims)
        if memory is not None:
            memory.kept = embedding, e
        return e


class ResidualBlock(Block):
    """``x + conv(act(norm(conv(act(norm(x))) + embedding)))``, as in DDPM (Ho et al. 2020, appendix B)."""

    def __init__(
        self, parts: Parts, inputs: int, outputs: int, kernel_size: Sequence[int], dropout: float
    ) -> None:
        super().__init__(parts, outputs)
        self.norm1 = parts.norm(inputs)
        self.activation1 = parts.activation()
        self.conv1 = parts.conv(inputs, outputs, kernel_size)
        self.norm2 = parts.norm(outputs)
        self.activation2 = parts.activation()
        self.dropout = nn.Dropout(dropout)
        self.conv2 = zero_init(parts.conv(outputs, outputs, kernel_size))
        self.shortcut = nn.Identity() if inputs == outputs else parts.pointwise(inputs, outputs)

    def forward(self, x: Tensor, embedding: Tensor | None = None) -> Tensor:
        h = self.conv1(self.activation1(self.norm1(x)))
        h = self.activation2(self.normed(h, self.norm2, embedding))
        return self.shortcut(x) + self.conv2(self.dropout(h))


class PlainBlock(Block):
    """Convolution, norm, activation, twice (Ronneberger et al. 2015); the embedding is added after a norm."""

    def __init__(
        self, parts: Parts, inputs: int, outputs: int, kernel_size: Sequence[int], dropout: float
    ) -> None:
        super().__init__(parts, outputs, shift_first=False)
        self.conv1 = parts.conv(inputs, outputs, kernel_size)
        self.norm1 = parts.norm(outputs)
        self.activation1 = parts.activation()
        self.dropout = nn.Dropout(dropout)
        self.conv2 = parts.conv(outputs, outputs, kernel_size)
        self.norm2 = parts.norm(outputs)
        self.activation2 = parts.activation()

    def forward(self, x: Tensor, embedding: Tensor | None = None) -> Tensor:
        h = self.activation1(self.normed(self.conv1(x), self.norm1, embedding))
        return self.activation2(self.norm2(self.conv2(self.dropout(h))))


class ConvNextBlock(Block):
    """``x + W2 act(W1 norm(depthwise(x)))`` with four times the channels inside (Liu et al. 2022, fig. 4)."""

    EXPANSION = 4

    def __init__(
        self, parts: Parts, inputs: int, outputs: int, kernel_size: Sequence[int], dropout: float
    ) -> None:
        super().__init__(parts, inputs)
        self.depthwise = parts.conv(inputs, inputs, kernel_size, groups=inputs)
        self.norm = parts.norm(inputs)
        self.expand = parts.pointwise(inputs, self.EXPANSION * outputs)
        self.activation = parts.activation()
        self.dropout = nn.Dropout(dropout)
        self.project = zero_init(parts.pointwise(self.EXPANSION * outputs, outputs))
        self.shortcut = nn.Identity() if inputs == outputs else parts.pointwise(inputs, outputs)

    def forward(self, x: Tensor, embedding: Tensor | None = None) -> Tensor:
        h = self.normed(self.depthwise(x), self.norm, embedding)
        return self.shortcut(x) + self.project(self.dropout(self.activation(self.expand(h))))


BLOCKS: dict[str, Callable[..., Block]] = {
    "residual": ResidualBlock,
    "plain": PlainBlock,
    "convnext": ConvNextBlock,
}
