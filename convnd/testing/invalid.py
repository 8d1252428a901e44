"""Calls that an implementation must refuse, each with the reason.

    @given(invalid_conv_cases())
    def test_bad_calls_are_refused(drawn):
        case, reason = drawn
        with pytest.raises(ValueError):
            call(conv, case)        # reason says why, for the message of a failure

Each is a valid case with one thing broken, so it shrinks to the simplest call with that error.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st

from ._draw import Draw
from .cases import Case
from .strategies import conv_cases, conv_transpose_cases, pool_cases

Break = Callable[[Case, int], Case]  # of a valid case and one of its axes, an invalid one


@st.composite
def invalid_conv_cases(draw: Draw, transposed: bool = False, **keywords: Any) -> tuple[Case, str]:
    """An invalid call of a convolution, or a transposed one, and the reason why it must be refused.

    Keywords are those of :func:`conv_cases` or :func:`conv_transpose_cases`, for the case before breaking it.
    """
    faults = _CONV_FAULTS | (_TRANSPOSE_FAULTS if transposed else _WINDOW_FAULTS)
    reason = draw(st.sampled_from(tuple(faults)))
    case = draw(conv_transpose_cases(**keywords) if transposed else conv_cases(**keywords))
    axis = draw(st.integers(0, case.spatial_dims - 1))
    return faults[reason](case, axis), reason


@st.composite
def invalid_pool_cases(draw: Draw, average: bool = False, **keywords: Any) -> tuple[Case, str]:
    """An invalid call of a pool, and the reason; keywords are those of :func:`pool_cases`."""
    faults = _POOL_FAULTS | (_AVERAGE_FAULTS if average else _MAXIMUM_FAULTS)
    reason = draw(st.sampled_from(tuple(faults)))
    case = draw(pool_cases(average=average, **keywords))
    axis = draw(st.integers(0, case.spatial_dims - 1))
    return faults[reason](case, axis), reason


def _zero(name: str) -> Break:
    return lambda case, axis: case.replace(**{name: _changed(case, name, axis, 0)})


def _indivisible_groups(case: Case, axis: int) -> Case:
    assert case.weight is not None
    rows = np.concatenate([case.weight[:1]] * 3)  # output channels, or input channels if transposed
    inputs = 3 if case.operator == "conv_transpose" else 2 * case.weight.shape[1]
    x = np.concatenate([case.input[:, :1]] * inputs, axis=1)
    return case.replace(input=x, weight=rows, bias=None, groups=2)


def _long_bias(case: Case, axis: int) -> Case:
    assert case.weight is not None
    transposed = case.operator == "conv_transpose"
    outputs = case.weight.shape[1] * case.kwargs["groups"] if transposed else len(case.weight)
    return case.replace(bias=np.ones(outputs + 1))


def _long_weight(case: Case, axis: int) -> Case:
    assert case.weight is not None
    size, taps = case.input.shape[2 + axis], case.weight.shape[2 + axis]
    missing = size + sum(case.padding_pairs[axis]) + 1 - taps
    widths = [(0, missing if i == 2 + axis else 0) for i in range(case.weight.ndim)]
    return case.replace(weight=np.pad(case.weight, widths, "edge"))


def _large_output_padding(case: Case, axis: int) -> Case:
    limit = max(case.per_axis("stride")[axis], case.per_axis("dilation")[axis])
    return case.replace(output_padding=_changed(case, "output_padding", axis, limit))


def _padding_of_everything(case: Case, axis: int) -> Case:
    assert case.weight is not None
    size, k = case.input.shape[2 + axis], case.weight.shape[2 + axis]
    s, d, e = (case.per_axis(name)[axis] for name in ("stride", "dilation", "output_padding"))
    pads = ((size - 1) * s + d * (k - 1) + 1 + e, 0)
    return case.replace(padding=_with_entry(case.padding_pairs, axis, pads))


def _long_window(case: Case, axis: int) -> Case:
    # ceil_mode also allows windows that reach past the end by less than a stride
    length = case.input.shape[2 + axis] + 2 * case.per_axis("padding")[axis]
    longer = _changed(case, "kernel_size", axis, length + case.per_axis("stride")[axis])
    return case.replace(kernel_size=longer)


def _large_padding(case: Case, axis: int) -> Case:
    half = case.per_axis("kernel_size")[axis] // 2
    return case.replace(padding=_changed(case, "padding", axis, half + 1))


def _changed(case: Case, name: str, axis: int, value: int) -> tuple[Any, ...]:
    return _with_entry(case.per_axis(name), axis, value)


def _with_entry(values: tuple[Any, ...], axis: int, value: Any) -> tuple[Any, ...]:
    return (*values[:axis], value, *values[axis + 1 :])


_TOO_LONG = "kernel is longer than the padded input"
_CONV_FAULTS: dict[str, Break] = {
    "input has an axis too many": lambda case, axis: case.replace(input=case.input[None]),
    "input has a channel too many": lambda case, axis: case.replace(
        input=np.concatenate([case.input, case.input[:, :1]], axis=1)
    ),
    "groups does not divide the channels": _indivisible_groups,
    "groups is zero": lambda case, axis: case.replace(groups=0),
    "bias has an entry too many": _long_bias,
    "stride is zero": _zero("stride"),
    "dilation is zero": _zero("dilation"),
    "padding is negative": lambda case, axis: case.replace(
        padding=_with_entry(case.padding_pairs, axis, (-1, 0))
    ),
}
_WINDOW_FAULTS: dict[str, Break] = {_TOO_LONG: _long_weight}
_TRANSPOSE_FAULTS: dict[str, Break] = {
    "output_padding is too large": _large_output_padding,
    "padding leaves nothing": _padding_of_everything,
}
_POOL_FAULTS: dict[str, Break] = {
    "kernel_size has entries too many": lambda case, axis: case.replace(
        kernel_size=(*case.per_axis("kernel_size"), 1, 1)
    ),
    "kernel_size is zero": _zero("kernel_size"),
    "stride is zero": _zero("stride"),
    "padding is negative": lambda case, axis: case.replace(padding=_changed(case, "padding", axis, -1)),
    "padding is more than half of kernel_size": _large_padding,
    _TOO_LONG: _long_window,
}
_MAXIMUM_FAULTS: dict[str, Break] = {"dilation is zero": _zero("dilation")}
_AVERAGE_FAULTS: dict[str, Break] = {
    "divisor_override is zero": lambda case, axis: case.replace(divisor_override=0)
}
