"""Flags of the network and of the diffusion model, and the model they describe.

Every field is a flag and has a plain type, so that a run can be written down as JSON.
"""

from dataclasses import dataclass, fields, make_dataclass, replace
from types import NoneType
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, get_args, get_origin, get_type_hints

from tyro.conf import arg

from ..arguments import choice
from ..data.augmentation import Augment
from ..data.options import DataOptions
from ..defaults import GENERATION, LABEL_MAPS, channels_for
from ..nn.flags import flag_names, network_options, with_flags
from ..nn.spec import NetworkSpec, options, with_an_axis_more
from ..training.options import Loss, TrainOptions

if TYPE_CHECKING:
    from ..data import FolderDataset
    from ..diffusion import Diffusion
    from ..nn.spectral_mask import SpectralMask
    from ..supervised import Supervised

_STRIDES = {1: 4}
_PATCH = (2, 8)  # windows and frequencies, of spectral masks
_ONE_STEP = 1000.0  # shift of what is noisy itself: at other times the network would be given the target


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

    batch_size: int | None = None
    """Samples at a time, in each process; by default 16, more where they are small and fewer where large."""
    loss: Loss = "auto"
    """of values l2, l1, huber or, to restore sound, l1+stft; of classes (--targets) ce, dice, dice+ce or
    focal. By default l2, dice+ce to segment, ce to classify; with --self-supervised l2 alone"""
    clip: float = 1.0
    """Largest norm of the gradients; inf for no limit."""

    losses: ClassVar[tuple[str, ...]] = get_args(Loss)

    def of_trainer(self, supervised: bool) -> TrainOptions:
        """Without the loss, where the model has its own.

        Raises:
            ValueError: it is a loss of targets, and there are none.
        """
        if supervised or self.loss == "auto":
            return replace(self, loss=TrainOptions.loss)
        choice(self.loss, TrainOptions.losses, "loss without targets")
        return self


_BY_RANK = {
    "channels": "; by default 3 levels, 4 in 1-D",
    "strides": "; by default 2, in 1-D 4",
}
_BY_TASK = {name: f"; by default as in UNet, for label maps {value}" for name, value in LABEL_MAPS.items()}
_BY_MACHINE = {
    name: f"{_BY_TASK.get(name, '; by default as in UNet')}, for training without a GPU {value}"
    for name, value in GENERATION.items()
}
_NOTES = _BY_RANK | _BY_TASK | _BY_MACHINE
_DEFAULTS = dict.fromkeys(flag_names(), ...) | dict.fromkeys(_NOTES, None)


@dataclass(frozen=True)
class NetworkOptions(with_flags(object, _DEFAULTS, notes=_NOTES, frozen=True)):
    """The U-Net. Per level means: one value for all levels, or one for each."""

    def arguments(self, spatial_dims: int, label_maps: bool = False) -> dict[str, Any]:
        """Arguments of :class:`dynunet.UNet`, by the number of axes and the task where they are left out."""
        channels, stride = channels_for(spatial_dims), _STRIDES.get(spatial_dims, 2)
        design = LABEL_MAPS if label_maps and self._without_design() else {}
        return {"channels": channels, "strides": stride, **design, **network_options(self)}

    def for_processors(self) -> tuple["NetworkOptions", str]:
        """With those for a diffusion model without a GPU, if none of them was given; and these as flags.

        They belong together, and a configuration of before has some of them.
        """
        if any(getattr(self, name) is not None for name in GENERATION):
            return self, ""
        flags = (f"--{name.replace('_', '-')} {value}" for name, value in GENERATION.items())
        filled = {k: (v,) if k == "num_blocks" else v for k, v in GENERATION.items()}
        return replace(self, **filled), " ".join(flags)

    def _without_design(self) -> bool:
        """True if no option of the design is given: its parts belong together."""
        return all(getattr(self, name) is None for name in LABEL_MAPS)

    def of_encoder(self, spatial_dims: int) -> dict[str, Any]:
        """Arguments of :class:`dynunet.Encoder`.

        Raises:
            ValueError: an option of the decoder was given.
        """
        known = {name for name, _ in options("Encoder")}
        given, usual = self.arguments(spatial_dims), NetworkOptions().arguments(spatial_dims)
        for name, value in given.items():
            if name not in known and value != usual.get(name):
                raise ValueError(f"{name} is of the decoder, which a model of whole examples does not have")
        return {name: value for name, value in given.items() if name in known}

    def check(self, spatial_dims: int, an_axis_more: bool = False, **more: Any) -> None:
        """Refuse what makes no network.

        Args:
            spatial_dims: of the data.
            an_axis_more: whether the network has one more, of frequencies.
            more: arguments of the network.

        Raises:
            ValueError, TypeError: naming the option, the rule and the value received.
        """
        arguments = self.arguments(spatial_dims)
        if an_axis_more:
            spatial_dims, arguments = spatial_dims + 1, with_an_axis_more(arguments, spatial_dims)
        NetworkSpec(**{"spatial_dims": spatial_dims, "in_channels": 1, **more}, **arguments)


_AUGMENT_FLAGS = {
    f.name: "augment" if f.name == "preset" else f"augment_{f.name}"
    for f in fields(Augment)
    if f.name not in Augment.from_data
}


def _augment_flags() -> Any:
    """A dataclass with the options of an Augment but those that follow from the data; by default nothing is
    changed.
    """
    hints = get_type_hints(Augment, include_extras=True)
    defaults = {f.name: f.default for f in fields(Augment)} | {"preset": False}
    made = [(flag, _flag_type(hints[name]), defaults[name]) for name, flag in _AUGMENT_FLAGS.items()]
    return make_dataclass("AugmentFlags", made, frozen=True)


def _flag_type(hint: Any) -> Any:
    """Of what may be one value or several the last, a tuple, which is how it is kept."""
    kind, about = get_args(hint)
    several = [member for member in get_args(kind) if get_origin(member) is tuple]
    if several:
        kind = several[-1] | None if NoneType in get_args(kind) else several[-1]
    return Annotated[kind, about]


@dataclass(frozen=True)
class AugmentOptions(_augment_flags()):
    """Random changes of training examples; 0, no axes, or factors 1 1 leave one of them out."""

    def made(self, spatial_dims: int | None = None) -> Augment | None:
        """The augmentation, None if there is none.

        Args:
            spatial_dims: of the data, if that is known.

        Raises:
            ValueError, TypeError: naming the option, the rule and the value received.
        """
        try:
            augment = Augment(**{name: getattr(self, flag) for name, flag in _AUGMENT_FLAGS.items()})
            if spatial_dims is not None:
                augment.for_axes(spatial_dims)
        except (ValueError, TypeError) as error:  # which begins with the name
            raise type(error)(f"augment_{error}") from None
        return augment if augment.active else None


@dataclass(frozen=True)
class DiffusionOptions:
    """The diffusion model around it."""

    schedule: str = "cosine"
    """linear, scaled_linear, cosine, sigmoid, flow or edm; to restore also bridge or bridge_ve, which start
    from the noisy data"""
    prediction: str | None = None
    """epsilon, sample, v_prediction, flow or edm; by default v_prediction, to restore sample"""
    loss_weighting: Literal["none", "snr", "min_snr", "edm"] = "none"
    """how much each noise level counts"""
    cond_dropout: float = 0.1
    """how often the class is left out, so that guidance works"""
    sigma_data: float = 0.5
    """standard deviation of the data, for edm"""
    shift: float | None = None
    """more than 1: more noise, for data of high resolution; by default 1, with --self-supervised 1000: nearly
    all times are pure noise, from where the one step starts"""
    spectral_mask: int | None = None
    """to restore sound: samples of the windows of a spectrogram, such as 256 at 8 kHz, that the network masks
    (dynunet.SpectralMask); by default it works on the waveform"""
    patch_size: tuple[int, int] | None = None
    """of a spectral mask: windows and frequencies that are channels of the network, which then has an axis of
    frequencies; by default 2 8, 0 0 for all frequencies of single windows, without that axis"""

    def check(self) -> None:
        """Refuse a patch that is none.

        Raises:
            ValueError: naming the option, the rule and the value received.
        """
        patch = self.patch_size
        if patch is not None and self.spectral_mask is None:
            raise ValueError(f"patch_size is of a spectral mask, so spectral_mask must be given, got {patch}")
        if patch is not None and patch != (0, 0) and min(patch) < 1:
            raise ValueError(f"patch_size must be two positive numbers, or 0 0 for no patches, got {patch}")

    def patch(self) -> tuple[int, int] | None:
        """That of the spectral mask, None without patches or a mask."""
        if self.spectral_mask is None:
            return None
        high = min(_PATCH[1], self.spectral_mask // 2 + 1)
        patch = (_PATCH[0], high) if self.patch_size is None else self.patch_size
        return patch if any(patch) else None

    def channels_of_masks(self) -> tuple[int, ...]:
        """Of the network of a spectral mask: frequencies that are channels need many, at every level."""
        return (256, 256, 256) if self.patch() is None else (32, 64, 128)


@dataclass(frozen=True)
class SupervisedOptions:
    """How classes are learned from targets, beside --loss."""

    include_background: bool = False
    """Dice counts the first class, too"""
    dice_per_sample: bool = False
    """sum Dice over each example by itself, not over the batch"""
    class_weights: tuple[float, ...] | None = None
    """one number for each class, in their order, for ce, dice+ce and focal"""


def build_supervised(
    network: NetworkOptions, supervised: SupervisedOptions, loss: str, dataset: "FolderDataset"
) -> "Supervised":
    """The model for a data set with targets: a U-Net for maps, its encoder for values of whole examples.

    Raises:
        ValueError, TypeError: naming the option, the rule and the value received.
    """
    from ..data.classes import IGNORED
    from ..nn.encoder import Encoder
    from ..nn.unet import UNet
    from ..supervised import Supervised

    target, classes = dataset.target, dataset.classes
    assert target is not None
    dims, outputs = len(dataset.shape) - 1, target.channels if classes is None else len(classes)
    weights = supervised.class_weights
    if weights is not None and (classes is None or len(weights) != outputs):
        of = "there are none" if classes is None else f"there are {outputs}, {', '.join(classes)}"
        raise ValueError(f"class_weights must be one for each class, and {of}, got {weights}")
    more = {"cond_channels": dataset.cond_channels}
    if target.maps:
        design = network.arguments(dims, label_maps=classes is not None)
        net: Any = UNet(dims, dataset.channels, outputs, **more, **design)
    else:
        net = Encoder(dims, dataset.channels, outputs, **more, **network.of_encoder(dims))
    return Supervised(
        net,
        target.task,
        None if loss == "auto" else loss,
        include_background=supervised.include_background or None,
        dice_per_sample=supervised.dice_per_sample,
        ignore_index=IGNORED if target.task == "segmentation" else None,
        class_weights=weights,
        classes=classes,
    )


def build(
    network: NetworkOptions,
    diffusion: DiffusionOptions,
    *,
    spatial_dims: int,
    channels: int,
    cond_channels: int = 0,
    num_classes: int | None = None,
    cond_features: int = 0,
    restores: bool = False,
    self_supervised: bool = False,
) -> "Diffusion":
    """The model for data of this kind.

    Raises:
        ValueError, TypeError: naming the option, the rule and the value received.
    """
    from ..diffusion import Diffusion
    from ..diffusion.bridges import BRIDGES
    from ..nn.unet import UNet

    n_fft = diffusion.spectral_mask
    if diffusion.schedule in BRIDGES and (not restores or n_fft is not None):
        raise ValueError(
            f"schedule {diffusion.schedule!r} is to restore (noise, coloured or pairs), and without "
            "spectral_mask, whose network sees noisy data alone"
        )
    usual = _ONE_STEP if self_supervised and n_fft is None else 1.0
    if n_fft is None:
        net: Any = UNet(
            spatial_dims,
            channels,
            time_embedding=True,
            cond_channels=cond_channels,
            num_classes=num_classes,
            cond_features=cond_features,
            **network.arguments(spatial_dims),
        )
    elif restores and cond_channels == channels:
        net = _masking(network, diffusion, n_fft, spatial_dims, channels)
    else:
        raise ValueError(
            "spectral_mask is to restore (noise, coloured, pairs or self_supervised), without coordinates, "
            f"got {n_fft}"
        )
    return Diffusion(
        net,
        schedule=diffusion.schedule,
        prediction=diffusion.prediction or ("sample" if restores else "v_prediction"),
        loss_weighting=_none(diffusion.loss_weighting),
        cond_dropout=diffusion.cond_dropout,
        sigma_data=diffusion.sigma_data,
        shift=usual if diffusion.shift is None else diffusion.shift,
    )


def _masking(
    network: NetworkOptions, diffusion: DiffusionOptions, n_fft: int, spatial_dims: int, channels: int
) -> "SpectralMask":
    """A network of the spectrogram."""
    from ..nn.spectral_mask import SpectralMask

    arguments = network.arguments(spatial_dims)
    if network.channels is None:
        arguments["channels"] = diffusion.channels_of_masks()
    if network.strides is None:
        arguments["strides"] = 2
    how = {"hop_length": n_fft // 4, "patch_size": diffusion.patch()}
    return SpectralMask.with_unet(spatial_dims, channels, n_fft, **how, **arguments)


def _none(name: str) -> str | None:
    return None if name == "none" else name
