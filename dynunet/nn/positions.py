"""Where tokens are on an N-dimensional grid: embeddings of their positions, and windows of neighbours.

Every pair of channels j has a phase that is linear in the position p of a token,

    phi_j(p) = sum_a F[a, j] p_a        F = base ** (-k / K) where axis a has its k-th of K rounds, else 0

with base = 10000 ** (1 / axes): 10 000 on one axis, as in RoFormer (Su et al. 2021), and 100 on two, as in
RoPE-ViT (Heo et al. 2024, section 3.2). The axes take the pairs in turns, and where there are fewer pairs
than axes the pairs take the axes in turns, at different frequencies. On a circular axis the frequencies
are rounded to whole turns, so that phases do not see where it is cut.

    sinusoidal  x + (sin phi(p), cos phi(p))       absolute (Vaswani et al. 2017, section 3.5)
    rotary      rotates pair j by phi_j(p)         <R(p) q, R(s) k> depends on s - p alone
"""

import math
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import pad

TOKENS = 10_000.0  # that frequencies span on all axes together: more would be too many for full attention


def frequencies(axes: int, pairs: int, like: Tensor) -> Tensor:
    """The matrix F, ``(axes, pairs)``, made on the device of ``like``."""
    small, large = sorted((axes, pairs))
    rounds = -(-large // small)
    kind: Any = {"dtype": like.dtype, "device": like.device}
    rates = TOKENS ** (-torch.arange(rounds, **kind) / (rounds * axes))
    matrix = torch.kron(rates, torch.eye(small, **kind))[:, :large]
    return matrix if axes <= pairs else matrix.mT


class Positions(nn.Module):
    """Phases of the positions of tokens ``(N, *spatial, ..., channels)``; it has no parameters.

    ``modes`` has the padding mode of each axis, or None for one whose positions do not count: one that
    was added by :func:`convnd.inflate`, so that the network repeats along it what it did before.
    """

    CHANNELS = "channels"

    def __init__(self, modes: Sequence[str | None], channels: int) -> None:
        super().__init__()
        if channels < 2:
            kind = type(self).__name__.lower()
            raise ValueError(f"positions={kind!r} needs at least 2 {self.CHANNELS}, got {channels}")
        self.modes = tuple(modes)
        self.pairs = channels // 2

    def phases(self, tokens: Tensor) -> Tensor:
        """``(*spatial, pairs)``, with size 1 on axes that do not count."""
        n = len(self.modes)
        like = torch.empty((), dtype=torch.promote_types(tokens.dtype, torch.float32), device=tokens.device)
        counted = [axis for axis, mode in enumerate(self.modes) if mode is not None]
        total = like.new_zeros((1,) * n + (self.pairs,))
        for axis, row in zip(counted, frequencies(len(counted), self.pairs, like), strict=True):
            size = tokens.shape[1 + axis]
            if self.modes[axis] == "circular":
                turn = 2 * math.pi / size
                row = turn * (row / turn).round().clamp(min=1) * row.sign()
            places = torch.arange(size, dtype=like.dtype, device=like.device)
            total = total + places.view(-1, *(1,) * (n - axis)) * row
        return total

    def _inflate_(self, axes: Any) -> None:
        self.modes = axes.extend(self.modes, None)


class Sinusoidal(Positions):
    """Adds sines and cosines of the phases to tokens ``(N, *spatial, C)``, ``C >= 2``.

    Time and memory: those of one more addition; the phases are made once for the whole batch.
    """

    def forward(self, tokens: Tensor) -> Tensor:
        phases = self.phases(tokens)
        waves = torch.cat([phases.sin(), phases.cos()], dim=-1)
        waves = pad(waves, (0, tokens.shape[-1] - 2 * self.pairs))  # an odd channel is left as it is
        return tokens + waves.to(tokens.dtype)


class Rotary(Positions):
    """Rotates the heads of queries and keys ``(N, *spatial, 2, heads, D)``, ``D >= 2``.

    Time and memory: linear in the size of its input, of which it makes a copy.
    """

    CHANNELS = "channels per head"

    def forward(self, tokens: Tensor) -> Tensor:
        phases = rearrange(
            self.phases(tokens), "... pairs -> ... 1 1 pairs"
        )  # of queries and keys, and heads
        cos, sin = phases.cos(), phases.sin()
        a, b, rest = tokens.split([self.pairs, self.pairs, tokens.shape[-1] - 2 * self.pairs], dim=-1)
        return torch.cat([a * cos - b * sin, a * sin + b * cos, rest], dim=-1).to(tokens.dtype)


Windows = tuple[int, int, int]  # where they begin on an axis, how many there are, and their length


def windows(size: int, length: int, seam: int = 0) -> list[Windows]:
    """An axis cut into windows of ``length``; what is left over makes a shorter one.

    The last ``seam`` entries are no neighbours of those before them, and make windows of their own.
    """
    full, rest = divmod(size - seam, length)
    cut = [(full, length), (2, rest)] if rest == seam else [(full, length), (1, rest), (1, seam)]
    starts, start = [], 0
    for count, n in cut:
        starts.append((start, count, n))
        start += count * n
    return [w for w in starts if w[1] * w[2] > 0]


def within_windows(
    attend: Callable[..., Tensor], tensors: Sequence[Tensor], cuts: Sequence[Sequence[Windows]]
) -> Tensor:
    """``attend`` on the tokens ``(B, T, heads, D)`` of each window of tensors ``(N, *spatial, heads, D)``.

    ``cuts`` has the windows of each axis. Windows of one shape are done in one call, so that no token has
    to be padded or masked.
    """
    parts = {chosen: _within(attend, tensors, chosen) for chosen in product(*cuts)}
    for axis in reversed(range(len(cuts))):  # the last axis of every part is joined first
        parts = {
            rest: _joined([parts[*rest, w] for w in cuts[axis]], 1 + axis) for rest in product(*cuts[:axis])
        }
    return parts[()]


def _within(attend: Callable[..., Tensor], tensors: Sequence[Tensor], chosen: tuple[Windows, ...]) -> Tensor:
    """The same for the windows of one shape, one entry of the cuts for each axis."""
    sizes = {f"count{a}": window[1] for a, window in enumerate(chosen)}
    sizes |= {f"length{a}": window[2] for a, window in enumerate(chosen)}
    names = list(sizes)
    counts, lengths = " ".join(names[: len(chosen)]), " ".join(names[len(chosen) :])
    grid = " ".join(f"(count{a} length{a})" for a in range(len(chosen)))
    whole, apart = f"n {grid} heads d", f"(n {counts}) ({lengths}) heads d"
    out = attend(*(rearrange(_cut(t, chosen), f"{whole} -> {apart}", **sizes) for t in tensors))
    return rearrange(out, f"{apart} -> {whole}", **sizes)


def _cut(t: Tensor, chosen: tuple[Windows, ...]) -> Tensor:
    for axis, (start, count, length) in enumerate(chosen, start=1):
        t = t.narrow(axis, start, count * length)
    return t


def _joined(parts: Sequence[Tensor], dim: int) -> Tensor:
    return torch.cat(list(parts), dim) if len(parts) > 1 else parts[0]
