"""The U-Net: shapes, laws of the axes, options, and refusals."""

import json
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from convnd import ConvNd, ConvTransposeNd, inflate
from convnd.testing import spatial_shapes
from dynunet import Encoder, UNet


def filled(unet: UNet, seed: int = 0) -> UNet:
    """Random values everywhere: the layers that start at zero would make the laws empty."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in unet.parameters():
            fan = max(parameter[0].numel() if parameter.ndim > 1 else 4, 1)
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / fan**0.5)
    return unet.double().eval()


def small(spatial_dims: int, **options: Any) -> UNet:
    options = {"channels": (4, 6, 8), "num_groups": 2, "num_heads": 2, "num_blocks": 1, **options}
    return filled(UNet(spatial_dims, 2, 3, **options))


def data(unet: UNet, sizes: tuple[int, ...], batch: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, unet.in_channels, *sizes, generator=generator, dtype=torch.float64)


def test_parameter_count_of_the_ddpm_network_for_cifar10() -> None:
    unet = UNet(
        2,
        3,
        channels=(128, 256, 256, 256),
        attention=(None, "full", None, None),
        mid_attention="full",
        time_embedding=True,
    )
    assert sum(p.numel() for p in unet.parameters()) == 35_746_307


@pytest.mark.parametrize("sizes", [(1000,), (28, 28), (33, 47), (16, 16, 16), (8, 8, 8, 8), (3, 4, 1, 2, 3)])
def test_one_training_step_in_every_dimension(sizes: tuple[int, ...]) -> None:
    unet = UNet(
        len(sizes),
        2,
        channels=(8, 16),
        num_groups=4,
        attention=(None, None if len(sizes) == 1 else "full"),
        time_embedding=True,
        num_classes=3,
    )
    optimizer = torch.optim.Adam(unet.parameters(), 1e-3)
    x, t, y = torch.randn(2, 2, *sizes), torch.rand(2), torch.tensor([2, -1])
    losses = []
    for _ in range(3):
        out = unet(x, t, class_labels=y)
        assert out.shape == x.shape
        loss = (out - x).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


KINDS = ("full", "linear", "axial", "window", "channel", "spatial", "cbam", "full+channel")
BLOCKS = ("residual", "plain", "convnext")
NORMS = ("group", "batch", "instance", "layer", "rms", None)
DOWN, UP = ("conv", "max", "avg"), ("nearest", "linear", "transpose", "shuffle")

options = st.fixed_dictionaries(
    {},
    optional={
        "channels": st.lists(st.sampled_from((4, 8)), min_size=1, max_size=3),
        "block": st.sampled_from(BLOCKS),
        "norm": st.sampled_from(NORMS),
        "activation": st.sampled_from(("silu", "relu", nn.PReLU(), nn.GELU, torch.tanh)),
        "num_blocks": st.integers(1, 2),
        "kernel_size": st.integers(1, 4),
        "strides": st.integers(1, 3),
        "attention": st.sampled_from((None, *KINDS)),
        "skips": st.sampled_from(("block", "level")),
        "mid_blocks": st.integers(0, 2),
        "mid_attention": st.sampled_from((None, *KINDS)),
        "skip_attention": st.sampled_from((False, True, *KINDS)),
        "downsample": st.sampled_from(DOWN),
        "upsample": st.sampled_from(UP),
        "positions": st.sampled_from((None, "sinusoidal")),
        "dropout": st.just(0.1),
        "padding_mode": st.sampled_from(("zeros", "replicate")),
        "time_embedding": st.sampled_from((False, True, "ddpm", "fourier")),
        "modulation": st.sampled_from(("shift", "scale_shift")),
        "num_classes": st.just(3),
        "cond_channels": st.integers(0, 2),
        "cond_features": st.integers(0, 2),
        "context_features": st.sampled_from((None, 3)),
    },
)


def conditions(unet: UNet, batch: int = 2) -> dict[str, Tensor]:
    """One of everything that the network takes beside its input."""
    n, generator = unet.spatial_dims, torch.Generator().manual_seed(2)

    def random(*shape: int) -> Tensor:
        return torch.randn(batch, *shape, generator=generator, dtype=torch.float64)

    given: dict[str, Tensor] = {}
    if unet.time_embedding is not None:
        given["t"] = torch.linspace(0.3, 0.9, batch)
    if unet.class_embedding is not None:
        given["class_labels"] = torch.arange(batch) - 1
    if unet.cond_channels:
        given["cond"] = random(unet.cond_channels, *(3,) * n)
    if unet.feature_embedding is not None:
        given["features"] = random(unet.cond_features)
    if unet.context_features is not None:
        given["context"] = random(2, unet.context_features)
    return given


@settings(max_examples=60)
@given(spatial_shapes(max_dims=4), options)
def test_any_size_in_the_same_size_out(sizes: tuple[int, ...], options: dict[str, Any]) -> None:
    unet = small(len(sizes), **options)
    x, more = data(unet, sizes), conditions(unet)
    y = unet(x, **more)
    assert y.shape == (2, 3, *sizes)
    assert y.isfinite().all()
    alone = unet(x[:1], **{name: value[:1] for name, value in more.items()})
    torch.testing.assert_close(alone, y[:1], msg="a sample must not depend on the rest of its batch")
    saved = json.loads(json.dumps({k: v for k, v in unet.config.items() if k != "activation"}))
    again = UNet(**saved, activation=options.get("activation", "silu"))
    again.double().eval().load_state_dict(unet.state_dict())
    assert torch.equal(again(x, **more), y), "the configuration must make the same network"


@pytest.mark.parametrize("sizes", [(17,), (9, 12), (8, 5, 7), (4, 5, 4, 3)])
@pytest.mark.parametrize("blocks", [1, 3])
def test_skips_of_levels_are_those_of_the_first_unet(sizes: tuple[int, ...], blocks: int) -> None:
    """Ronneberger et al. 2015, figure 1, step by step."""
    unet = small(len(sizes), skips="level", mid_blocks=0, block="plain", num_blocks=blocks, num_groups=1)
    x = data(unet, sizes)
    parts: Any = unet
    h, kept = parts.stem(x), []
    for level in parts.encoder:
        for block in level.blocks:
            h = block(h)
        if level.down is not None:
            kept.append(h)
            h = level.down(h)
    assert len(kept) == 2
    for before, level in pairwise(parts.decoder):
        skip = kept.pop()
        h = torch.cat([before.up(h, skip.shape[2:]), skip], 1)
        assert len(level.blocks) == blocks
        for block in level.blocks:
            h = block(h)
    assert len(parts.decoder[0].blocks) == 0
    assert not list(parts.middle.parameters())
    torch.testing.assert_close(unet(x), parts.head(h))


unordered = st.fixed_dictionaries(  # options under which no axis differs from another
    {},
    optional={
        "block": st.sampled_from(BLOCKS),
        "norm": st.sampled_from(("group", "instance", "layer", "rms")),
        "attention": st.sampled_from((None, "full", "linear", "axial", "window", "channel", "spatial")),
        "skip_attention": st.sampled_from((False, True, "channel")),
        "downsample": st.sampled_from(DOWN),
        "upsample": st.sampled_from(UP),
        "skips": st.sampled_from(("block", "level")),
        "mid_blocks": st.integers(0, 2),
        "mid_attention": st.sampled_from((None, "full", "cbam")),
        "channels": st.just((4, 8, 8)),
    },
)


def sliced(unet: UNet, state: dict[str, Tensor], at: int) -> dict[str, Tensor]:
    """The state of a network with one axis more, its kernels sliced where an axis of size 1 reads them."""
    kept = dict(state)
    for name, value in unet.state_dict().items():
        more = state[name]
        if more.shape == value.shape:
            continue
        if name.split(".")[-3:-1] == ["up", "conv"] and unet.config["upsample"] == "shuffle":
            # Of the entries that a position becomes, the first ones along the axis stay.
            n, stride = unet.spatial_dims, 2
            more = more.unflatten(0, (-1, *(stride,) * (n + 1))).select(1 + at, 0).flatten(0, n)
        if value.ndim > 2:
            transposed = name.split(".")[-3:-1] == ["up", "conv"] and unet.config["upsample"] == "transpose"
            tap = 0 if transposed else (more.shape[2 + at] - 1) // 2
            more = more.select(2 + at, tap)
        kept[name] = more
    return kept


@settings(max_examples=40)
@given(spatial_shapes(max_dims=3), st.integers(0, 3), unordered)
def test_a_size_one_axis_equals_the_lower_rank(
    sizes: tuple[int, ...], at: int, options: dict[str, Any]
) -> None:
    """A network on n + 1 axes, its kernels sliced at the centre of one, is the network on n axes."""
    at = min(at, len(sizes))
    high, low = small(len(sizes) + 1, **options), small(len(sizes), **options)
    low.load_state_dict(sliced(low, high.state_dict(), at))
    x = data(low, sizes)
    torch.testing.assert_close(high(x.unsqueeze(2 + at)).squeeze(2 + at), low(x))


@settings(max_examples=40)
@given(spatial_shapes(max_dims=4), st.randoms(use_true_random=False), unordered)
def test_permuting_axes_and_kernels_permutes_the_output(
    sizes: tuple[int, ...], random: Any, options: dict[str, Any]
) -> None:
    n = len(sizes)
    order = list(range(n))
    random.shuffle(order)
    kernels, strides = [[1, 2, 3, 3][:n], [3, 1, 2, 3][:n], [3] * n], [[1, 2, 2, 3][:n], [2, 2, 1, 1][:n]]
    if options.get("upsample") == "shuffle":
        strides = [[2] * n, [2] * n]  # else the channels of a block are in another order
        options = {k: v for k, v in options.items() if k != "upsample"}
    unet = small(n, kernel_size=kernels, strides=strides, **options)
    moved = small(
        n,
        kernel_size=[[k[a] for a in order] for k in kernels],
        strides=[[s[a] for a in order] for s in strides],
        **options,
    )
    axes = (0, 1, *(2 + a for a in order))
    moved.load_state_dict(
        {k: v.permute(axes) if v.ndim == n + 2 else v for k, v in unet.state_dict().items()}
    )
    x = data(unet, sizes)
    torch.testing.assert_close(moved(x.permute(axes)), unet(x).permute(axes))


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("down", DOWN)
@pytest.mark.parametrize("up", UP)
def test_circular_padding_commutes_with_shifts(n: int, down: str, up: str) -> None:
    unet = small(n, padding_mode="circular", downsample=down, upsample=up, attention=(None, None, "linear"))
    x = data(unet, (8,) * n)
    for axis in range(2, n + 2):
        torch.testing.assert_close(unet(x.roll(4, axis)), unet(x).roll(4, axis))


def test_one_axis_may_be_periodic_and_the_other_not() -> None:
    unet = small(2, padding_mode=("circular", "zeros"))
    x = data(unet, (8, 7))
    torch.testing.assert_close(unet(x.roll(4, 2)), unet(x).roll(4, 2))


@pytest.mark.parametrize(
    ("mode", "size", "nearest"), [("circular", 6, "4 or 8"), ("circular", 9, "8 or 12"), ("reflect", 2, "5")]
)
def test_sizes_that_cannot_be_padded_are_refused_with_the_nearest(mode: str, size: int, nearest: str) -> None:
    with pytest.raises(
        ValueError, match=f"spatial axis 1 of size {size} does not; nearest that does: {nearest}$"
    ):
        small(2, padding_mode=("zeros", mode))(data(small(2), (8, size)))
    for good in nearest.split(" or "):
        small(2, padding_mode=("zeros", mode))(data(small(2), (8, int(good))))


@pytest.mark.parametrize("where", ["attention", "skip_attention", "mid_attention"])
def test_spatial_attention_needs_its_padding_too(where: str) -> None:
    options: Any = {"padding_mode": "circular", where: "spatial"}
    unet = small(2, **options)
    with pytest.raises(ValueError, match=r"of size 8 does not; nearest that does: 12$"):
        unet(data(unet, (8, 16)))
    unet(data(unet, (12, 16)))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("dims", [3, 4])
def test_an_inflated_network_repeats_the_old_one(dims: int, stride: int) -> None:
    unet = small(2, attention=(None, None, "full"), mid_attention="full", time_embedding=True)
    more = inflate(unet, dims, kernel_size=3, stride=stride)
    x, t = data(unet, (6, 5)), torch.tensor([0.1, 0.7])
    new = (5, 3)[: dims - 2]

    def repeat(x: Tensor) -> Tensor:
        shape = (*x.shape[:2], *new, *x.shape[2:])
        return x.reshape(*x.shape[:2], *(1,) * len(new), *x.shape[2:]).expand(shape)

    torch.testing.assert_close(more(repeat(x), t), repeat(unet(x, t)))


@pytest.mark.parametrize("attention", KINDS)
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("block", BLOCKS)
def test_every_parameter_receives_a_gradient(block: str, norm: str | None, attention: str) -> None:
    unet = small(
        2,
        channels=(4, 8),
        block=block,
        norm=norm,
        attention=attention,
        skip_attention=(True, attention),
        mid_attention="full",
        time_embedding=True,
        num_classes=2,
        cond_channels=1,
        cond_features=2,
        context_features=3,
        upsample="transpose",
    ).train()
    more = conditions(unet)
    more["class_labels"] = torch.tensor([0, 1])
    missing = {name for name, _ in unet.named_parameters()}
    for seed in range(8):  # a rectifier of a gate may be closed for some of the weights
        filled(unet, seed).train().zero_grad()
        unet(data(unet, (5, 6)), **more).square().sum().backward()
        missing -= {n for n, p in unet.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert not missing


def test_checkpointed_blocks_give_identical_gradients() -> None:
    results = []
    for checkpointing in (False, True):
        unet = small(
            3, attention=(None, "full", None), time_embedding=True, gradient_checkpointing=checkpointing
        ).train()
        out = unet(data(unet, (5, 6, 3)), torch.tensor([0.1, 0.7]))
        out.square().sum().backward()
        results.append([out, *(p.grad for p in unet.parameters())])
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("sizes", [(40,), (9, 12), (6, 5, 7), (4, 5, 3, 4)])
def test_half_precision_stays_finite_and_layouts_agree(sizes: tuple[int, ...]) -> None:
    unet = small(len(sizes), attention=(None, "full", "linear"), mid_attention="full").float()
    x = data(unet, sizes).float()
    expected = unet(x)
    with torch.autocast("cpu", torch.bfloat16):
        out = unet(100 * x)
    assert out.isfinite().all()
    last = x.movedim(1, -1).contiguous().movedim(-1, 1)
    torch.testing.assert_close(unet(last), expected, rtol=1e-4, atol=1e-4)


def test_compiles_in_one_graph() -> None:
    torch._dynamo.reset()
    unet = small(2, attention=(None, "full", "linear"), time_embedding=True)
    x, t = data(unet, (6, 5)), torch.tensor([0.2, 0.6])
    compiled = torch.compile(unet, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x, t), unet(x, t))
    torch._dynamo.reset()


def test_layers_of_the_user_around_the_network() -> None:
    first, last = ConvNd(2, 3, 5, 4, 4), ConvTransposeNd(2, 7, 2, 4, 4)
    unet = UNet(2, 3, 2, channels=(4, 8), num_groups=2, in_layer=first, out_layer=last)
    assert unet.stem.in_channels == 5
    assert unet(torch.randn(1, 3, 16, 24)).shape == (1, 2, 16, 24)
    scaled = UNet(1, 1, channels=(4,), num_groups=2, in_layer=lambda x: 2 * x, out_layer=torch.tanh)
    assert scaled(torch.randn(1, 1, 8)).shape == (1, 1, 8)


def test_deep_supervision_gives_an_output_of_each_level() -> None:
    unet = small(2, deep_supervision=2).train()
    outputs = unet(data(unet, (9, 6)))
    assert [tuple(y.shape) for y in outputs] == [(2, 3, 9, 6), (2, 3, 5, 3), (2, 3, 3, 2)]
    assert torch.equal(unet.eval()(data(unet, (9, 6))), outputs[0])


def test_a_norm_that_forgets_shifts_does_not_forget_the_time() -> None:
    """With a channel a group, what is added before the norm would be gone after it."""
    unet = small(2, num_groups=32, time_embedding=True)
    x = data(unet, (4, 4))
    assert not torch.allclose(unet(x, torch.zeros(2)), unet(x, torch.ones(2)))


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_an_encoder_shares_the_way_down(n: int) -> None:
    common: Any = {"channels": (4, 8), "num_groups": 2, "attention": (None, "full"), "time_embedding": True}
    torch.manual_seed(0)
    unet = UNet(n, 2, **common)
    torch.manual_seed(0)
    encoder = Encoder(n, 2, 5, **common)
    theirs = unet.state_dict()
    shared = {k: v for k, v in encoder.state_dict().items() if k.startswith(("stem", "encoder", "time"))}
    assert shared
    assert all(torch.equal(value, theirs[name]) for name, value in shared.items())
    x, t = torch.randn(3, 2, *(5, 4, 3, 6)[:n]), torch.rand(3)
    assert encoder(x, t).shape == (3, 5)
    torch.testing.assert_close(encoder.eval()(x, t)[:1], encoder(x[:1], t[:1]), rtol=1e-4, atol=1e-5)


def test_the_output_starts_at_zero_and_seeds_repeat() -> None:
    networks = []
    for _ in range(2):
        torch.manual_seed(0)
        networks.append(UNet(2, 1, channels=(4, 8), num_groups=2))
    for a, b in zip(networks[0].parameters(), networks[1].parameters(), strict=True):
        assert torch.equal(a, b)
    assert torch.equal(networks[0](torch.randn(1, 1, 6, 6)), torch.zeros(1, 1, 6, 6))


def test_time_and_class_change_the_output() -> None:
    unet = small(2, time_embedding=True, num_classes=3)
    x = data(unet, (4, 4))
    t, later = torch.tensor([0.2, 0.2]), torch.tensor([0.2, 0.8])
    labels = torch.tensor([-1, 2])
    plain = unet(x, t)
    assert torch.equal(unet(x, t, class_labels=torch.tensor([-1, -1])), plain), "-1 means none"
    for changed in (unet(x, later), unet(x, t, class_labels=labels)):
        torch.testing.assert_close(changed[0], plain[0])
        assert not torch.allclose(changed[1], plain[1])


def test_unused_options_cost_no_parameters() -> None:
    assert not any("attention" in name or "embed" in name for name in small(2).state_dict())


def test_bad_options_are_refused_when_built() -> None:
    for error, pattern, arguments in [
        (ValueError, "channels must have at least one level, got", {"channels": ()}),
        (TypeError, "channels must be a sequence of ints", {"channels": 64}),
        (ValueError, r"channels\[1\] must be at least 1, got 0", {"channels": (8, 0)}),
        (ValueError, "attention must be one value or have one for each of 2 levels", {"attention": ["full"]}),
        (ValueError, "attention.*'full'.*got 'fast'", {"attention": "fast"}),
        (ValueError, r"attention\[1\].*got 'full\+fast'", {"attention": (None, "full+fast")}),
        (ValueError, "skip_attention.*got 'gated'", {"skip_attention": "gated"}),
        (ValueError, "downsample must be one of 'conv', 'max', 'avg', got 'min'", {"downsample": "min"}),
        (ValueError, r"upsample\[0\] must be one of 'nearest'.*got 'cubic'", {"upsample": ["cubic"]}),
        (ValueError, "positions, if not None, must be one of.*got 'learned'", {"positions": "learned"}),
        (ValueError, "modulation must be one of 'shift', 'scale_shift', got 'film'", {"modulation": "film"}),
        (ValueError, "time_embedding.*must be one of 'sinusoidal'.*got 'rope'", {"time_embedding": "rope"}),
        (ValueError, "time_scale must be positive and finite, got 0", {"time_scale": 0}),
        (ValueError, "norm_eps must be positive and finite, got -1", {"norm_eps": -1.0}),
        (ValueError, "cond_channels must be at least 0, got -1", {"cond_channels": -1}),
        (ValueError, "context_features must be at least 1, got 0", {"context_features": 0}),
        (ValueError, "which attends to the context", {"context_features": 4, "num_heads": 3}),
        (TypeError, "in_layer must be None or a callable, got 3", {"in_layer": 3}),
        (TypeError, "gradient_checkpointing must be True or False", {"gradient_checkpointing": 1}),
        (ValueError, "deep_supervision must be at most 1", {"deep_supervision": 2}),
        (ValueError, "got 3 heads for 16 channels at level 1", {"skip_attention": "full", "num_heads": 3}),
        (ValueError, "strides must be one value or have one for each of 1 transitions", {"strides": (2, 2)}),
        (ValueError, r"strides\[0\] must be an int or have one entry", {"strides": [(2, 2, 2)]}),
        (ValueError, r"kernel_size\[1\] must be at least 1, got 0", {"kernel_size": (3, 0)}),
        (ValueError, "block must be one of 'residual', 'plain', 'convnext', got 'dense'", {"block": "dense"}),
        (ValueError, "norm, if not None, must be one of 'group', 'batch'", {"norm": "spectral"}),
        (ValueError, "activation, if not a callable, must be one of 'relu'", {"activation": "swosh"}),
        (
            ValueError,
            "got 3 heads for 8 channels at level 0",
            {"attention": "full", "num_heads": 3},
        ),
        (
            ValueError,
            "got 5 heads for 16 channels at the bottleneck",
            {"mid_attention": "full", "num_heads": 5},
        ),
        (ValueError, r"dropout must be in \[0, 1\), got 1", {"dropout": 1}),
        (ValueError, "padding_mode must be one of", {"padding_mode": "mirror"}),
        (ValueError, "num_classes must be at least 1, got 0", {"num_classes": 0}),
        (ValueError, "num_blocks must be at least 1, got 0", {"num_blocks": 0}),
        (ValueError, "in_channels must be at least 1, got 0", {"in_channels": 0}),
        (ValueError, "spatial_dims must be at least 1, got 0", {"spatial_dims": 0}),
    ]:
        with pytest.raises(error, match=pattern):
            UNet(**{"spatial_dims": 2, "in_channels": 1, "channels": (8, 16), **arguments})


def test_bad_calls_are_refused() -> None:
    unet = UNet(2, 1, channels=(4,), time_embedding=True, num_classes=3)
    x, t = torch.zeros(2, 1, 4, 4), torch.zeros(2)
    for error, pattern, args, kwargs in [
        (ValueError, r"x must be \(N, 1, \*spatial\) with 2 spatial axes", (x[0], t), {}),
        (ValueError, r"x must be \(N, 1, \*spatial\)", (torch.zeros(2, 2, 4, 4), t), {}),
        (TypeError, "x must be a floating-point tensor", (x.long(), t), {}),
        (ValueError, "this UNet needs t", (x,), {}),
        (ValueError, r"t must have shape \(2,\)", (x, t[:1]), {}),
        (ValueError, "class_labels must be from 0 to 2", (x, t), {"class_labels": torch.tensor([0, 3])}),
        (TypeError, "class_labels must be integers", (x, t), {"class_labels": t}),
        (ValueError, "takes no cond: build it with cond_channels", (x, t), {"cond": x}),
        (ValueError, "build the UNet with cond_features=", (x, t), {"features": x}),
        (ValueError, "build the UNet with context_features=", (x, t), {"context": x}),
    ]:
        with pytest.raises(error, match=pattern):
            unet(*args, **kwargs)
    with pytest.raises(ValueError, match="takes no t: build it with time_embedding=True"):
        UNet(2, 1, channels=(4,))(x, t)
    with pytest.raises(ValueError, match="build the UNet with num_classes"):
        UNet(2, 1, channels=(4,))(x, class_labels=torch.zeros(2).long())
