"""Everything around autograd beyond three axes: derivatives, transforms, compilers, export, precision."""

import copy
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._dynamo.testing
import torch.distributed
from torch import Tensor, nn
from torch.func import grad, jacrev, jvp, vmap

import convnd.functional as F
from convnd import (
    AvgPoolNd,
    BatchNormNd,
    ConvNd,
    ConvTransposeNd,
    InstanceNormNd,
    InterpolateNd,
    LPPoolNd,
    MaxPoolNd,
    PadNd,
)

RANKS = (2, 4, 5)


def weight(n: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(2, 2, *(2,) * n, dtype=dtype, generator=torch.Generator().manual_seed(1))


def places(n: int, x: Tensor) -> Tensor:
    """Four of them for each sample, some outside, in numbers that half precision has."""
    grid = (torch.arange(4 * n, dtype=x.dtype, device=x.device) * 5 % 41 - 20) / 16
    return grid.view(1, 4, n).expand(len(x), -1, -1)


def functions(n: int, w: Tensor | None = None) -> dict[str, Callable[[Tensor], Tensor]]:
    """One call of every differentiable function, from ``(N, 2, *spatial)``."""
    w = weight(n) if w is None else w
    modes = ("circular", "reflect", "replicate", "zeros", "zeros")[:n]
    samples = torch.full((1, 2, n), 0.4, dtype=torch.float64)
    return {
        "conv": lambda x: F.conv(x, w.to(x.dtype), stride=2, padding=1),
        "conv modes": lambda x: F.conv(x, w.to(x.dtype), padding=1, padding_mode=modes),
        "conv_transpose": lambda x: F.conv_transpose(x, w.to(x.dtype), stride=2, padding=1),
        "conv_transpose modes": lambda x: F.conv_transpose(x, w.to(x.dtype), padding=1, padding_mode=modes),
        "max_pool": lambda x: F.max_pool(x, 2, 1, 1),
        "avg_pool": lambda x: F.avg_pool(x, 2, 1, 1, count_include_pad=False),
        "avg_pool dilated": lambda x: F.avg_pool(x, 2, dilation=2),
        "lp_pool": lambda x: F.lp_pool(x.exp(), 2, 2),
        "adaptive_avg_pool": lambda x: F.adaptive_avg_pool(x, 2),
        "adaptive_max_pool": lambda x: F.adaptive_max_pool(x, 2),
        "fractional_max_pool": lambda x: F.fractional_max_pool(
            x, 2, 2, _random_samples=samples.to(x.dtype).expand(x.shape[0], -1, -1)
        ),
        "pad": lambda x: F.pad(x, (1, 2) * n, "circular"),
        "interpolate nearest": lambda x: F.interpolate(x, 4),
        "interpolate linear": lambda x: F.interpolate(x, 4, mode="linear"),
        "interpolate cubic": lambda x: F.interpolate(x, 4, mode="cubic"),
        "interpolate antialias": lambda x: F.interpolate(x, 2, mode="linear", antialias=True),
        "grid_sample linear": lambda x: F.grid_sample(x, places(n, x)),
        "grid_sample cubic": lambda x: F.grid_sample(x, places(n, x), "cubic", "reflection"),
        "unfold": lambda x: F.unfold(x, 2, padding=1),
        "fold": lambda x: F.fold(F.unfold(x, 2), (3,) * n, 2, spatial_dims=n),
        "pixel": lambda x: F.pixel_shuffle(F.pixel_unshuffle(x, 3), 3),
    }


NAMES = tuple(functions(2))


def data(n: int, batch: int = 1, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 2, *(3,) * n, dtype=dtype, generator=generator)


@pytest.mark.parametrize("n", [1, 2, 3, 4])
@pytest.mark.parametrize("name", NAMES)
def test_derivatives_of_both_orders(name: str, n: int) -> None:
    function, x = functions(n)[name], data(n).requires_grad_()
    assert torch.autograd.gradcheck(function, x, fast_mode=True)
    assert torch.autograd.gradgradcheck(function, x, fast_mode=True)


@pytest.mark.parametrize("n", RANKS)
@pytest.mark.parametrize("name", NAMES)
def test_forward_mode_agrees_with_reverse_mode(name: str, n: int) -> None:
    function, x, direction = functions(n)[name], data(n), data(n, seed=1)
    out, tangent = jvp(function, (x,), (direction,))[:2]
    other = torch.randn(out.shape, dtype=out.dtype, generator=torch.Generator().manual_seed(2))
    gradient = grad(lambda x: (function(x) * other).sum())(x)
    torch.testing.assert_close((tangent * other).sum(), (gradient * direction).sum())


@pytest.mark.parametrize("n", RANKS)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_vmap_equals_a_loop(name: str, n: int) -> None:
    function = functions(n)[name]
    stack = torch.stack([data(n, seed=s) for s in range(3)])
    expected = torch.stack([function(x) for x in stack])
    torch.testing.assert_close(vmap(function)(stack), expected)


@pytest.mark.parametrize("n", RANKS)
def test_per_sample_gradients_and_jacobians(n: int) -> None:
    x, w = data(n, batch=3), weight(n)

    def loss(w: Tensor, sample: Tensor) -> Tensor:
        return F.conv(sample, w).square().sum()

    per_sample = vmap(grad(loss), (None, 0))(w, x)
    expected = torch.stack([grad(loss)(w, sample) for sample in x])
    torch.testing.assert_close(per_sample, expected)
    jacobian = jacrev(lambda w: F.conv(x[:1], w).flatten())(w)
    torch.testing.assert_close(torch.einsum("o...,...->o", jacobian, w), F.conv(x[:1], w).flatten())


def network(n: int) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        ConvNd(
            n, 2, 4, 3, stride=2, padding="same", padding_mode=("circular", "zeros", "reflect", "zeros")[:n]
        ),
        BatchNormNd(n, 4),
        nn.SiLU(),
        MaxPoolNd(n, 2, 1),
        ConvTransposeNd(n, 4, 2, 2, stride=2),
        InstanceNormNd(n, 2),
        PadNd(n, 1),
        AvgPoolNd(n, 2, 1),
        InterpolateNd(n, scale_factor=2, mode="linear"),
        LPPoolNd(n, 2, 2),
    ).eval()


def network_input(n: int, batch: int = 2) -> Tensor:
    return torch.randn(batch, 2, *(4,) * n, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("n", [2, 4])
@pytest.mark.filterwarnings("ignore")  # the compiler's own
def test_compiles_in_one_graph_with_gradients(n: int) -> None:
    torch._dynamo.reset()  # or the second rank would be compiled for varying sizes, which takes minutes
    model, x = network(n), network_input(n).requires_grad_()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    out, expected = compiled(x), model(x)
    torch.testing.assert_close(out, expected)
    for a, b in zip(
        torch.autograd.grad(out.sum(), [x, *model.parameters()]),
        torch.autograd.grad(expected.sum(), [x, *model.parameters()]),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("n", [2, 4])
@pytest.mark.filterwarnings("ignore")
def test_exports_with_a_dynamic_batch(n: int) -> None:
    model = network(n)
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(model, (network_input(n, 3),), dynamic_shapes=({0: batch},))
    for size in (2, 5):
        x = network_input(n, size)
        torch.testing.assert_close(program.module()(x), model(x))


def resizing(n: int) -> dict[str, nn.Module]:
    torch.manual_seed(0)
    return {
        "same": ConvNd(n, 3, 4, 3, stride=2, padding="same"),
        "modes": ConvNd(
            n, 3, 4, 3, padding=1, padding_mode=("circular", "zeros", "reflect", "replicate")[:n]
        ),
        "transposed": ConvTransposeNd(n, 3, 4, 2, stride=2),
        "transposed same": ConvTransposeNd(n, 3, 4, (3, *(2,) * (n - 1)), stride=2, padding="same"),
    }


@pytest.mark.parametrize("n", [1, 4])
@pytest.mark.parametrize("name", list(resizing(1)))
@pytest.mark.filterwarnings("ignore")
def test_exports_with_dynamic_spatial_sizes(name: str, n: int) -> None:
    model = resizing(n)[name].eval()
    sizes = dict.fromkeys((0, *range(2, 2 + n)), torch.export.Dim.DYNAMIC)
    program = torch.export.export(model, (torch.randn(2, 3, *range(5, 5 + n)),), dynamic_shapes=(sizes,))
    for batch, size in ((3, 4), (2, 9)):
        x = torch.randn(batch, 3, *range(size, size + n))
        torch.testing.assert_close(program.module()(x), model(x))


@pytest.mark.parametrize("n", [1, 4])
@pytest.mark.parametrize("name", list(resizing(1)))
@pytest.mark.filterwarnings("ignore")
def test_compiles_twice_for_any_number_of_sizes(name: str, n: int) -> None:
    """For the first size, and then for all."""
    torch._dynamo.reset()
    model, counter = resizing(n)[name], torch._dynamo.testing.CompileCounterWithBackend("eager")
    compiled = torch.compile(model, backend=counter, fullgraph=True)
    for size, graphs in ((8, 1), (9, 2), (11, 2), (14, 2)):
        x = torch.randn(2, 3, *range(size, size + n))
        torch.testing.assert_close(compiled(x), model(x), rtol=1e-4, atol=1e-5)
        assert counter.frame_count == graphs


@pytest.mark.filterwarnings("ignore")
def test_onnx_runs_to_the_same_numbers() -> None:
    from onnx.reference import ReferenceEvaluator

    model = nn.Sequential(
        ConvNd(4, 2, 3, 3, stride=2, padding=1, padding_mode=("circular", "zeros", "replicate", "zeros")),
        BatchNormNd(4, 3),
        nn.SiLU(),
        MaxPoolNd(4, 2, 1),
        ConvTransposeNd(4, 3, 2, 3, stride=2, padding=1, output_padding=1),
        InterpolateNd(4, scale_factor=2, mode="linear"),
        AvgPoolNd(4, 2),
    ).eval()
    x = network_input(4)
    program = torch.onnx.export(model, (x,), dynamo=True, verbose=False)
    assert program is not None
    proto = program.model_proto
    (out,) = ReferenceEvaluator(proto).run(None, {proto.graph.input[0].name: x.numpy()})  # type: ignore[misc]
    torch.testing.assert_close(torch.tensor(out), model(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("n", [2, 4])
def test_meta_tensors_give_shapes(n: int) -> None:
    for name, function in functions(n).items():
        if name == "fractional_max_pool":
            continue  # random samples of the meta device come below
        meta = torch.empty(1, 2, *(3,) * n, dtype=torch.float64, device="meta")
        w = weight(n).to("meta")
        if name == "conv":
            assert F.conv(meta, w, stride=2, padding=1).shape == function(data(n)).shape
        elif not name.startswith("conv"):
            assert function(meta).shape == function(data(n)).shape
    assert F.fractional_max_pool(torch.empty(1, 2, *(3,) * n, device="meta"), 2, 2).shape[2:] == (2,) * n


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_copies_pickles_and_parametrisations(n: int) -> None:
    x = torch.randn(1, 2, *(3,) * n)
    layer = ConvNd(n, 2, 4, 2, padding=1, padding_mode="circular")
    assert torch.equal(copy.deepcopy(layer)(x), layer(x))
    assert torch.equal(pickle.loads(pickle.dumps(layer))(x), layer(x))
    expected = layer(x)
    torch.nn.utils.parametrizations.weight_norm(layer)
    torch.testing.assert_close(layer(x), expected)
    spectral: Any = torch.nn.utils.parametrizations.spectral_norm(ConvNd(n, 2, 4, 2))
    spectral.eval()
    spectral(x).sum().backward()
    assert torch.linalg.matrix_norm(spectral.weight.flatten(1), 2) < 1.5


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_initialisers_know_the_fans(n: int) -> None:
    layer = ConvNd(n, 30, 20, 2)
    nn.init.xavier_normal_(layer.weight)
    fan = (30 + 20) * 2**n
    assert layer.weight.std().item() == pytest.approx((2 / fan) ** 0.5, rel=0.15)
    nn.init.orthogonal_(layer.weight)
    rows = layer.weight.detach().flatten(1)
    torch.testing.assert_close(rows @ rows.T, torch.eye(20), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_flops_are_counted(n: int) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        F.conv(torch.randn(2, 3, *(4,) * n), torch.randn(5, 3, *(3,) * n))
    assert counter.get_total_flops() == 2 * 2 * 5 * 3 * 3**n * 2**n


@pytest.fixture
def process_group(tmp_path: Path) -> Iterator[None]:
    torch.distributed.init_process_group("gloo", f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.filterwarnings("ignore")
def test_distributed_data_parallel_and_sync_batch_norm(process_group: None) -> None:
    model = network(4).train()
    parallel = nn.parallel.DistributedDataParallel(copy.deepcopy(model))
    x = network_input(4)
    parallel(x).sum().backward()
    model(x).sum().backward()
    for a, b in zip(parallel.module.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)
    converted: Any = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(model))
    assert isinstance(converted[1], nn.SyncBatchNorm)
    torch.testing.assert_close(converted.eval()(x), model.eval()(x))


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("name", [name for name in NAMES if "lp" not in name])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_low_precision_rounds_once(name: str, n: int, dtype: torch.dtype) -> None:
    """At most about one rounding of the exact result, however many taps there are."""
    rounded = weight(n).to(dtype).double()  # compare with what the function was given
    function, x = functions(n, rounded)[name], data(n).to(dtype)
    out, exact = function(x), function(x.double())
    assert out.dtype == dtype
    # Low precision accumulates in float32 and rounds once; float32 accumulates in itself.
    roundings = 4 if dtype == torch.float32 else 1.5
    limit = roundings * torch.finfo(dtype).eps * max(exact.abs().max().item(), 1)
    assert (out.double() - exact).abs().max() <= limit


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("kind", ["conv", "conv_transpose"])
def test_autocast_gives_the_dtype_torch_gives(n: int, kind: str) -> None:
    function = getattr(F, kind)
    x, w = data(n, dtype=torch.float32), weight(n, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        assert function(x, w).dtype == torch.bfloat16
        assert function(x.bfloat16(), w).dtype == torch.bfloat16
        assert function(x, w, padding=1, padding_mode="circular").dtype == torch.bfloat16
        assert function(x, w, stride=3).dtype == torch.bfloat16, "also where no tap reaches an output"


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_non_finite_values_reach_the_outputs_whose_window_holds_them(n: int, value: float) -> None:
    x, w = torch.zeros(1, 1, *(5,) * n), torch.ones(1, 1, *(3,) * n)
    x[(0, 0, *(0,) * n)] = value
    touched = ~F.conv(x, w, padding=1).isfinite()
    assert touched[(0, 0, *(slice(0, 2),) * n)].all()
    assert touched.sum() == 2**n


@pytest.mark.parametrize("n", [4, 5])
def test_complex_convolution(n: int) -> None:
    real = [data(n, seed=s) for s in range(2)]
    parts = [weight(n), weight(n).flip(2)]
    x, w = torch.complex(*real), torch.complex(parts[0], parts[1])
    out = F.conv(x, w, padding=1)
    re = F.conv(real[0], parts[0], padding=1) - F.conv(real[1], parts[1], padding=1)
    im = F.conv(real[0], parts[1], padding=1) + F.conv(real[1], parts[0], padding=1)
    torch.testing.assert_close(out, torch.complex(re, im))


@pytest.mark.parametrize("n", [2, 4])
def test_results_repeat(n: int) -> None:
    for function in functions(n).values():
        assert torch.equal(function(data(n)), function(data(n)))
