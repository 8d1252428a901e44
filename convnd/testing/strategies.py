"""Hypothesis strategies that draw a valid input together with its arguments.

Every strategy covers 1 to 5 spatial axes (``min_dims`` to ``max_dims``, at most 6, or one of ``dims``)
with bounded sizes and shrinks towards one axis, size one, neutral arguments and simple values. Values
are small integers, exact in every floating-point type, so implementations can be compared without a
tolerance; ``elements="floats"`` draws real numbers, and ``nonfinite=True`` also puts NaN and infinities
into the input.
"""

from collections.abc import Collection
from typing import Any

from hypothesis import strategies as st

from ._draw import MAX_SIDE, Draw, axes, axes_or_ones, paddings, pair, ranks, values
from .cases import Array, Case

_MODES = ("zeros", "circular", "replicate", "reflect")


@st.composite
def spatial_shapes(
    draw: Draw,
    max_dims: int = 5,
    min_side: int = 1,
    max_side: int | None = None,
    *,
    min_dims: int = 1,
    dims: Collection[int] | None = None,
) -> tuple[int, ...]:
    """Sizes of ``min_dims`` to ``max_dims`` spatial axes; the more axes, the smaller."""
    n = draw(ranks(min_dims, max_dims, dims))
    return axes(draw, n, min_side, max(min_side, max_side or MAX_SIDE[n]))


def _weight_and_bias(
    draw: Draw, kernel: tuple[int, ...], groups: bool, bias: bool, elements: str, transposed: bool
) -> tuple[int, int, Array, Array | None]:
    """Number of groups, input channels, weight and bias."""
    count = draw(st.integers(1, 3)) if groups else 1
    inputs, outputs = count * draw(st.integers(1, 2)), count * draw(st.integers(1, 2))
    rows, columns = (inputs, outputs // count) if transposed else (outputs, inputs // count)
    weight = values(draw, (rows, columns, *kernel), elements)
    has_bias = bias and draw(st.booleans())
    return count, inputs, weight, values(draw, (outputs,), elements) if has_bias else None


def _kernels(draw: Draw, n: int) -> tuple[int, ...]:
    return axes(draw, n, 1, 4 if n < 3 else 3 if n < 5 else 2)


@st.composite
def conv_cases(
    draw: Draw,
    max_dims: int = 5,
    padding_modes: bool = True,
    *,
    min_dims: int = 1,
    dims: Collection[int] | None = None,
    stride: bool = True,
    padding: str = "asymmetric",
    dilation: bool = True,
    groups: bool = True,
    bias: bool = True,
    elements: str = "integers",
    nonfinite: bool = False,
) -> Case:
    """Valid calls of a convolution.

    ``padding`` is one (before, after) pair per axis when ``"asymmetric"``, one int per axis when
    ``"symmetric"``, and zeros when ``"none"``. An argument that is switched off is always neutral.
    """
    n = draw(ranks(min_dims, max_dims, dims))
    kernel, strides = _kernels(draw, n), axes_or_ones(draw, n, 3, stride)
    dilations = axes_or_ones(draw, n, 2, dilation)
    pads = paddings(draw, (4,) * n, padding, most=2)
    modes = draw(st.tuples(*[st.sampled_from(_MODES)] * n)) if padding_modes else ("zeros",) * n
    sizes = []
    for k, d, ends, mode in zip(kernel, dilations, map(pair, pads), modes, strict=True):
        supply = {"reflect": max(ends) + 1, "circular": max(ends)}.get(mode, 1)
        low = max(1, d * (k - 1) + 1 - sum(ends), supply)
        sizes.append(draw(st.integers(low, max(low, MAX_SIDE[n]))))
    count, inputs, weight, offset = _weight_and_bias(draw, kernel, groups, bias, elements, False)
    x = values(draw, (draw(st.integers(1, 2)), inputs, *sizes), elements, nonfinite)
    kwargs = {"stride": strides, "padding": pads, "dilation": dilations, "groups": count}
    return Case(x, weight, offset, {**kwargs, "padding_mode": modes})


@st.composite
def conv_transpose_cases(
    draw: Draw,
    max_dims: int = 5,
    *,
    min_dims: int = 1,
    dims: Collection[int] | None = None,
    stride: bool = True,
    padding: str = "asymmetric",
    output_padding: bool = True,
    dilation: bool = True,
    groups: bool = True,
    bias: bool = True,
    elements: str = "integers",
    nonfinite: bool = False,
) -> Case:
    """Valid calls of a transposed convolution with zero padding; keywords as in :func:`conv_cases`."""
    n = draw(ranks(min_dims, max_dims, dims))
    kernel, strides = _kernels(draw, n), axes_or_ones(draw, n, 3, stride)
    dilations = axes_or_ones(draw, n, 3 if n < 4 else 2, dilation)
    sizes, extra, spare = [], [], []
    for k, s, d in zip(kernel, strides, dilations, strict=True):
        size = draw(st.integers(1, MAX_SIDE[n]))
        more = draw(st.integers(0, max(s, d) - 1)) if output_padding else 0
        sizes.append(size)
        extra.append(more)
        spare.append(min((size - 1) * s + d * (k - 1) + more, 4))
    pads = paddings(draw, spare, padding)
    count, inputs, weight, offset = _weight_and_bias(draw, kernel, groups, bias, elements, True)
    x = values(draw, (draw(st.integers(1, 2)), inputs, *sizes), elements, nonfinite)
    kwargs = {"stride": strides, "padding": pads, "output_padding": tuple(extra), "groups": count}
    return Case(x, weight, offset, {**kwargs, "dilation": dilations}, "conv_transpose")


@st.composite
def pool_cases(
    draw: Draw,
    max_dims: int = 5,
    average: bool = False,
    *,
    min_dims: int = 1,
    dims: Collection[int] | None = None,
    stride: bool = True,
    padding: str = "symmetric",
    dilation: bool = True,
    ceil_mode: bool = True,
    count_include_pad: bool = True,
    divisor_override: bool = True,
    elements: str = "integers",
    nonfinite: bool = False,
) -> Case:
    """Valid calls of maximum pooling, or of average pooling; ``padding`` is one int per axis.

    If switched off, ``stride`` and ``dilation`` are 1, ``padding`` (``"none"``) is 0, ``ceil_mode`` is False,
    ``count_include_pad`` is True and ``divisor_override`` is None.
    """
    if padding not in ("symmetric", "none"):
        raise ValueError(f"padding of a pool must be 'symmetric' or 'none', got {padding!r}")
    n = draw(ranks(min_dims, max_dims, dims))
    kernel, strides = axes(draw, n, 1, 3), axes_or_ones(draw, n, 3, stride)
    dilations = axes_or_ones(draw, n, 2, dilation and not average)
    pads = tuple(draw(st.integers(0, k // 2)) if padding != "none" else 0 for k in kernel)
    sizes = []
    for k, p, d in zip(kernel, pads, dilations, strict=True):
        low = max(d, d * (k - 1) + 1 - 2 * p)  # an axis shorter than the dilation can fall between the taps
        sizes.append(draw(st.integers(low, max(low, MAX_SIDE[n]))))
    kwargs: dict[str, Any] = {"kernel_size": kernel, "stride": strides, "padding": pads}
    kwargs |= {} if average else {"dilation": dilations}
    kwargs["ceil_mode"] = ceil_mode and draw(st.booleans())
    if average:
        # Shrinking goes towards False; the plain case is a count that includes the padding.
        kwargs["count_include_pad"] = not (count_include_pad and draw(st.booleans()))
        kwargs["divisor_override"] = draw(st.none() | st.integers(1, 7)) if divisor_override else None
    shape = (draw(st.integers(1, 2)), draw(st.integers(1, 2)), *sizes)
    x = values(draw, shape, elements, nonfinite)
    return Case(x, kwargs=kwargs, operator="avg_pool" if average else "max_pool")


@st.composite
def pad_cases(
    draw: Draw,
    max_dims: int = 5,
    *,
    min_dims: int = 1,
    dims: Collection[int] | None = None,
    crops: bool = True,
) -> Case:
    """Valid calls of padding: ``pad`` is flat in torch's order, last axis first; negative amounts crop."""
    sizes = draw(spatial_shapes(max_dims, min_dims=min_dims, dims=dims))
    mode = draw(st.sampled_from(("constant", "circular", "replicate", "reflect")))
    amounts = []
    for size in reversed(sizes):
        most = min({"circular": size, "reflect": size - 1}.get(mode, 3), 3)
        before = draw(st.integers(-min(size - 1, 3) if crops else 0, most))
        least = -min(size - 1 + min(before, 0), 3)  # at least one entry is left
        amounts += [before, draw(st.integers(least if crops else 0, most))]
    kwargs = {"pad": tuple(amounts), "mode": mode}
    return Case(values(draw, (1, 2, *sizes)), kwargs=kwargs, operator="pad")


@st.composite
def interpolate_cases(
    draw: Draw, max_dims: int = 5, *, min_dims: int = 1, dims: Collection[int] | None = None
) -> Case:
    """Valid calls of resampling, by size or by factors, some of which keep or double a size by rounding."""
    sizes = draw(spatial_shapes(max_dims, min_dims=min_dims, dims=dims))
    mode = draw(st.sampled_from(("nearest", "nearest-exact", "linear", "cubic", "area")))
    kwargs: dict[str, Any] = {"mode": mode}
    if draw(st.booleans()):
        kwargs["size"] = axes(draw, len(sizes), 1, MAX_SIDE[len(sizes)] + 1)
    else:
        factors = [st.sampled_from((1.0, 2.0, 1.5, 1.3, 2.1, 0.5, 0.7)[: 7 if s > 1 else 5]) for s in sizes]
        kwargs["scale_factor"] = tuple(draw(f) for f in factors)
    if mode in ("linear", "cubic"):
        kwargs["align_corners"] = draw(st.booleans())
    return Case(values(draw, (1, 2, *sizes)), kwargs=kwargs, operator="interpolate")
