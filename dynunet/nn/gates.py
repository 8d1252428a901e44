"""Attention as a gate: ``x`` times a number in (0, 1) per channel or per position.

Gates start at sigmoid(3), about 0.95. In the costs below T is the number of positions, C that of channels.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from convnd import ConvNd

from .blocks import Parts
from .causal import RunningMean

SPATIAL_KERNEL = 7  # kernel size of spatial attention on every axis


def _open(layer: Any) -> Any:
    """Initialise the layer before a sigmoid so that its gates start nearly open."""
    nn.init.constant_(layer.bias, 3.0)
    return layer


class ChannelAttention(nn.Module):
    """``channel``: squeeze and excitation, ``x * sigmoid(W2 relu(W1 mean(x)))`` (Hu et al. 2018, eq. 2-4).

    The hidden layer has C / 16 units, but at least 8 (or C if C is smaller). Along causal axes the mean is of
    all entries so far. Time and memory ``T C``.
    """

    takes: ClassVar[tuple[str, ...]] = ()

    def __init__(self, parts: Parts, channels: int) -> None:
        super().__init__()
        units = max(channels // 16, min(channels, 8))
        self.squeeze = nn.Linear(channels, units)
        self.excite = _open(nn.Linear(units, channels))
        self.mean = RunningMean(parts.causal) if parts.causal else None

    def forward(self, x: Tensor) -> Tensor:
        if self.mean is not None:
            means = self.mean(x).to(x.dtype).movedim(1, -1)
            return x * self.excite(relu(self.squeeze(means))).sigmoid().movedim(-1, 1)
        spatial = tuple(range(2, x.ndim))
        gates = self.excite(relu(self.squeeze(x.mean(spatial)))).sigmoid()
        return x * gates.view(*gates.shape, *(1 for _ in spatial))


class SpatialAttention(nn.Module):
    """``spatial``: ``x * sigmoid(conv([mean(x), max(x)]))`` over channels (CBAM, Woo et al. 2018, eq. 3).

    The kernel has size 7 on every axis. Each axis is padded in its own mode: reflect needs at least 4
    entries, circular 3. Time ``T (C + 2 * 7^axes)`` at most, memory ``T C``.
    """

    takes: ClassVar[tuple[str, ...]] = ()

    def __init__(self, parts: Parts, channels: int) -> None:
        super().__init__()
        self.conv = _open(parts.conv(2, 1, (SPATIAL_KERNEL,) * parts.spatial_dims))

    def forward(self, x: Tensor) -> Tensor:
        pooled = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], dim=1)
        return x * self.conv(pooled).sigmoid()


class AttentionGate(nn.Module):
    """``skip * sigmoid(psi(relu(W skip + U gate)))``, one gate per position (Oktay et al. 2018, eq. 1-2).

    The decoder's features select what matters in a skip. The hidden layer has half the channels of the skip.
    Time ``T C^2``, memory ``T C``.

    Args:
        parts: makes the layers.
        channels: of the skip.
        gate_channels: of the gate.

    Shape:
        skip ``(N, channels, *spatial)``, gate ``(N, gate_channels, *spatial)`` to the shape of skip.
    """

    def __init__(self, parts: Parts, channels: int, gate_channels: int) -> None:
        super().__init__()
        inner = max(channels // 2, 1)
        self.skip = ConvNd(parts.spatial_dims, channels, inner, 1, bias=False)
        self.gate = parts.pointwise(gate_channels, inner)
        self.psi = _open(parts.pointwise(inner, 1))

    def forward(self, skip: Tensor, gate: Tensor) -> Tensor:
        return skip * self.psi(relu(self.skip(skip) + self.gate(gate))).sigmoid()
