"""No result depends on how operands lie in memory: every operator against the same call on copies."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import convnd
import convnd.functional as F
from convnd.testing import Case, Layout, conv_cases, conv_transpose_cases, layouts

from .planning import ALGORITHMS

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.complex128, torch.complex64)
INTEGERS = (torch.int64, torch.int32, torch.uint8)
OPERANDS = st.tuples(layouts(), layouts(), layouts(), layouts())


def leave_garbage(dtype: torch.dtype) -> None:
    """Freed memory that holds no numbers: a kernel that reads outside its operands shows it."""
    value = float("nan") if dtype.is_floating_point or dtype.is_complex else 99
    del [torch.full((1 << n,), value, dtype=dtype) for n in range(12) for _ in range(4)][:]


def copied(x: Tensor) -> Tensor:
    return x.clone(memory_format=torch.contiguous_format)


def assert_same(
    call: Callable[..., Any], operands: Sequence[Tensor], of_gradient: Layout, exact: bool = False
) -> None:
    """Result and gradients of a call are those on contiguous copies."""
    (dtype,) = {x.dtype for x in operands}
    results = []
    for given_as in (lambda x: x, copied):
        inputs = [given_as(x.detach()) for x in operands]
        differentiable = dtype.is_floating_point or dtype.is_complex
        for x in inputs if differentiable else ():
            x.requires_grad_()
        leave_garbage(dtype)
        out = call(*inputs)
        out = out[0] if isinstance(out, tuple) else out
        if not differentiable:
            results.append([out])
            continue
        gradient = torch.arange(out.numel()).remainder(7).sub(3).to(dtype).view(out.shape)
        gradient = given_as(of_gradient(gradient))
        leave_garbage(dtype)
        results.append([out, *torch.autograd.grad(out, inputs, gradient)])
    for got, expected in zip(*results, strict=True):
        eps = torch.finfo(dtype).eps if differentiable else 0
        scale = float(expected.detach().abs().max()) if expected.numel() else 0.0
        torch.testing.assert_close(got, expected, rtol=0, atol=0 if exact else 16 * eps * max(scale, 1))


@given(conv_cases() | conv_transpose_cases(), st.sampled_from((*DTYPES, *INTEGERS)), OPERANDS, st.data())
def test_convolutions(case: Case, dtype: torch.dtype, laid: Sequence[Layout], data: st.DataObject) -> None:
    arrays = [a for a in (case.input, case.weight, case.bias) if a is not None]
    operands = [layout(torch.tensor(a).to(dtype)) for layout, a in zip(laid, arrays, strict=False)]
    function = getattr(F, case.operator)
    algorithm = data.draw(st.none() | st.sampled_from(ALGORITHMS), "algorithm")

    def call(*operands: Tensor) -> Tensor:
        with nullcontext() if algorithm is None else convnd.algorithm(algorithm):
            return function(*operands, **case.kwargs)

    try:
        call(*operands)
    except ValueError as refusal:
        if "does not apply" in str(refusal):
            return
        raise
    assert_same(call, operands, laid[3])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("order", [(0, 2, 1), (2, 1, 0), (2, 0, 1), (1, 0, 2), (1, 2, 0)])
@pytest.mark.parametrize("outputs", [1, 2])
def test_recordings_with_channels_last(
    outputs: int, order: tuple[int, ...], groups: int, dtype: torch.dtype
) -> None:
    x = torch.randn(1, 9, 4, dtype=dtype).transpose(1, 2)
    w = torch.randn(outputs * groups, 4 // groups, 3, dtype=dtype)
    w = w.permute(order).contiguous().permute([order.index(axis) for axis in range(3)])
    assert_same(lambda x, w: F.conv(x, w, groups=groups), (x, w), Layout("contiguous"))


@pytest.mark.parametrize("odd", [0, 1, 2, 64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_one_sample_one_tap_and_one_channel(n: int, dtype: torch.dtype, odd: int) -> None:
    """Whose strides mean nothing, and tell torch's kernels in which layout to work."""
    for channels, kernel in ((1, 2), (3, 2), (2, 1)):
        for kind in ("contiguous", "channels_last"):
            x = torch.randn(1, 2 * channels, *(4, 1, 5, 3)[:n], dtype=dtype)
            w = torch.randn(4, channels, *(kernel, 1, 1, 2)[:n], dtype=dtype)
            for of_x, of_w in ((odd, None), (None, odd), (odd, odd)):
                operands = Layout(kind, 0, of_x)(x), Layout("channels_last", 0, of_w)(w)

                def call(x: Tensor, w: Tensor) -> Tensor:
                    return F.conv(x, w, stride=(1, 2, 2, 1)[:n], padding=1, dilation=2, groups=2)

                assert_same(call, operands, Layout(kind))


def functions(n: int) -> dict[str, tuple[tuple[int, ...], Callable[[Tensor], Any]]]:
    """Every other operator: the shape it takes, and a call."""
    spatial = (4, 3, 4, 3, 2)[:n]
    samples = torch.full((2, 4, n), 0.4, dtype=torch.float64)
    shuffled = 2, 2 * 2**n, *spatial
    plain: dict[str, Callable[[Tensor], Any]] = {
        "max_pool": lambda x: F.max_pool(x, 2, 1, 1),
        "avg_pool": lambda x: F.avg_pool(x, 2, 1, 1, count_include_pad=False),
        "lp_pool": lambda x: F.lp_pool(x.square() + 1, 2, 2),
        "adaptive_avg_pool": lambda x: F.adaptive_avg_pool(x, 2),
        "adaptive_max_pool": lambda x: F.adaptive_max_pool(x, 2),
        "fractional_max_pool": lambda x: F.fractional_max_pool(x, 1, 2, _random_samples=samples.to(x.dtype)),
        "max_unpool": lambda x: F.max_unpool(
            x, torch.arange(x[0, 0].numel()).view(x.shape[2:]).expand_as(x), 1
        ),
        "pad": lambda x: F.pad(x, (1, 2) * n),
        "pad circular": lambda x: F.pad(x, (1, 2) * n, "circular"),
        "pad reflect": lambda x: F.pad(x, (1, 1) * n, "reflect"),
        "pad replicate": lambda x: F.pad(x, (1, 2) * n, "replicate"),
        "interpolate nearest": lambda x: F.interpolate(x, 5),
        "interpolate linear": lambda x: F.interpolate(x, 5, mode="linear"),
        "interpolate cubic": lambda x: F.interpolate(x, 5, mode="cubic"),
        "interpolate area": lambda x: F.interpolate(x, 2, mode="area"),
        "unfold": lambda x: F.unfold(x, 2, padding=1),
        "grid_sample": lambda x: F.grid_sample(
            x, torch.linspace(-1.2, 1, 3 * n).view(1, 3, n).to(x).expand(x.shape[0], -1, -1)
        ),
        "pixel_unshuffle": lambda x: F.pixel_unshuffle(F.interpolate(x, 4), 2),
    }
    calls = {name: ((2, 4, *spatial), call) for name, call in plain.items()}
    calls["pixel_shuffle"] = shuffled, lambda x: F.pixel_shuffle(x, 2)
    columns = 2, 2 * 2**n, 3**n
    calls["fold"] = columns, lambda x: F.fold(x, (4,) * n, 2, spatial_dims=n)
    return calls


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("name", list(functions(1)))
@settings(max_examples=12)
@given(laid=OPERANDS, dtype=st.sampled_from((torch.float64, torch.float32, torch.bfloat16)))
def test_other_operators(name: str, n: int, laid: Sequence[Layout], dtype: torch.dtype) -> None:
    shape, call = functions(n)[name]
    x = torch.arange(torch.Size(shape).numel()).mul(7).remainder(11).sub(5).to(dtype).view(shape)
    assert_same(call, [laid[0](x)], laid[3])
