"""Every algorithm of every map against the native composition and its autograd; plans and settings."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

import convnd
import convnd.functional as F
from convnd._conv.algorithms import kn2row
from convnd._conv.cost import estimated_best
from convnd._conv.problem import Geometry, problem_of
from convnd._spatial.pad import zero_pad, zero_pad_unrecorded

from .planning import ALGORITHMS, forget_plans, planned_as_on_avx512

DTYPES = (torch.float64, torch.complex128, torch.float32)
OLD_NAMES = {
    "channels": "im2col",
    "outputs": "kn2row",
    "taps": "shift_add",
    "phases": "polyphase",
    "blocks": "tiles",
}


@pytest.fixture(autouse=True)
def default_settings() -> Iterator[None]:
    yield
    convnd.set_workspace_limit(None)
    convnd.benchmark(False)


@pytest.fixture
def vectors_of_16() -> Iterator[None]:
    with planned_as_on_avx512():
        yield


@st.composite
def cases(draw: st.DrawFn) -> tuple[dict[str, Any], tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Arguments, kernel, and shapes of input and weight of a convolution with at least one output."""
    n = draw(st.integers(1, 5))

    def axes(*values: int) -> tuple[int, ...]:
        return tuple(draw(st.sampled_from(values)) for _ in range(n))

    kernel, dilation = axes(1, 2, 3), axes(1, 1, 2)
    pads = tuple(zip(axes(0, 1, 2), axes(0, 1, 2), strict=True))
    groups = draw(st.sampled_from((1, 1, 2)))
    arguments = {"stride": axes(1, 1, 2), "padding": pads, "dilation": dilation, "groups": groups}
    rows = zip(kernel, dilation, pads, strict=True)
    sizes = tuple(max(d * (k - 1) + 1 - a - b, 1) + draw(st.integers(0, 3)) for k, d, (a, b) in rows)
    inputs, outputs = (draw(st.sampled_from((1, 2, 3))) for _ in range(2))
    x = draw(st.integers(1, 2)), groups * inputs, *sizes
    return arguments, x, (groups * outputs, inputs, *kernel), kernel


def assert_near(actual: torch.Tensor, expected: torch.Tensor) -> None:
    tolerance = 1e-4 if expected.dtype == torch.float32 else 1e-10
    scale = 1 + float(expected.abs().max())
    torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance * scale)


def by_composition(function: Callable[..., Any], *operands: Any) -> tuple[Any, ...]:
    """The result, the direction of its derivative, and the gradients: transforms do not see algorithms."""
    pair: Any = torch.func.vjp(function, *operands)
    out, gradients = pair
    torch.manual_seed(1)
    y = torch.randn_like(out)
    return out, y, *gradients(y)


@given(
    cases(),
    st.sampled_from(DTYPES),
    st.sampled_from((100, 3000, 1 << 29)),
    st.booleans(),
    st.permutations(ALGORITHMS).map(lambda names: names[:3]),
)
def test_algorithms_agree(
    case: Any, dtype: torch.dtype, limit: int, tiles: bool, names: Sequence[str]
) -> None:
    """In the convolution and the transposed one, and in the gradients of both."""
    arguments, shape, weight, kernel = case
    torch.manual_seed(0)
    x, w = (torch.randn(s, dtype=dtype, requires_grad=True) for s in (shape, weight))
    out = F.conv(x, w, **arguments)
    rows = zip(arguments["stride"], arguments["padding"], arguments["dilation"], kernel, strict=True)
    reach = [
        (q - 1) * s - sum(p) + d * (k - 1) + 1 for q, (s, p, d, k) in zip(out.shape[2:], rows, strict=True)
    ]
    extra = tuple(size - r for size, r in zip(shape[2:], reach, strict=True))
    y = torch.randn_like(out).requires_grad_()
    calls: tuple[tuple[Callable[..., Any], Any], ...] = (
        (lambda a, b: F.conv(a, b, **arguments), x),
        (lambda a, b: F.conv_transpose(a, b, output_padding=extra, **arguments), y),
    )
    convnd.set_workspace_limit(limit)
    with planned_as_on_avx512() if tiles else nullcontext():
        for function, a in calls:
            expected, direction, *gradients = by_composition(function, a.detach(), w.detach())
            for name in names:
                try:
                    with convnd.algorithm(name):
                        result = function(a, w)
                except ValueError as refusal:
                    if "does not apply" not in str(refusal):
                        raise
                    continue
                assert_near(result.detach(), expected)
                for found, gradient in zip(
                    torch.autograd.grad(result, (a, w), direction), gradients, strict=True
                ):
                    assert_near(found, gradient)


@pytest.mark.parametrize("name", ALGORITHMS)
@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_forced_algorithm_has_all_derivatives(n: int, name: str) -> None:
    kernel = 3 if name == "winograd" else 2
    x = torch.randn(1, 2, *(3,) * n, dtype=torch.float64, requires_grad=True)
    w = torch.randn(2, 2, *(kernel,) + (2,) * (n - 1), dtype=torch.float64, requires_grad=True)
    b = torch.randn(2, dtype=torch.float64, requires_grad=True)

    def forced(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        with convnd.algorithm(name):
            if name == "polyphase":
                return F.conv_transpose(x, w, b, stride=2)
            return F.conv(x, w, b, padding=1, padding_mode="circular")

    known = {"native": n <= 3, "tiles": n <= 3, "channels_last": n in (2, 3)}
    known["onednn"] = False  # single precision
    known |= dict.fromkeys(("im2col", "kn2row", "shift_add", "winograd"), n > 1)
    if not known.get(name, True):
        with pytest.raises(ValueError, match="does not apply"):
            forced(x, w, b)
        return
    assert torch.autograd.gradcheck(forced, (x, w, b), fast_mode=True)
    assert torch.autograd.gradgradcheck(forced, (x, w, b), fast_mode=True)


@pytest.mark.parametrize("pad", [zero_pad, zero_pad_unrecorded])
@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_crops_go_on_into_the_padding(pad: Any, size: int) -> None:
    """Position ``j`` of the result is entry ``j - before``, or zero."""
    entries = {i: i + 1.0 for i in range(size)}
    for before in range(-6, 7):
        for after in range(-size - before, 7):
            wanted = [entries.get(j - before, 0.0) for j in range(size + before + after)]
            assert pad(torch.arange(1.0, size + 1), ((before, after),)).tolist() == wanted


@pytest.mark.parametrize(
    "name", ["native", "channels_last", "im2col", "kn2row", "shift_add", "gemm", "polyphase", "fft"]
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


def test_polyphase_is_of_transposed_convolution() -> None:
    with convnd.algorithm("phases"), pytest.raises(ValueError, match="'polyphase' does not apply"):
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


@pytest.mark.parametrize("name", [None, "im2col", "kn2row"])
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


class Convolved(TorchDispatchMode):
    """Records the bytes of the results of native convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.convolution.default:
            self.sizes.append(out.nbytes)
        return out


@pytest.mark.parametrize("n", [4, 5])
def test_workspace_limit_cuts_entries_larger_than_a_piece(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what taps as outputs compute before it is added."""
    monkeypatch.setattr(kn2row, "PIECE_BYTES", 1000)
    x, w = torch.randn(1, 2, *(4,) * n), torch.randn(2, 2, *(3,) * n)
    expected = F.conv(x, w, padding=1)
    forget_plans()
    convnd.set_workspace_limit(1500)
    with convnd.algorithm("kn2row"), Convolved() as computed:
        assert_near(F.conv(x, w, padding=1), expected)
    forget_plans()
    assert 0 < max(computed.sizes) <= 1500


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["tiles", "im2col", "kn2row", "winograd"])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("n", [2, 3, 4, 5])
@pytest.mark.usefixtures("vectors_of_16")
def test_maps_in_tiles(n: int, groups: int, name: str, dtype: torch.dtype) -> None:
    """Of several positions along one axis and along two, which need not divide the counts."""
    arguments: dict[str, Any] = {"padding": ((1, 1), (2, 1), (0, 1), (1, 1), (1, 0))[:n], "groups": groups}
    for sizes in ((4, 6, 8, 3, 4)[:n], (3, 7, 5, 4, 5)[:n]):
        x = torch.randn(2, 3 * groups, *sizes, dtype=dtype)
        w = torch.randn(2 * groups, 3, *(3,) * n, dtype=dtype)
        bias = torch.randn(2 * groups, dtype=dtype)
        operands = [t.requires_grad_() for t in (x, w, bias)]

        def function(x: torch.Tensor, w: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
            return F.conv(x, w, bias, **arguments)

        def forced(*operands: Any) -> torch.Tensor:
            with convnd.algorithm(name):
                return function(*operands)

        if name == "tiles" and n > 3:
            with pytest.raises(ValueError, match="does not apply"):
                forced(*operands)
            continue
        plain = (t.detach() for t in operands)
        expected, y, *gradients = by_composition(function, *plain)
        out = forced(*operands)
        assert_near(out.detach(), expected)
        for found, gradient in zip(torch.autograd.grad(out, operands, y), gradients, strict=True):
            assert_near(found, gradient)


@pytest.mark.parametrize("limit", [1, 2000, 1 << 29])
@pytest.mark.parametrize("channels", [1, 2, 3, 12])
@pytest.mark.parametrize("leading", [1, 3])
@pytest.mark.parametrize("n", [2, 3, 4, 5])
@pytest.mark.usefixtures("vectors_of_16")
def test_neighbouring_inputs_as_channels(n: int, leading: int, channels: int, limit: int) -> None:
    """Of few inputs, several are channels of one before taps become outputs."""
    padding = ((1, 1), (2, 0), (0, 1), (1, 1), (1, 0))[:n]
    kernel = *(3,) * max(n - 4, 0), leading, *(3,) * min(n - 1, 3)
    x = torch.randn(2, channels, *(3, 8, 3, 2, 2)[:n], dtype=torch.float64)
    w = torch.randn(2, channels, *kernel, dtype=torch.float64)
    bias = torch.randn(2, dtype=torch.float64)
    expected = torch.func.vmap(lambda x: F.conv(x, w, bias, padding=padding))(x)
    convnd.set_workspace_limit(limit)
    with convnd.algorithm("kn2row"):
        assert_near(F.conv(x, w, bias, padding=padding), expected)


def products(name: str, channels: int, dtype: torch.dtype = torch.float32, **arguments: Any) -> float:
    """How many times the products of the definition an algorithm computes."""
    n = len(arguments["sizes"])
    x = torch.randn(4, channels, *arguments["sizes"], dtype=dtype)
    w = torch.randn(channels, channels, *(3,) * n, dtype=dtype)
    with convnd.algorithm(name), FlopCounterMode(display=False) as counter:
        F.conv(x, w, padding=1)
    return counter.get_total_flops() / convnd.plan(x, w, padding=1).forward.flops


@pytest.mark.usefixtures("vectors_of_16")
def test_tiles_fill_the_vectors() -> None:
    """With as few products as can be: tiles of ``b`` positions have ``(k + b - 1) / k`` times as many."""
    sizes = (16, 16, 16)
    for channels, times in ((1, 4), (4, (4 / 3) ** 2), (8, 4 / 3), (16, 1)):
        assert products("tiles", channels, sizes=sizes) == pytest.approx(times)
    # Over more axes, only along the last one that is taken away.
    assert products("im2col", 4, sizes=(8, 8, 8, 8)) == pytest.approx(2)


@pytest.mark.usefixtures("vectors_of_16")
@pytest.mark.parametrize("size", [15, 16])
def test_the_weight_gradient_adds_no_products_of_zeros(size: int) -> None:
    """So that infinity times zero does not reach it: tiles divide the positions."""
    x, w = torch.ones(1, 1, *(size,) * 3), torch.zeros(1, 1, 3, 3, 3, requires_grad=True)
    x[0, 0, 0, 0, 0] = torch.inf
    reached = torch.zeros(3, 3, 3, dtype=torch.bool)
    reached[:2, :2, :2] = True  # the taps that read the first entry from some output
    with convnd.algorithm("tiles"):
        (gradient,) = torch.autograd.grad(F.conv(x, w, padding=1).nan_to_num().sum(), w)
    assert torch.equal(~gradient[0, 0].isfinite(), reached)


@pytest.mark.usefixtures("vectors_of_16")
def test_workspace_counts_the_unfolded_taps_and_the_tiles_put_into_place() -> None:
    x, w = torch.empty(1, 4, *(8,) * 4), torch.empty(4, 4, *(3,) * 4)
    with convnd.algorithm("im2col"):
        step = convnd.plan(x, w, padding=1).forward
    assert step.workspace == 4 * (6 * x.numel() // 4 + x.numel())  # six taps for four positions


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


@pytest.mark.parametrize("old", OLD_NAMES)
def test_old_names_are_accepted_and_the_new_ones_told(old: str) -> None:
    x, transposed = torch.randn(1, 3, *(4,) * 3), old == "phases"
    w = torch.randn(3, 3, *(3,) * 3)
    function = F.conv_transpose if transposed else F.conv
    results = []
    for name in (old, OLD_NAMES[old]):
        with convnd.algorithm(name):
            assert convnd.plan(x, w, transposed=transposed).forward.algorithm == OLD_NAMES[old]
            results.append(function(x, w))
    assert torch.equal(*results)


def test_the_algorithms_are_all_described() -> None:
    assert {*ALGORITHMS} >= {*OLD_NAMES.values()}
    assert not {*ALGORITHMS} & {*OLD_NAMES}
    for name in (*ALGORITHMS, *OLD_NAMES):
        assert f'``"{name}"``' in str(convnd.algorithm.__doc__)


@pytest.mark.parametrize(
    ("op", "kernel", "groups", "name"),
    [
        ("conv", 3, 1, "im2col"),
        ("conv", 1, 1, "gemm"),
        ("conv", 3, 8, "shift_add"),
        ("weight", 1, 1, "im2col"),
        ("transpose", 3, 1, "polyphase"),
    ],
)
def test_a_rule_chooses_on_a_gpu(op: Any, kernel: int, groups: int, name: str) -> None:
    edge = kernel // 2
    g = Geometry((1,) * 4, ((edge, edge),) * 4, (1,) * 4, groups)
    weight = (8, 8 // groups, *(kernel,) * 4)
    p = problem_of("conv", (2, 8, 6, 6, 6, 6), weight, g, (6,) * 4, torch.bfloat16, "cuda")
    assert estimated_best(p._replace(op=op)).name == name


def test_bad_settings() -> None:
    with pytest.raises(ValueError, match="name must be one of 'native', "), convnd.algorithm("strassen"):
        pass
    with pytest.raises(ValueError, match="limit must be at least 1, got 0"):
        convnd.set_workspace_limit(0)
    with pytest.raises(TypeError, match="enabled must be a bool, got 1"):
        convnd.benchmark(1)  # type: ignore[arg-type]
