"""Attention over the positions, or the channels, of an N-dimensional tensor.

Positions are tokens, whatever the number of axes. With queries, keys and values of C / num_heads channels
per head, computed from the normalised input,

    full, axial, window   out_i = sum_j softmax_j(q_i . k_j / sqrt(D)) v_j      j over all, a line, a window
    linear                out_i = softmax_D(q_i) . sum_j softmax_j(k_j) v_j^T

Along a causal axis j is at most i. The layers return ``x + W out`` and start as the identity. ``channel`` and
``spatial`` are in :mod:`.gates`.
In the costs below T is the number of positions, C that of channels, D that of channels per head. Softmax
attention uses ``scaled_dot_product_attention``, whose kernels have first derivatives only: for second
derivatives use ``torch.nn.attention.sdpa_kernel(SDPBackend.MATH)``.
"""

from collections.abc import Sequence
from functools import reduce
from typing import Any, ClassVar

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.compiler import is_exporting
from torch.nn.functional import scaled_dot_product_attention

from . import checks
from .blocks import Parts, zero_init
from .causal import Memory, Remembers
from .gates import ChannelAttention, SpatialAttention
from .option import POSITIONS
from .positions import Rotary, Sinusoidal, Windows, windows, windows_after, within_windows

GRID_LIMIT = 65_535  # most samples, and most heads, that CUDA attention kernels take in one call


Past = Tensor | bool  # a mask (T, T), True where a position sees another; True: those up to it; False: all


def _past(sizes: Sequence[int], causal: Sequence[bool], like: Tensor) -> Past:
    """What the positions of a grid of tokens see: those that are not later along any causal axis."""
    later = [axis for axis, is_causal in enumerate(causal) if is_causal and sizes[axis] > 1]
    if not later or sum(n > 1 for n in sizes) == 1:
        return bool(later)
    seen = torch.ones(1, 1, dtype=torch.bool, device=like.device)
    for axis, n in enumerate(sizes):
        along = torch.ones(n, n, dtype=torch.bool, device=like.device)
        along = along.tril() if axis in later else along
        seen = (seen[:, None, :, None] & along[:, None]).flatten(2).flatten(0, 1)  # torch.kron fixes sizes
    return seen


def _attend(q: Tensor, k: Tensor, v: Tensor, past: Past = False) -> Tensor:
    """Softmax attention of ``(N, heads, T, D)``, for any number of samples and heads."""
    if not torch.compiler.is_compiling():
        for axis in (0, 1):
            if q.shape[axis] > GRID_LIMIT:
                parts = zip(*(t.split(GRID_LIMIT, axis) for t in (q, k, v)), strict=True)
                return torch.cat([_attend(*part, past=past) for part in parts], axis)
    if past is False:
        return scaled_dot_product_attention(q, k, v)
    mask = past if isinstance(past, Tensor) else None
    return scaled_dot_product_attention(q, k, v, mask, is_causal=past is True)


def _attend_tokens(q: Tensor, k: Tensor, v: Tensor, past: Past = False) -> Tensor:
    """Softmax attention of ``(N, T, heads, D)``."""
    return _attend(*(t.transpose(1, 2) for t in (q, k, v)), past=past).transpose(1, 2)


class _TokenAttention(Remembers, nn.Module):
    """``x + W attend(q, k, v)`` with queries, keys and values from the normalised input."""

    takes: ClassVar[tuple[str, ...]] = ("num_heads", "positions")

    def __init__(self, parts: Parts, channels: int, num_heads: int, positions: str | None = None) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.causal = parts.causal
        self.norm = parts.norm(channels)
        self.place, self.rotate = nn.Identity(), nn.Identity()
        if positions == "sinusoidal":
            self.place = Sinusoidal(parts.padding_mode, channels)
        elif checks.optional_choice(POSITIONS)(positions, "positions") is not None:
            self.rotate = Rotary(parts.padding_mode, channels // num_heads)
        self.query_key_value = nn.Linear(channels, 3 * channels)
        self.projection = zero_init(nn.Linear(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.place(self.norm(x).movedim(1, -1))
        qkv = self.query_key_value(tokens.contiguous())  # no copy of channels-last memory
        qkv = rearrange(qkv, "n ... (three heads d) -> n ... three heads d", three=3, heads=self.num_heads)
        qk, v = qkv.split((2, 1), -3)  # one split, so that the gradients are joined in one step
        q, k = self.rotate(qk).unbind(-3)
        out = rearrange(self.attend(q, k, v.squeeze(-3)), "n ... heads d -> n ... (heads d)")
        return x + self.projection(out).movedim(-1, 1)

    def cannot_stream(self, axis: int) -> str | None:
        return "its attention is to all of the past, which grows: use 'window'"

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention; operands and result are ``(N, *spatial, heads, D)``."""
        raise NotImplementedError


class SelfAttention(_TokenAttention):
    """``full``: between all positions (Vaswani et al. 2017; Ho et al. 2020).

    Time ``T^2 C``; memory ``T C`` if ``scaled_dot_product_attention`` has a kernel that does not store the
    attention weights: on the CPU, and on a GPU if the channels per head are a multiple of 8. On several
    axes, of which some are causal, it takes a mask of ``T^2``.

    Args:
        parts: makes the layers.
        channels: of the input and the output.
        num_heads: must divide the channels.
        positions: ``"rotary"``, ``"sinusoidal"`` or None, see :mod:`dynunet.nn.positions`.

    Shape:
        ``(N, C, *spatial)`` to the same, as for all attention here.

    Raises:
        ValueError: if there are fewer than 2 channels (rotary: per head) to encode positions.
    """

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        past = _past(q.shape[1:-2], self.causal, q)
        out = _attend(*(rearrange(t, "n ... heads d -> n heads (...) d") for t in (q, k, v)), past=past)
        return out.transpose(1, 2).reshape(q.shape)


class LinearAttention(_TokenAttention):
    """``linear``: between all positions, as ``q (k^T v)`` (Shen et al. 2021, "Efficient Attention").

    The softmax of q is over the channels of a head and that of k over positions, so the weights of all
    positions for a query sum to one, as in full attention. Time ``T C D``, memory ``T C``.
    """

    takes = ("num_heads",)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        shape = q.shape
        q, k, v = (rearrange(t, "n ... heads d -> n heads (...) d") for t in (q, k, v))
        context = k.softmax(dim=-2).mT @ v  # an average of v for each channel of k, not a sum, so no overflow
        return (q.softmax(dim=-1) @ context).transpose(1, 2).reshape(shape)


class AxialAttention(_TokenAttention):
    """``axial``: along each axis separately, summed over the axes (Ho et al. 2019; Wang et al. 2020).

    All axes share q, k and v, and an axis of size 1 contributes nothing, so permuting the axes permutes the
    output; nor does a causal axis at its first entry, whatever follows. Time ``T C`` times the sum of the
    axis sizes, memory ``T C`` per axis.
    """

    def __init__(self, parts: Parts, channels: int, num_heads: int, positions: str | None = None) -> None:
        super().__init__(parts, channels, num_heads, positions)
        self.along = (True,) * parts.spatial_dims

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        sizes = q.shape[1:-2]  # an exported program is for any
        axes = [a for a, use in enumerate(self.along) if use and (is_exporting() or sizes[a] > 1)]
        if not axes:
            return torch.zeros_like(q)
        qkv = torch.stack((q, k, v))  # one copy; then the lines of each axis are a view
        return reduce(torch.add, (self._along(a, qkv).reshape(q.shape) for a in axes))

    def _along(self, axis: int, qkv: Tensor) -> Tensor:
        names = [f"x{i}" for i in range(len(self.along))]
        before, after = " ".join(names[:axis]), " ".join(names[axis + 1 :])
        lines = f"qkv n {before} t {after} heads d -> qkv (n {before}) t ({after} heads) d"
        past = bool(self.causal) and self.causal[axis]
        out = _attend_tokens(*rearrange(qkv, lines).unbind(), past=past)
        if not (past or is_exporting()):
            return out
        later = torch.arange(out.shape[1], device=out.device) > 0  # the first sees itself alone
        return out * (later[:, None, None] if past else later.any()).to(out.dtype)

    def _inflate_(self, axes: Any) -> None:
        # The old network is repeated along a new axis; attention along it would change the result.
        self.along = axes.extend(self.along, False)


class WindowAttention(_TokenAttention):
    """``window``: inside windows of 8 entries on every axis (Liu et al. 2021, "Swin Transformer").

    A remainder at the end of an axis is a smaller window. On axes longer than a window, shifted windows begin
    half a window later; the first and the last entries then form separate windows, except on a circular
    axis, where they are neighbours. No token is padded: windows of equal size are computed in one call. On a
    causal axis windows are shifted whatever its length, and tokens see no later ones. Time ``T C 8^axes``,
    memory ``T C``.

    Args:
        parts, channels, num_heads, positions: as for :class:`SelfAttention`.
        shifted: whether windows begin half a window later; alternate it from layer to layer, so that windows
            overlap.
        window: size of a window on each axis.
    """

    takes = ("num_heads", "positions", "shifted")

    def __init__(
        self,
        parts: Parts,
        channels: int,
        num_heads: int,
        positions: str | None = None,
        shifted: bool = False,
        window: int = 8,
    ) -> None:
        super().__init__(parts, channels, num_heads, positions)
        self.window, self.shift = window, window // 2 if shifted else 0
        self.circular = tuple(mode == "circular" for mode in parts.padding_mode)
        self.past = [axis for axis, causal in enumerate(self.causal) if causal]

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        memory, new = self.memory, q
        if memory is not None:
            q, k, v = self._followed(memory, (q, k, v))
        sizes = q.shape[1:-2]
        rolled = [
            a for a, size in enumerate(sizes) if self.shift and size > self.window and a not in self.past
        ]
        axes, back = [1 + a for a in rolled], [self.shift] * len(rolled)
        cuts = [self._cuts(axis, size, axis in rolled) for axis, size in enumerate(sizes)]
        if rolled:
            q, k, v = (t.roll([-s for s in back], axes) for t in (q, k, v))
        out = within_windows(self._attend, (q, k, v), cuts)
        out = out.roll(back, axes) if rolled else out
        if memory is None:
            return out
        self._keep(memory, (q, k, v))
        n = new.shape[1 + memory.axis]
        return out.narrow(1 + memory.axis, out.shape[1 + memory.axis] - n, n)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, sizes: tuple[int, ...]) -> Tensor:
        return _attend_tokens(q, k, v, _past(sizes, self.causal, q))

    def _cuts(self, axis: int, size: int, rolled: bool) -> list[Windows]:
        """The windows of an axis."""
        if axis in self.past and self.shift:
            return windows_after(size, self.window, self._first(axis))
        return windows(size, self.window, self.shift if rolled and not self.circular[axis] else 0)

    def _first(self, axis: int) -> int:
        """The length of the first window of a causal axis; in a stream, of the first that is not done."""
        memory = self.memory
        begun = memory is not None and memory.axis == axis and memory.count > 0
        return self.window if begun else self.shift or self.window

    def _followed(self, memory: Memory, new: Sequence[Tensor]) -> Sequence[Tensor]:
        """Tokens after those of the window that they go on with."""
        if memory.kept is None:
            return new
        return [torch.cat(both, 1 + memory.axis) for both in zip(memory.kept, new, strict=True)]

    def _keep(self, memory: Memory, tokens: Sequence[Tensor]) -> None:
        """Keep the tokens of the window that is not done."""
        dim, first = 1 + memory.axis, self._first(memory.axis)
        size = tokens[0].shape[dim]
        done = size - (size - first) % self.window if size >= first else 0
        memory.kept = [t.narrow(dim, done, size - done).clone() for t in tokens]
        memory.count += done

    def cannot_stream(self, axis: int) -> str | None:
        return None

    def _inflate_(self, axes: Any) -> None:
        self.circular = axes.extend(self.circular, axes.padding_mode == "circular")


class CrossAttention(nn.Module):
    """``x + W attention(norm(x), context)``: positions attend to given tokens (Rombach et al. 2022, eq. 3).

    Starts as the identity. Time ``T C (C + tokens)``, memory ``(T + tokens) C``.

    Args:
        parts: makes the layers.
        channels: of the input and the output.
        num_heads: must divide the channels.
        context_features: features of each context token.

    Shape:
        x ``(N, C, *spatial)``, context ``(N, tokens, context_features)`` to the shape of x.
    """

    def __init__(self, parts: Parts, channels: int, num_heads: int, context_features: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm = parts.norm(channels)
        self.query = nn.Linear(channels, channels)
        self.key_value = nn.Linear(context_features, 2 * channels)
        self.projection = zero_init(nn.Linear(channels, channels))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        tokens, heads = self.norm(x).movedim(1, -1).contiguous(), self.num_heads
        q = rearrange(self.query(tokens), "n ... (heads d) -> n heads (...) d", heads=heads)
        k, v = rearrange(self.key_value(context), "n t (two heads d) -> two n heads t d", two=2, heads=heads)
        out = rearrange(_attend(q, k, v), "n heads t d -> n t (heads d)").reshape(tokens.shape)
        return x + self.projection(out).movedim(-1, 1)


# The modules for each name; their attribute ``takes`` lists the options they accept.
ATTENTIONS: dict[str, tuple[Any, ...]] = {
    "full": (SelfAttention,),
    "linear": (LinearAttention,),
    "axial": (AxialAttention,),
    "window": (WindowAttention,),
    "channel": (ChannelAttention,),
    "spatial": (SpatialAttention,),
    "cbam": (ChannelAttention, SpatialAttention),
}


def make_attention(
    parts: Parts,
    channels: int,
    num_heads: int,
    names: tuple[str, ...],
    positions: str | None = None,
    shifted: bool = False,
) -> nn.Module:
    """The attention layers with these names, one after the other; the identity if there are none.

    Args:
        parts: makes the layers.
        channels: of the input and the output.
        num_heads: for layers that have heads; must divide the channels.
        names: from :func:`dynunet.attention.attention_names`.
        positions: for layers that use them: ``"rotary"``, ``"sinusoidal"`` or None.
        shifted: whether windows are shifted by half a window.
    """
    options = {"num_heads": num_heads, "positions": positions, "shifted": shifted}
    kinds = [kind for name in names for kind in ATTENTIONS[name]]
    layers = [kind(parts, channels, **{key: options[key] for key in kind.takes}) for kind in kinds]
    if len(layers) == 1:
        return layers[0]
    return nn.Sequential(*layers) if layers else nn.Identity()
