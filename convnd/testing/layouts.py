"""Memory layouts: tensors with equal values and different strides.

The result of an operator must not depend on the memory layout of its operands. A layout is drawn for each
operand and applied to it; a test compares the call with one on contiguous copies:

    @given(conv_cases(), layouts(), layouts())
    def test_my_conv(case, of_input, of_weight):
        x, w = of_input(torch.tensor(case.input)), of_weight(torch.tensor(case.weight))
        assert torch.equal(my_conv(x, w), my_conv(x.contiguous(), w.contiguous()))
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hypothesis import strategies as st

from ._draw import Draw

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Layout:
    """A memory layout; called with a tensor, it returns the tensor in that layout.

    ``kind`` is ``"contiguous"``; ``"channels_last"`` (axis 1 varies fastest); ``"permuted"`` (the axes in
    another order); ``"gaps"`` (permuted, a part of a larger tensor); ``"offset"`` (not at the start of its
    memory); ``"stepped"`` (every other entry of each axis); ``"expanded"`` and ``"overlapping"`` (entries
    share memory, so some values change: compare with a copy of the returned tensor). Strides of axes of
    size 1, which have no meaning, are set to ``odd`` if it is given. ``seed`` determines the axis order.
    """

    kind: str
    seed: int = 0
    odd: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(map(repr, KINDS))}, got {self.kind!r}")

    def __call__(self, x: "Tensor") -> "Tensor":
        x = _MAKE[self.kind](x, self.seed)
        if self.odd is None or not x.ndim:
            return x
        pairs = zip(x.shape, x.stride(), strict=True)
        return x.as_strided(x.shape, [self.odd if size == 1 else step for size, step in pairs])


def _channels_last(x: "Tensor", seed: int) -> "Tensor":
    return _ordered(x, [0, *range(2, x.ndim), 1][: x.ndim], 0)


def _permuted(x: "Tensor", seed: int, gap: int = 0) -> "Tensor":
    return _ordered(x, sorted(range(x.ndim), key=lambda axis: hash((seed, axis))), gap)


def _offset(x: "Tensor", seed: int) -> "Tensor":
    return _filled(x, x.new_full((x.numel() + 3,), 9)[3:].view(x.shape))


def _stepped(x: "Tensor", seed: int) -> "Tensor":
    steps = tuple([slice(None, None, 2)] * x.ndim)
    return _filled(x, x.new_full([2 * size for size in x.shape], 9)[steps])


def _expanded(x: "Tensor", seed: int) -> "Tensor":
    if not x.ndim or not x.numel():
        return x.clone()
    return x.narrow(seed % x.ndim, 0, 1).clone().expand(x.shape)


def _overlapping(x: "Tensor", seed: int) -> "Tensor":
    if not x.ndim or not x.numel():
        return x.clone()
    return x.flatten()[: sum(x.shape)].clone().as_strided(x.shape, [1] * x.ndim)


def _ordered(x: "Tensor", axes: Sequence[int], gap: int) -> "Tensor":
    """Order ``axes`` from the slowest to the fastest in memory, each padded by ``gap`` unused entries."""
    moved = x.permute(*axes)
    larger = x.new_full([size + gap for size in moved.shape], 9)
    part = larger[tuple(slice(size) for size in moved.shape)]
    return _filled(moved, part).permute([axes.index(axis) for axis in range(x.ndim)])


def _filled(x: "Tensor", room: "Tensor") -> "Tensor":
    room.copy_(x)
    return room


_MAKE: dict[str, Callable[["Tensor", int], "Tensor"]] = {
    "contiguous": lambda x, seed: x.clone(),
    "channels_last": _channels_last,
    "permuted": _permuted,
    "gaps": lambda x, seed: _permuted(x, seed, gap=1),
    "offset": _offset,
    "stepped": _stepped,
    "expanded": _expanded,
    "overlapping": _overlapping,
}
KINDS = tuple(_MAKE)


@st.composite
def layouts(draw: Draw, kinds: Sequence[str] = KINDS) -> Layout:
    """Draw a :class:`Layout` of one of the ``kinds``; shrinks towards contiguous."""
    kind = draw(st.sampled_from(tuple(kinds)))
    odd = draw(st.none() | st.sampled_from((0, 1, 2, 64)))
    return Layout(kind, draw(st.integers(0, 7)) if kind in ("permuted", "gaps", "expanded") else 0, odd)
