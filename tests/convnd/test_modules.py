"""Modules: exchange with torch.nn, seeds, repr, pickling, and refusals."""

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

import convnd
from convnd import AvgPoolNd, BatchNormNd, ConvNd, ConvTransposeNd, InterpolateNd, MaxPoolNd, PadNd
from convnd.functional import max_pool

CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
CONV_TRANSPOSE = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
BATCH_NORM = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"stride": 2, "padding": 1, "dilation": 2},
        {"groups": 2, "bias": False},
        {"padding": "same"},
        {"padding": 1, "padding_mode": "circular"},
        {"padding": 1, "padding_mode": "reflect"},
        {"padding": 1, "padding_mode": "replicate"},
    ],
)
def test_conv_exchanges_with_torch(n: int, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    theirs = CONV[n](4, 6, 3, **options)
    torch.manual_seed(0)
    ours = ConvNd(n, 4, 6, 3, **options)
    x = torch.randn(2, 4, *(7,) * n)
    for name, parameter in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], parameter), "same seed, same initial weights"
    assert torch.equal(ours(x), theirs(x))
    assert repr(ours) == repr(theirs).replace(f"Conv{n}d(", f"ConvNd({n}, ")
    torch.nn.init.normal_(ours.weight)
    theirs.load_state_dict(ours.state_dict())
    assert torch.equal(ours(x), theirs(x))


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("size", [None, 0, 1])
def test_conv_transpose_exchanges_with_torch(n: int, size: int | None) -> None:
    torch.manual_seed(0)
    theirs = CONV_TRANSPOSE[n](4, 6, 3, stride=2, padding=1, groups=2)
    torch.manual_seed(0)
    ours = ConvTransposeNd(n, 4, 6, 3, stride=2, padding=1, groups=2)
    x = torch.randn(2, 4, *(5,) * n)
    wanted = None if size is None else [9 + size] * n
    assert torch.equal(ours(x, wanted), theirs(x, wanted))
    assert repr(ours) == repr(theirs).replace(f"ConvTranspose{n}d(", f"ConvTransposeNd({n}, ")
    assert isinstance(ours, nn.modules.conv._ConvNd)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_batch_norm_exchanges_with_torch(n: int) -> None:
    theirs, ours = BATCH_NORM[n](3), BatchNormNd(n, 3)
    x = torch.randn(4, 3, *(5,) * n)
    assert torch.equal(ours(x), theirs(x))
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    ours.load_state_dict(theirs.state_dict())
    assert torch.equal(ours.eval()(x), theirs.eval()(x))


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_batch_norm_normalises(n: int) -> None:
    x = 3 + 2 * torch.randn(4, 3, *(4,) * n, dtype=torch.float64)
    y = BatchNormNd(n, 3, dtype=torch.float64)(x).transpose(0, 1).flatten(1)
    torch.testing.assert_close(y.mean(1), torch.zeros(3, dtype=torch.float64))
    torch.testing.assert_close(y.var(1, correction=0), torch.ones(3, dtype=torch.float64), rtol=1e-4, atol=0)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_modules_call_their_functions(n: int) -> None:
    x = torch.randn(2, 3, *(4,) * n)
    F = convnd.functional
    assert torch.equal(MaxPoolNd(n, 2, padding=1)(x), F.max_pool(x, 2, padding=1))
    values, indices = MaxPoolNd(n, 2, return_indices=True)(x)
    assert torch.equal(x.flatten(2).gather(2, indices.flatten(2)).view(values.shape), values)
    pooled = AvgPoolNd(n, 3, 2, 1, count_include_pad=False)(x)
    assert torch.equal(pooled, F.avg_pool(x, 3, 2, 1, count_include_pad=False))
    assert torch.equal(PadNd(n, 1, "reflect")(x), F.pad(x, (1, 1) * n, "reflect"))
    assert torch.equal(InterpolateNd(n, size=3, mode="linear")(x), F.interpolate(x, 3, mode="linear"))


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_copies_and_pickles(n: int) -> None:
    x = torch.randn(2, 2, *(3,) * n)
    module = nn.Sequential(
        ConvNd(n, 2, 4, 3, padding=[(1, 2)] * n, padding_mode="circular"),
        BatchNormNd(n, 4),
        MaxPoolNd(n, 2),
        ConvTransposeNd(n, 4, 2, 2, stride=2),
        PadNd(n, 1),
        AvgPoolNd(n, 2),
        InterpolateNd(n, scale_factor=2),
    ).eval()
    expected = module(x)
    assert torch.equal(copy.deepcopy(module)(x), expected)
    assert torch.equal(pickle.loads(pickle.dumps(module))(x), expected)


@pytest.mark.parametrize("mode", ["zeros", "circular", "replicate", "reflect"])
@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_transposed_same_returns_every_size(n: int, mode: str) -> None:
    """With the same weight, ConvTransposeNd(..., "same") is the adjoint of ConvNd(..., "same")."""
    down = ConvNd(n, 2, 3, 3, 2, "same", bias=False, padding_mode=mode, dtype=torch.float64)
    up = ConvTransposeNd(n, 3, 2, 3, 2, "same", bias=False, padding_mode=mode, dtype=torch.float64)
    up.load_state_dict(down.state_dict())
    for size in (4, 5):
        x = torch.randn(1, 2, *(size,) * n, dtype=torch.float64)
        y = torch.randn_like(down(x))
        back = up(y, x.shape)
        assert back.shape == x.shape
        torch.testing.assert_close((down(x) * y).sum(), (x * back).sum())


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
@pytest.mark.parametrize(
    "normalise", [nn.utils.spectral_norm, nn.utils.parametrizations.spectral_norm], ids=["old", "new"]
)
@pytest.mark.filterwarnings("ignore:.*spectral_norm.* is deprecated")
def test_spectral_norm_of_transposed_convolutions(normalise: Any, n: int) -> None:
    """By the matrix whose rows are the outputs, which torch tells by the class."""
    x = torch.randn(1, 4, *(3,) * n)
    torch.manual_seed(0)
    layer = normalise(ConvTransposeNd(n, 4, 6, 3), n_power_iterations=60)
    out = layer(x)
    largest = torch.linalg.matrix_norm(layer.weight.transpose(0, 1).flatten(1), 2)
    torch.testing.assert_close(largest, torch.ones(()), rtol=1e-2, atol=0)
    if n in CONV_TRANSPOSE:
        torch.manual_seed(0)
        theirs = normalise(CONV_TRANSPOSE[n](4, 6, 3), n_power_iterations=60)
        torch.testing.assert_close(out, theirs(x))


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("transposed", [False, True])
def test_tools_that_know_convolutions(n: int, transposed: bool) -> None:
    x = torch.randn(1, 4, *(3,) * n)
    layer = ConvTransposeNd(n, 4, 6, 3) if transposed else ConvNd(n, 4, 6, 3)
    pair = nn.Sequential(layer, BatchNormNd(n, 6))
    pair(torch.randn(3, 4, *(5,) * n))
    fused = nn.utils.fusion.fuse_conv_bn_eval(*pair.eval(), transpose=transposed)  # type: ignore[arg-type]
    torch.testing.assert_close(fused(x), pair(x), rtol=1e-4, atol=1e-4)
    prune.ln_structured(layer, "weight", 0.5, n=2, dim=0)
    prune.remove(layer, "weight")
    assert torch.equal(pickle.loads(pickle.dumps(layer))(x), layer(x))


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("kind", ["Conv", "ConvTranspose"])
def test_lazy_convolutions_learn_from_a_state_dict(kind: str, n: int) -> None:
    full = getattr(convnd, f"{kind}Nd")(n, 4, 6, 2, groups=2)
    lazy = getattr(convnd, f"Lazy{kind}Nd")(n, 6, 2, groups=2)
    lazy.load_state_dict(full.state_dict())
    x = torch.randn(1, 4, *(3,) * n)
    assert torch.equal(lazy(x), full(x))
    assert repr(lazy) == repr(full)


class SliceConv(nn.Module):
    """Laid out as the layers of pytorch_convNd: one convolution of lower rank per slice of the kernel."""

    def __init__(self, n: int, kernel: int) -> None:
        super().__init__()
        self.conv_layers = nn.ModuleList(
            nn.Conv3d(2, 3, kernel, bias=False) if n == 4 else SliceConv(n - 1, kernel) for _ in range(kernel)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        count = x.shape[2] - len(self.conv_layers) + 1
        frames = [
            sum(layer(x[:, :, o + t]) for t, layer in enumerate(self.conv_layers)) for o in range(count)
        ]
        return torch.stack(frames, 2)  # type: ignore[arg-type]


def stacked(layer: Any) -> torch.Tensor:
    """The README's recipe."""
    inner = getattr(layer, "conv_layers", None)
    return layer.weight if inner is None else torch.stack([stacked(part) for part in inner], dim=2)


@pytest.mark.parametrize("n", [4, 5])
def test_weights_kept_slice_by_slice_can_be_loaded(n: int) -> None:
    old, new = SliceConv(n, 2), ConvNd(n, 2, 3, 2, bias=False)
    new.load_state_dict({"weight": stacked(old)})
    x = torch.randn(1, 2, *(3,) * n)
    torch.testing.assert_close(new(x), old(x))


def layers(n: int) -> nn.Sequential:
    """Every layer, from two channels and sizes of four."""
    samples = torch.full((1, 2, n), 0.4)
    return nn.Sequential(
        ConvNd(n, 2, 3, 3, padding=1, padding_mode="circular"),
        ConvTransposeNd(n, 3, 2, 1),
        BatchNormNd(n, 2),
        convnd.InstanceNormNd(n, 2),
        convnd.DropoutNd(n),
        PadNd(n, 1, "reflect"),
        MaxPoolNd(n, 2, 1),
        AvgPoolNd(n, 2, 1),
        convnd.LPPoolNd(n, 2, 2, 1),
        InterpolateNd(n, scale_factor=2),
        convnd.AdaptiveAvgPoolNd(n, 5),
        convnd.AdaptiveMaxPoolNd(n, 5),
        convnd.FractionalMaxPoolNd(n, 2, 4, _random_samples=samples),
        convnd.PixelUnshuffleNd(n, 2),
        convnd.PixelShuffleNd(n, 2),
        convnd.UnfoldNd(n, 2),
        convnd.FoldNd(n, 4, 2),
        convnd.LazyBatchNormNd(n),
        convnd.LazyConvNd(n, 2, 1),
        convnd.LazyConvTransposeNd(n, 2, 1),
    )


class Unpooled(nn.Module):
    def __init__(self, n: int) -> None:
        super().__init__()
        self.n, self.pool, self.unpool = n, MaxPoolNd(n, 2, return_indices=True), convnd.MaxUnpoolNd(n, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        values, indices = self.pool(x)
        up = self.unpool(values, indices, output_size=x.shape)
        return max_pool(up + convnd.functional.pad(x, (0, 0)), 2, spatial_dims=self.n)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_layers_and_functions_are_nodes_of_a_traced_graph(n: int) -> None:
    x = torch.randn(1, 2, *(4,) * n)
    model = layers(n)
    model(x)
    for module in (model.eval(), Unpooled(n)):
        traced = torch.fx.symbolic_trace(module)
        assert torch.equal(traced(x), module(x))
        assert torch.equal(pickle.loads(pickle.dumps(traced))(x), module(x))
        called = [node for node in traced.graph.nodes if node.op == "call_module"]
        assert len(called) == len(list(module.children()))


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("shape", [(0, 2), (2, 0), (0, 0)])
def test_empty_batches_and_no_channels_have_gradients(n: int, shape: tuple[int, int]) -> None:
    for module in layers(n):
        if isinstance(module, nn.modules.conv._ConvNd):
            continue  # have tests of their own
        if isinstance(module, nn.modules.batchnorm._NormBase) and shape[1] == 0:
            continue  # num_features is at least 1
        module = convnd.FractionalMaxPoolNd(n, 2, 2) if "Fractional" in repr(module) else module
        x = torch.zeros(*shape, *(4,) * n, requires_grad=True)
        if isinstance(module, convnd.FoldNd):
            x = torch.zeros(shape[0], shape[1] * 2**n, 3**n, requires_grad=True)
        if isinstance(module, convnd.PixelShuffleNd):
            x = torch.zeros(shape[0], shape[1] * 2**n, *(2,) * n, requires_grad=True)
        for training in (True, False):
            out = module.train(training)(x)
            assert out.numel() == 0
            (gradient,) = torch.autograd.grad(out.sum(), x)
            assert gradient.shape == x.shape


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_instance_norm_of_an_empty_batch_leaves_its_statistics(n: int) -> None:
    norm = convnd.InstanceNormNd(n, 2, affine=True, track_running_stats=True)
    before = copy.deepcopy(norm.state_dict())
    x = torch.zeros(0, 2, *(2,) * n, requires_grad=True)
    for training in (True, False):
        norm.train(training)(x).sum().backward()
    assert all(torch.equal(before[name], value) for name, value in norm.state_dict().items())


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_lazy_batch_norm_after_loading(n: int) -> None:
    norm, lazy = BatchNormNd(n, 3), convnd.LazyBatchNormNd(n)
    x = torch.randn(2, 3, *(2,) * n)
    norm(x)
    lazy.load_state_dict(norm.state_dict())
    assert torch.equal(lazy.eval()(x), norm.eval()(x))
    assert repr(lazy) == repr(norm)
    with pytest.raises(ValueError, match="num_features = 3"):
        lazy(x[:, :2])
    bare = convnd.LazyBatchNormNd(n, affine=False, track_running_stats=False)
    assert bare(x).shape == x.shape
    with pytest.raises(ValueError, match=r"input must be \(N, C"):
        convnd.LazyBatchNormNd(n + 1)(x)


@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_norms_name_the_shape_they_were_given(n: int) -> None:
    one, other = torch.zeros(1, 3, *(1,) * n), torch.zeros(2, 4, *(2,) * n)
    for norm in (BatchNormNd(n, 3), convnd.InstanceNormNd(n, 3, affine=True)):
        for x, rule in ((one, "must have more than one"), (other, "num_features = 3")):
            with pytest.raises(ValueError, match=rule) as error:
                norm(x)
            assert str(tuple(x.shape)) in str(error.value)
    with pytest.raises(ValueError, match="num_features = 3"):
        convnd.InstanceNormNd(n, 3, track_running_stats=True).eval()(other)


def test_bad_arguments_are_refused_when_built() -> None:
    for error, pattern, build in [
        (ValueError, "spatial_dims must be at least 1, got 0", lambda: ConvNd(0, 1, 1, 1)),
        (ValueError, "in_channels must be at least 0, got -1", lambda: ConvNd(2, -1, 1, 1)),
        (ValueError, "groups must divide out_channels = 3, got 2", lambda: ConvNd(2, 2, 3, 1, groups=2)),
        (ValueError, "kernel_size must be at least 1, got 0", lambda: ConvNd(2, 1, 1, 0)),
        (ValueError, "kernel_size must be an int or have one entry", lambda: ConvNd(3, 1, 1, (3, 3))),
        (ValueError, "padding_mode must be one of", lambda: ConvNd(2, 1, 1, 1, padding_mode="mirror")),
        (ValueError, "kernel_size must be at least 1, got -1", lambda: MaxPoolNd(2, -1)),
        (ValueError, "padding must be an int or 4 ints", lambda: PadNd(2, (1, 1))),
        (ValueError, "mode must be one of", lambda: InterpolateNd(2, 3, mode="spline")),
        (ValueError, "num_features must be at least 1, got 0", lambda: BatchNormNd(2, 0)),
        (
            ValueError,
            "output_ratio must be between 0",
            lambda: convnd.FractionalMaxPoolNd(2, 2, None, (0.5,) * 3),
        ),
        (ValueError, "output_size must be an int", lambda: convnd.FractionalMaxPoolNd(2, 2, (2,) * 3)),
        (ValueError, "scale_factor must be positive", lambda: InterpolateNd(2, scale_factor=(2.0,) * 3)),
        (ValueError, "size must be an int", lambda: InterpolateNd(2, (2,) * 3)),
        (TypeError, "norm_type must be a number", lambda: convnd.LPPoolNd(2, "2", 2)),  # type: ignore[arg-type]
        (ValueError, "divisor_override must not be zero", lambda: AvgPoolNd(2, 2, divisor_override=0)),
        (TypeError, "output_size must be an int", lambda: convnd.AdaptiveAvgPoolNd(2, 2.0)),  # type: ignore
        (TypeError, "padding must be an int", lambda: PadNd(2, 1.5)),  # type: ignore[arg-type]
    ]:
        with pytest.raises(error, match=pattern):
            build()
    with pytest.raises(ValueError, match="output_size must be between"):
        ConvTransposeNd(2, 1, 1, 2, 2)(torch.zeros(1, 1, 3, 3), (8, 6))
    with pytest.raises(ValueError, match=r"input must be \(N, C"):
        BatchNormNd(2, 1)(torch.zeros(1, 1, 3))
    with pytest.raises(ValueError, match="num_features = 2"):
        BatchNormNd(2, 2)(torch.zeros(1, 1, 3, 3))
