"""Positions of tokens on an N-dimensional grid: position embeddings, and windows of neighbours.

Every pair of channels j has a phase that is linear in the position p of a token,

    phi_j(p) = sum_a F[a, j] p_a        F = base ** (-k / K) where axis a has its k-th of K rounds, else 0

with base = 10000 ** (1 / axes): 10 000 on one axis, as in RoFormer (Su et al. 2021), and 100 on two, as in
RoPE-ViT (Heo et al. 2024, section 3.2). Pairs are assigned to the axes in turn; if there are fewer pairs
than axes, axes are assigned to the pairs in turn, at different frequencies. On a circular axis the
frequencies are rounded to whole turns, so that phases do not depend on where the circle is cut.

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

from .causal import Remembers

TOKENS = 10_000.0  # tokens, over all axes, that the frequencies span: more is too many for full attention


def frequencies(axes: int, pairs: int, like: Tensor) -> Tensor:
    """The matrix F, ``(axes, pairs)``, made on the device of ``like``."""
    small, large = sorted((axes, pairs))
    rounds = -(-large // small)
    kind: Any = {"dtype": like.dtype, "device": like.device}
    rates = TOKENS ** (-torch.arange(rounds, **kind) / (rounds * axes))
    matrix = torch.kron(rates, torch.eye(small, **kind))[:, :large]
    return matrix if axes <= pairs else matrix.mT


class Positions(Remembers, nn.Module):
    """Phases of the positions of tokens ``(N, *spatial, ..., channels)``; it has no parameters.

    ``modes`` has the padding mode of each axis, or None for an axis whose positions are ignored: one added
    by :func:`convnd.inflate`, along which the network must act the same everywhere.
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
        """Phases ``(*spatial, pairs)``, with size 1 on axes whose positions are ignored."""
        n = len(self.modes)
        like = torch.empty((), dtype=torch.promote_types(tokens.dtype, torch.float32), device=tokens.device)
        counted = [axis for axis, mode in enumerate(self.modes) if mode is not None]
        total = like.new_zeros((1,) * n + (self.pairs,))
        for axis, row in zip(counted, frequencies(len(counted), self.pairs, like), strict=True):
            size = tokens.shape[1 + axis]
            if self.modes[axis] == "circular":
                turn = 2 * math.pi / size
                row = turn * (row / turn).round().clamp(min=1) * row.sign()
            first = self._first(axis, size)
            places = torch.arange(first, first + size, dtype=like.dtype, device=like.device)
            total = total + places.view(-1, *(1,) * (n - axis)) * row
        return total

    def _first(self, axis: int, size: int) -> int:
        """The position of the first of so many tokens; in a stream they follow those before."""
        memory = self.memory
        if memory is None or memory.axis != axis:
            return 0
        memory.count += size
        return memory.count - size

    def _inflate_(self, axes: Any) -> None:
        self.modes = axes.extend(self.modes, None)


class Sinusoidal(Positions):
    """Adds sines and cosines of the phases to tokens ``(N, *spatial, C)``, ``C >= 2``.

    Time and memory: those of one addition; the phases are computed once for the whole batch.
    """

    def forward(self, tokens: Tensor) -> Tensor:
        phases = self.phases(tokens)
        waves = torch.cat([phases.sin(), phases.cos()], dim=-1)
        waves = pad(waves, (0, tokens.shape[-1] - 2 * self.pairs))  # an odd last channel is unchanged
        return tokens + waves.to(tokens.dtype)


class Rotary(Positions):
    """Rotates the heads of queries and keys ``(N, *spatial, 2, heads, D)``, ``D >= 2``.

    Time and memory: linear in the size of the input, which is copied.
    """

    CHANNELS = "channels per head"

    def forward(self, tokens: Tensor) -> Tensor:
        phases = rearrange(
            self.phases(tokens), "... pairs -> ... 1 1 pairs"
        )  # of queries and keys, and heads
        cos, sin = phases.cos(), phases.sin()
        a, b, rest = tokens.split([self.pairs, self.pairs, tokens.shape[-1] - 2 * self.pairs], dim=-1)
        return torch.cat([a * cos - b * sin, a * sin + b * cos, rest], dim=-1).to(tokens.dtype)


Windows = tuple[int, int, int]  # start on the axis, number of windows, and their length


def windows(size: int, length: int, seam: int = 0) -> list[Windows]:
    """Cut an axis into windows of ``length``; the remainder is a shorter window.

    The last ``seam`` entries are not neighbours of those before them and form windows of their own.
    """
    full, rest = divmod(size - seam, length)
    cut = [(full, length), (2, rest)] if rest == seam else [(full, length), (1, rest), (1, seam)]
    starts, start = [], 0
    for count, n in cut:
        starts.append((start, count, n))
        start += count * n
    return [w for w in starts if w[1] * w[2] > 0]


def windows_after(size: int, length: int, first: int) -> list[Windows]:
    """The same, after a first window of another length."""
    rest = windows(max(size - first, 0), length)
    return [(0, 1, min(first, size)), *((start + first, count, n) for start, count, n in rest)]


def within_windows(
    attend: Callable[..., Tensor], tensors: Sequence[Tensor], cuts: Sequence[Sequence[Windows]]
) -> Tensor:
    """``attend`` on the tokens ``(B, T, heads, D)`` of each window of tensors ``(N, *spatial, heads, D)``.

    ``cuts`` has the windows of each axis. Windows of equal shape are computed in one call, so no token has to
    be padded; ``attend`` is also given their sizes.
    """
    parts = {chosen: _within(attend, tensors, chosen) for chosen in product(*cuts)}
    for axis in reversed(range(len(cuts))):  # join the parts along the last axis first
        parts = {
            rest: _joined([parts[*rest, w] for w in cuts[axis]], 1 + axis) for rest in product(*cuts[:axis])
        }
    return parts[()]


def _within(attend: Callable[..., Tensor], tensors: Sequence[Tensor], chosen: tuple[Windows, ...]) -> Tensor:
    """``attend`` on windows of one shape; ``chosen`` has one entry of the cuts for each axis."""
    sizes = {f"count{a}": window[1] for a, window in enumerate(chosen)}
    sizes |= {f"length{a}": window[2] for a, window in enumerate(chosen)}
    names = list(sizes)
    counts, lengths = " ".join(names[: len(chosen)]), " ".join(names[len(chosen) :])
    grid = " ".join(f"(count{a} length{a})" for a in range(len(chosen)))
    whole, apart = f"n {grid} heads d", f"(n {counts}) ({lengths}) heads d"
    tokens = (rearrange(_cut(t, chosen), f"{whole} -> {apart}", **sizes) for t in tensors)
    out = attend(*tokens, tuple(length for _, _, length in chosen))
    return rearrange(out, f"{apart} -> {whole}", **sizes)


def _cut(t: Tensor, chosen: tuple[Windows, ...]) -> Tensor:
    for axis, (start, count, length) in enumerate(chosen, start=1):
        t = t.narrow(axis, start, count * length)
    return t


def _joined(parts: Sequence[Tensor], dim: int) -> Tensor:
    return torch.cat(list(parts), dim) if len(parts) > 1 else parts[0]
