"""inflate: a network on more axes treats what is constant along the new ones as the old network did."""

import copy
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import convnd
from convnd import BatchNormNd, ConvNd, MaxPoolNd, PadNd, inflate

RANKS = [(1, 2), (1, 4), (2, 3), (2, 4), (2, 5), (3, 4)]
LAWFUL = [("average", "replicate"), ("average", "circular"), ("center", "zeros"), ("center", "reflect")]


def layer(name: str, n: int) -> Any:
    return getattr(nn, name.replace("?", str(n)))


def cnn(n: int) -> nn.Sequential:
    """Down and up and down again: 8 entries become 4, 8, 4, 8, 4, and 4 stay on new axes of stride 1."""

    def make(name: str, *args: Any, **options: Any) -> nn.Module:
        return layer(name, n)(*args, **options)

    linear = {1: "linear", 2: "bilinear", 3: "trilinear"}[n]
    net = nn.Sequential(
        make("ReflectionPad?d", 1),
        make("Conv?d", 2, 4, 3, stride=2, padding_mode="circular"),
        make("BatchNorm?d", 4),
        nn.ReLU(),
        nn.Upsample(scale_factor=2),
        make("ConstantPad?d", tuple(range(2 * n)), 0.5),
        make("Conv?d", 4, 4, 2, padding="same", dilation=3, groups=2, padding_mode="reflect", bias=False),
        make("MaxPool?d", 2, ceil_mode=True),
        make("ConvTranspose?d", 4, 6, 3, stride=2, padding=1, output_padding=1),
        make("AvgPool?d", 3, 2, 1, count_include_pad=False),
        nn.Upsample(scale_factor=(2.0,) * n, mode=linear, align_corners=True),
        make("ConvTranspose?d", 6, 4, 2),
        make("MaxPool?d", 3, stride=1, padding=1),
        nn.GroupNorm(2, 4),
        nn.Upsample(scale_factor=0.5),
        make("Conv?d", 4, 3, (3,) * n, padding=tuple(range(n))),
    )
    return net.double()


def spread(x: Tensor, n: int, sizes: tuple[int, ...], where: str) -> Tensor:
    """``x`` with ``n`` spatial axes, constant along new ones of these sizes."""
    lead = x.ndim - n if where == "leading" else x.ndim
    index = (slice(None),) * lead + (None,) * len(sizes)
    return x[index].expand(*x.shape[:lead], *sizes, *x.shape[lead:])


def check_law(net: nn.Module, x: Tensor, rank: int, options: dict[str, Any], size: int = 4) -> Tensor:
    """Compare with the old network, and return the output of the new one."""
    n, where = x.ndim - 2, options.get("new_axes", "leading")
    new = inflate(net, rank, **options)
    old = copy.deepcopy(net)(x)
    out = new(spread(x, n, (size,) * (rank - n), where))
    assert out.ndim == rank + 2
    sizes = tuple(out.shape[2 : 2 + rank - n] if where == "leading" else out.shape[2 + n :])
    torch.testing.assert_close(out, spread(old, n, sizes, where), msg=lambda m: f"{options} {net}\n{m}")
    return out


@pytest.mark.parametrize(("n", "rank"), RANKS)
@pytest.mark.parametrize("new_axes", ["leading", "trailing"])
@pytest.mark.parametrize(("weights", "padding_mode"), LAWFUL)
@pytest.mark.parametrize(("kernel_size", "stride"), [(1, 1), (2, 1), (3, 1), (1, 2), (3, 2)])
def test_constant_axes_change_nothing(
    n: int, rank: int, new_axes: str, weights: str, padding_mode: str, kernel_size: int, stride: int
) -> None:
    torch.manual_seed(n)
    net, x = cnn(n), torch.randn(2, 2, *(8,) * n, dtype=torch.float64)
    net.train((rank + kernel_size) % 2 == 0)
    options = {
        "new_axes": new_axes,
        "kernel_size": kernel_size,
        "stride": stride,
        "weights": weights,
        "padding_mode": padding_mode,
    }
    check_law(net, x, rank, options)


@pytest.mark.parametrize("new_axes", ["leading", "trailing"])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize(
    ("name", "args", "options"),
    [
        ("BatchNorm?d", (2,), {"affine": False}),
        ("BatchNorm?d", (2,), {"track_running_stats": False, "momentum": None}),
        ("InstanceNorm?d", (2,), {"affine": True, "track_running_stats": True}),
        ("Dropout?d", (0.0,), {}),
        ("ZeroPad?d", (1,), {}),
        ("ReplicationPad?d", (2,), {}),
        ("CircularPad?d", (2,), {}),
        ("MaxPool?d", (3,), {"dilation": 2, "stride": 1}),
        ("AvgPool?d", (2,), {"ceil_mode": True}),
        ("LPPool?d", (2, 2), {}),
        ("LPPool?d", (3.0, 3), {"stride": 1}),
        ("AdaptiveAvgPool?d", (1,), {}),
        ("AdaptiveAvgPool?d", (3,), {}),
        ("AdaptiveMaxPool?d", (1,), {}),
        ("AdaptiveMaxPool?d", (3,), {}),
        ("ConvTranspose?d", (2, 2, 4), {"stride": 3, "padding": 1, "dilation": 2, "groups": 2}),
    ],
)
@pytest.mark.parametrize(("n", "rank"), [(1, 3), (2, 4), (3, 4)])
def test_layers(
    name: str, args: Any, options: dict[str, Any], n: int, rank: int, stride: int, new_axes: str
) -> None:
    torch.manual_seed(0)
    net, x = layer(name, n)(*args, **options).double(), torch.rand(2, 2, *(6,) * n, dtype=torch.float64)
    out = check_law(net, x, rank, {"new_axes": new_axes, "stride": stride, "kernel_size": 3}, size=6)
    if args == (1,) and name.startswith("Adaptive"):
        assert set(out.shape[2:]) == {1}, "global pooling stays global"
    if args == (3,) and name.startswith("Adaptive"):
        assert sorted(out.shape[2:]) == [3] * n + [6] * (rank - n), "other adaptive pools keep new axes"


@pytest.mark.parametrize("mode", ["bilinear", "bicubic", "nearest", "nearest-exact"])
@pytest.mark.parametrize("factor", [2, (3, 0.5), 0.5])
def test_upsample_modes(mode: str, factor: Any) -> None:
    net, x = nn.Upsample(scale_factor=factor, mode=mode), torch.randn(1, 2, 6, 6)
    model = nn.Sequential(nn.ZeroPad2d(1), net)
    out = check_law(model, x, 3, {"stride": 2}, size=6)
    assert out.shape[2] == (3 if factor == 0.5 else 12)
    for named in (nn.UpsamplingNearest2d(scale_factor=2), nn.UpsamplingBilinear2d(scale_factor=2)):
        check_law(named, x, 4, {"new_axes": "trailing"})


def test_divisor_override_counts_new_taps() -> None:
    net = nn.AvgPool2d(2, divisor_override=3)
    check_law(net, torch.randn(1, 2, 4, 4), 4, {"stride": (2, 4)})


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("weights", "padding_mode"), LAWFUL)
def test_convnd_layers_are_inflated_too(weights: str, padding_mode: str, stride: int) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        ConvNd(2, 2, 4, 3, 2, "same", padding_mode=("circular", "zeros")),
        BatchNormNd(2, 4),
        convnd.InterpolateNd(2, scale_factor=2, mode="cubic"),
        PadNd(2, 1, "circular"),
        convnd.ConvTransposeNd(2, 4, 3, (3, 2), 2, "same", padding_mode="replicate"),
        ConvNd(2, 3, 3, (3, 2), padding=[(1, 2), (0, 1)]),
        MaxPoolNd(2, 2),
        convnd.AvgPoolNd(2, (1, 3), 1),
    ).double()
    x = torch.randn(2, 2, 8, 8, dtype=torch.float64)
    options = {"weights": weights, "padding_mode": padding_mode, "stride": stride, "kernel_size": 3}
    for where in ("leading", "trailing"):
        check_law(net, x, 3, options | {"new_axes": where})


def test_again_and_in_one_step_are_the_same() -> None:
    torch.manual_seed(0)
    net, x = cnn(1), torch.randn(1, 2, 4, 4, 8, dtype=torch.float64)
    twice = inflate(inflate(net, 2, kernel_size=3, stride=2), 3, kernel_size=3, stride=2)
    once = inflate(net, 3, kernel_size=3, stride=2)
    torch.testing.assert_close(twice(x), once(x))
    assert repr(twice) == repr(once)


def test_one_entry_per_new_axis_in_order() -> None:
    conv = nn.Conv2d(2, 4, 5, stride=(1, 2), padding=(2, 1))
    options: dict[str, Any] = {"kernel_size": (2, 3), "stride": (3, 1), "padding_mode": "circular"}
    leading = inflate(conv, 4, **options)
    trailing = inflate(conv, 4, new_axes="trailing", **options)
    assert isinstance(leading, ConvNd)
    assert isinstance(trailing, ConvNd)
    assert (leading.kernel_size, leading.stride) == ((2, 3, 5, 5), (3, 1, 1, 2))
    assert (trailing.kernel_size, trailing.stride) == ((5, 5, 2, 3), (1, 2, 3, 1))
    assert leading.padding == ((0, 1), (1, 1), (2, 2), (1, 1))
    assert trailing.padding_mode == ("zeros", "zeros", "circular", "circular")
    torch.testing.assert_close(leading.weight, conv.weight[:, :, None, None].expand_as(leading.weight) / 6)
    center = inflate(conv, 4, weights="center", **options).weight
    assert torch.equal(center[:, :, 0, 1], conv.weight)
    assert int(center.count_nonzero()) == conv.weight.numel()


def test_pools_keep_new_axes_unless_asked() -> None:
    for pool in (nn.MaxPool2d(3, 2, 1), nn.AvgPool2d(3, 2, 1)):
        new: Any = inflate(pool, 3, kernel_size=3)
        assert (new.kernel_size, new.stride, new.padding) == ((1, 3, 3), (1, 2, 2), (0, 1, 1))
        new = inflate(pool, 3, stride=4)
        assert (new.kernel_size, new.stride, new.padding) == ((4, 3, 3), (4, 2, 2), (0, 1, 1))
    new = inflate(nn.MaxPool2d(3, 1, 1), 3, stride=4)
    assert (new.kernel_size, new.stride) == ((1, 3, 3), (1, 1, 1)), "it does not change the resolution"


def test_state_is_kept_and_the_original_left_alone() -> None:
    net: Any = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Linear(3, 3)).half()
    net[1].float().eval()
    net[0].weight.requires_grad_(False)
    net[1].running_mean.fill_(2)
    net[1].bias.requires_grad_(False)
    before, text = copy.deepcopy(net.state_dict()), repr(net)
    random = torch.random.get_rng_state()
    new = inflate(net, 4, kernel_size=3)
    assert torch.equal(torch.random.get_rng_state(), random), "no random numbers are drawn"
    assert [m.training for m in new] == [True, False, True]
    for (name, p), (other, q) in zip(net.named_parameters(), new.named_parameters(), strict=True):
        assert (name, p.dtype, p.device, p.requires_grad) == (other, q.dtype, q.device, q.requires_grad)
        assert p.data_ptr() != q.data_ptr()
    assert torch.equal(new[1].running_mean, net[1].running_mean)
    assert new[1].running_mean is not net[1].running_mean
    assert new.state_dict().keys() == net.state_dict().keys()
    for p in new.parameters():
        p.data.fill_(7)
    assert repr(net) == text
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert not hasattr(net, "inflated")
    assert inflate(nn.Conv2d(2, 4, 3, device="meta"), 3).weight.device.type == "meta"


def test_sharing_is_kept() -> None:
    conv, tied, linear = nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3), nn.Linear(3, 3)
    tied.weight, tied.bias = conv.weight, conv.bias
    net = nn.ModuleDict({"a": conv, "b": conv, "c": tied, "d": linear, "e": linear})
    new: Any = inflate(net, 3, kernel_size=3)
    assert new["a"] is new["b"]
    assert new["a"] is not new["c"]
    assert new["a"].weight is new["c"].weight
    assert new["a"].bias is new["c"].bias
    assert new["d"] is new["e"]
    assert new["d"].weight is not linear.weight


def test_tied_kernels_that_would_differ_are_refused() -> None:
    down, up = nn.Conv2d(4, 4, 2, stride=2), nn.ConvTranspose2d(4, 4, 2, stride=2)
    up.weight = down.weight
    net = nn.Sequential(down, up)
    new = inflate(net, 3)
    assert new[0].weight is new[1].weight
    with pytest.raises(ValueError, match=r"cannot inflate '1': ConvTranspose2d.*shares its weight"):
        inflate(net, 3, kernel_size=2, stride=2)


def test_a_child_called_module() -> None:
    class Parallel(Hooked):
        def __init__(self) -> None:
            super().__init__()
            self.module = nn.Conv2d(1, 1, 1)

    new: Any = inflate(Parallel(), 3)
    assert new.spatial_dims == 3
    assert isinstance(new.module, ConvNd)


def test_modules_in_plain_attributes_are_replaced_as_well() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 1, 3)
            self.steps = [self.conv]

    new: Any = inflate(Net(), 3)
    assert new.steps[0] is new.conv


def test_the_list_of_replacements() -> None:
    net: Any = nn.Sequential()
    net.add_module("stem", nn.Conv2d(1, 2, 3))
    net.add_module("block", nn.Sequential(nn.ReLU(), nn.MaxPool2d(2)))
    assert inflate(net, 3).inflated == [
        f"stem: {net.stem} -> ConvNd(3, 1, 2, kernel_size=(1, 3, 3), stride=(1, 1, 1))",
        f"block.1: {net.block[1]} -> {MaxPoolNd(3, (1, 2, 2), (1, 2, 2), (0, 0, 0), (1, 1, 1))}",
    ]
    single: Any = inflate(nn.ZeroPad2d(1), 3)
    (only,) = single.inflated
    assert only == "module: ZeroPad2d((1, 1, 1, 1)) -> PadNd(3, (1, 1, 1, 1, 0, 0), mode='constant')"


class Container(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.spatial_dims = 2
        self.conv = ConvNd(2, 1, 1, 3)


class Hooked(Container):
    def __init__(self) -> None:
        super().__init__()
        self.strides = ((2, 1), (1, 1))

    def _inflate_(self, axes: Any) -> None:
        assert isinstance(self.conv, ConvNd)
        assert self.conv.spatial_dims == axes.spatial_dims, "children are replaced before"
        assert axes.old_dims == self.spatial_dims
        self.spatial_dims = axes.spatial_dims
        self.strides = tuple(axes.extend(s, axes.strides(s)) for s in self.strides)


def test_containers_are_updated() -> None:
    net: Any = nn.Sequential(Container(), Hooked())
    new: Any = inflate(net, 4, stride=(3, 2), new_axes="trailing")
    assert (new[0].spatial_dims, new[1].spatial_dims) == (4, 4)
    assert new[1].strides == ((2, 1, 3, 2), (1, 1, 1, 1))
    assert net[1].strides == ((2, 1), (1, 1))
    assert net[0].spatial_dims == 2
    assert new.inflated[-2:] == ["0: Container.spatial_dims 2 -> 4", "1: Hooked._inflate_"]
    assert inflate(Hooked(), 3).strides == ((1, 2, 1), (1, 1, 1))


def test_a_subclass_with_the_method_is_left_to_itself() -> None:
    class Scaled2d(nn.Conv2d):
        def _inflate_(self, axes: Any) -> None:
            self.rank = axes.spatial_dims

    new: Any = inflate(nn.Sequential(Scaled2d(1, 1, 1), nn.Conv2d(1, 1, 1)), 3)
    assert (type(new[0]), new[0].rank) == (Scaled2d, 3)


def test_batch_norm_of_features_stays() -> None:
    net = nn.Sequential(nn.Conv2d(1, 3, 4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm1d(3)).eval()
    x = torch.randn(2, 1, 4, 4)
    torch.testing.assert_close(inflate(net, 3)(x[:, :, None]), net(x))


def _weight_norm() -> nn.Module:
    return nn.utils.parametrizations.weight_norm(nn.Conv2d(1, 1, 3))


def _old_weight_norm() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nn.utils.weight_norm(nn.Conv2d(1, 1, 3))


class Own(nn.Conv2d):
    pass


class OwnConvolution(nn.modules.conv._ConvNd):
    def __init__(self) -> None:
        super().__init__(1, 1, (3,), (1,), (0,), (1,), False, (0,), 1, True, "zeros")


class LayerNorm2d(nn.LayerNorm):
    pass


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (nn.Conv3d(1, 1, 1), "Conv3d must have fewer than spatial_dims=3 spatial axes, and has 3"),
        (ConvNd(4, 1, 1, 1), "ConvNd must have fewer than spatial_dims=3 spatial axes, and has 4"),
        (nn.Conv1d(1, 1, 1), "Conv1d has 1 spatial axes and 'stem' has 2"),
        (nn.LazyConv2d(1, 1), "LazyConv2d is lazy"),
        (nn.LazyBatchNorm2d(), "LazyBatchNorm2d is lazy"),
        (_weight_norm(), "ParametrizedConv2d is parametrized"),
        (_old_weight_norm(), "Conv2d is parametrized"),
        (Own(1, 1, 1), "Own is a subclass"),
        (OwnConvolution(), "OwnConvolution has no layer"),
        (LayerNorm2d(3), "LayerNorm2d has no layer"),
        (nn.MaxPool2d(2, return_indices=True), "MaxPool2d: with return_indices"),
        (nn.MaxUnpool2d(2), "MaxUnpool2d has no layer"),
        (nn.FractionalMaxPool2d(2, output_size=2), "FractionalMaxPool2d has no layer"),
        (nn.PixelShuffle(2), "PixelShuffle has no layer"),
        (nn.PixelUnshuffle(2), "PixelUnshuffle has no layer"),
        (nn.Fold(2, 2), "Fold has no layer"),
        (nn.Unfold(2), "Unfold has no layer"),
        (nn.Softmax2d(), "Softmax2d has no layer"),
        (nn.Upsample(size=(4, 4)), "Upsample: its size"),
    ],
)
def test_refusals_by_name(bad: nn.Module, reason: str) -> None:
    net = nn.Sequential()
    net.add_module("stem", nn.Conv2d(1, 1, 1))
    net.add_module("layer1", nn.ModuleDict({"conv": bad}))
    with pytest.raises(ValueError, match=f"^cannot inflate 'layer1.conv': {reason}"):
        inflate(net, 3)


def test_a_lazy_layer_that_has_run_is_like_any_other() -> None:
    net: nn.Module = nn.Sequential(nn.LazyConv2d(2, 3), nn.LazyBatchNorm2d()).eval()
    x = torch.randn(1, 3, 5, 5)
    net(x)
    check_law(net, x, 3, {})


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(
    "old",
    [
        convnd.AvgPoolNd(2, 2, dilation=2),
        convnd.AvgPoolNd(2, (2, 3), 1, (0, 1), False, False, 5),
        convnd.LPPoolNd(2, 2, (1, 3), padding=(0, 1), dilation=2),
        convnd.LPPoolNd(2, float("inf"), 2, ceil_mode=True),
        convnd.MaxPoolNd(2, (3, 2), dilation=(1, 2)),
        convnd.AdaptiveAvgPoolNd(2, None),
        convnd.AdaptiveMaxPoolNd(2, (1, None)),
        convnd.InstanceNormNd(2, 2, affine=True, bias=False),
        convnd.BatchNormNd(2, 2, bias=False),
        convnd.DropoutNd(2, 0.0),
        convnd.InterpolateNd(2, scale_factor=0.5, mode="linear", antialias=True),
        convnd.InterpolateNd(2, scale_factor=(1.5, 2), mode="area"),
    ],
    ids=lambda old: type(old).__name__,
)
def test_options_of_convnd_layers(old: nn.Module, stride: int) -> None:
    x = torch.rand(2, 2, 6, 6, dtype=torch.float64)
    for where in ("leading", "trailing"):
        check_law(old.double(), x, 4, {"new_axes": where, "stride": stride})


@pytest.mark.parametrize(
    "old",
    [
        convnd.FoldNd(2, 4, 2),
        convnd.UnfoldNd(2, 2),
        convnd.PixelShuffleNd(2, 2),
        convnd.PixelUnshuffleNd(2, 2),
        convnd.MaxUnpoolNd(2, 2),
        convnd.FractionalMaxPoolNd(2, 2, 2),
        convnd.LazyConvNd(2, 1, 1),
        convnd.LazyConvTransposeNd(2, 1, 1),
        convnd.LazyBatchNormNd(2),
        convnd.MaxPoolNd(2, 2, return_indices=True),
        convnd.AdaptiveMaxPoolNd(2, 2, return_indices=True),
        convnd.InterpolateNd(2, size=4),
    ],
    ids=lambda old: type(old).__name__,
)
def test_convnd_layers_that_are_refused(old: nn.Module) -> None:
    with pytest.raises(
        ValueError, match=f"^cannot inflate 'module': {type(old).__name__}:? (is|has|with|its)"
    ):
        inflate(old, 3)


@pytest.mark.parametrize("module", [nn.Linear(1, 1), nn.Upsample(scale_factor=2), nn.Sequential()])
def test_nothing_to_replace(module: nn.Module) -> None:
    with pytest.raises(ValueError, match=r"^module must have spatial layers"):
        inflate(module, 3)


@pytest.mark.parametrize(
    ("error", "options", "message"),
    [
        (ValueError, {"new_axes": "last"}, "new_axes must be one of 'leading', 'trailing', got 'last'"),
        (ValueError, {"weights": "mean"}, "weights must be one of 'average', 'center', got 'mean'"),
        (ValueError, {"padding_mode": "same"}, "padding_mode must be one of .*, got 'same'"),
        (ValueError, {"kernel_size": 0}, "kernel_size of the new axes must be at least 1, got 0"),
        (ValueError, {"kernel_size": (1, 2, 3)}, "kernel_size of the new axes must .* got 3 entries"),
        (TypeError, {"stride": 1.5}, "stride of the new axes must be an int .* got 1.5"),
        (ValueError, {"spatial_dims": 0}, "spatial_dims must be at least 1, got 0"),
        (ValueError, {"spatial_dims": 2}, "cannot inflate 'module': Conv2d must have fewer"),
        (TypeError, {"spatial_dims": "3"}, "spatial_dims must be an int, got '3'"),
        (TypeError, {"module": nn.Conv2d}, "module must be a torch.nn.Module, got type"),
    ],
)
def test_arguments_are_checked(error: type[Exception], options: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"module": nn.Conv2d(1, 1, 3), "spatial_dims": 4} | options
    with pytest.raises(error, match=f"^{message}"):
        inflate(arguments.pop("module"), arguments.pop("spatial_dims"), **arguments)
