"""Hypothesis strategies that draw a valid input together with its arguments.

Every strategy covers 1 to 5 spatial axes with bounded sizes and shrinks towards one axis, size one
and neutral arguments. Values are small integers, exact in every floating-point type, so that
implementations can be compared without a tolerance.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

Draw = st.DrawFn

_MAX_SIDE = {1: 9, 2: 6, 3: 5, 4: 4, 5: 3, 6: 2}


@dataclass(frozen=True)
class Case:
    """One call: operands and keyword arguments, each argument in full (one entry per axis)."""

    input: NDArray[np.float64]
    weight: NDArray[np.float64] | None = None
    bias: NDArray[np.float64] | None = None
    kwargs: dict[str, Any] = field(default_factory=dict)

    @property
    def spatial_dims(self) -> int:
        return self.input.ndim - 2

    def __repr__(self) -> str:
        arrays = [f"input{self.input.shape}"]
        arrays += [] if self.weight is None else [f"weight{self.weight.shape}"]
        arrays += [] if self.bias is None else [f"bias{self.bias.shape}"]
        arguments = [f"{name}={value!r}" for name, value in self.kwargs.items()]
        return f"Case({', '.join(arrays + arguments)})"


def _ranks(max_dims: int) -> st.SearchStrategy[int]:
    return st.integers(1, max_dims)


@st.composite
def spatial_shapes(
    draw: Draw, max_dims: int = 5, min_side: int = 1, max_side: int | None = None
) -> tuple[int, ...]:
    """Sizes of 1 to ``max_dims`` spatial axes, smaller where there are more of them."""
    n = draw(_ranks(max_dims))
    sides = st.integers(min_side, max(min_side, max_side or _MAX_SIDE[n]))
    return tuple(draw(st.lists(sides, min_size=n, max_size=n)))


def _axes(draw: Draw, n: int, low: int, high: int) -> tuple[int, ...]:
    return tuple(draw(st.lists(st.integers(low, high), min_size=n, max_size=n)))


def _values(draw: Draw, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Integers in [-4, 4]; different for every position, so that no two can be confused for long."""
    seed = draw(st.integers(0, 255))
    return np.random.default_rng(seed).integers(-4, 5, shape).astype(np.float64)


@st.composite
def conv_cases(draw: Draw, max_dims: int = 5, padding_modes: bool = True) -> Case:
    """Valid calls of a convolution; ``padding`` is one (before, after) pair per axis."""
    n = draw(_ranks(max_dims))
    kernel = _axes(draw, n, 1, 4 if n < 3 else 3 if n < 5 else 2)
    stride, dilation = _axes(draw, n, 1, 3), _axes(draw, n, 1, 2)
    padding = tuple(zip(_axes(draw, n, 0, 2), _axes(draw, n, 0, 2), strict=True))
    modes = ("zeros",) * n
    if padding_modes:
        names = st.sampled_from(("zeros", "circular", "replicate", "reflect"))
        modes = tuple(draw(st.lists(names, min_size=n, max_size=n)))
    sizes = []
    for k, d, pair, mode in zip(kernel, dilation, padding, modes, strict=True):
        supply = {"reflect": max(pair) + 1, "circular": max(pair)}.get(mode, 1)
        low = max(1, d * (k - 1) + 1 - sum(pair), supply)
        sizes.append(draw(st.integers(low, max(low, _MAX_SIDE[n]))))
    groups = draw(st.integers(1, 3))
    inputs, outputs = groups * draw(st.integers(1, 2)), groups * draw(st.integers(1, 2))
    return Case(
        _values(draw, (draw(st.integers(1, 2)), inputs, *sizes)),
        _values(draw, (outputs, inputs // groups, *kernel)),
        _values(draw, (outputs,)) if draw(st.booleans()) else None,
        {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups, "padding_mode": modes},
    )


@st.composite
def conv_transpose_cases(draw: Draw, max_dims: int = 5) -> Case:
    """Valid calls of a transposed convolution with zero padding."""
    n = draw(_ranks(max_dims))
    kernel = _axes(draw, n, 1, 4 if n < 3 else 3 if n < 5 else 2)
    stride, dilation = _axes(draw, n, 1, 3), _axes(draw, n, 1, 3 if n < 4 else 2)
    sizes, padding, extra = [], [], []
    for k, s, d in zip(kernel, stride, dilation, strict=True):
        size, more = draw(st.integers(1, _MAX_SIDE[n])), draw(st.integers(0, max(s, d) - 1))
        spare = min((size - 1) * s + d * (k - 1) + more, 4)
        before = draw(st.integers(0, spare))
        padding.append((before, draw(st.integers(0, spare - before))))
        sizes.append(size)
        extra.append(more)
    groups = draw(st.integers(1, 3))
    inputs, outputs = groups * draw(st.integers(1, 2)), groups * draw(st.integers(1, 2))
    return Case(
        _values(draw, (draw(st.integers(1, 2)), inputs, *sizes)),
        _values(draw, (inputs, outputs // groups, *kernel)),
        _values(draw, (outputs,)) if draw(st.booleans()) else None,
        {
            "stride": stride,
            "padding": tuple(padding),
            "output_padding": tuple(extra),
            "groups": groups,
            "dilation": dilation,
        },
    )


@st.composite
def pool_cases(draw: Draw, max_dims: int = 5, average: bool = False) -> Case:
    """Valid calls of maximum pooling, or of average pooling."""
    n = draw(_ranks(max_dims))
    kernel, stride = _axes(draw, n, 1, 3), _axes(draw, n, 1, 3)
    dilation = (1,) * n if average else _axes(draw, n, 1, 2)
    extents = tuple(d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True))
    padding = tuple(draw(st.integers(0, k // 2)) for k in kernel)
    sizes = []
    for e, p, d in zip(extents, padding, dilation, strict=True):
        low = max(d, e - 2 * p)  # an axis shorter than the dilation can fall between the taps
        sizes.append(draw(st.integers(low, max(low, _MAX_SIDE[n]))))
    kwargs: dict[str, Any] = {"kernel_size": kernel, "stride": stride, "padding": padding}
    if average:
        kwargs["ceil_mode"] = draw(st.booleans())
        kwargs["count_include_pad"] = draw(st.booleans())
        kwargs["divisor_override"] = draw(st.none() | st.integers(1, 7))
    else:
        kwargs["dilation"] = dilation
        kwargs["ceil_mode"] = draw(st.booleans())
    shape = (draw(st.integers(1, 2)), draw(st.integers(1, 2)), *sizes)
    return Case(_values(draw, shape), kwargs=kwargs)


@st.composite
def pad_cases(draw: Draw, max_dims: int = 5) -> Case:
    """Valid calls of padding: ``pad`` is flat in torch's order, last axis first."""
    sizes = draw(spatial_shapes(max_dims))
    mode = draw(st.sampled_from(("constant", "circular", "replicate", "reflect")))
    limit = {"constant": 3, "replicate": 3, "circular": 0, "reflect": -1}[mode]
    amounts = []
    for size in reversed(sizes):
        most = limit if limit > 0 else size + limit
        amounts += [draw(st.integers(0, min(most, 3))), draw(st.integers(0, min(most, 3)))]
    return Case(_values(draw, (1, 2, *sizes)), kwargs={"pad": tuple(amounts), "mode": mode})


@st.composite
def interpolate_cases(draw: Draw, max_dims: int = 5) -> Case:
    """Valid calls of resampling, by size or by factors that are exact in binary."""
    sizes = draw(spatial_shapes(max_dims))
    mode = draw(st.sampled_from(("nearest", "nearest-exact", "linear", "cubic", "area")))
    kwargs: dict[str, Any] = {"mode": mode}
    if draw(st.booleans()):
        kwargs["size"] = _axes(draw, len(sizes), 1, _MAX_SIDE[len(sizes)] + 1)
    else:
        factors = [st.sampled_from((1.0, 2.0, 0.5, 1.5) if s > 1 else (1.0, 2.0, 1.5)) for s in sizes]
        kwargs["scale_factor"] = tuple(draw(f) for f in factors)
    if mode in ("linear", "cubic"):
        kwargs["align_corners"] = draw(st.booleans())
    return Case(_values(draw, (1, 2, *sizes)), kwargs=kwargs)
