"""Every algorithm of every map against the native composition and its autograd; plans and settings."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import convnd
import convnd.functional as F
from convnd._algorithms import outputs, plan, problems, run, settings
from convnd._algorithms.geometry import Geometry
from convnd._algorithms.pad import bordered, zero_pad

DTYPES = (torch.float64, torch.complex128, torch.float32)


@pytest.fixture(autouse=True)
def default_settings() -> Iterator[None]:
    yield
    convnd.set_workspace_limit(None)
    convnd.benchmark(False)


@contextmanager
def planned_as_on_avx512(block_flops: int = 0) -> Iterator[None]:
    """With blocks of output positions for problems of at least so many operations."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(problems, "BLOCK_FLOPS", block_flops)
        patch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
        _forget_plans()
        yield
    _forget_plans()


def _forget_plans() -> None:
    for planned in (*vars(problems).values(), *vars(plan).values()):
        if hasattr(planned, "cache_clear"):
            planned.cache_clear()


@pytest.fixture
def vectors_of_16() -> Iterator[None]:
    with planned_as_on_avx512():
        yield


@st.composite
def cases(draw: st.DrawFn) -> tuple[Geometry, tuple[int, ...], tuple[int, ...], int, int, int]:
    """Geometry, sizes, kernel, batch, channels and outputs of a convolution with at least one output."""
    n = draw(st.integers(1, 5))

    def axes(*values: int) -> tuple[int, ...]:
        return tuple(draw(st.sampled_from(values)) for _ in range(n))

    kernel, dilation = axes(1, 2, 3), axes(1, 1, 2)
    pads = tuple(zip(axes(0, 1, 2), axes(0, 1, 2), strict=True))
    g = Geometry(axes(1, 1, 2), pads, dilation, draw(st.sampled_from((1, 1, 2))))
    least = (max(e - a - b, 1) for e, (a, b) in zip(g.extents(kernel), pads, strict=True))
    sizes = tuple(low + draw(st.integers(0, 3)) for low in least)
    channels, outputs = (g.groups * draw(st.sampled_from((1, 2, 3))) for _ in range(2))
    return g, sizes, kernel, draw(st.integers(1, 2)), channels, outputs


def assert_near(actual: torch.Tensor, expected: torch.Tensor) -> None:
    tolerance = 1e-4 if expected.dtype == torch.float32 else 1e-10
    scale = 1 + float(expected.abs().max())
    torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance * scale)


@given(cases(), st.sampled_from(DTYPES), st.sampled_from((100, 3000, 1 << 29)), st.booleans())
def test_algorithms_agree(
    case: tuple[Geometry, tuple[int, ...], tuple[int, ...], int, int, int],
    dtype: torch.dtype,
    limit: int,
    blocks: bool,
) -> None:
    g, sizes, kernel, batch, channels, outputs = case
    torch.manual_seed(0)
    x = torch.randn(batch, channels, *sizes, dtype=dtype, requires_grad=True)
    w = torch.randn(outputs, channels // g.groups, *kernel, dtype=dtype, requires_grad=True)
    counts = g.outputs(sizes, kernel)
    out = run.composed("conv", x, w, None, g, counts)
    y = torch.randn_like(out)
    by_x, by_w = (t.conj() for t in torch.autograd.grad(out, (x, w), y.conj()))
    x, w = x.detach(), w.detach()
    # As autograd meets it where the gradient is dual or batched.
    assert_near(run.composed("weight", x, y, None, g, kernel), by_w)
    convnd.set_workspace_limit(limit)
    with planned_as_on_avx512() if blocks else nullcontext():
        maps: tuple[tuple[problems.Op, Any, Any, Any, Any], ...] = (
            ("conv", x, w, counts, out.detach()),
            ("transpose", y, w, sizes, by_x),
            ("weight", x, y, kernel, by_w),
        )
        for op, a, b, wanted, expected in maps:
            p = run.problem(op, a, b, g, wanted)
            for name in problems.ALGORITHMS:
                if problems.applies(p, name):
                    result = run.bilinear(op, a, b, None, g, wanted, name)
                    assert_near(result, expected)


@pytest.mark.parametrize("name", problems.ALGORITHMS)
@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_forced_algorithm_has_all_derivatives(n: int, name: str) -> None:
    kernel = 3 if name == "winograd" else 2
    x = torch.randn(1, 2, *(3,) * n, dtype=torch.float64, requires_grad=True)
    w = torch.randn(2, 2, *(kernel,) + (2,) * (n - 1), dtype=torch.float64, requires_grad=True)
    b = torch.randn(2, dtype=torch.float64, requires_grad=True)

    def forced(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        with convnd.algorithm(name):
            if name == "phases":
                return F.conv_transpose(x, w, b, stride=2)
            return F.conv(x, w, b, padding=1, padding_mode="circular")

    known = {"native": n <= 3, "blocks": n <= 3, "channels_last": n in (2, 3)}
    known["onednn"] = False  # single precision
    known |= dict.fromkeys(("channels", "outputs", "taps", "winograd"), n > 1)
    if not known.get(name, True):
        with pytest.raises(ValueError, match="does not apply"):
            forced(x, w, b)
        return
    assert torch.autograd.gradcheck(forced, (x, w, b), fast_mode=True)
    assert torch.autograd.gradgradcheck(forced, (x, w, b), fast_mode=True)


@pytest.mark.parametrize("pad", [zero_pad, bordered])
@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_crops_go_on_into_the_padding(pad: Any, size: int) -> None:
    """Position ``j`` of the result is entry ``j - before``, or zero."""
    entries = {i: i + 1.0 for i in range(size)}
    for before in range(-6, 7):
        for after in range(-size - before, 7):
            wanted = [entries.get(j - before, 0.0) for j in range(size + before + after)]
            assert pad(torch.arange(1.0, size + 1), ((before, after),)).tolist() == wanted


@pytest.mark.parametrize(
    "name", ["native", "channels_last", "channels", "outputs", "taps", "gemm", "phases", "fft"]
)
def test_results_that_are_cropped_down_to_what_no_entry_reaches(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = (2, 2, 1, 1, 1), (2, 1, 1, 1, 2)
    x, w = (torch.randn(s, dtype=torch.float64, generator=generator).requires_grad_() for s in shapes)
    options: dict[str, Any] = {
        "stride": (2, 3, 1),
        "padding": ((0, 0), (1, 0), (2, 1)),
        "output_padding": (0, 2, 1),
        "dilation": (1, 1, 2),
    }
    expected = F.conv_transpose(x, w, **options)
    direction = torch.randn(expected.shape, dtype=torch.float64, generator=generator)
    gradients = torch.autograd.grad(expected, (x, w), direction)
    with convnd.algorithm(name):
        out = F.conv_transpose(x, w, **options)
    torch.testing.assert_close(out, expected)
    for value, gradient in zip(torch.autograd.grad(out, (x, w), direction), gradients, strict=True):
        torch.testing.assert_close(value, gradient)


def test_windows_in_the_padding_alone_have_gradients() -> None:
    x, w = (torch.ones(1, 1, 1, 1, 1, 1, requires_grad=True) for _ in range(2))
    out = F.conv(x, w, stride=(1, 3, 1, 1), padding=((0, 0), (2, 0), (0, 0), (0, 0)))
    assert all(not g.any() for g in torch.autograd.grad(out.sum(), (x, w)))


def test_phases_are_of_transposed_convolution() -> None:
    with convnd.algorithm("phases"), pytest.raises(ValueError, match="'phases' does not apply"):
        F.conv(torch.zeros(1, 1, 3), torch.zeros(1, 1, 1))


def test_saves_the_input_once() -> None:
    """Not the padded or unfolded copy, whatever the padding mode."""
    saved: list[int] = []
    x, w = (torch.randn(1, 4, *(s,) * 4, requires_grad=True) for s in (6, 3))
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.numel()) or t, lambda t: t):
        F.conv(x, torch.cat([w] * 4), padding=1, padding_mode="circular")
    assert sum(saved) <= x.numel() + 4 * w.numel()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_fft_chosen_automatically_keeps_nan_where_it_belongs(value: float) -> None:
    x, w = torch.randn(1, 2, 1 << 15), torch.randn(2, 2, 4097)
    w[0, 0, 3000] = 0
    assert convnd.plan(x, w, padding=2048).forward.algorithm == "fft"
    x[0, 0, 0] = value
    expected = torch.nn.functional.conv1d(x, w, padding=2048)
    out = F.conv(x, w, padding=2048)
    assert torch.equal(out.isnan(), expected.isnan())
    finite = expected.isfinite()
    assert_near(out[finite], expected[finite])
    x[0, 0, 0] = 0
    assert_near(F.conv(x, w, padding=2048), torch.nn.functional.conv1d(x, w, padding=2048))


@pytest.mark.parametrize("name", [None, "channels", "outputs"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("channels", [2, 4, 8])
def test_few_channels_keep_nan_where_it_belongs(channels: int, value: float, name: str | None) -> None:
    """Where zeros fill the kernels of a block of output positions, they would carry it along."""
    x, w = torch.randn(1, channels, *(8,) * 4), torch.randn(channels, channels, *(3,) * 4)
    x[0, 0, 3, 4, 4, 3] = value
    reached = torch.zeros(8, 8, 8, 8, dtype=torch.bool)
    reached[2:5, 3:6, 3:6, 2:5] = True
    with convnd.algorithm(name) if name else nullcontext():
        out = F.conv(x, w, padding=1)
    assert torch.equal(~out.isfinite(), reached.expand_as(out))


def test_workspace_limit_bounds_the_plan() -> None:
    x, w = torch.empty(1, 8, *(64,) * 4, device="meta"), torch.empty(8, 8, *(5,) * 4, device="meta")
    convnd.set_workspace_limit(1 << 20)
    assert all(step.workspace <= 1 << 20 for step in convnd.plan(x, w, padding=2))


@pytest.mark.parametrize("n", [4, 5])
def test_workspace_limit_cuts_entries_larger_than_a_piece(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what taps as outputs compute before it is added."""
    monkeypatch.setattr(outputs, "PIECE_BYTES", 1000)
    sizes, native_conv, computed = (4,) * n, outputs.native_conv, []
    x, w = torch.randn(1, 2, *sizes), torch.randn(2, 2, *(3,) * n)
    expected = F.conv(x, w, padding=1)

    def recorded(*args: Any, **kwargs: Any) -> torch.Tensor:
        out = native_conv(*args, **kwargs)
        computed.append(out.numel() * out.element_size())
        return out

    monkeypatch.setattr(outputs, "native_conv", recorded)
    plan.workspace.cache_clear()
    convnd.set_workspace_limit(1500)
    with convnd.algorithm("outputs"):
        assert_near(F.conv(x, w, padding=1), expected)
    plan.workspace.cache_clear()
    assert 0 < max(computed) <= 1500


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["blocks", "channels", "outputs", "winograd"])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("n", [2, 3, 4, 5])
@pytest.mark.usefixtures("vectors_of_16")
def test_maps_in_blocks(n: int, groups: int, name: str, dtype: torch.dtype) -> None:
    """Of several positions along one axis and along two, which need not divide the counts."""
    g = Geometry((1,) * n, ((1, 1), (2, 1), (0, 1), (1, 1), (1, 0))[:n], (1,) * n, groups)
    for sizes in ((4, 6, 8, 3, 4)[:n], (3, 7, 5, 4, 5)[:n]):
        counts = g.outputs(sizes, (3,) * n)
        x = torch.randn(2, 3 * groups, *sizes, dtype=dtype)
        w = torch.randn(2 * groups, 3, *(3,) * n, dtype=dtype)
        bias = torch.randn(2 * groups, dtype=dtype)
        y = torch.randn(2, 2 * groups, *counts, dtype=dtype)
        p = run.problem("conv", x, w, g, counts)
        if name == "blocks" and n > 3:
            assert not problems.applies(p, name)
            continue
        inside = {"blocks": p, "outputs": plan.unadded(p), "winograd": problems.one_product(p)}
        taps_fill = name == "outputs" and (n == 5 or dtype == torch.float64)
        if name == "channels":
            assert max(problems.folded_blocks(p)) > 1
        elif len(inside[name].kernel) <= 3 and not taps_fill:
            assert max(problems.blocks_of(inside[name])) > 1
        maps: tuple[tuple[problems.Op, Any, Any, Any, Any], ...] = (
            ("conv", x, w, bias, counts),
            ("weight", x, y, None, (3,) * n),
        )
        for op, a, b, offset, wanted in maps:
            expected = run.composed(op, a, b, offset, g, wanted)
            assert_near(run.bilinear(op, a, b, offset, g, wanted, name), expected)


@pytest.mark.parametrize("limit", [1, 2000, 1 << 29])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("several", [1, 2, 4])
@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_neighbouring_inputs_as_channels(n: int, several: int, last: bool, limit: int) -> None:
    g = Geometry((1,) * n, ((1, 1), (2, 0), (0, 1), (1, 1), (1, 0))[:n], (1,) * n, 1)
    sizes, blocks = (4, 8, 4, 3, 4)[:n], (2, 1, 1)[: min(n - 1, 3)]
    x = torch.randn(2, 3, *sizes, dtype=torch.float64)
    w = torch.randn(2, 3, *(3,) * n, dtype=torch.float64)
    bias = torch.randn(2, dtype=torch.float64)
    expected = run.composed("conv", x, w, bias, g, g.outputs(sizes, (3,) * n))
    assert_near(outputs.outputs_conv(x, w, bias, g, several, blocks, last, limit), expected)


@pytest.mark.usefixtures("vectors_of_16")
def test_few_inputs_are_joined() -> None:
    g = Geometry((1,) * 4, ((1, 1),) * 4, (1,) * 4, 1)
    for channels, several in ((1, 2), (2, 2), (4, 2), (8, 1), (16, 1)):
        x, w = torch.empty(1, channels, *(16,) * 4), torch.empty(channels, channels, *(3,) * 4)
        p = run.problem("conv", x, w, g, (16,) * 4)
        assert plan.joined(p) == several
        assert plan.joined(p._replace(sizes=(15,) * 4)) == 1  # they divide the axis
        assert problems.unadded_last(plan.unadded(p)) == (channels == 16)


@pytest.mark.usefixtures("vectors_of_16")
def test_blocks_fill_the_vectors() -> None:
    """With as few products too many as can be, and never of zeros in the weight gradient."""
    g = Geometry((1,) * 3, ((1, 1),) * 3, (1,) * 3, 1)
    for channels, blocks in ((1, (4, 4, 1)), (4, (2, 2, 1)), (8, (2, 1, 1)), (16, (1, 1, 1))):
        x, w = torch.empty(4, channels, *(16,) * 3), torch.empty(channels, channels, 3, 3, 3)
        p = run.problem("conv", x, w, g, (16,) * 3)
        assert problems.blocks_of(p) == blocks
        assert problems.channels_last(p) == (channels == 16)
        assert problems.channels_last(p._replace(dtype=torch.float64))
        assert problems.blocks_of(p._replace(op="weight")) == blocks
        assert max(problems.blocks_of(p._replace(op="weight", counts=(15,) * 3))) == 1
        assert max(problems.blocks_of(p._replace(dtype=torch.bfloat16))) == 1


@pytest.mark.usefixtures("vectors_of_16")
def test_workspace_counts_the_folded_taps_and_the_blocks_put_into_place() -> None:
    g = Geometry((1,) * 4, ((1, 1),) * 4, (1,) * 4, 1)
    x, w = torch.empty(1, 4, *(8,) * 4), torch.empty(4, 4, *(3,) * 4)
    p = run.problem("conv", x, w, g, (8,) * 4)
    assert problems.folded_blocks(p) == (4, 1, 1, 1)  # six taps for four positions
    assert plan.workspace(p, "channels") == 4 * (6 * x.numel() // 4 + x.numel())


def test_benchmark_measures_and_agrees() -> None:
    x = torch.randn(2, 3, *(5,) * 4, requires_grad=True)
    w = torch.randn(4, 3, *(3,) * 4, requires_grad=True)
    expected = torch.autograd.grad(F.conv(x, w, padding=1).square().sum(), (x, w))
    convnd.benchmark(True)
    actual = torch.autograd.grad(F.conv(x, w, padding=1).square().sum(), (x, w))
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-3)


def test_plan_says_what_a_call_does() -> None:
    x, w = torch.randn(1, 8, *(6,) * 4), torch.randn(8, 1, *(3,) * 4)
    steps = convnd.plan(x, w, padding=1, groups=8)
    assert steps.forward.flops == 2 * 8 * 6**4 * 3**4
    assert steps.forward.algorithm in steps.forward.estimates
    with convnd.algorithm("gemm"):
        assert convnd.plan(x, w, padding=1, groups=8).forward.algorithm == "gemm"
    text = str(
        convnd.plan(x.to("meta"), torch.empty(8, 4, 2, 2, 2, 2, device="meta"), stride=2, transposed=True)
    )
    assert text.splitlines()[1].startswith("forward ")


@pytest.mark.parametrize("n", [1, 4, 5])
@pytest.mark.parametrize("transposed", [False, True])
def test_plans_of_nothing(n: int, transposed: bool) -> None:
    for batch, channels, features in ((0, 2, 2), (1, 0, 2), (1, 2, 0)):
        rows = (channels, features) if transposed else (features, channels)
        x, w = torch.empty(batch, channels, *(5,) * n), torch.empty(*rows, *(3,) * n)
        steps = convnd.plan(x, w, stride=2, transposed=transposed)
        assert all(step.flops == 0 for step in steps)


def test_bad_settings() -> None:
    with pytest.raises(ValueError, match="name must be one of"), convnd.algorithm("strassen"):
        pass
    with pytest.raises(ValueError, match="limit must be at least 1, got 0"):
        convnd.set_workspace_limit(0)
    with pytest.raises(TypeError, match="enabled must be a bool, got 1"):
        convnd.benchmark(1)  # type: ignore[arg-type]
    assert settings.workspace_limit == settings.DEFAULT_WORKSPACE
