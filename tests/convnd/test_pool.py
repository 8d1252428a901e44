"""Pooling against plain loops and torch."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from math import inf, prod
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import convnd.functional as F
from convnd._spatial import pool
from convnd._spatial import separable_pool as separable
from convnd._torch import pool as kernels
from convnd._torch.memory import channels_last
from convnd.testing import Case, pool_cases, reference

TORCH_MAX = {
    1: torch.nn.functional.max_pool1d,
    2: torch.nn.functional.max_pool2d,
    3: torch.nn.functional.max_pool3d,
}


@contextmanager
def separably() -> Iterator[None]:
    """No call too small, and no overlap of windows too little, for the separable reductions in pieces."""
    with mock.patch.multiple(pool, SMALL=1, OVERLAP=0), mock.patch.object(separable, "PIECE", 1):
        yield


def natively() -> AbstractContextManager[Any]:
    return mock.patch.object(pool, "SMALL", 1 << 62)


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


TORCH_LP = {
    1: torch.nn.functional.lp_pool1d,
    2: torch.nn.functional.lp_pool2d,
    3: torch.nn.functional.lp_pool3d,
}


@given(
    pool_cases(max_dims=3, padding="none", dilation=False), st.sampled_from([1, 2, 3, 0.5, -1, -2, inf, -inf])
)
def test_lp_pool_equals_torch_with_negative_entries(case: Case, p: float) -> None:
    """Where a root does not exist, too; of powers of two, whose sums are exact where they cancel."""
    x, k = torch.tensor(case.input), case.kwargs
    x = x.sign() * 2 ** x.abs()
    args = p, k["kernel_size"], k["stride"], k["ceil_mode"]
    single = (p, *(v[0] for v in args[1:3]), args[3]) if case.spatial_dims == 1 else args
    expected = TORCH_LP[case.spatial_dims](x, *single)
    torch.testing.assert_close(F.lp_pool(x, *args), expected, equal_nan=True)
    lifted = F.lp_pool(x.unsqueeze(2).unsqueeze(2), p, (1, 1, *args[1]), (1, 1, *args[2]), args[3])
    torch.testing.assert_close(lifted.flatten(2, 4), expected, equal_nan=True)


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


@given(st.data(), st.integers(1, 5))
def test_max_unpool_of_equal_indices_keeps_the_last(data: st.DataObject, n: int) -> None:
    sizes, places = (3, 2, *(1,) * n)[:n], prod((6, 4, *(2,) * n)[:n])
    count = prod(sizes)
    chosen = data.draw(st.lists(st.integers(0, places - 1), min_size=count, max_size=count))
    x = torch.arange(1.0, count + 1).view(1, 1, *sizes).requires_grad_()
    out = F.max_unpool(x, torch.tensor(chosen).view(x.shape), 2, spatial_dims=n)
    last = {place: entry for entry, place in enumerate(chosen)}
    expected = torch.zeros(places)
    for place, entry in last.items():
        expected[place] = entry + 1
    assert torch.equal(out.flatten(), expected)
    direction = torch.arange(1.0, places + 1)
    (gradient,) = torch.autograd.grad(out.flatten(), x, direction)
    wanted = [place + 1.0 if last[place] == entry else 0.0 for entry, place in enumerate(chosen)]
    assert gradient.flatten().tolist() == wanted


@given(pool_cases(max_dims=2, average=True))
def test_avg_pool_of_integers_equals_torch(case: Case) -> None:
    """Rounded towards zero."""
    x = (torch.tensor(case.input) * 7).long()
    out = F.avg_pool(x, **case.kwargs)
    args = {
        name: (neutral, *case.kwargs[name])
        for name, neutral in (("kernel_size", 1), ("stride", 1), ("padding", 0))
    }
    lifted = {**case.kwargs, **args}
    assert torch.equal(F.avg_pool(x.unsqueeze(2), **lifted).squeeze(2), out)
    if case.spatial_dims == 2:
        assert torch.equal(torch.nn.functional.avg_pool2d(x, **case.kwargs), out)
    else:
        assert torch.equal(torch.nn.functional.avg_pool2d(x.unsqueeze(2), **lifted).squeeze(2), out)


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
        F.avg_pool(x.int(), 2)
    with pytest.raises(ValueError, match="divisor_override must not be zero"):
        F.avg_pool(x, 2, divisor_override=0)


def in_order(kwargs: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(kwargs[name] for name in ("kernel_size", "stride", "padding", "dilation", "ceil_mode"))


DTYPES = [*separable.REDUCED]
# Ties are frequent, and so are those of the two zeros.
SPECIAL = {
    "plain": lambda x: x,
    "zeros": lambda x: torch.where(x < 0, -0.0, torch.where(x > 2, 1.0, 0.0)),
    "infinities": lambda x: torch.where(x < 0, -torch.inf, torch.where(x > 2, torch.inf, x)),
    "nan": lambda x: torch.where(x > 2, torch.nan, x),
    "negative nan": lambda x: torch.where(x > 2, -torch.tensor(torch.nan, dtype=x.dtype), x),
}


@given(pool_cases(), st.sampled_from(DTYPES), st.sampled_from(sorted(SPECIAL)))
def test_separable_max_pool_is_exactly_the_native_one(case: Case, dtype: torch.dtype, special: str) -> None:
    x = torch.tensor(case.input)
    x = SPECIAL[special](x).to(dtype) if dtype.is_floating_point else (x * 9).to(dtype)
    with natively():
        expected, expected_indices = F.max_pool(x, **case.kwargs, return_indices=True)
    with separably():
        values, indices = F.max_pool(x, **case.kwargs, return_indices=True)
        alone = F.max_pool(x, **case.kwargs)
    for result in (values, alone):
        torch.testing.assert_close(result, expected, rtol=0, atol=0, equal_nan=True)
    assert torch.equal(indices, expected_indices)
    if special != "nan" or not dtype.is_floating_point:
        assert torch.equal(torch.signbit(values), torch.signbit(expected))


@given(pool_cases(), st.sampled_from(sorted(SPECIAL)))
def test_separable_max_pool_has_the_native_derivatives(case: Case, special: str) -> None:
    x = SPECIAL[special](torch.tensor(case.input, dtype=torch.float32)).requires_grad_()
    results = []
    for path in (natively, separably):
        with path():
            values = F.max_pool(x, **case.kwargs)
        direction = torch.arange(values.numel(), dtype=x.dtype).view(values.shape).requires_grad_()
        (gradient,) = torch.autograd.grad(values, x, direction, create_graph=True)
        (second,) = torch.autograd.grad(gradient, direction, torch.arange(x.numel()).view(x.shape).to(x))
        batch = torch.stack([direction, 2 * direction]).detach()
        (batched,) = torch.autograd.grad(values, x, batch, is_grads_batched=True)
        results.append((gradient, second, batched))
    for result, expected in zip(*results, strict=True):
        assert torch.equal(result, expected)


@given(pool_cases(), st.booleans(), st.sampled_from([torch.float64, torch.float16, torch.bfloat16]))
def test_separable_avg_pool_equals_plain_loops(case: Case, include: bool, dtype: torch.dtype) -> None:
    x = torch.tensor(case.input).to(dtype)
    kernel, stride, padding, dilation, ceil_mode = in_order(case.kwargs)
    args = kernel, stride, padding, ceil_mode, include, None, dilation
    with separably():
        out = F.avg_pool(x, *args[:6], dilation=dilation)
    expected = torch.tensor(reference.avg_pool(case.input, *args)).to(dtype)
    torch.testing.assert_close(out, expected, rtol=1e-12 if dtype == torch.float64 else 0, atol=0)


GEOMETRIES: list[tuple[Any, ...]] = [
    # kernel, stride, padding, ceil_mode, dilation
    (3, 1, 1, False, 1),
    (3, 2, 1, True, 1),
    (2, 2, 0, False, 1),
    (3, 1, 0, False, 2),
]


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_separable_avg_pool_has_all_derivatives(n: int, geometry: tuple[Any, ...]) -> None:
    *args, dilation = geometry
    x = torch.randn(1, 2, *(5, 7, 5, 5)[:n], dtype=torch.float64, requires_grad=True)

    def pooled(x: torch.Tensor) -> torch.Tensor:
        return F.avg_pool(x, *args, dilation=dilation)

    with separably():
        assert "_LinearBackward" in str(pooled(x).grad_fn)
        assert torch.autograd.gradcheck(
            pooled, x, fast_mode=True, check_forward_ad=True, check_batched_grad=True
        )
        assert torch.autograd.gradgradcheck(pooled, x, fast_mode=True, check_batched_grad=True)
        # A gradient may be dual, or under vmap, though the call was not.
        y = pooled(x)
        direction = torch.randn_like(y)
        each = torch.stack([direction, 2 * direction])
        gradients = torch.func.vmap(lambda v: torch.autograd.grad(y, x, v, retain_graph=True)[0])(each)
        assert torch.equal(gradients[1], 2 * gradients[0])
        assert torch.equal(gradients[0], torch.autograd.grad(y, x, direction, retain_graph=True)[0])
        with torch.autograd.forward_ad.dual_level():
            dual = torch.autograd.forward_ad.make_dual(torch.zeros_like(y), direction)
            tangent = torch.autograd.forward_ad.unpack_dual(torch.autograd.grad(y, x, dual)[0]).tangent
        torch.testing.assert_close(tangent, torch.autograd.grad(pooled(x), x, direction)[0], rtol=0, atol=0)


@pytest.mark.parametrize("kernel", [(1, 3), (3, 1)])
def test_gradient_of_means_along_one_axis(kernel: tuple[int, int]) -> None:
    """In pieces that are left as they are along the other."""
    x = torch.randn(2, 3, 5, 7, dtype=torch.float64, requires_grad=True)
    y = torch.nn.functional.avg_pool2d(x, kernel, 1)
    direction = torch.randn_like(y)
    (expected,) = torch.autograd.grad(y, x, direction)
    with separably():
        torch.testing.assert_close(torch.autograd.grad(F.avg_pool(x, kernel, 1), x, direction)[0], expected)


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_forward_mode_with_separable_max_pool(n: int) -> None:
    x, t = torch.randn(2, 1, 2, *(5,) * n)
    with separably():
        values, indices = F.max_pool(x, 3, 1, 1, return_indices=True)
        with torch.autograd.forward_ad.dual_level():
            out = F.max_pool(torch.autograd.forward_ad.make_dual(x, t), 3, 1, 1)
            primal, tangent = torch.autograd.forward_ad.unpack_dual(out)
    expected = values, t.flatten(2).gather(2, indices.flatten(2)).view(t.shape)
    torch.testing.assert_close((primal, tangent), expected, rtol=0, atol=0)


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize("last", [False, True])
def test_large_pools_agree_with_torch_and_keep_its_memory_format(
    last: bool, n: int, geometry: tuple[Any, ...]
) -> None:
    kernel, stride, padding, ceil_mode, dilation = geometry
    x = torch.randint(-99, 99, (2, 4, *(65, 33, 5)[:n])).float()
    x = channels_last(x) if last else x
    assert x.numel() >= pool.SMALL
    args = kernel, stride, padding, dilation, ceil_mode
    expected, expected_indices = TORCH_MAX[n](x, *args, return_indices=True)
    values = F.max_pool(x, *args)
    for result in (values, *F.max_pool(x, *args, return_indices=True)):
        assert torch.equal(result, expected_indices if result.dtype == torch.int64 else expected)
        assert result.stride() == expected.stride()
    if dilation == 1:
        out = F.avg_pool(x, *args[:3], ceil_mode)
        average = (torch.nn.functional.avg_pool2d, torch.nn.functional.avg_pool3d)[n - 2]
        torch.testing.assert_close(out, average(x, *args[:3], ceil_mode))
        assert out.stride() == expected.stride()


@pytest.mark.parametrize("n", [2, 3, 4])
def test_large_pools_are_separable(n: int) -> None:
    """No kernel of torch's is asked."""
    x = torch.randn(1, 1, *(130, 130, 2, 2)[:n], requires_grad=True)
    with (
        mock.patch.multiple(kernels, max_pool=None, avg_pool=None),
        mock.patch.object(pool, "zero_pad", None),
    ):
        F.max_pool(x, 3, 1, 1).sum().backward()
        F.max_pool(x, 3, 1, 1, return_indices=True)
        F.max_pool(x.detach(), 2, 2)
        F.avg_pool(x, 3, 1, 1).sum().backward()


@pytest.mark.parametrize("n", [1, 2, 3, 4])
@pytest.mark.parametrize("function", [F.max_pool, F.avg_pool])
def test_pools_never_give_their_input_back(function: Any, n: int) -> None:
    with separably():
        for kernel, stride, padding in ((1, 1, 0), (3, 1, 1), (1, 2, 0)):
            x = torch.ones(1, 2, *(1,) * n)
            function(x, kernel, stride, padding, spatial_dims=n).zero_()
            assert torch.equal(x, torch.ones_like(x))


def test_equal_arguments_of_other_types_are_not_confused() -> None:
    """Checked arguments are remembered, and 2 == 2.0 and 1 == True."""
    x = torch.zeros(1, 1, 4, 4)
    F.max_pool(x, 2, 1)
    F.max_pool(x, (2, 2), (1, 1))
    others: Any = ((2.0,), ((2.0, 2.0),), (2, True), (2, (True, True)), ((2, 2), [1, True]))
    for args in others:
        with pytest.raises(TypeError, match="must be an int"):
            F.max_pool(x, *args)
