"""Embeddings of time, class and features, summed to one vector per sample."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import silu


def sinusoidal(t: Tensor, features: int, max_period: float = 10_000.0, inclusive: bool = False) -> Tensor:
    """Sines and cosines of ``t`` at geometrically spaced frequencies (Vaswani et al. 2017, section 3.5).

    Args:
        t: ``(N,)``, any real numbers.
        features: length of the embedding, even.
        max_period: the longest period is just below ``2 pi`` times this.
        inclusive: whether the longest period is exactly ``2 pi max_period``, as in DDPM's code.

    Returns:
        ``(N, features)`` in float32 (float64 for float64 times): sines first.

    >>> import torch
    >>> sinusoidal(torch.zeros(1), 4)
    tensor([[0., 0., 1., 1.]])
    """
    half = features // 2
    t = t if t.dtype == torch.float64 else t.float()
    exponents = torch.arange(half, device=t.device, dtype=t.dtype) / max(half - inclusive, 1)
    phases = t[:, None] * torch.exp(-math.log(max_period) * exponents)
    return torch.cat([phases.sin(), phases.cos()], dim=1)


class TimeEmbedding(nn.Module):
    """Time ``(N,)`` to ``(N, features)``: sinusoids of ``scale * t``, then two linear layers.

    ``sinusoidal`` and ``ddpm`` differ in their longest period, see :func:`sinusoidal`. ``fourier`` has random
    frequencies, drawn at construction from a normal distribution with a standard deviation of 16 periods per
    unit of t at a scale of 1000 (Tancik et al. 2020; Song et al. 2021, appendix C).
    """

    def __init__(self, kind: str, frequencies: int, features: int, scale: float) -> None:
        super().__init__()
        self.kind, self.scale = kind, scale
        self.num_waves = frequencies + frequencies % 2
        if kind == "fourier":
            self.register_buffer("frequencies", 0.016 * torch.randn(self.num_waves // 2))
        self.linear1 = nn.Linear(self.num_waves, features)
        self.linear2 = nn.Linear(features, features)

    def forward(self, t: Tensor) -> Tensor:
        t = t * self.scale
        if self.kind == "fourier":
            frequencies: Any = self.frequencies
            phases = 2 * math.pi * t[:, None] * frequencies.to(t.dtype)
            waves = torch.cat([phases.sin(), phases.cos()], dim=1)
        else:
            waves = sinusoidal(t, self.num_waves, inclusive=self.kind == "ddpm")
        return self.linear2(silu(self.linear1(waves.to(self.linear1.weight.dtype))))


class ClassEmbedding(nn.Module):
    """Label ``(N,)`` to ``(N, features)``; label -1 means unconditional and embeds to zero."""

    def __init__(self, num_classes: int, features: int) -> None:
        super().__init__()
        self.table = nn.Embedding(num_classes, features)

    def forward(self, labels: Tensor) -> Tensor:
        labels = labels.long()  # embedding needs integer indices
        return self.table(labels.clamp(min=0)) * (labels >= 0).unsqueeze(1)


class FeatureEmbedding(nn.Module):
    """An arbitrary vector ``(N, cond_features)`` to ``(N, features)`` through two linear layers."""

    def __init__(self, inputs: int, features: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(inputs, features)
        self.linear2 = nn.Linear(features, features)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear2(silu(self.linear1(x)))
