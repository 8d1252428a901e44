"""Causal networks: nothing depends on what is later than the look-ahead allows, at any rank."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dynunet import Encoder, UNet

from .test_unet import conditions, data, filled, sliced

NETWORK: dict[str, Any] = {"channels": (4, 6), "num_groups": 2, "num_heads": 2, "num_blocks": 1}


def causal(dims: int, axes: Any = True, **options: Any) -> UNet:
    return filled(UNet(dims, 2, 3, causal=axes, **{**NETWORK, **options}))


options = st.fixed_dictionaries(
    {},
    optional={
        "channels": st.sampled_from(((4,), (4, 6), (4, 6, 8))),
        "block": st.sampled_from(("residual", "plain", "convnext")),
        "norm": st.sampled_from(("group", "instance", "batch", "layer", "rms", None)),
        "kernel_size": st.integers(1, 4),
        "strides": st.integers(1, 3),
        "attention": st.sampled_from((None, "full", "axial", "window", "channel", "spatial", "cbam")),
        "mid_attention": st.sampled_from((None, "window", "full+channel")),
        "skip_attention": st.sampled_from((False, True, "window", "spatial")),
        "positions": st.sampled_from((None, "sinusoidal")),
        "downsample": st.sampled_from(("conv", "max", "avg")),
        "upsample": st.sampled_from(("nearest", "linear", "transpose", "shuffle")),
        "skips": st.sampled_from(("block", "level")),
        "mid_blocks": st.integers(0, 2),
        "padding_mode": st.sampled_from(("zeros", "replicate")),
        "time_embedding": st.booleans(),
        "modulation": st.sampled_from(("shift", "scale_shift")),
        "cond_channels": st.integers(0, 1),
        "context_features": st.sampled_from((None, 3)),
        "lookahead": st.integers(0, 9),
    },
)
SIZES = ((13,), (7, 10), (5, 3, 6), (3, 4, 5, 2))


def later(gradient: Tensor, axis: int, place: int) -> Tensor:
    """The gradient by the entries after a place."""
    return gradient.narrow(2 + axis, place + 1, gradient.shape[2 + axis] - place - 1)


@settings(max_examples=40)
@given(st.sampled_from(SIZES), st.data(), options)
def test_nothing_depends_on_later_entries(sizes: tuple[int, ...], draw: Any, options: dict[str, Any]) -> None:
    dims, ahead = len(sizes), options.pop("lookahead", 0)
    axes = draw.draw(st.lists(st.booleans(), min_size=dims, max_size=dims).filter(any))
    unet = causal(dims, axes, lookahead=[ahead * c for c in axes], **options)
    given = conditions(unet)
    x = data(unet, sizes).requires_grad_()
    inputs = [x]
    if unet.cond_channels:
        given["cond"] = data(unet, sizes)[:, :1].requires_grad_()
        inputs.append(given["cond"])
    y = unet(x, **given)
    assert y.shape == (2, 3, *sizes)
    for axis in (a for a, c in enumerate(axes) if c):
        place = draw.draw(st.integers(0, sizes[axis] - 1))
        of_place = y.select(2 + axis, place).square().sum()
        for gradient in torch.autograd.grad(of_place, inputs, retain_graph=True):
            assert ahead or gradient.any()
            assert not later(gradient, axis, min(place + ahead, sizes[axis] - 1)).any()


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("ahead", [0, 1, 3, 5])
def test_the_look_ahead_is_exact(sizes: tuple[int, ...], ahead: int) -> None:
    """Where entries of the bottleneck begin, the furthest that may be seen is."""
    size = 13
    for axis in range(len(sizes)):
        sizes = (*sizes[:axis], size, *sizes[axis + 1 :])
        axes = [a == axis for a in range(len(sizes))]
        unet = causal(len(sizes), axes, channels=(4, 6, 8), lookahead=[ahead * c for c in axes])
        x = data(unet, sizes, 1).requires_grad_()
        (gradient,) = torch.autograd.grad(unet(x).select(2 + axis, 4).sum(), x)
        assert gradient.select(2 + axis, 4 + ahead).any()
        assert not later(gradient, axis, 4 + ahead).any()
        sizes = (*sizes[:axis], 3, *sizes[axis + 1 :])


@settings(max_examples=15)
@given(st.sampled_from(SIZES), st.data(), options)
def test_the_beginning_is_that_of_the_beginning_alone(
    sizes: tuple[int, ...], draw: Any, options: dict[str, Any]
) -> None:
    """Not even the length of what follows matters: without it, or with anything else in its place."""
    dims, ahead = len(sizes), options.pop("lookahead", 0)
    unet = causal(dims, lookahead=ahead, **options | {"cond_channels": 0})
    x, given = data(unet, sizes), conditions(unet)
    part = draw.draw(st.integers(1, sizes[0]))
    cut, known = unet(x[:, :, :part], **given), max(part - ahead, 0)
    torch.testing.assert_close(cut[:, :, :known], unet(x, **given)[:, :, :known])


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("norm", ["group", "instance"])
def test_at_the_last_entry_a_running_norm_is_the_norm(sizes: tuple[int, ...], norm: str) -> None:
    parts = [UNet(len(sizes), 2, 3, norm=norm, causal=c, **NETWORK).parts.norm(4) for c in (True, False)]
    x = 1 + 3 * torch.randn(2, 4, *sizes, dtype=torch.float64)
    running, usual = (part.double()(x)[(..., *(-1,) * len(sizes))] for part in parts)
    torch.testing.assert_close(running, usual)
    assert parts[0].state_dict().keys() == parts[1].state_dict().keys()


@settings(max_examples=15)
@given(st.sampled_from(SIZES[:3]), st.integers(0, 3), st.booleans(), options)
def test_a_size_one_axis_equals_the_lower_rank(
    sizes: tuple[int, ...], at: int, more: bool, options: dict[str, Any]
) -> None:
    """A causal axis of size 1 has only the last tap of every kernel, or the taps that look ahead nothing."""
    at, n = min(at, len(sizes)), len(sizes)
    options = {k: v for k, v in options.items() if k not in ("upsample", "strides", "positions", "norm")}
    options = {**options, "padding_mode": "zeros", "lookahead": 0, "upsample": "nearest", "kernel_size": 3}
    options |= {"attention": None, "mid_attention": None, "skip_attention": False, "context_features": None}
    axes = [True] * n
    axes.insert(at, more)
    high, low = causal(n + 1, axes, **options), causal(n, **options)
    state = {
        name: value.flip(2 + at) if more and value.ndim == n + 3 else value
        for name, value in high.state_dict().items()
    }
    if more:  # the tap that reads is the last one: moved to where that of a centred kernel is
        state = {
            k: v.roll(1, 2 + at) if v.ndim == n + 3 and v.shape[2 + at] > 1 else v for k, v in state.items()
        }
    low.load_state_dict(sliced(low, state, at))
    x, given = data(low, sizes), conditions(low)
    if low.cond_channels:
        given["cond"] = data(low, sizes)[:, :1]
    wide = {**given, **({"cond": given["cond"].unsqueeze(2 + at)} if low.cond_channels else {})}
    torch.testing.assert_close(high(x.unsqueeze(2 + at), **wide).squeeze(2 + at), low(x, **given))


@settings(max_examples=15)
@given(st.sampled_from(SIZES), st.randoms(use_true_random=False), st.data(), options)
def test_permuting_the_axes_permutes_the_output(
    sizes: tuple[int, ...], random: Any, draw: Any, options: dict[str, Any]
) -> None:
    n = len(sizes)
    order = list(range(n))
    random.shuffle(order)
    axes = draw.draw(st.lists(st.booleans(), min_size=n, max_size=n).filter(any))
    ahead = [options.pop("lookahead", 0) * c for c in axes]
    options = {**options, "positions": None, "cond_channels": 0, "norm": options.get("norm", "rms")}
    if options.get("upsample") == "shuffle":
        options["upsample"] = "transpose"
    unet = causal(n, axes, lookahead=ahead, **options)
    moved = causal(n, [axes[a] for a in order], lookahead=[ahead[a] for a in order], **options)
    places = (0, 1, *(2 + a for a in order))
    moved.load_state_dict(
        {k: v.permute(places) if v.ndim == n + 2 else v for k, v in unet.state_dict().items()}
    )
    x, given = data(unet, sizes), conditions(unet)
    torch.testing.assert_close(moved(x.permute(places), **given), unet(x, **given).permute(places))


@pytest.mark.parametrize("sizes", SIZES)
def test_a_causal_encoder_is_the_mean_of_causal_features(sizes: tuple[int, ...]) -> None:
    encoder: Any = filled(Encoder(len(sizes), 2, 5, causal=True, **NETWORK))  # type: ignore[arg-type]
    x = data(encoder, sizes).requires_grad_()
    h = encoder.head(encoder._descend(x, None, None)[0])
    torch.testing.assert_close(encoder(x), encoder.classifier(h.flatten(2).mean(2)))
    (gradient,) = torch.autograd.grad(h[:, :, 1].sum(), x)
    assert gradient[:, :, 2].any()
    assert not gradient[:, :, 3:].any()


def test_deep_supervision_does_not_look_ahead_either() -> None:
    unet = causal(1, channels=(4, 6, 8), deep_supervision=2, lookahead=1).train()
    x = data(unet, (17,)).requires_grad_()
    for i, y in enumerate(unet(x)):
        place = 8 // 2**i
        (gradient,) = torch.autograd.grad(y[:, :, place].sum(), x, retain_graph=True)
        assert not gradient[:, :, 8 + 2 :].any()


def test_a_causal_network_has_the_weights_of_another() -> None:
    made = {}
    for axes in (False, True):
        torch.manual_seed(0)
        made[axes] = UNet(2, 1, causal=axes, attention="cbam", mid_attention="full", **NETWORK)
    a, b = (made[axes].state_dict() for axes in (False, True))
    assert list(a) == list(b)
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_what_cannot_be_causal_is_refused() -> None:
    for pattern, wrong in [
        ("padding_mode must be 'zeros' or 'replicate' on a causal axis", {"padding_mode": "circular"}),
        ("got 'reflect' on axis 1", {"padding_mode": ("zeros", "reflect"), "causal": (False, True)}),
        ("attention must not have 'linear' in a causal network", {"attention": (None, "linear+channel")}),
        ("mid_attention must not have 'linear'", {"mid_attention": "linear"}),
        ("skip_attention must not have 'linear'.*use 'window'", {"skip_attention": "linear"}),
        ("lookahead must be 0 on axes that are not causal", {"causal": (True, False), "lookahead": 4}),
        ("lookahead must be 0 on axes that are not causal", {"causal": False, "lookahead": 4}),
        (r"lookahead\[0\] must be at least 0|lookahead must be at least 0", {"lookahead": -1}),
        ("causal must be one bool or one for each of the 2 spatial axes", {"causal": (True,) * 3}),
    ]:
        with pytest.raises(ValueError, match=pattern):
            UNet(2, 1, **{"causal": True, **NETWORK, **wrong})
    with pytest.raises(TypeError, match="causal must be one bool or a sequence of 2 bools, got 1"):
        UNet(2, 1, causal=1, **NETWORK)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="cond must have the size of x on causal axes, 8 on axis 0"):
        UNet(1, 1, causal=True, cond_channels=1, **NETWORK)(torch.zeros(1, 1, 8), cond=torch.zeros(1, 1, 4))
