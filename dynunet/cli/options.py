"""Flags of the network and of the diffusion model, and the model they describe.

Every field is a flag and has a plain type, so that a run can be written down as JSON.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from tyro.conf import arg

from ..data.options import DataOptions
from ..defaults import channels_for
from ..nn.flags import flag_names, network_options, with_flags
from ..nn.spec import NetworkSpec
from ..training.options import TrainOptions

if TYPE_CHECKING:
    from ..diffusion import Diffusion

_STRIDES = {1: 4}


@dataclass(frozen=True)
class DataFlags(DataOptions):
    """Training examples of a folder of files."""

    channels: Annotated[int | None, arg(name=DataOptions.flag_names["channels"])] = None
    """channels of an example; by default those of most files"""
    seed: Annotated[int, arg(name=DataOptions.flag_names["seed"])] = 0
    """of the choice of what is held out"""


@dataclass(frozen=True)
class TrainFlags(TrainOptions):
    """Training."""

    batch_size: int = 0
    """Samples at a time, in each process; by default 16, fewer where they are large."""
    clip: float = 1.0
    """Largest norm of the gradients; inf for no limit."""

    least_batch: ClassVar[int] = 0  # until one is chosen


_BY_RANK = {
    "channels": "; by default 3 levels, 4 in 1-D",
    "strides": "; by default 2, in 1-D 4",
}
_DEFAULTS = dict.fromkeys(flag_names(), ...) | dict.fromkeys(_BY_RANK, None)


@dataclass(frozen=True)
class NetworkOptions(with_flags(object, _DEFAULTS, notes=_BY_RANK, frozen=True)):
    """The U-Net. Per level means: one value for all levels, or one for each."""

    def arguments(self, spatial_dims: int) -> dict[str, Any]:
        """Arguments of :class:`dynunet.UNet`, by the number of axes where they are left out."""
        channels, stride = channels_for(spatial_dims), _STRIDES.get(spatial_dims, 2)
        return {"channels": channels, "strides": stride, **network_options(self)}

    def check(self, spatial_dims: int, **more: Any) -> None:
        """Refuse what makes no network.

        Raises:
            ValueError, TypeError: naming the option, the rule and the value received.
        """
        NetworkSpec(
            **{"spatial_dims": spatial_dims, "in_channels": 1, **more}, **self.arguments(spatial_dims)
        )


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
    from ..nn.unet import UNet

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
