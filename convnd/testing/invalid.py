"""Calls that an implementation must refuse, each with the reason.

    @given(invalid_conv_cases())
    def test_bad_calls_are_refused(drawn):
        case, reason = drawn
        with pytest.raises(ValueError):
            call(conv, case)        # reason says why, for the message of a failure

Each is a valid case with one thing broken, so it shrinks to the simplest call with that error.
"""

from typing import Any

import numpy as np
from hypothesis import strategies as st

from ._draw import Draw
from .cases import Case
from .strategies import conv_cases, conv_transpose_cases, pool_cases

_CONV_FAULTS = (
    "input has an axis too many",
    "input has a channel too many",
    "groups does not divide the channels",
    "groups is zero",
    "bias has an entry too many",
    "stride is zero",
    "dilation is zero",
    "padding is negative",
)
_KERNEL_TOO_LONG = "kernel is longer than the padded input"
_TRANSPOSE_FAULTS = ("output_padding is too large", "padding leaves nothing")
_POOL_FAULTS = (
    "kernel_size has entries too many",
    "kernel_size is zero",
    "stride is zero",
    "padding is negative",
    "padding is more than half of kernel_size",
    _KERNEL_TOO_LONG,
)


@st.composite
def invalid_conv_cases(draw: Draw, transposed: bool = False, **keywords: Any) -> tuple[Case, str]:
    """An invalid call of a convolution, or a transposed one, and the reason why it must be refused.

    Keywords are those of :func:`conv_cases` or :func:`conv_transpose_cases`, for the case before breaking it.
    """
    faults = _CONV_FAULTS + (_TRANSPOSE_FAULTS if transposed else (_KERNEL_TOO_LONG,))
    reason = draw(st.sampled_from(faults))
    case = draw(conv_transpose_cases(**keywords) if transposed else conv_cases(**keywords))
    axis = draw(st.integers(0, case.spatial_dims - 1))
    name = reason.split()[0]
    if reason.endswith("is zero"):
        value = 0 if name == "groups" else _changed(case, name, axis, 0)
        return case.replace(**{name: value}), reason
    if reason == "padding is negative":
        return case.replace(padding=_with_entry(case.padding_pairs, axis, (-1, 0))), reason
    return _with_broken_operands(case, reason, axis), reason


def _with_broken_operands(case: Case, reason: str, axis: int) -> Case:
    weight, x = case.weight, case.input
    assert weight is not None
    if reason == "input has an axis too many":
        return case.replace(input=x[None])
    if reason == "input has a channel too many":
        return case.replace(input=np.concatenate([x, x[:, :1]], axis=1))
    if reason == "groups does not divide the channels":
        rows = np.concatenate([weight[:1]] * 3)  # output channels, or input channels if transposed
        inputs = 3 if case.operator == "conv_transpose" else 2 * weight.shape[1]
        x = np.concatenate([x[:, :1]] * inputs, axis=1)
        return case.replace(input=x, weight=rows, bias=None, groups=2)
    if reason == "bias has an entry too many":
        groups = case.kwargs["groups"] if case.operator == "conv_transpose" else 1
        outputs = weight.shape[1] * groups if case.operator == "conv_transpose" else len(weight)
        return case.replace(bias=np.ones(outputs + 1))
    if reason == _KERNEL_TOO_LONG:
        missing = x.shape[2 + axis] + sum(case.padding_pairs[axis]) + 1 - weight.shape[2 + axis]
        widths = [(0, missing if i == 2 + axis else 0) for i in range(weight.ndim)]
        return case.replace(weight=np.pad(weight, widths, "edge"))
    if reason == "output_padding is too large":
        limit = max(case.per_axis("stride")[axis], case.per_axis("dilation")[axis])
        return case.replace(output_padding=_changed(case, "output_padding", axis, limit))
    assert reason == "padding leaves nothing", reason
    size, k, s, d, e = (
        x.shape[2 + axis], weight.shape[2 + axis],
        *(case.per_axis(name)[axis] for name in ("stride", "dilation", "output_padding")),
    )  # fmt: skip
    pads = ((size - 1) * s + d * (k - 1) + 1 + e, 0)
    return case.replace(padding=_with_entry(case.padding_pairs, axis, pads))


@st.composite
def invalid_pool_cases(draw: Draw, average: bool = False, **keywords: Any) -> tuple[Case, str]:
    """An invalid call of a pool, and the reason; keywords are those of :func:`pool_cases`."""
    extra = ("divisor_override is zero",) if average else ("dilation is zero",)
    reason = draw(st.sampled_from(_POOL_FAULTS + extra))
    case = draw(pool_cases(average=average, **keywords))
    axis = draw(st.integers(0, case.spatial_dims - 1))
    kernel = case.per_axis("kernel_size")
    if reason == "kernel_size has entries too many":
        return case.replace(kernel_size=(*kernel, 1, 1)), reason
    if reason == "divisor_override is zero":
        return case.replace(divisor_override=0), reason
    if reason == "padding is negative":
        return case.replace(padding=_changed(case, "padding", axis, -1)), reason
    if reason == "padding is more than half of kernel_size":
        return case.replace(padding=_changed(case, "padding", axis, kernel[axis] // 2 + 1)), reason
    if reason == _KERNEL_TOO_LONG:
        # ceil_mode also allows windows that reach past the end by less than a stride
        length = case.input.shape[2 + axis] + 2 * case.per_axis("padding")[axis]
        longer = _changed(case, "kernel_size", axis, length + case.per_axis("stride")[axis])
        return case.replace(kernel_size=longer), reason
    name = reason.split()[0]
    return case.replace(**{name: _changed(case, name, axis, 0)}), reason


def _changed(case: Case, name: str, axis: int, value: int) -> tuple[Any, ...]:
    return _with_entry(case.per_axis(name), axis, value)


def _with_entry(values: tuple[Any, ...], axis: int, value: Any) -> tuple[Any, ...]:
    return (*values[:axis], value, *values[axis + 1 :])
