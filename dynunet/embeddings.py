"""Embeddings of time and class, added up into one vector per sample."""

import math

import torch
from torch import Tensor, nn


def sinusoidal(t: Tensor, features: int, max_period: float = 10_000.0) -> Tensor:
    """Sines and cosines of ``t`` at geometrically spaced frequencies (Vaswani et al. 2017, section 3.5).

    Args:
        t: ``(N,)``.
        features: length of the embedding, even.
        max_period: the longest period is ``2 pi`` times this.

    Returns:
        ``(N, features)`` in float32 (float64 for float64 times): sines first, as in DDPM.

    >>> import torch
    >>> sinusoidal(torch.zeros(1), 4)
    tensor([[0., 0., 1., 1.]])
    """
    half = features // 2
    t = t if t.dtype == torch.float64 else t.float()
    exponents = torch.arange(half, device=t.device, dtype=t.dtype) / max(half - 1, 1)
    phases = t[:, None] * torch.exp(-math.log(max_period) * exponents)
    return torch.cat([phases.sin(), phases.cos()], dim=1)


class TimeEmbedding(nn.Module):
    """Time ``(N,)`` to ``(N, features)``: sinusoids of ``scale * t`` through two linear layers."""

    def __init__(self, frequencies: int, features: int, scale: float) -> None:
        super().__init__()
        self.frequencies = frequencies + frequencies % 2
        self.scale = scale
        self.linear1 = nn.Linear(self.frequencies, features)
        self.linear2 = nn.Linear(features, features)

    def forward(self, t: Tensor) -> Tensor:
        waves = sinusoidal(t * self.scale, self.frequencies).to(self.linear1.weight.dtype)
        return self.linear2(nn.functional.silu(self.linear1(waves)))


class ClassEmbedding(nn.Module):
    """Label ``(N,)`` to ``(N, features)``; label -1 means unconditional and embeds to zero."""

    def __init__(self, num_classes: int, features: int) -> None:
        super().__init__()
        self.table = nn.Embedding(num_classes, features)

    def forward(self, labels: Tensor) -> Tensor:
        return self.table(labels.clamp(min=0)) * (labels >= 0).unsqueeze(1)
