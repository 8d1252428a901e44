"""Convolution and transposed convolution against plain loops, torch, and each other."""

from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import convnd
import convnd.functional as F
from convnd._torch import dtypes
from convnd._torch.conv import check_addressable
from convnd.testing import Case, conv_cases, conv_transpose_cases, reference

from .planning import ALGORITHMS

TORCH_CONV = {1: torch.conv1d, 2: torch.conv2d, 3: torch.conv3d}
TORCH_CONV_TRANSPOSE = {1: torch.conv_transpose1d, 2: torch.conv_transpose2d, 3: torch.conv_transpose3d}


def operands(case: Case, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor | None]:
    assert case.weight is not None
    bias = None if case.bias is None else torch.tensor(case.bias, dtype=dtype)
    return torch.tensor(case.input, dtype=dtype), torch.tensor(case.weight, dtype=dtype), bias


def reference_conv(case: Case) -> np.ndarray:
    k = case.kwargs
    args = k["stride"], k["padding"], k["dilation"], k["groups"], k["padding_mode"]
    assert case.weight is not None
    return reference.conv(case.input, case.weight, case.bias, *args)


def reference_conv_transpose(case: Case) -> np.ndarray:
    k = case.kwargs
    args = k["stride"], k["padding"], k["output_padding"], k["groups"], k["dilation"]
    assert case.weight is not None
    return reference.conv_transpose(case.input, case.weight, case.bias, *args)


@given(conv_cases())
def test_conv_equals_plain_loops(case: Case) -> None:
    out = F.conv(*operands(case), **case.kwargs)
    np.testing.assert_array_equal(out.numpy(), reference_conv(case))


@given(conv_transpose_cases())
def test_conv_transpose_equals_plain_loops(case: Case) -> None:
    out = F.conv_transpose(*operands(case), **case.kwargs)
    np.testing.assert_array_equal(out.numpy(), reference_conv_transpose(case))


@given(conv_cases(), st.sampled_from([torch.float32, torch.bfloat16, torch.float16, torch.complex64]))
def test_conv_is_exact_on_small_integers_in_every_dtype(case: Case, dtype: torch.dtype) -> None:
    out = F.conv(*operands(case, dtype), **case.kwargs)
    expected = torch.tensor(reference_conv(case))
    if dtype == torch.complex64:
        expected = expected.to(torch.complex128)
    assert out.dtype == dtype
    assert torch.equal(out, expected.to(dtype))


@pytest.mark.parametrize("dtype", dtypes.LOW_PRECISION)
@pytest.mark.parametrize("n", [1, 3, 4])
def test_half_precision_in_single_where_the_processor_has_none(
    n: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All is computed in single precision and rounded once, which is some thirty times as fast there."""
    monkeypatch.setattr(dtypes, "SLOW", (dtype,))
    operands = [torch.randn(s).to(dtype) for s in ((2, 4, *(6,) * n), (2, 4, *(3,) * n), (2,))]
    half, single = ([t.to(to).requires_grad_() for t in operands] for to in (dtype, torch.float32))
    (x, w, b), (x1, w1, b1) = half, single
    out, expected = F.conv(x, w, b, padding=1), F.conv(x1, w1, b1, padding=1)
    assert torch.equal(out, expected.to(dtype))
    direction = torch.randn_like(out)
    gradients = torch.autograd.grad(out, half, direction)
    wanted = torch.autograd.grad(expected, single, direction.float())
    assert all(torch.equal(g, v.to(dtype)) for g, v in zip(gradients, wanted, strict=True))
    assert convnd.plan(x, w, b, padding=1) == convnd.plan(x1, w1, b1, padding=1)
    assert torch.compile(F.conv, backend="eager", fullgraph=True)(x, w, b).dtype == dtype


def leave_garbage(dtype: torch.dtype) -> None:
    """Freed memory of many sizes that is not zero, as a program that has run for long leaves it."""
    sizes = 8, 16, 32, 64, 128, 256, 512, 1024, 4096
    del [torch.full((n,), -6e4, dtype=dtype) for n in sizes for _ in range(12)][:]


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    ("sizes", "weight", "stride", "padding", "dilation"),
    [
        ((3, 5), (4, 1, 1, 3), (1, 2), (2, 0), (1, 2)),
        ((6, 3), (4, 2, 2, 3), (1, 2), (1, 0), (1, 1)),
        ((1,), (4, 2, 3), (2,), (2,), (1,)),
        ((1,), (4, 2, 1), (3,), (2,), (2,)),
        ((1, 5), (2, 4, 2, 2), (1, 1), (2, 1), (3, 1)),
        ((2, 6, 6), (16, 16, 3, 3, 3), (1, 1, 1), (1, 1, 1), (1, 1, 1)),
        ((1, 7, 4), (8, 8, 4, 1, 3), (1, 1, 1), (2, 0, 0), (1, 1, 1)),
        ((2, 2, 5, 5), (8, 8, 3, 3, 3, 3), (1, 1, 1, 1), (1, 1, 1, 1), (1, 1, 1, 1)),
        ((20, 6, 24), (3, 2, 7, 4, 7), (3, 3, 1), (0, 1, 1), (1, 1, 1)),
        ((5, 20, 6, 24), (3, 2, 2, 7, 4, 7), (2, 3, 3, 1), (0, 0, 1, 1), (1, 1, 1, 1)),
    ],
    ids=str,
)
def test_low_precision_reads_nothing_but_its_operands(
    sizes: tuple[int, ...],
    weight: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
    dtype: torch.dtype,
    autocast: bool,
) -> None:
    """oneDNN's kernels for half precision do on some processors: torch itself is wrong, or crashes, here."""
    torch.manual_seed(0)
    x = torch.randint(-2, 3, (2, 2 * weight[1], *sizes)).double().requires_grad_()
    w = torch.randint(-2, 3, (2 * weight[0], *weight[1:])).double().requires_grad_()
    exact = F.conv(x, w, None, stride, padding, dilation, 2)
    grad = torch.randint(-2, 3, exact.shape)
    expected = exact, *torch.autograd.grad(exact, (x, w), grad.double())
    kept = torch.float32 if autocast else dtype
    a, b = (t.detach().to(kept).requires_grad_() for t in (x, w))
    for _ in range(5):
        leave_garbage(dtype)
        with torch.autocast("cpu", dtype, enabled=autocast):
            out = F.conv(a, b, None, stride, padding, dilation, 2)
        leave_garbage(dtype)
        results = out, *torch.autograd.grad(out, (a, b), grad.to(dtype))
        for result, value in zip(results, expected, strict=True):
            assert torch.equal(result, value.to(dtype).to(result.dtype))


@given(conv_cases(max_dims=3, padding_modes=False))
def test_conv_equals_torch_with_gradients(case: Case) -> None:
    kwargs = dict(case.kwargs)
    kwargs.pop("padding_mode")
    kwargs["padding"] = tuple(a for a, _ in kwargs["padding"])
    x, weight, bias = operands(case)
    sizes = [
        n + 2 * p - d * (k - 1)
        for n, p, d, k in zip(
            x.shape[2:], kwargs["padding"], kwargs["dilation"], weight.shape[2:], strict=True
        )
    ]
    if min(sizes) < 1:
        kwargs["padding"] = tuple(p + 4 for p in kwargs["padding"])
    torch_conv = TORCH_CONV[case.spatial_dims]
    assert_same_with_gradients(
        lambda *a: F.conv(*a, **kwargs), lambda *a: torch_conv(*a, **kwargs), x, weight, bias
    )


@given(conv_transpose_cases(max_dims=3))
def test_conv_transpose_equals_torch_with_gradients(case: Case) -> None:
    kwargs = dict(case.kwargs, padding=tuple(min(pair) for pair in case.kwargs["padding"]))
    torch_conv = TORCH_CONV_TRANSPOSE[case.spatial_dims]
    assert_same_with_gradients(
        lambda *a: F.conv_transpose(*a, **kwargs), lambda *a: torch_conv(*a, **kwargs), *operands(case)
    )


def assert_same_with_gradients(ours: Any, theirs: Any, *tensors: Tensor | None) -> None:
    present = [t.requires_grad_() for t in tensors if t is not None]
    out, expected = ours(*tensors), theirs(*tensors)
    torch.testing.assert_close(out, expected, rtol=1e-10, atol=1e-10)
    direction = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).reshape(out.shape)
    gradients = torch.autograd.grad(out, present, direction)
    expected_gradients = torch.autograd.grad(expected, present, direction)
    torch.testing.assert_close(gradients, expected_gradients, rtol=1e-10, atol=1e-10)


@given(conv_cases())
def test_gradients_equal_those_of_plain_loops(case: Case) -> None:
    """Convolution is bilinear, so its gradients are known from its values on unit vectors' sums."""
    x, weight, bias = operands(case)
    for tensor in (x, weight):
        tensor.requires_grad_()
    out = F.conv(x, weight, bias, **case.kwargs)
    rng = np.random.default_rng(0)
    direction = rng.integers(-4, 5, out.shape).astype(float)
    grad_x, grad_weight = torch.autograd.grad(out, (x, weight), torch.tensor(direction))
    dx = rng.integers(-4, 5, x.shape).astype(float)
    dw = rng.integers(-4, 5, weight.shape).astype(float)
    k = case.kwargs
    args = None, k["stride"], k["padding"], k["dilation"], k["groups"], k["padding_mode"]
    assert case.weight is not None
    along_x = (direction * reference.conv(dx, case.weight, *args)).sum()
    along_weight = (direction * reference.conv(case.input, dw, *args)).sum()
    assert (grad_x.numpy() * dx).sum() == along_x
    assert (grad_weight.numpy() * dw).sum() == along_weight


@given(conv_cases())
def test_conv_transpose_is_the_adjoint_of_conv(case: Case) -> None:
    """<conv x, y> = <x, conv_transpose y>, for every padding mode and asymmetric padding."""
    x, weight, _ = operands(case)
    k = case.kwargs
    y = F.conv(x, weight, None, **k)
    direction = torch.randint(-4, 5, y.shape, generator=torch.Generator().manual_seed(0)).to(y)
    reach = [
        (o - 1) * s - sum(p) + d * (kk - 1) + 1
        for o, s, p, d, kk in zip(
            y.shape[2:], k["stride"], k["padding"], k["dilation"], weight.shape[2:], strict=True
        )
    ]
    # Entries at the end that no window reached: output_padding, or nothing at all beyond its limit.
    extra = tuple(n - r for n, r in zip(x.shape[2:], reach, strict=True))
    back = F.conv_transpose(
        direction, weight, None, k["stride"], k["padding"], extra, k["groups"], k["dilation"],
        padding_mode=k["padding_mode"],
    )  # fmt: skip
    assert back.shape == x.shape
    assert (y * direction).sum() == (x * back).sum()


@given(conv_cases(padding_modes=False), st.integers(0, 5))
def test_a_size_one_axis_inserted_anywhere_changes_nothing(case: Case, at: int) -> None:
    at = min(at, case.spatial_dims)
    x, weight, bias = operands(case)
    neutral = {"stride": 1, "padding": (0, 0), "dilation": 1, "padding_mode": "zeros"}
    lifted: dict[str, Any] = {
        name: (*value[:at], neutral[name], *value[at:]) if name in neutral else value
        for name, value in case.kwargs.items()
    }
    out = F.conv(x.unsqueeze(2 + at), weight.unsqueeze(2 + at), bias, **lifted)
    assert torch.equal(out.squeeze(2 + at), F.conv(x, weight, bias, **case.kwargs))


@given(conv_cases(), st.randoms(use_true_random=False))
def test_permuting_the_axes_permutes_the_output(case: Case, random: Any) -> None:
    order = list(range(case.spatial_dims))
    random.shuffle(order)
    axes = (0, 1, *(2 + a for a in order))
    x, weight, bias = operands(case)
    permuted: dict[str, Any] = {
        name: tuple(value[a] for a in order) if isinstance(value, tuple) else value
        for name, value in case.kwargs.items()
    }
    out = F.conv(x.permute(axes), weight.permute(axes), bias, **permuted)
    assert torch.equal(out, F.conv(x, weight, bias, **case.kwargs).permute(axes))


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("transposed", [False, True])
def test_gradcheck_and_gradgradcheck(n: int, transposed: bool) -> None:
    generator = torch.Generator().manual_seed(n)
    sizes, kernel = (4, 3, 3, 2, 2)[:n], (3, 2, 2, 1, 2)[:n]
    make = lambda *s: torch.randn(*s, dtype=torch.float64, generator=generator, requires_grad=True)  # noqa: E731
    x, weight, bias = make(1, 2, *sizes), make(2, 1, *kernel), make(2)
    function = F.conv_transpose if transposed else F.conv

    def call(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return function(x, weight, bias, stride=2, padding=1, groups=2)

    assert torch.autograd.gradcheck(call, (x, weight, bias), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(call, (x, weight, bias), fast_mode=True)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("kernel", [1, 2, 3, 4])
def test_same_padding_sizes(n: int, stride: int, kernel: int) -> None:
    sizes = (5, 4, 3, 2, 1)[:n]
    x = torch.randn(1, 2, *sizes)
    weight = torch.randn(2, 2, *(kernel,) * n)
    out = F.conv(x, weight, stride=stride, padding="same")
    assert tuple(out.shape[2:]) == tuple(-(-s // stride) for s in sizes)
    back = F.conv_transpose(out, weight, stride=stride, padding="same")
    assert tuple(back.shape[2:]) == tuple(-(-s // stride) * stride for s in sizes)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_unbatched_input_equals_a_batch_of_one(n: int) -> None:
    x, weight = torch.randn(2, *(4,) * n), torch.randn(2, 3, *(2,) * n)
    forward = weight.transpose(0, 1).contiguous()
    assert torch.equal(F.conv(x, forward), F.conv(x[None], forward)[0])
    assert torch.equal(F.conv_transpose(x, weight), F.conv_transpose(x[None], weight)[0])


@pytest.mark.parametrize("n", [4, 5])
def test_low_precision_rounds_once(n: int) -> None:
    """The error of one rounding of the exact sum, not of one per tap."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 8, *(4,) * n, generator=generator).bfloat16()
    weight = torch.randn(8, 8, *(3,) * n, generator=generator).bfloat16()
    exact = F.conv(x.double(), weight.double())
    out = F.conv(x, weight).double()
    assert (out - exact).norm() / exact.norm() < 2**-9


EMPTY = ((0, 4, 2), (2, 0, 4), (2, 4, 0), (0, 0, 2))  # batch, inputs, outputs


def empty_operands(n: int, transposed: bool, batch: int, inputs: int, outputs: int) -> list[Tensor]:
    rows, columns = (inputs, outputs // 2) if transposed else (outputs, inputs // 2)
    shapes = (batch, inputs, *(4,) * n), (rows, columns, 3, *(2,) * (n - 1)), (outputs,)
    return [torch.full(shape, 2.0, dtype=torch.float64, requires_grad=True) for shape in shapes]


@pytest.mark.parametrize("channels", EMPTY, ids=str)
@pytest.mark.parametrize("name", [None, *ALGORITHMS])
@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_sums_of_nothing_are_the_bias(n: int, name: str | None, channels: tuple[int, int, int]) -> None:
    """Of an empty batch and of no channels, with gradients of both orders that are zero."""
    for function in (F.conv, F.conv_transpose):
        operands: Any = empty_operands(n, function is F.conv_transpose, *channels)
        for mode in ("zeros", "reflect"):
            try:
                with nullcontext() if name is None else convnd.algorithm(name):
                    out = function(*operands, stride=2, padding=1, groups=2, padding_mode=mode)
            except ValueError:
                if name is None:
                    raise
                continue  # it does not apply
            assert out.shape[:2] == (channels[0], channels[2])
            assert torch.equal(out, torch.full_like(out, 2))
            direction = torch.ones_like(out).requires_grad_()
            first = torch.autograd.grad(out, operands, direction, create_graph=True)
            assert not first[0].any()
            assert not first[1].any()
            second = torch.autograd.grad([g.sum() for g in first], [*operands[:2], direction])
            assert all(g.shape == x.shape for g, x in zip(second, [*operands[:2], direction], strict=True))


@pytest.mark.parametrize("n", [1, 3, 4, 5])
@pytest.mark.parametrize("channels", EMPTY, ids=str)
@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_transforms_of_sums_of_nothing(n: int, channels: tuple[int, int, int]) -> None:
    for function in (F.conv, F.conv_transpose):
        x, w, b = (t.detach() for t in empty_operands(n, function is F.conv_transpose, *channels))

        def call(x: Tensor, w: Tensor, function: Any = function, b: Tensor = b) -> Tensor:
            return function(x, w, b, padding=1, groups=2)

        out, tangent = torch.func.jvp(call, (x, w), (x, w))[:2]
        assert torch.equal(out, torch.full_like(out, 2))
        assert not tangent.any()
        gradients = torch.func.grad(lambda x, w, call=call: call(x, w).sum(), (0, 1))(x, w)
        assert not any(g.any() for g in gradients)
        stacked = torch.func.vmap(call, (0, None))(torch.stack([x, x]), w)
        assert torch.equal(stacked, torch.stack([out, out]))


@pytest.mark.parametrize("n", [2, 4])
@pytest.mark.filterwarnings("ignore")
def test_sums_of_nothing_compile(n: int) -> None:
    for channels in EMPTY[:2]:
        torch._dynamo.reset()
        operands: Any = empty_operands(n, False, *channels)
        out = torch.compile(F.conv, backend="aot_eager", fullgraph=True)(*operands, groups=2)
        assert torch.equal(out, torch.full_like(out, 2))
        assert not any(g.any() for g in torch.autograd.grad(out, operands[:2], torch.ones_like(out)))


@given(
    conv_cases() | conv_transpose_cases(),
    st.sampled_from([torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8]),
    st.none() | st.sampled_from(ALGORITHMS),
)
def test_integers_wrap_around(case: Case, dtype: torch.dtype, name: str | None) -> None:
    """As torch's own do, here of every size, with every argument and by every algorithm."""
    operands_ = [None if t is None else (t * 9).long() for t in operands(case)]
    function = getattr(F, case.operator)
    whole = reference_conv(case) if case.operator == "conv" else reference_conv_transpose(case)
    if case.bias is not None:  # which is not squared
        shape = -1, *(1,) * case.spatial_dims
        whole = whole - case.bias.reshape(shape) + case.bias.reshape(shape) / 9
    expected = torch.tensor(whole * 81).round().long().to(dtype)
    small = [None if t is None else t.to(dtype) for t in operands_]
    try:
        with nullcontext() if name is None else convnd.algorithm(name):
            out = function(*small, **case.kwargs)
    except ValueError:
        if name is None:
            raise
        return  # it does not apply
    assert torch.equal(out, expected)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("function", [F.conv, F.conv_transpose])
def test_bad_input_is_refused(function: Any, n: int) -> None:
    x, weight = torch.zeros(1, 4, *(3,) * n), torch.zeros(4, 4, *(2,) * n)
    for error, pattern, args, kwargs in [
        (ValueError, r"input must be \(N, C", (x[0, 0], weight), {}),
        (ValueError, r"input must be \(N, C", (x[None], weight), {}),
        (ValueError, "input must have 4 channels", (x[:, :3], weight), {}),
        (ValueError, "groups must", (x, weight[:3]), {"groups": 2}),
        (ValueError, "groups must be at least 1, got 0", (x, weight), {"groups": 0}),
        (ValueError, "stride must be at least 1, got 0", (x, weight), {"stride": 0}),
        (ValueError, "stride must be an int or", (x, weight), {"stride": (1,) * (n + 1)}),
        (TypeError, "stride must be an int", (x, weight), {"stride": 1.5}),
        (ValueError, "padding must be at least 0, got -1", (x, weight), {"padding": -1}),
        (ValueError, "padding must be one of", (x, weight), {"padding": "full"}),
        (ValueError, "padding_mode must be one of", (x, weight), {"padding_mode": "mirror"}),
        (TypeError, "input must be a floating-point", (x.bool(), weight.bool()), {}),
        (ValueError, "at least one entry on every spatial axis", (x, weight[..., :0]), {}),
        (TypeError, "weight must have the dtype", (x, weight.double()), {}),
        (ValueError, "bias must have shape", (x, weight, torch.zeros(3)), {}),
        (ValueError, "weight must have at least one spatial axis", (x, torch.zeros(4, 4)), {}),
    ]:
        with pytest.raises(error, match=pattern):
            function(*args, **kwargs)
    with pytest.raises(ValueError, match="at least as long as the dilated kernel"):
        F.conv(x, weight, dilation=3)
    with pytest.raises(ValueError, match="output_padding must be less than stride or dilation, got 1"):
        F.conv_transpose(x, weight, output_padding=1)
    with pytest.raises(ValueError, match="padding must leave at least one entry"):
        F.conv_transpose(x, weight, padding=2)
    with pytest.raises(ValueError, match="must be less than the size of the axis"):
        F.conv(x, weight, padding=3, padding_mode="reflect")


def test_axes_that_a_gpu_cannot_address_are_refused() -> None:
    sizes = (2**31 + 16,)
    with pytest.raises(ValueError, match="less than 2\\^31 entries, got 2147483664"):
        check_addressable("cuda", sizes, (5,))
    check_addressable("cuda", (2**31 - 1,), (5,))
    check_addressable("cpu", sizes, (5,))
