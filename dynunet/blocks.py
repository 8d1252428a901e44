"""The pieces a U-Net level is made of: normalisation, activation, convolution blocks, resizing.

Everything here works on ``(N, C, *spatial)`` for any number of axes. A block is called as
``block(x, embedding)``, where ``embedding`` (time, class) is ``(N, E)`` or None.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

import convnd.functional as F
from convnd import BatchNormNd, ConvNd
from convnd.arguments import choice

Activation = Callable[[Tensor], Tensor]

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
}
NORMS = ("group", "batch")


class Function(nn.Module):
    """A plain function as a layer."""

    def __init__(self, function: Activation) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def make_activation(activation: str | Activation | type[nn.Module]) -> nn.Module:
    """A known name, a module class, a module (copied, so that parameters are not shared) or a function."""
    if isinstance(activation, str):
        return ACTIVATIONS[choice(activation, tuple(ACTIVATIONS), "activation, if not a callable,")]()
    if isinstance(activation, type) and issubclass(activation, nn.Module):
        return activation()
    if isinstance(activation, nn.Module):
        return copy.deepcopy(activation)
    if not callable(activation):
        raise TypeError(f"activation must be a name or a callable, got {activation!r}")
    return Function(activation)


class GroupNorm(nn.GroupNorm):
    """Group normalisation (Wu and He 2018) that also takes groups of a single element."""

    def forward(self, input: Tensor) -> Tensor:
        # All positions are alike: over three axes torch's kernel keeps channels-last memory as it is.
        x = input.flatten(2, input.ndim - 3) if input.ndim > 5 else input
        return torch.group_norm(x, self.num_groups, self.weight, self.bias, self.eps).view(input.shape)


@dataclass(frozen=True)
class Parts:
    """Makes the layers of one network: what they all have in common is said once."""

    spatial_dims: int
    norm_name: str | None
    activation_name: Any
    num_groups: int
    norm_eps: float
    padding_mode: tuple[str, ...]
    embedding_features: int = 0

    def norm(self, channels: int) -> nn.Module:
        """``group`` takes the largest number of groups up to ``num_groups`` that divides the channels."""
        if self.norm_name == "group":
            groups = max(g for g in range(1, self.num_groups + 1) if channels % g == 0)
            return GroupNorm(groups, channels, eps=self.norm_eps)
        if self.norm_name == "batch":
            return BatchNormNd(self.spatial_dims, channels, eps=self.norm_eps)
        return nn.Identity()

    def activation(self) -> nn.Module:
        return make_activation(self.activation_name)

    def conv(
        self, inputs: int, outputs: int, kernel_size: Sequence[int], stride: Sequence[int] | int = 1
    ) -> ConvNd:
        """Centred convolution: ``ceil(size / stride)`` outputs, whatever the size and kernel."""
        padding = [((k - 1) // 2, k - 1 - (k - 1) // 2) for k in kernel_size]
        mode = self.padding_mode
        return ConvNd(self.spatial_dims, inputs, outputs, kernel_size, stride, padding, padding_mode=mode)

    def pointwise(self, inputs: int, outputs: int) -> ConvNd:
        return ConvNd(self.spatial_dims, inputs, outputs, 1)

    def embedding(self, outputs: int) -> nn.Linear | None:
        return nn.Linear(self.embedding_features, outputs) if self.embedding_features else None


def zero_init(layer: Any) -> Any:
    """A layer that starts at zero, so that its residual branch starts as the identity."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def _add_embedding(h: Tensor, projection: nn.Linear | None, embedding: Tensor | None) -> Tensor:
    if projection is None or embedding is None:
        return h
    shift = projection(silu(embedding))
    return h + shift.view(*shift.shape, *(1,) * (h.ndim - 2))


class ResidualBlock(nn.Module):
    """``x + conv(act(norm(conv(act(norm(x))) + embedding)))``, as in DDPM (Ho et al. 2020, appendix B)."""

    def __init__(
        self, parts: Parts, inputs: int, outputs: int, kernel_size: Sequence[int], dropout: float
    ) -> None:
        super().__init__()
        self.norm1 = parts.norm(inputs)
        self.activation1 = parts.activation()
        self.conv1 = parts.conv(inputs, outputs, kernel_size)
        self.embedding = parts.embedding(outputs)
        self.norm2 = parts.norm(outputs)
        self.activation2 = parts.activation()
        self.dropout = nn.Dropout(dropout)
        self.conv2 = zero_init(parts.conv(outputs, outputs, kernel_size))
        self.shortcut = nn.Identity() if inputs == outputs else parts.pointwise(inputs, outputs)

    def forward(self, x: Tensor, embedding: Tensor | None = None) -> Tensor:
        h = self.conv1(self.activation1(self.norm1(x)))
        h = _add_embedding(h, self.embedding, embedding)
        h = self.conv2(self.dropout(self.activation2(self.norm2(h))))
        return self.shortcut(x) + h


class PlainBlock(nn.Module):
    """Convolution, norm, activation, twice (Ronneberger et al. 2015); the embedding joins after a norm."""

    def __init__(
        self, parts: Parts, inputs: int, outputs: int, kernel_size: Sequence[int], dropout: float
    ) -> None:
        super().__init__()
        self.conv1 = parts.conv(inputs, outputs, kernel_size)
        self.norm1 = parts.norm(outputs)
        self.embedding = parts.embedding(outputs)
        self.activation1 = parts.activation()
        self.dropout = nn.Dropout(dropout)
        self.conv2 = parts.conv(outputs, outputs, kernel_size)
        self.norm2 = parts.norm(outputs)
        self.activation2 = parts.activation()

    def forward(self, x: Tensor, embedding: Tensor | None = None) -> Tensor:
        h = _add_embedding(self.norm1(self.conv1(x)), self.embedding, embedding)
        h = self.dropout(self.activation1(h))
        return self.activation2(self.norm2(self.conv2(h)))


BLOCKS = {"residual": ResidualBlock, "plain": PlainBlock}


class Upsample(nn.Module):
    """Nearest-neighbour up-sampling to a given size, then a convolution.

    Entry ``i`` is a copy of the coarse entry ``i // stride``, the one whose down-sampling window is
    centred on ``i // stride * stride``; what exceeds the size is cropped.
    """

    def __init__(
        self, parts: Parts, channels: int, kernel_size: Sequence[int], stride: Sequence[int]
    ) -> None:
        super().__init__()
        self.stride = tuple(float(s) for s in stride)
        self.conv = parts.conv(channels, channels, kernel_size)

    def forward(self, x: Tensor, size: Sequence[int]) -> Tensor:
        x = F.interpolate(x, scale_factor=self.stride, mode="nearest")
        for axis, n in enumerate(size, start=2):
            x = x.narrow(axis, 0, n)
        return self.conv(x)

    def _inflate_(self, axes: Any) -> None:
        self.stride = tuple(map(float, axes.extend(self.stride, axes.strides(self.stride))))
