"""diffusers' and MONAI's own networks as the oracle: their weights in ours give their outputs."""

import importlib
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from dynunet import UNet
from dynunet.interop import from_diffusers, from_monai


def peer(module: str) -> Any:
    pytest.importorskip(module.partition(".")[0])
    return importlib.import_module(module)


def filled(model: Any, seed: int = 0) -> Any:
    """Random values everywhere: layers that start at zero would hide what comes before them."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            fan = max(parameter[0].numel() if parameter.ndim > 1 else 4, 1)
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / fan**0.5)
    return model.double().eval()


def diffusers_model(**config: Any) -> Any:
    """A small one; a sequence of bools under ``attends`` chooses the levels with attention."""
    config = {"block_out_channels": (8, 12), "norm_num_groups": 4, "attention_head_dim": 4, **config}
    levels = len(config["block_out_channels"])
    attends = config.pop("attends", (False,) * (levels - 1) + (True,))
    config.setdefault("down_block_types", tuple("AttnDownBlock2D" if a else "DownBlock2D" for a in attends))
    config.setdefault("up_block_types", tuple("AttnUpBlock2D" if a else "UpBlock2D" for a in attends[::-1]))
    return filled(peer("diffusers").UNet2DModel(**{"in_channels": 2, "out_channels": 3, **config}))


def monai_model(spatial_dims: int = 2, **config: Any) -> Any:
    config = {
        "channels": (8, 12),
        "norm_num_groups": 4,
        "num_head_channels": 4,
        "num_res_blocks": 1,
        **config,
    }
    config.setdefault("attention_levels", (False,) * (len(config["channels"]) - 1) + (True,))
    return filled(peer("monai.networks.nets").DiffusionModelUNet(spatial_dims, 2, 3, **config))


def close(ours: Tensor, theirs: Tensor, what: str) -> None:
    scale = theirs.abs().max()
    assert scale > 1e-3, f"{what}: nothing to compare"
    torch.testing.assert_close(ours / scale, theirs / scale, rtol=0, atol=1e-5, msg=lambda m: f"{what}: {m}")


def agree(
    theirs: Callable[..., Tensor], ours: UNet, sizes: Sequence[int], classes: int | None = None
) -> None:
    """The same outputs and gradients, for two samples at two times.

    In double precision but for the waves of time, that the peers compute in single whatever they are.
    """
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, ours.in_channels, *sizes, generator=generator, dtype=torch.float64)
    times = torch.tensor([3, 999])
    labels = {"class_labels": torch.tensor([0, classes - 1])} if classes else {}
    direction = torch.randn(2, ours.out_channels, *sizes, generator=generator, dtype=torch.float64)
    results = []
    for call in (lambda x: ours(x, times / 1000, **labels), lambda x: theirs(x, times, **labels)):
        leaf = x.clone().requires_grad_()
        out = call(leaf)
        out.backward(direction)
        results.append((out.detach(), leaf.grad))
    for mine, other, what in zip(*results, ("output", "gradient of the input"), strict=True):
        close(mine, other, what)


def agree_with_diffusers(model: Any, sizes: Sequence[int] = (8, 12)) -> UNet:
    unet = from_diffusers(model)

    def theirs(x: Tensor, t: Tensor, **labels: Tensor) -> Tensor:
        return model(x, t, return_dict=False, **labels)[0]

    agree(theirs, unet, sizes, model.config.num_class_embeds)
    assert count(unet) == count(model)
    return unet


def agree_with_monai(model: Any, sizes: Sequence[int]) -> UNet:
    unet = from_monai(model)
    agree(model, unet, sizes, model.num_class_embeds)
    return unet


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"attends": (False, False), "add_attention": False},
        {"attends": (True, False)},
        {"block_out_channels": (4, 12, 8), "attends": (True, False, True), "layers_per_block": 1},
        {"block_out_channels": (8,), "layers_per_block": 3},
        {"attention_head_dim": None},
        {"resnet_time_scale_shift": "scale_shift", "attn_norm_num_groups": 4},
        {"resnet_time_scale_shift": "scale_shift", "add_attention": False, "attends": (True, True)},
        {"freq_shift": 1, "flip_sin_to_cos": False},  # as DDPM's own code
        {"flip_sin_to_cos": False, "norm_eps": 0.1},
        {"num_class_embeds": 5},
        {"act_fn": "swish", "dropout": 0.3},
        {"norm_num_groups": 2, "attn_norm_num_groups": 2},
        {"block_out_channels": (4, 8)},  # one channel to a group
    ],
    ids=str,
)
def test_diffusers_networks(config: dict[str, Any]) -> None:
    agree_with_diffusers(diffusers_model(**config))


@pytest.mark.parametrize(
    ("spatial_dims", "config"),
    [
        (2, {}),
        (3, {}),
        (2, {"attention_levels": (False, False)}),
        (3, {"channels": (4, 12, 8), "attention_levels": (True, False, True), "num_res_blocks": (1, 2, 3)}),
        (2, {"channels": (8,), "num_res_blocks": 3}),
        (2, {"num_head_channels": (2, 6), "attention_levels": (True, False)}),
        (2, {"use_combined_linear": True, "norm_eps": 0.1}),
        (3, {"include_fc": False, "use_combined_linear": True, "use_flash_attention": True}),
        (3, {"num_class_embeds": 5}),
        (2, {"channels": (4, 8)}),  # one channel to a group, as in MONAI's defaults
    ],
    ids=str,
)
def test_monai_networks(spatial_dims: int, config: dict[str, Any]) -> None:
    unet = agree_with_monai(model := monai_model(spatial_dims, **config), (8, 4, 4)[:spatial_dims])
    if config.get("include_fc", True):
        assert count(unet) == count(model)


@st.composite
def levels(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[bool, ...], int]:
    """Channels, which levels attend, and the channels of a head, where it divides them."""
    channels = draw(st.lists(st.sampled_from((4, 8, 12)), min_size=1, max_size=3))
    attends = draw(st.lists(st.booleans(), min_size=len(channels), max_size=len(channels)))
    return tuple(channels), tuple(attends), draw(st.sampled_from((1, 2, 4)))


@settings(max_examples=15)
@given(
    levels(), st.integers(1, 3), st.sampled_from((1, 2, 4)), st.booleans(), st.integers(0, 1), st.booleans()
)
def test_any_diffusers_network(
    level: Any, blocks: int, groups: int, scale_shift: bool, freq_shift: int, flip: bool
) -> None:
    channels, attends, head = level
    assume(freq_shift == 0 or channels[0] > 2)
    model = diffusers_model(
        block_out_channels=channels,
        attends=attends,
        attention_head_dim=head,
        layers_per_block=blocks,
        norm_num_groups=groups,
        attn_norm_num_groups=groups,
        resnet_time_scale_shift="scale_shift" if scale_shift else "default",
        freq_shift=freq_shift,
        flip_sin_to_cos=flip,
    )
    agree_with_diffusers(model)


@settings(max_examples=15)
@given(levels(), st.integers(2, 3), st.integers(1, 2), st.sampled_from((1, 2, 4)), st.sampled_from((None, 3)))
def test_any_monai_network(level: Any, dims: int, blocks: int, groups: int, classes: int | None) -> None:
    channels, attends, head = level
    model = monai_model(
        dims,
        channels=channels,
        attention_levels=attends,
        num_head_channels=head,
        num_res_blocks=blocks,
        norm_num_groups=groups,
        num_class_embeds=classes,
    )
    agree_with_monai(model, (8, 4, 4)[:dims])


@pytest.mark.parametrize("freq_shift", [0, 1])
def test_times_of_the_whole_range_in_single_precision(freq_shift: int) -> None:
    model = diffusers_model(freq_shift=freq_shift).float()
    t = torch.arange(1000)
    x = torch.randn(len(t), 2, 4, 4)
    with torch.no_grad():
        close(from_diffusers(model)(x, t / 1000), model(x, t, return_dict=False)[0], "output")


def test_the_copy_has_the_type_and_mode_of_the_model_and_weights_of_its_own() -> None:
    model = diffusers_model(dropout=0.5).train()
    unet = from_diffusers(model)
    assert unet.training
    assert {p.dtype for p in unet.parameters()} == {torch.float64}
    assert all(m.p == 0.5 for m in unet.modules() if isinstance(m, nn.Dropout))
    assert from_diffusers(model.bfloat16().eval()).stem.weight.dtype == torch.bfloat16
    with torch.no_grad():
        before = model.conv_in.weight.clone()
        unet.stem.weight.zero_()
    assert torch.equal(model.conv_in.weight, before)


@pytest.mark.parametrize(
    ("config", "pattern"),
    [
        ({"center_input_sample": True}, "center_input_sample must be False for a UNet, got True"),
        ({"time_embedding_type": "fourier"}, "time_embedding_type must be 'positional' .* got 'fourier'"),
        (
            {"time_embedding_type": "learned", "num_train_timesteps": 9},
            "time_embedding_type must be 'positional' for a UNet, got 'learned'",
        ),
        ({"time_embedding_dim": 16}, "time_embedding_dim must be 32 for a UNet, got 16"),
        ({"freq_shift": 0.5}, "freq_shift must be 0 or 1 for a UNet, got 0.5"),
        ({"mid_block_type": None}, "mid_block_type must be 'UNetMidBlock2D' for a UNet, got None"),
        ({"mid_block_scale_factor": 2**0.5}, "mid_block_scale_factor must be 1 for a UNet, got 1.41"),
        ({"downsample_padding": 0}, "downsample_padding must be 1 for a UNet, got 0"),
        ({"downsample_type": "resnet"}, "downsample_type must be 'conv' for a UNet, got 'resnet'"),
        ({"upsample_type": "resnet"}, "upsample_type must be 'conv' for a UNet, got 'resnet'"),
        ({"act_fn": "gelu"}, "act_fn must be 'silu' or 'swish' for a UNet, got 'gelu'"),
        ({"class_embed_type": "timestep"}, "class_embed_type must be None for a UNet, got 'timestep'"),
        ({"class_embed_type": "identity"}, "class_embed_type must be None for a UNet, got 'identity'"),
        ({"attn_norm_num_groups": 2}, "attn_norm_num_groups must be None or 4 for a UNet, got 2"),
        (
            {"resnet_time_scale_shift": "scale_shift"},
            "attn_norm_num_groups must be 4 for a UNet, got None",
        ),
        ({"attention_head_dim": 5}, "attention_head_dim must divide .* got 5 for 12"),
        (
            {"block_out_channels": (9, 12), "norm_num_groups": 3},
            r"block_out_channels must begin with an even number for a UNet, got \(9, 12\)",
        ),
        (
            {"down_block_types": ("DownBlock2D", "ResnetDownsampleBlock2D")},
            "down_block_types must be 'DownBlock2D' or 'AttnDownBlock2D' .* got 'ResnetDownsampleBlock2D'",
        ),
        ({"up_block_types": ("UpBlock2D",) * 2}, "up_block_types must mirror down_block_types .* got"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_diffusers_configurations_that_have_no_option_are_refused(
    config: dict[str, Any], pattern: str
) -> None:
    with pytest.raises(ValueError, match=pattern):
        from_diffusers(diffusers_model(**config))


@pytest.mark.parametrize(
    ("config", "pattern"),
    [
        (
            {"with_conditioning": True, "cross_attention_dim": 4},
            "with_conditioning must be False for a UNet, got True",
        ),
        ({"resblock_updown": True}, "resblock_updown must be False for a UNet, got True"),
        ({"channels": (9, 12), "norm_num_groups": 3}, "channels must begin with an even number"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_monai_configurations_that_have_no_option_are_refused(config: dict[str, Any], pattern: str) -> None:
    with pytest.raises(ValueError, match=pattern):
        from_monai(monai_model(**config))


def test_weights_beside_the_configuration_are_refused() -> None:
    model = diffusers_model()
    model.mid_block.adapter = nn.Linear(2, 2)
    with pytest.raises(ValueError, match=r"no others .* got also \['mid_block.adapter.weight', .*\]"):
        from_diffusers(model)


def test_other_models_are_refused() -> None:
    for convert, pattern in (
        (from_diffusers, "model must be a UNet2DModel of diffusers, got Linear"),
        (from_monai, "model must be a DiffusionModelUNet of MONAI, got Linear"),
    ):
        with pytest.raises(TypeError, match=pattern):
            convert(nn.Linear(1, 1))
