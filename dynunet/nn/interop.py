"""Networks of other libraries as a :class:`~dynunet.UNet`: same weights, same output.

diffusers' ``UNet2DModel`` and MONAI's ``DiffusionModelUNet`` are the network of DDPM (Ho et al. 2020,
appendix B), as :class:`~dynunet.UNet` is. Each function here reads the configuration of such a model, builds
the equivalent UNet and copies the weights under our names. Outputs and gradients agree up to rounding. An
option that UNet lacks is refused by name. Neither library is imported here: passing a model implies it is
installed.

Time: their timesteps run from 0 to 999, ours from 0 to 1; ``time_scale=1000`` maps ours to the same numbers::

    theirs(x, timesteps).sample == ours(x, timesteps / 1000)

Three differences remain, none of them in the function defined by the weights:

- Our network takes any spatial size, theirs multiples of the product of the strides.
- Ours also runs without class labels (None or -1), theirs needs them.
- A group norm with one channel per group cancels the shift by the embedding, which the other libraries add
  before it. Our UNet adds the shift after such a norm; in the copy it starts at zero and can be trained.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .blocks import Block, zero_init
from .unet import UNet

# Parts of their names and the replacements in ours, applied in this order.
_NAMES = {
    "conv_in.": "stem.",
    "class_embedding.": "class_embedding.table.",
    "down_blocks.": "encoder.",
    "up_blocks.": "decoder.",
    ".resnets.": ".blocks.",
    ".time_emb_proj.": ".embedding.",
}
_DIFFUSERS_NAMES = {
    "conv_norm_out.": "head.0.",
    "conv_out.": "head.2.",
    "time_embedding.linear_": "time_embedding.linear",
    "mid_block.resnets.0.": "middle.block1.",
    "mid_block.resnets.1.": "middle.block2.",
    "mid_block.attentions.0.": "middle.attention.",
    ".conv_shortcut.": ".shortcut.",
    ".group_norm.": ".norm.",
    ".to_out.0.": ".projection.",
    ".downsamplers.0.conv.": ".down.",
    ".upsamplers.0.conv.": ".up.conv.",
    **_NAMES,
}
_MONAI_NAMES = {
    ".conv.": ".",  # MONAI wraps every convolution
    "time_embed.0.": "time_embedding.linear1.",
    "time_embed.2.": "time_embedding.linear2.",
    "middle_block.resnet_": "middle.block",
    "middle_block.": "middle.",
    ".skip_connection.": ".shortcut.",
    ".attn.qkv.": ".query_key_value.",
    ".attn.to_": ".to_",
    ".attn.out_proj.": ".projection.",
    ".downsampler.op.": ".down.",
    ".upsampler.postconv.": ".up.conv.",
    "out.": "head.",
    **_NAMES,
}
# Fields of diffusers' configuration and the values that UNet supports, diffusers' default first.
_DIFFUSERS_FIELDS: dict[str, tuple[Any, ...]] = {
    "center_input_sample": (False,),
    "time_embedding_type": ("positional",),
    "freq_shift": (0, 1),
    "mid_block_type": ("UNetMidBlock2D",),
    "mid_block_scale_factor": (1,),
    "downsample_padding": (1,),
    "downsample_type": ("conv",),
    "upsample_type": ("conv",),
    "act_fn": ("silu", "swish"),  # with others diffusers keeps SiLU as the last activation, UNet would not
    "resnet_time_scale_shift": ("default", "scale_shift"),
    "class_embed_type": (None,),
}


def from_diffusers(model: nn.Module) -> UNet:
    """Convert a diffusers ``UNet2DModel`` to an equivalent UNet with a copy of its weights.

    Args:
        model: a ``diffusers.UNet2DModel`` made of ``DownBlock2D`` or ``AttnDownBlock2D`` levels and the
            same up-blocks in reverse, with SiLU and positional time embedding. Down-sampling must be padded
            on both sides (``downsample_padding=1``, the default): checkpoints converted from DDPM's own code,
            such as ``google/ddpm-cifar10-32``, pad only at the end.

    Returns:
        A UNet in the model's dtype, on its device and in its mode (training or not). Call it with
        ``t = timesteps / 1000``.

    Raises:
        TypeError: if the model is not a ``UNet2DModel``.
        ValueError: naming a field of its configuration that the UNet has no option for.
    """
    _check_class(model, "UNet2DModel", "diffusers")
    config: Mapping[str, Any] = model.config  # type: ignore[assignment]
    for field, supported in _DIFFUSERS_FIELDS.items():
        _check(field, config.get(field, supported[0]), supported)
    channels = tuple(config["block_out_channels"])
    groups, modulation = config["norm_num_groups"], config["resnet_time_scale_shift"]
    _check_waves("block_out_channels", channels)
    _check("time_embedding_dim", config.get("time_embedding_dim") or 4 * channels[0], (4 * channels[0],))
    middle = config.get("add_attention", True)
    if middle:
        same = (None, groups) if modulation == "default" else (groups,)  # None: no norm at all
        _check("attn_norm_num_groups", config.get("attn_norm_num_groups"), same)
    attention = _diffusers_attention(config)
    unet = UNet(
        2,
        config["in_channels"],
        config["out_channels"],
        channels,
        num_blocks=config["layers_per_block"],
        attention=attention,
        num_heads=_heads("attention_head_dim", channels, config["attention_head_dim"], attention, middle),
        mid_attention="full" if middle else None,
        num_groups=groups,
        norm_eps=config["norm_eps"],
        dropout=config["dropout"],
        modulation="shift" if modulation == "default" else modulation,
        time_embedding="ddpm" if config["freq_shift"] else "sinusoidal",
        num_classes=config["num_class_embeds"],
    )
    return _fill(unet, model, _DIFFUSERS_NAMES, cosines_first=config["flip_sin_to_cos"])


def from_monai(model: nn.Module) -> UNet:
    """Convert a MONAI ``DiffusionModelUNet`` to an equivalent UNet with a copy of its weights.

    Args:
        model: a ``monai.networks.nets.DiffusionModelUNet`` on any number of axes, without cross-attention
            and with convolutions between its levels.

    Returns:
        A UNet in the model's dtype, on its device and in its mode (training or not). Call it with
        ``t = timesteps / 1000``. Attention without a last linear layer (``include_fc=False``) gets the
        identity as one.

    Raises:
        TypeError: if the model is not a ``DiffusionModelUNet``.
        ValueError: naming an argument of its constructor that the UNet has no option for.
    """
    _check_class(model, "DiffusionModelUNet", "MONAI")
    m: Any = model
    _check("with_conditioning", m.with_conditioning, (False,))
    _check("resblock_updown", m.down_blocks[0].resblock_updown, (False,))
    channels, norm = tuple(m.block_out_channels), m.out[0]
    _check_waves("channels", channels)
    attention = ["full" if attends else None for attends in m.attention_levels]
    unet = UNet(
        m.conv_in.spatial_dims,
        m.in_channels,
        m.out_channels,
        channels,
        num_blocks=tuple(m.num_res_blocks),
        attention=attention,
        num_heads=_heads("num_head_channels", channels, m.num_head_channels, attention, True),
        mid_attention="full",
        num_groups=norm.num_groups,
        norm_eps=norm.eps,
        time_embedding="sinusoidal",
        num_classes=m.num_class_embeds,
    )
    known = {} if m.middle_block.attention.attn.include_fc else _identities(unet)
    return _fill(unet, model, _MONAI_NAMES, cosines_first=True, known=known)


def _check_class(model: Any, name: str, library: str) -> None:
    if name not in (kind.__name__ for kind in type(model).__mro__):
        raise TypeError(f"model must be a {name} of {library}, got {type(model).__name__}")


def _check(field: str, value: Any, supported: Sequence[Any]) -> None:
    if value not in supported:
        raise ValueError(f"{field} must be {' or '.join(map(repr, supported))} for a UNet, got {value!r}")


def _check_waves(field: str, channels: Sequence[int]) -> None:
    if channels[0] % 2:
        raise ValueError(f"{field} must begin with an even number for a UNet, got {tuple(channels)}")


def _diffusers_attention(config: Mapping[str, Any]) -> list[str | None]:
    """The attention of each level, from the names of the blocks."""
    downs, ups = (
        [n.removeprefix("UNetRes") for n in config[f"{side}_block_types"]] for side in ("down", "up")
    )
    for name in downs:
        _check("down_block_types", name, ("DownBlock2D", "AttnDownBlock2D"))
    mirrored = [name.replace("Down", "Up") for name in reversed(downs)]
    if ups != mirrored:
        raise ValueError(f"up_block_types must mirror down_block_types ({mirrored}) for a UNet, got {ups}")
    return ["full" if name.startswith("Attn") else None for name in downs]


def _heads(
    field: str,
    channels: Sequence[int],
    widths: int | Sequence[int] | None,
    attention: Sequence[str | None],
    middle: bool,
) -> list[int]:
    """Heads of each level from the channels per head: one for levels without attention, or for None."""
    widths = widths if isinstance(widths, Sequence) else [widths or c for c in channels]
    last, heads = len(channels) - 1, []
    for i, (c, width) in enumerate(zip(channels, widths, strict=True)):
        if attention[i] is None and not (middle and i == last):
            heads.append(1)
            continue
        if c % width:
            raise ValueError(f"{field} must divide the channels of its level for a UNet, got {width} for {c}")
        heads.append(c // width)
    return heads


def _fill(
    unet: UNet,
    model: nn.Module,
    names: Mapping[str, str],
    cosines_first: bool,
    known: Mapping[str, Tensor] | None = None,
) -> UNet:
    """Copy every weight of the model to its place; none may be left over on either side."""
    theirs = model.state_dict()
    origin = {_renamed(name, names): name for name in theirs}
    state = {**(known or {}), **{ours: theirs[name] for ours, name in origin.items()}}
    _join_projections(state)
    if cosines_first:  # ours has the sines first
        waves = state["time_embedding.linear1.weight"]
        state["time_embedding.linear1.weight"] = waves.roll(waves.shape[1] // 2, 1)
    unet.to(state["stem.weight"])
    missing, unexpected = unet.load_state_dict(state, strict=False)
    if missing or unexpected:
        raise ValueError(
            f"model must have the weights of its configuration and no others for a UNet, got also "
            f"{[origin.get(name, name) for name in unexpected]} and nothing for {missing}"
        )
    _remove_cancelled_shifts(unet)
    return unet.train(model.training)


def _remove_cancelled_shifts(unet: UNet) -> None:
    """Those of the time that the other model's norm cancels."""
    for block in unet.modules():
        if isinstance(block, Block) and block.modulation == "shift" and not block.shift_first:
            zero_init(block.embedding)


def _renamed(name: str, names: Mapping[str, str]) -> str:
    for old, new in names.items():
        name = name.replace(old, new)
    return name


def _join_projections(state: dict[str, Tensor]) -> None:
    """Join separate query, key and value layers into one."""
    for name in [n for n in state if ".to_q." in n]:
        parts = [state.pop(name.replace(".to_q.", f".to_{part}.")) for part in "qkv"]
        state[name.replace(".to_q.", ".query_key_value.")] = torch.cat(parts)


def _identities(unet: UNet) -> dict[str, Tensor]:
    """The projection of every attention layer as the identity."""
    state = {}
    for name, parameter in unet.named_parameters():
        if name.endswith(".projection.weight"):
            state[name] = torch.eye(len(parameter))
            state[name.replace(".weight", ".bias")] = torch.zeros(len(parameter))
    return state
