"""Unfold, fold and pixel shuffles against torch, convolution, and each other."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import convnd.functional as F
from convnd.testing import Case, conv_cases


def arguments(case: Case) -> dict[str, Any]:
    assert case.weight is not None
    k = case.kwargs
    padding = tuple(min(pair) for pair in k["padding"])
    kernel = tuple(
        1 if d * (kk - 1) + 1 > n + 2 * p else kk
        for kk, d, n, p in zip(
            case.weight.shape[2:], k["dilation"], case.input.shape[2:], padding, strict=True
        )
    )
    return {"kernel_size": kernel, "dilation": k["dilation"], "padding": padding, "stride": k["stride"]}


CASES = conv_cases(max_dims=6, padding_modes=False)


@given(CASES)
def test_convolution_is_a_product_with_the_columns(case: Case) -> None:
    options = arguments(case)
    x = torch.tensor(case.input)
    weight = torch.randint(
        -4, 5, (3, x.shape[1], *options["kernel_size"]), generator=torch.Generator().manual_seed(0)
    )
    weight = weight.to(x)
    columns = F.unfold(x, **options, spatial_dims=case.spatial_dims)
    expected = F.conv(x, weight, None, options["stride"], options["padding"], options["dilation"])
    assert torch.equal(weight.flatten(1) @ columns, expected.flatten(2))


@given(CASES)
def test_fold_is_the_adjoint_of_unfold(case: Case) -> None:
    options = arguments(case)
    x = torch.tensor(case.input)
    columns = F.unfold(x, **options, spatial_dims=case.spatial_dims)
    y = torch.randint(-4, 5, columns.shape, generator=torch.Generator().manual_seed(0)).to(x)
    back = F.fold(y, tuple(x.shape[2:]), **options, spatial_dims=case.spatial_dims)
    assert (columns * y).sum() == (x * back).sum()


@given(conv_cases(min_dims=2, max_dims=2, padding_modes=False))
def test_unfold_and_fold_equal_torch(case: Case) -> None:
    options = arguments(case)
    x = torch.tensor(case.input)
    columns = torch.nn.functional.unfold(x, **options)
    assert torch.equal(F.unfold(x, **options), columns)
    size = tuple(x.shape[2:])
    assert torch.equal(F.fold(columns, size, **options), torch.nn.functional.fold(columns, size, **options))
    assert torch.equal(F.fold(columns[0], size, **options), F.fold(columns, size, **options)[0])


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 3)), min_size=1, max_size=5))
def test_pixel_unshuffle_inverts_pixel_shuffle(axes: list[tuple[int, int]]) -> None:
    factors = tuple(f for f, _ in axes)
    x = torch.arange(2 * 3 * torch.Size(factors).numel() * torch.Size([s for _, s in axes]).numel())
    x = x.view(2, -1, *(s for _, s in axes))
    y = F.pixel_shuffle(x, factors, spatial_dims=len(axes))
    assert y.shape == (2, 3, *(f * s for f, s in axes))
    assert torch.equal(F.pixel_unshuffle(y, factors, spatial_dims=len(axes)), x)
    # Entry (c, i * r + j) of the result is channel (c, j) at i, on every axis.
    i, j = [s - 1 for _, s in axes], [f - 1 for f in factors]
    at = tuple(a * f + b for a, f, b in zip(i, factors, j, strict=True))
    channels: Tensor = x[0].unflatten(0, (3, *factors))
    assert y[(0, 1, *at)] == channels[(1, *j, *i)]


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_bad_input_is_refused(n: int) -> None:
    x = torch.zeros(1, 3, *(4,) * n)
    for pattern, call in [
        ("kernel_size must fit into the padded input", lambda: F.unfold(x, 5)),
        ("kernel_size must be at least 1, got 0", lambda: F.unfold(x, 0)),
        (r"input must be \(N, C \* taps, L\)", lambda: F.fold(torch.zeros(1, 1, 1, 1), 4, 2)),
        (r"input must be \(N, C \*", lambda: F.fold(torch.zeros(1, 7, 7), 4, 2, spatial_dims=n)),
        ("channels divisible by", lambda: F.pixel_shuffle(x, 2)),
        ("must divide every spatial axis", lambda: F.pixel_unshuffle(x, 3)),
        ("upscale_factor must be at least 1, got 0", lambda: F.pixel_shuffle(x, 0)),
        ("output_size must be at least 0, got -1", lambda: F.adaptive_avg_pool(x, -1)),
        ("exactly one of output_size and output_ratio", lambda: F.fractional_max_pool(x, 2)),
        ("output_ratio must be between 0 and 1", lambda: F.fractional_max_pool(x, 2, output_ratio=1.5)),
        ("must be at most the size of the input", lambda: F.fractional_max_pool(x, 3, 4)),
        ("norm_type must not be zero", lambda: F.lp_pool(x, 0, 2)),
        ("indices must have the shape", lambda: F.max_unpool(x, torch.zeros(1).long(), 2)),
        ("indices must be from 0 to", lambda: F.max_unpool(x, torch.full_like(x, 9999).long(), 2)),
        ("output_size must differ by less", lambda: F.max_unpool(x, x.long(), 2, output_size=(99,) * n)),
    ]:
        with pytest.raises(ValueError, match=pattern):
            call()
