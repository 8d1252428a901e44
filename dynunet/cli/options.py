"""Flags of the network and of the diffusion model, and the model they describe.

Every field is a flag and has a plain type, so that a run can be written down as JSON.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import arg

from ..data.options import DataOptions
from ..training.options import TrainOptions

if TYPE_CHECKING:
    from ..diffusion import Diffusion

# By number of spatial axes: what trains in hours on one GPU. Long signals want a large receptive field.
_CHANNELS = {1: (32, 64, 128, 256), 2: (64, 128, 256), 3: (32, 64, 128)}
_STRIDES = {1: 4}


@dataclass(frozen=True)
class DataFlags(DataOptions):
    """How a folder of files becomes training examples."""

    channels: Annotated[int | None, arg(name=DataOptions.flag_names["channels"])] = None
    """channels of an example; by default those of most files"""
    seed: Annotated[int, arg(name=DataOptions.flag_names["seed"])] = 0
    """of the choice of what is held out"""


@dataclass(frozen=True)
class TrainFlags(TrainOptions):
    """How the model is trained."""

    clip: float = 1.0
    """Largest norm of the gradients; inf for no limit."""


@dataclass(frozen=True)
class NetworkOptions:
    """The U-Net. Per level means: one value for all levels, or one for each."""

    channels: tuple[int, ...] | None = None
    """channels of each level: the list is the network; by default 3 levels, 4 in 1-D, by number of axes"""
    num_blocks: tuple[int, ...] = (2,)
    """blocks of a level (per level)"""
    strides: tuple[str, ...] | None = None
    """down-sampling between levels: one for all or one for each, per axis as 1x2x2; by default 2, in 1-D 4"""
    kernel_size: tuple[int, ...] = (3,)
    """of the convolutions (per level)"""
    block: tuple[str, ...] = ("residual",)
    """residual, plain or convnext (per level)"""
    norm: str = "group"
    """group, batch, instance, layer, rms or none"""
    num_groups: int = 32
    """groups of group norm at most"""
    activation: str = "silu"
    """silu, relu, gelu, ..."""
    attention: tuple[str, ...] = ("none",)
    """full, linear, axial, window, channel, spatial, cbam, several joined by +, or none (per level)"""
    mid_attention: str = "none"
    """attention in the bottleneck"""
    num_heads: tuple[int, ...] = (4,)
    """heads of attention (per level)"""
    positions: str = "none"
    """what tells attention where a token is: rotary, sinusoidal or none"""
    downsample: tuple[str, ...] = ("conv",)
    """conv, max or avg"""
    upsample: tuple[str, ...] = ("nearest",)
    """nearest, linear, transpose or shuffle"""
    padding_mode: tuple[str, ...] = ("zeros",)
    """zeros, reflect, replicate or circular: one for all axes or one for each"""
    dropout: tuple[float, ...] = (0.0,)
    """probability in the blocks (per level)"""
    modulation: str = "shift"
    """how time and class reach a block: shift or scale_shift"""
    gradient_checkpointing: bool = False
    """compute blocks a second time instead of keeping what is inside them: less memory, a third more time"""

    def arguments(self, spatial_dims: int) -> dict[str, Any]:
        """Arguments of :class:`dynunet.UNet`."""
        strides = self.strides or (str(_STRIDES.get(spatial_dims, 2)),)
        return {
            "channels": self.channels or _CHANNELS.get(spatial_dims, (16, 32, 64)),
            "strides": _one(tuple(_stride(text) for text in strides)),
            "norm": _none(self.norm),
            "num_groups": self.num_groups,
            "activation": self.activation,
            "attention": _one(tuple(_none(name) for name in self.attention)),
            "mid_attention": _none(self.mid_attention),
            "positions": _none(self.positions),
            "modulation": self.modulation,
            "gradient_checkpointing": self.gradient_checkpointing,
            **{name: _one(getattr(self, name)) for name in _PER_LEVEL},
        }


_PER_LEVEL = (
    "num_blocks", "kernel_size", "block", "num_heads", "downsample", "upsample", "padding_mode", "dropout",
)  # fmt: skip


@dataclass(frozen=True)
class DiffusionOptions:
    """The diffusion model around it."""

    schedule: str = "cosine"
    """linear, scaled_linear, cosine, sigmoid, flow or edm"""
    prediction: str | None = None
    """epsilon, sample, v_prediction, flow or edm; by default v_prediction, to restore sample"""
    loss_weighting: Literal["none", "snr", "min_snr", "edm"] = "none"
    """how much each noise level counts"""
    cond_dropout: float = 0.1
    """how often the class is left out, so that guidance works"""
    sigma_data: float = 0.5
    """standard deviation of the data, for edm"""
    shift: float = 1.0
    """more than 1: more noise, for data of high resolution"""


def build(
    network: NetworkOptions,
    diffusion: DiffusionOptions,
    *,
    spatial_dims: int,
    channels: int,
    cond_channels: int = 0,
    num_classes: int | None = None,
    restores: bool = False,
) -> "Diffusion":
    """The model for data of this kind.

    Raises:
        ValueError, TypeError: naming the option, the rule and the value received.
    """
    from ..diffusion import Diffusion
    from ..unet import UNet

    unet = UNet(
        spatial_dims,
        channels,
        time_embedding=True,
        cond_channels=cond_channels,
        num_classes=num_classes,
        **network.arguments(spatial_dims),
    )
    return Diffusion(
        unet,
        schedule=diffusion.schedule,
        prediction=diffusion.prediction or ("sample" if restores else "v_prediction"),
        loss_weighting=_none(diffusion.loss_weighting),
        cond_dropout=diffusion.cond_dropout,
        sigma_data=diffusion.sigma_data,
        shift=diffusion.shift,
    )


def _none(name: str) -> str | None:
    return None if name == "none" else name


def _one(values: tuple[Any, ...]) -> Any:
    """A single value for all levels."""
    return values[0] if len(values) == 1 else values


def _stride(text: str) -> int | tuple[int, ...]:
    """``2``, or per axis ``1x2x2``."""
    try:
        numbers = tuple(int(number) for number in text.split("x"))
    except ValueError:
        raise ValueError(f"strides must be numbers such as 2, or per axis 1x2x2, got {text!r}") from None
    return numbers[0] if len(numbers) == 1 else numbers
