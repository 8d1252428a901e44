"""Where a convolution reads: stride, padding, dilation, groups, and what follows from them."""

from typing import NamedTuple

from torch import Tensor

from ..arguments import Ints, Pairs
from .pad import evens, pad_axes, pad_axes_adjoint, zero_pad


class Geometry(NamedTuple):
    """One entry per axis in each field; ``modes`` is None where all padding is zeros.

    Zero padding may be negative, which crops.
    """

    stride: Ints
    pads: Pairs
    dilation: Ints
    groups: int
    modes: tuple[str, ...] | None = None

    def extents(self, kernel: Ints) -> Ints:
        """How far a kernel reaches along each axis."""
        return tuple(d * (k - 1) + 1 for d, k in zip(self.dilation, kernel, strict=True))

    def others(self, lead: int) -> "Geometry":
        """Without the first ``lead`` axes."""
        return self._replace(stride=self.stride[lead:], pads=self.pads[lead:], dilation=self.dilation[lead:])

    def outputs(self, sizes: Ints, kernel: Ints) -> Ints:
        """The sizes of the result."""
        return tuple(
            (i + a + b - e) // s + 1
            for i, (a, b), e, s in zip(sizes, self.pads, self.extents(kernel), self.stride, strict=True)
        )

    def reaching(self, sizes: Ints, counts: Ints, kernel: Ints) -> "Geometry":
        """With no more than ``counts`` outputs.

        Output padding of a transposed convolution may exceed its stride (up to the dilation); the plain
        convolution over its result would then have more outputs than the transposed one had inputs.
        """
        if self.outputs(sizes, kernel) == counts:
            return self
        rows = zip(sizes, counts, self.stride, self.extents(kernel), self.pads, strict=True)
        return self._replace(pads=tuple((a, (q - 1) * s + e - i - a) for i, q, s, e, (a, _) in rows))

    def even(self, x: Tensor) -> tuple[Tensor, "Geometry"]:
        """``x`` padded so that the zeros that remain are the same on both sides, as native kernels want."""
        inside = evens(self.pads)
        x = zero_pad(x, tuple((a - i, b - i) for (a, b), i in zip(self.pads, inside, strict=True)))
        return x, self._replace(pads=tuple((i, i) for i in inside))

    def padded(self, x: Tensor) -> tuple[Tensor, "Geometry"]:
        """``x`` with every padding that is not of zeros done, and the zeros that remain."""
        if self.modes is None:
            return x, self
        return pad_axes(x, self._gathered, self.modes), self._zeros

    def padded_adjoint(self, x: Tensor) -> Tensor:
        """The adjoint of the padding that :meth:`padded` does."""
        return x if self.modes is None else pad_axes_adjoint(x, self._gathered, self.modes)

    def before_padding(self, sizes: Ints) -> tuple[Ints, "Geometry"]:
        """Sizes and zeros of the convolution inside the padding, for an input of ``sizes``."""
        if self.modes is None:
            return sizes, self
        return tuple(n + a + b for n, (a, b) in zip(sizes, self._gathered, strict=True)), self._zeros

    @property
    def _gathered(self) -> Pairs:
        assert self.modes is not None
        return tuple(p if m != "zeros" else (0, 0) for p, m in zip(self.pads, self.modes, strict=True))

    @property
    def _zeros(self) -> "Geometry":
        assert self.modes is not None
        pads = tuple(p if m == "zeros" else (0, 0) for p, m in zip(self.pads, self.modes, strict=True))
        return self._replace(pads=pads, modes=None)
