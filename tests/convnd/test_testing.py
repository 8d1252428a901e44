"""The testing kit: it accepts what is right, and finds, shrinks and shows what is wrong."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as TF
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st
from torch import Tensor

import convnd.functional as F
from convnd.testing import (
    Case,
    Counterexample,
    array_code,
    call,
    check_conv,
    check_conv_transpose,
    check_pool,
    conv_cases,
    conv_transpose_cases,
    invalid_conv_cases,
    invalid_pool_cases,
    laws,
    pool_cases,
    reference,
    spatial_shapes,
    torch_on_arrays,
)

CONV = {1: torch.conv1d, 2: torch.conv2d, 3: torch.conv3d}
TRANSPOSE = {1: torch.conv_transpose1d, 2: torch.conv_transpose2d, 3: torch.conv_transpose3d}
MAX = {1: TF.max_pool1d, 2: TF.max_pool2d, 3: TF.max_pool3d}


def conv(x: Tensor, *args: Any) -> Tensor:
    return CONV[x.ndim - 2](x, *args)


def transpose(x: Tensor, *args: Any) -> Tensor:
    return TRANSPOSE[x.ndim - 2](x, *args)


def max_pool(x: Tensor, *args: Any) -> Tensor:
    return MAX[x.ndim - 2](x, *args)


def avg_pool(x: Tensor, *args: Any) -> Tensor:
    return F.avg_pool(x, *args)


# --- right implementations pass -----------------------------------------------------------------------


def test_convnd_is_right_on_one_to_five_axes() -> None:
    check_conv(F.conv, array="torch", padding="asymmetric", padding_modes=True, max_examples=60)
    check_conv_transpose(F.conv_transpose, array="torch", padding="asymmetric", max_examples=60)
    check_pool(F.max_pool, array="torch", max_examples=60)
    check_pool(F.max_pool, array="torch", nonfinite=True, laws=False, max_examples=60)
    check_pool(F.avg_pool, "avg", array="torch", max_examples=60)


def test_convnd_is_right_on_six_axes() -> None:
    six: dict[str, Any] = {"dims": (6,), "array": "torch", "max_examples": 15}
    check_conv(F.conv, padding="asymmetric", padding_modes=True, **six)
    check_conv_transpose(F.conv_transpose, padding="asymmetric", **six)
    check_pool(F.max_pool, **six)
    check_pool(F.avg_pool, "avg", **six)


def test_torch_is_right_on_one_to_three_axes() -> None:
    check_conv(conv, array="torch", max_dims=3, max_examples=60)
    check_conv_transpose(transpose, array="torch", max_dims=3, max_examples=60)
    check_pool(max_pool, array="torch", max_dims=3, max_examples=60)
    check_pool(TF.avg_pool2d, "avg", array="torch", dims=(2,), max_examples=60)
    check_pool(TF.avg_pool1d, "avg", array="torch", dims=(1,), divisor_override=False, max_examples=60)


def test_numpy_callables_that_know_few_arguments_are_right() -> None:
    def valid_conv(x: Any, weight: Any, bias: Any) -> Any:
        windows = np.lib.stride_tricks.sliding_window_view(x, weight.shape[2:], axis=(2, 3))
        return np.einsum("nchwij,ocij->nohw", windows, weight) + (0 if bias is None else bias[:, None, None])

    def means(x: Any, kernel_size: Any, stride: Any) -> Any:
        windows = np.lib.stride_tricks.sliding_window_view(x, kernel_size, axis=(2, 3))
        return windows[:, :, :: stride[0], :: stride[1]].mean((-1, -2))

    check_conv(valid_conv, dims=(2,), stride=False, padding="none", dilation=False, groups=False)
    off: dict[str, Any] = {"ceil_mode": False, "count_include_pad": False, "divisor_override": False}
    check_pool(means, "avg", dims=(2,), padding="none", **off)


def test_laws_with_an_adjoint_of_ones_own() -> None:
    back = torch_on_arrays(F.conv_transpose)

    @given(conv_cases(max_dims=3))
    @settings(max_examples=40)
    def law_holds(case: Case) -> None:
        laws.adjointness(torch_on_arrays(F.conv), case, adjoint=back)

    law_holds()


# --- wrong implementations do not ---------------------------------------------------------------------


def flipped_kernel(x: Tensor, w: Tensor, *args: Any) -> Tensor:
    return conv(x, w.flip(*range(2, w.ndim)), *args)


def padding_off_by_one(x: Tensor, w: Tensor, b: Any, s: Any, p: Any, *args: Any) -> Tensor:
    return conv(x, w, b, s, tuple(q + 1 for q in p), *args)


def swapped_axes(x: Tensor, w: Tensor, b: Any, s: Any, *args: Any) -> Tensor:
    return conv(x, w, b, s[::-1], *args)


def ignored_dilation(x: Tensor, w: Tensor, b: Any, s: Any, p: Any, d: Any, g: int) -> Tensor:
    return conv(x, w, b, s, p, 1, g)


def ignored_dilation_of_last_axis(x: Tensor, w: Tensor, b: Any, s: Any, p: Any, d: Any, g: int) -> Tensor:
    return conv(x, w, b, s, p, (*d[:-1], 1), g)


def bias_twice(x: Tensor, w: Tensor, b: Any, *args: Any) -> Tensor:
    return conv(x, w, None if b is None else 2 * b, *args)


def wrong_group_order(x: Tensor, w: Tensor, b: Any, s: Any, p: Any, d: Any, g: int) -> Tensor:
    mixed = x.unflatten(1, (-1, g)).transpose(1, 2).flatten(1, 2)
    return conv(mixed, w, b, s, p, d, g)


def ignored_stride(x: Tensor, w: Tensor, b: Any, s: Any, *args: Any) -> Tensor:
    return conv(x, w, b, 1, *args)


def clipped_values(x: Tensor, w: Tensor, *args: Any) -> Tensor:
    return conv(x.clamp(min=0), w, *args)


def squared_weight(x: Tensor, w: Tensor, *args: Any) -> Tensor:
    return conv(x, w * w, *args)


def first_output_is_lost(x: Tensor, w: Tensor, *args: Any) -> Tensor:
    out = conv(x, w, *args)
    out[..., 0] = 0
    return out


def output_padding_before(x: Tensor, w: Tensor, b: Any, s: Any, p: Any, e: Any, g: int, d: Any) -> Tensor:
    full = transpose(x, w, None, s, 0, 0, g, d)
    for axis, (before, more) in enumerate(zip(p, e, strict=True), start=2):
        widths = [0, 0] * (full.ndim - axis - 1) + [more, 0]
        full = TF.pad(full, widths).narrow(axis, before, full.shape[axis] + more - 2 * before)
    return full if b is None else full + b.view(-1, *[1] * (x.ndim - 2))


def ignored_output_padding(x: Tensor, w: Tensor, b: Any, s: Any, p: Any, e: Any, *args: Any) -> Tensor:
    return transpose(x, w, b, s, p, 0, *args)


def flipped_transpose(x: Tensor, w: Tensor, *args: Any) -> Tensor:
    return transpose(x, w.flip(2), *args)


def transpose_bias_twice(x: Tensor, w: Tensor, b: Any, *args: Any) -> Tensor:
    return transpose(x, w, None if b is None else 2 * b, *args)


def zero_padded_max(x: Tensor, k: Any, s: Any, p: Any, *args: Any) -> Tensor:
    return max_pool(TF.pad(x, [q for q in reversed(p) for _ in "ab"]), k, s, 0, *args)


def largest_magnitude(x: Tensor, *args: Any) -> Tensor:
    return max_pool(x.abs(), *args)


def minimum(x: Tensor, *args: Any) -> Tensor:
    return -max_pool(-x, *args)


def pool_dilation_ignored(x: Tensor, k: Any, s: Any, p: Any, d: Any, ceil: bool) -> Tensor:
    return max_pool(x, k, s, p, 1, ceil)


def padding_always_counted(x: Tensor, k: Any, s: Any, p: Any, c: bool, count: bool, div: Any) -> Tensor:
    return avg_pool(x, k, s, p, c, True, div)


def padding_never_counted(x: Tensor, k: Any, s: Any, p: Any, c: bool, count: bool, div: Any) -> Tensor:
    return avg_pool(x, k, s, p, c, False, div)


def pool_stride_ignored(x: Tensor, k: Any, s: Any, *args: Any) -> Tensor:
    return avg_pool(x, k, 1, *args)


def pool_axes_swapped(x: Tensor, k: Any, *args: Any) -> Tensor:
    return avg_pool(x, k[::-1], *args)


# Each mutant with all the laws that catch it; the reference catches every one.
MUTANTS: list[tuple[str, Callable[..., Tensor], str]] = [
    ("conv", flipped_kernel, "adjointness"),
    ("conv", padding_off_by_one, "size_one_axis separable adjointness"),
    ("conv", swapped_axes, "size_one_axis translation separable strided adjointness"),
    ("conv", ignored_dilation, "adjointness"),
    ("conv", ignored_dilation_of_last_axis, "size_one_axis permuted_axes adjointness"),
    ("conv", bias_twice, "bias_added_once"),
    ("conv", wrong_group_order, "adjointness"),
    ("conv", ignored_stride, "translation strided adjointness"),
    ("conv", clipped_values, "linear_in_input separable adjointness"),
    ("conv", squared_weight, "linear_in_weight adjointness"),
    (
        "conv",
        first_output_is_lost,
        "size_one_axis permuted_axes bias_added_once translation separable adjointness",
    ),
    ("conv_transpose", output_padding_before, "zero_stuffed adjointness"),
    ("conv_transpose", ignored_output_padding, "zero_stuffed adjointness"),
    ("conv_transpose", flipped_transpose, "size_one_axis permuted_axes adjointness"),
    ("conv_transpose", transpose_bias_twice, "bias_added_once"),
    ("max_pool", zero_padded_max, "constant adds_constant"),
    ("max_pool", largest_magnitude, "constant adds_constant monotone"),
    ("max_pool", minimum, ""),
    ("max_pool", pool_dilation_ignored, ""),
    ("avg_pool", padding_always_counted, "constant"),
    ("avg_pool", padding_never_counted, ""),
    ("avg_pool", pool_stride_ignored, "strided"),
    ("avg_pool", pool_axes_swapped, "size_one_axis permuted_axes strided constant linear_in_input"),
]
_IDS = [fn.__name__ for _, fn, _ in MUTANTS]


def check(operator: str, fn: Any, **keywords: Any) -> None:
    keywords = {"array": "torch", "max_dims": 2, **keywords}
    if operator == "conv":
        check_conv(fn, **keywords)
    elif operator == "conv_transpose":
        check_conv_transpose(fn, **keywords)
    else:
        check_pool(fn, operator[:3], **keywords)


@pytest.mark.parametrize(("operator", "fn", "catching"), MUTANTS, ids=_IDS)
def test_a_wrong_implementation_is_found_and_shrunk(operator: str, fn: Any, catching: str) -> None:
    with pytest.raises(Counterexample) as caught:
        check(operator, fn)
    error, message = caught.value, str(caught.value)
    assert error.case.input.size <= 8
    assert f"{fn.__name__} is not a correct {operator}" in message
    assert "    input = np.array([[[" in message
    assert "expected np.array(" in message
    assert len(message.splitlines()) < 16
    if fn is not ignored_output_padding:  # whose output can be empty: then torch raises in any law
        assert set(error.laws) <= set(catching.split())


_CAUGHT = [(op, fn, law) for op, fn, catching in MUTANTS for law in catching.split()]


@pytest.mark.parametrize(("operator", "fn", "law"), _CAUGHT, ids=[f"{f.__name__}-{w}" for _, f, w in _CAUGHT])
def test_the_law_alone_catches_it(operator: str, fn: Any, law: str) -> None:
    with pytest.raises(Counterexample, match=law) as caught:
        check(operator, fn, reference=False, laws=[law], max_examples=500)  # which it seldom takes
    assert caught.value.laws == (law,)
    assert caught.value.case.input.size <= 8


@pytest.mark.parametrize(("operator", "fn", "catching"), MUTANTS, ids=_IDS)
def test_the_other_laws_do_not_catch_it(operator: str, fn: Any, catching: str) -> None:
    if fn is not ignored_output_padding:
        others = {law.__name__ for law in laws.LAWS[operator]} - set(catching.split())
        check(operator, fn, reference=False, laws=others, max_examples=40)


def test_an_error_a_wrong_rank_and_a_written_input_are_counterexamples() -> None:
    def raising(*args: Any) -> Any:
        raise IndexError("no such axis")

    def flat(x: Any, *args: Any) -> Any:
        return x.ravel()

    def writing(x: Any, *args: Any) -> Any:
        x += 1
        return x

    for fn, pattern in [(raising, "IndexError: no such axis"), (flat, "shape"), (writing, "writes to its")]:
        with pytest.raises(Counterexample, match=pattern):
            check_conv(fn, max_dims=2, max_examples=10)
    with pytest.raises(Counterexample, match="breaks the law"):
        check_conv(flat, max_dims=2, max_examples=10, reference=False)


def test_misspelt_options_are_refused() -> None:
    for check_call, pattern in [
        (lambda: check_conv(conv, laws=["linearity"]), "laws of conv are"),
        (lambda: check_conv(conv, array="jax"), "array must be"),
        (lambda: check_conv(conv, padding="same"), "padding must be one of"),
        (lambda: check_pool(conv, "median"), "kind must be"),
        (lambda: check_conv(conv, max_dims=7), "must be from 1 to 6"),
        (lambda: check_conv(conv, min_dims=4, max_dims=3), "min_dims must be at most"),
    ]:
        with pytest.raises(ValueError, match=pattern):
            check_call()


# --- strategies ---------------------------------------------------------------------------------------

_NO_SHRINK = settings(phases=[Phase.generate], database=None)


@given(conv_cases(max_dims=6), conv_transpose_cases(max_dims=6), pool_cases(max_dims=6))
@settings(max_examples=40)
def test_drawn_cases_are_valid_on_one_to_six_axes(conv: Case, back: Case, pool: Case) -> None:
    for case in (conv, back, pool):
        weight, groups = case.weight, case.kwargs.get("groups", 1)
        kernel = case.per_axis("kernel_size") if weight is None else weight.shape[2:]
        strides, dilations = case.per_axis("stride"), case.per_axis("dilation")
        assert 1 <= case.spatial_dims <= 6
        assert np.array_equal(case.input, np.round(case.input).clip(-4, 4))
        spans = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
        sizes, pads = case.input.shape[2:], case.padding_pairs
        if case.operator == "conv_transpose":
            extra = case.per_axis("output_padding")
            full = [(n - 1) * s + r + e for n, s, r, e in zip(sizes, strides, spans, extra, strict=True)]
            assert all(n > sum(p) for n, p in zip(full, pads, strict=True))
            assert all(e < max(s, d) for e, s, d in zip(extra, strides, dilations, strict=True))
        else:
            assert all(n + sum(p) >= r for n, p, r in zip(sizes, pads, spans, strict=True))
        if weight is not None:
            rows = weight.shape[0] if case.operator == "conv_transpose" else weight.shape[1] * groups
            assert case.input.shape[1] == rows
            assert weight.shape[0] % groups == 0


@given(conv_cases(dims=(2, 4), stride=False, padding="none", dilation=False, groups=False, bias=False))
def test_what_is_switched_off_is_neutral(case: Case) -> None:
    n = case.spatial_dims
    assert n in (2, 4)
    assert case.bias is None
    neutral = {"stride": (1,) * n, "padding": (0,) * n, "dilation": (1,) * n, "groups": 1}
    assert {name: case.kwargs[name] for name in neutral} == neutral


@given(conv_cases(padding="symmetric", min_dims=3, max_dims=3, elements="floats", nonfinite=True))
@_NO_SHRINK
def test_symmetric_padding_and_nonfinite_input(case: Case) -> None:
    assert case.spatial_dims == 3
    assert all(isinstance(p, int) for p in case.kwargs["padding"])
    assert not np.isfinite(case.input).all()


def test_floats_are_drawn_on_request() -> None:
    case = find(conv_cases(elements="floats"), lambda c: bool((c.input % 1 != 0).any()))
    assert np.abs(case.input).max() <= 4


@pytest.mark.parametrize(
    "cases", [conv_cases(), conv_transpose_cases(), pool_cases(), pool_cases(average=True)]
)
def test_the_simplest_case_is_one_neutral_entry(cases: st.SearchStrategy[Case]) -> None:
    case = find(cases, lambda _: True)
    assert case.input.tolist() == [[[1.0]]]
    assert case.weight is None or case.weight.tolist() == [[[1.0]]]
    assert case.bias is None
    assert all(
        v in (1, 0, None, False, True, (1,), (0,), ((0, 0),), ("zeros",)) for v in case.kwargs.values()
    )


@given(spatial_shapes(min_dims=2, max_dims=6, min_side=2, max_side=3))
def test_spatial_shapes(shape: tuple[int, ...]) -> None:
    assert 2 <= len(shape) <= 6
    assert set(shape) <= {2, 3}


@given(st.data(), st.booleans())
def test_invalid_calls_are_refused(data: st.DataObject, other: bool) -> None:
    functions = {
        "conv": F.conv, "conv_transpose": F.conv_transpose, "max_pool": F.max_pool, "avg_pool": F.avg_pool
    }  # fmt: skip
    for strategy in (invalid_conv_cases(transposed=other), invalid_pool_cases(average=other)):
        case, reason = data.draw(strategy)
        with pytest.raises((ValueError, TypeError)):
            pytest.fail(f"{reason}: {case!r} gave {call(torch_on_arrays(functions[case.operator]), case)}")


# --- how a case prints --------------------------------------------------------------------------------


@given(conv_cases(max_dims=2, nonfinite=True))
def test_repr_and_snippet_are_code(case: Case) -> None:
    if max(case.input.size, 0 if case.weight is None else case.weight.size) <= 32:
        again = eval(repr(case), {"np": np, "Case": Case})
        np.testing.assert_array_equal(again.input, case.input)
        assert again.kwargs == case.kwargs
        seen: dict[str, Any] = {}
        exec(case.snippet(), {"np": np, "conv": lambda *args, **kwargs: seen.update(kwargs, args=args)})
        np.testing.assert_array_equal(seen.pop("args")[1], case.weight)
        assert seen == case.kwargs


def test_large_arrays_print_as_shapes() -> None:
    text = repr(Case(np.zeros((1, 2, 30)), kwargs={"kernel_size": (2,)}, operator="max_pool"))
    expected = "Case(input=<array of shape (1, 2, 30)>, kwargs={'kernel_size': (2,)}, operator='max_pool')"
    assert text == expected
    assert array_code(np.array([[-np.inf, 10.0, 0.5]])) == "np.array([[-np.inf, 10., 0.5]])"
    assert array_code(np.zeros((0, 2))) == "np.zeros((0, 2))"


def test_hypothesis_prints_a_case_as_code() -> None:
    @given(conv_cases(padding_modes=False))
    @settings(database=None)
    def fails(case: Case) -> None:
        raise AssertionError

    with pytest.raises(AssertionError) as caught:
        fails()
    assert "case=Case(input=np.array([[[1.]]]), weight=np.array([[[1.]]])" in "\n".join(
        caught.value.__notes__
    )


def test_evaluate_refuses_what_has_no_reference() -> None:
    with pytest.raises(ValueError, match="operator must be"):
        reference.evaluate(Case(np.ones((1, 1, 2)), np.ones((1, 1, 1)), operator="fold"))
