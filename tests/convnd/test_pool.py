"""Pooling against plain loops and torch."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import convnd.functional as F
from convnd.testing import Case, pool_cases, reference

TORCH_MAX = {
    1: torch.nn.functional.max_pool1d,
    2: torch.nn.functional.max_pool2d,
    3: torch.nn.functional.max_pool3d,
}


@given(pool_cases())
def test_max_pool_equals_plain_loops(case: Case) -> None:
    k = case.kwargs
    values, indices = F.max_pool(torch.tensor(case.input), **k, return_indices=True)
    args = k["kernel_size"], k["stride"], k["padding"], k["dilation"], k["ceil_mode"]
    expected_values, expected_indices = reference.max_pool(case.input, *args)
    np.testing.assert_array_equal(values.numpy(), expected_values)
    np.testing.assert_array_equal(indices.numpy(), expected_indices)
    assert torch.equal(F.max_pool(torch.tensor(case.input), **k), values)


@given(pool_cases())
def test_max_pool_propagates_nan_to_the_same_place(case: Case) -> None:
    x = case.input.copy()
    x[x > 2] = np.nan
    k = case.kwargs
    values, indices = F.max_pool(torch.tensor(x), **k, return_indices=True)
    args = k["kernel_size"], k["stride"], k["padding"], k["dilation"], k["ceil_mode"]
    expected_values, expected_indices = reference.max_pool(x, *args)
    np.testing.assert_array_equal(values.numpy(), expected_values)
    np.testing.assert_array_equal(indices.numpy(), expected_indices)


@given(pool_cases())
def test_max_pool_gradient_goes_to_the_winner(case: Case) -> None:
    x = torch.tensor(case.input, requires_grad=True)
    values, indices = F.max_pool(x, **case.kwargs, return_indices=True)
    direction = torch.arange(values.numel(), dtype=torch.float64).reshape(values.shape)
    (gradient,) = torch.autograd.grad(values, x, direction)
    expected = torch.zeros(*x.shape[:2], x[0, 0].numel(), dtype=torch.float64)
    expected.scatter_add_(2, indices.flatten(2), direction.flatten(2))
    assert torch.equal(gradient, expected.view(x.shape))


@given(pool_cases(average=True))
def test_avg_pool_equals_plain_loops(case: Case) -> None:
    out = F.avg_pool(torch.tensor(case.input), **case.kwargs)
    np.testing.assert_allclose(out.numpy(), reference.avg_pool(case.input, **case.kwargs), rtol=1e-12)


@given(pool_cases(), st.booleans(), st.none() | st.integers(1, 7))
def test_dilated_avg_pool_equals_plain_loops(case: Case, include: bool, divisor: int | None) -> None:
    k = case.kwargs
    out = F.avg_pool(
        torch.tensor(case.input),
        k["kernel_size"],
        k["stride"],
        k["padding"],
        k["ceil_mode"],
        include,
        divisor,
        dilation=k["dilation"],
    )
    args = k["kernel_size"], k["stride"], k["padding"], k["ceil_mode"], include, divisor, k["dilation"]
    np.testing.assert_allclose(out.numpy(), reference.avg_pool(case.input, *args), rtol=1e-12)


@given(pool_cases(), st.sampled_from([1.0, 2.0, 3.0]))
def test_lp_pool_is_the_power_sum_of_each_window(case: Case, p: float) -> None:
    k = {name: value for name, value in case.kwargs.items() if name != "ceil_mode"}
    x = torch.tensor(case.input).abs()
    taps = torch.Size(k["kernel_size"]).numel()
    mean = reference.avg_pool(
        x.numpy() ** p, k["kernel_size"], k["stride"], k["padding"], False, True, taps, k["dilation"]
    )
    kernel = k.pop("kernel_size")
    np.testing.assert_allclose(F.lp_pool(x, p, kernel, **k).numpy(), (mean * taps) ** (1 / p), rtol=1e-12)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_lp_pool_of_infinite_order(n: int) -> None:
    x = torch.randn(1, 2, *(4,) * n)
    assert torch.equal(F.lp_pool(x, float("inf"), 2), F.max_pool(x.abs(), 2))
    assert torch.equal(F.lp_pool(x, -float("inf"), 2), -F.max_pool(-x.abs(), 2))


@given(pool_cases(max_dims=6))
def test_max_unpool_puts_maxima_back(case: Case) -> None:
    """Unpooling what was pooled restores the maxima and leaves zeros, at any legal output size."""
    x = torch.tensor(case.input) + 10  # no maximum is zero
    kernel, stride = case.kwargs["kernel_size"], case.kwargs["kernel_size"]
    if any(size < k for size, k in zip(x.shape[2:], kernel, strict=True)):
        return
    values, indices = F.max_pool(x, kernel, stride, return_indices=True)
    out = F.max_unpool(values, indices, kernel, stride, output_size=x.shape)
    assert out.shape == x.shape
    assert torch.equal(out[out != 0], x[out != 0])
    assert (out != 0).sum() == values.numel()


@given(pool_cases(max_dims=3))
def test_max_pool_equals_torch(case: Case) -> None:
    x = torch.tensor(case.input)
    k = case.kwargs
    args = k["kernel_size"], k["stride"], k["padding"], k["dilation"], k["ceil_mode"]
    expected = TORCH_MAX[case.spatial_dims](x, *args, return_indices=True)
    torch.testing.assert_close(F.max_pool(x, **k, return_indices=True), expected, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_avg_pool_in_low_precision(n: int, dtype: torch.dtype) -> None:
    x = torch.randn(1, 2, *(4,) * n, generator=torch.Generator().manual_seed(0)).to(dtype)
    out = F.avg_pool(x, 2)
    assert out.dtype == dtype
    assert torch.equal(out, F.avg_pool(x.double(), 2).to(dtype))


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("function", [F.max_pool, F.avg_pool])
def test_gradcheck(function: Any, n: int) -> None:
    x = torch.randperm(2 * 4**n, generator=torch.Generator().manual_seed(0)).double().view(1, 2, *(4,) * n)
    assert torch.autograd.gradcheck(
        lambda x: function(x, 3, 2, 1), x.requires_grad_(), check_forward_ad=True, fast_mode=True
    )


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_integers_pool_as_floats_do(n: int) -> None:
    x = torch.randint(-9, 9, (1, 2, *(4,) * n))
    assert torch.equal(F.max_pool(x, 2), F.max_pool(x.double(), 2).long())


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("function", [F.max_pool, F.avg_pool])
def test_bad_input_is_refused(function: Any, n: int) -> None:
    x = torch.zeros(1, 2, *(4,) * n)
    for error, pattern, args in [
        (ValueError, "kernel_size must be at least 1, got 0", (x, 0)),
        (ValueError, "kernel_size must fit into the padded input", (x, 5)),
        (ValueError, "padding must be at most half", (x, 2, 1, 2)),
        (ValueError, "stride must be at least 1, got 0", (x, 2, 0)),
        (TypeError, "kernel_size must be an int", (x, "2")),
        (TypeError, "input must be a", (x.to(torch.complex64), 2)),
    ]:
        with pytest.raises(error, match=pattern):
            function(*args)
    with pytest.raises(ValueError, match="must agree on the number of spatial"):
        function(x, (2,) * (n + 1), spatial_dims=n)
    with pytest.raises(ValueError, match=r"input must be \(N, C"):
        function(x, 2, spatial_dims=n + 2)
    with pytest.raises(TypeError, match="input must be a floating-point"):
        F.avg_pool(x.long(), 2)
    with pytest.raises(ValueError, match="divisor_override must not be zero"):
        F.avg_pool(x, 2, divisor_override=0)
