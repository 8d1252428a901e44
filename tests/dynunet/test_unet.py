"""The U-Net: shapes, laws of the axes, options, and refusals."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from convnd import inflate
from convnd.testing import spatial_shapes
from dynunet import UNet


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


options = st.fixed_dictionaries(
    {},
    optional={
        "channels": st.lists(st.sampled_from((4, 6, 8)), min_size=1, max_size=3),
        "block": st.sampled_from(("residual", "plain")),
        "norm": st.sampled_from(("group", "batch", None)),
        "activation": st.sampled_from(("silu", "relu", nn.PReLU(), nn.GELU, torch.tanh)),
        "num_blocks": st.integers(1, 2),
        "kernel_size": st.integers(1, 4),
        "strides": st.integers(1, 3),
        "attention": st.sampled_from((None, "full")),
        "mid_attention": st.sampled_from((None, "full")),
        "dropout": st.just(0.1),
        "padding_mode": st.sampled_from(("zeros", "replicate")),
        "num_classes": st.just(3),
    },
)


@settings(max_examples=40)
@given(spatial_shapes(max_dims=4), options, st.booleans())
def test_any_size_in_the_same_size_out(sizes: tuple[int, ...], options: dict[str, Any], time: bool) -> None:
    unet = small(len(sizes), time_embedding=time, **options)
    x = data(unet, sizes)
    t = torch.tensor([0.3, 0.9]) if time else None
    y = unet(x, t)
    assert y.shape == (2, 3, *sizes)
    assert y.isfinite().all()
    alone = unet(x[:1], None if t is None else t[:1])
    torch.testing.assert_close(alone, y[:1], msg="a sample must not depend on the rest of its batch")


@settings(max_examples=25)
@given(spatial_shapes(max_dims=3), st.integers(0, 3), st.booleans(), st.sampled_from(("residual", "plain")))
def test_a_size_one_axis_equals_the_lower_rank(
    sizes: tuple[int, ...], at: int, attention: bool, block: str
) -> None:
    """A network on n + 1 axes, its kernels sliced at the centre of one, is the network on n axes."""
    at = min(at, len(sizes))
    choice: Any = {"attention": "full" if attention else None, "block": block}
    high, low = small(len(sizes) + 1, **choice), small(len(sizes), **choice)
    state = high.state_dict()
    for name, value in low.state_dict().items():
        if value.ndim > 2 and value.shape != state[name].shape:
            size = state[name].shape[2 + at]
            state[name] = state[name].select(2 + at, (size - 1) // 2)
        assert state[name].shape == value.shape
    low.load_state_dict(state)
    x = data(low, sizes)
    torch.testing.assert_close(high(x.unsqueeze(2 + at)).squeeze(2 + at), low(x))


@settings(max_examples=25)
@given(spatial_shapes(max_dims=4), st.randoms(use_true_random=False), st.booleans())
def test_permuting_axes_and_kernels_permutes_the_output(
    sizes: tuple[int, ...], random: Any, attention: bool
) -> None:
    n = len(sizes)
    order = list(range(n))
    random.shuffle(order)
    kernels, strides = [[1, 2, 3, 3][:n], [3, 1, 2, 3][:n], [3] * n], [[1, 2, 2, 3][:n], [2, 2, 1, 1][:n]]
    choice: Any = {"attention": "full" if attention else None}
    unet = small(n, kernel_size=kernels, strides=strides, **choice)
    moved = small(
        n,
        kernel_size=[[k[a] for a in order] for k in kernels],
        strides=[[s[a] for a in order] for s in strides],
        **choice,
    )
    axes = (0, 1, *(2 + a for a in order))
    moved.load_state_dict(
        {k: v.permute(axes) if v.ndim == n + 2 else v for k, v in unet.state_dict().items()}
    )
    x = data(unet, sizes)
    torch.testing.assert_close(moved(x.permute(axes)), unet(x).permute(axes))


@pytest.mark.parametrize("n", [1, 2, 3])
def test_circular_padding_commutes_with_shifts(n: int) -> None:
    unet = small(n, padding_mode="circular")
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


def test_every_parameter_receives_a_gradient() -> None:
    unet = small(2, attention="full", mid_attention="full", time_embedding=True, num_classes=2)
    labels = torch.tensor([0, 1])
    unet(data(unet, (5, 6)), torch.rand(2), class_labels=labels).square().sum().backward()
    missing = [name for name, p in unet.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not missing


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
        (ValueError, "attention, if not None, must be one of 'full', got 'fast'", {"attention": "fast"}),
        (ValueError, "strides must be one value or have one for each of 1 transitions", {"strides": (2, 2)}),
        (ValueError, r"strides\[0\] must be an int or have one entry", {"strides": [(2, 2, 2)]}),
        (ValueError, r"kernel_size\[1\] must be at least 1, got 0", {"kernel_size": (3, 0)}),
        (ValueError, "block must be one of 'residual', 'plain', got 'dense'", {"block": "dense"}),
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
    ]:
        with pytest.raises(error, match=pattern):
            unet(*args, **kwargs)
    with pytest.raises(ValueError, match="takes no t: build it with time_embedding=True"):
        UNet(2, 1, channels=(4,))(x, t)
    with pytest.raises(ValueError, match="build the UNet with num_classes"):
        UNet(2, 1, channels=(4,))(x, class_labels=torch.zeros(2).long())
