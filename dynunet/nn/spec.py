"""The single definition of every option of a network: type, default, help, check and scope.

:class:`NetworkSpec` has a field for each argument of :class:`dynunet.UNet` and :class:`dynunet.Encoder`. It
checks them all at construction and then holds their normal forms. The constructors, the command line and the
examples read it; nothing here imports torch.

A per-level option is one value for all levels or a flat sequence with one value per level. A nested sequence
is per level and per axis; a flat sequence is never read as axes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields
from math import prod
from typing import TYPE_CHECKING, Any, cast

from . import checks
from .combinations import check_causal, check_heads
from .option import (
    ACTIVATIONS,
    ATTENTIONS,
    AXIS,
    BLOCKS,
    DOWNSAMPLES,
    LEVEL,
    LEVEL_AXIS,
    MODULATIONS,
    MOST_AXES,
    MOST_BLOCKS,
    NORMS,
    PADDING_MODES,
    POSITIONS,
    SKIPS,
    TIME_EMBEDDINGS,
    TRANSITION,
    UPSAMPLES,
    Option,
    about,
    check_activation,
    check_attention,
    check_channels,
    check_skip_attention,
    check_time_embedding,
)

if TYPE_CHECKING:
    from torch import Tensor, nn

    from .blocks import Activation

__all__ = [
    "LevelSpec",
    "NetworkSpec",
    "Option",
    "TransitionSpec",
    "option_fields",
    "options",
    "with_an_axis_more",
]

_UNET, _ENCODER = "UNet", "Encoder"


@dataclass(frozen=True)
class LevelSpec:
    """The options of one level, one value each."""

    channels: int
    num_blocks: int
    kernel_size: tuple[int, ...]
    block: str
    attention: str | None
    num_heads: int
    skip_attention: bool | str | None
    dropout: float


@dataclass(frozen=True)
class TransitionSpec:
    """The options of the transition between one level and the next."""

    strides: tuple[int, ...]
    downsample: str
    upsample: str


@dataclass(frozen=True, kw_only=True)
class NetworkSpec:
    """The options of a :class:`dynunet.UNet`, or with ``out_features`` of a :class:`dynunet.Encoder`.

    Fields are documented by their :class:`Option`, see :func:`options`. After construction they hold normal
    forms: tuples with one entry per level, transition or axis.

    Attributes:
        levels: the per-level options of each level.
        transitions: the per-transition options of each level but the first.

    Raises:
        ValueError, TypeError: naming the option, the rule and the value received.

    >>> spec = NetworkSpec(spatial_dims=2, in_channels=1, channels=(8, 16), attention=[None, "full"])
    >>> spec.levels[1].attention, spec.transitions[0].strides
    ('full', (2, 2))
    """

    spatial_dims: int = field(
        metadata=about("number of spatial axes, at least 1.", checks.whole(1, MOST_AXES))
    )
    in_channels: int = field(metadata=about("channels of the input.", checks.whole()))
    out_channels: int | None = field(
        default=None,
        metadata=about(
            "channels of the output; those of the input by default.",
            checks.optional(checks.whole()),
            of=_UNET,
        ),
    )
    out_features: int | None = field(
        default=None,
        metadata=about(
            "length of the output: classes, or values to regress.",
            checks.optional(checks.whole()),
            of=_ENCODER,
        ),
    )
    channels: Sequence[int] = field(
        default=(64, 128, 256),
        metadata=about(
            "one entry per level, in any order, at least one: the list is the network.",
            check_channels,
            kind=int,
        ),
    )
    num_blocks: int | Sequence[int] = field(
        default=2,
        metadata=about("encoder blocks of a level.", checks.whole(1, MOST_BLOCKS), per=LEVEL, kind=int),
    )
    kernel_size: int | Sequence[int] | Sequence[Sequence[int]] = field(
        default=3,
        metadata=about("of the convolutions in the blocks.", checks.sizes, per=LEVEL_AXIS, kind=str),
    )
    strides: int | Sequence[int] | Sequence[Sequence[int]] = field(
        default=2,
        metadata=about(
            "down-sampling into each level but the first, so one entry fewer than levels.",
            checks.sizes,
            per=("transition", "axis"),
            kind=str,
        ),
    )
    block: str | Sequence[str] = field(
        default="residual",
        metadata=about(
            '"residual", "plain" or "convnext".', checks.choice(BLOCKS), per=LEVEL, kind=str, known=BLOCKS
        ),
    )
    norm: str | None = field(
        default="group",
        metadata=about(
            '"group", "batch", "instance", "layer" or "rms" (these two over the channels at each '
            "position) or None.",
            checks.optional_choice(NORMS),
            kind=str,
            known=NORMS,
        ),
    )
    activation: str | Activation | type[nn.Module] = field(
        default="silu",
        metadata=about(
            'a name ("silu", "relu", "gelu", "leaky_relu", "elu" or "tanh"), or in Python a function or a '
            "module.",
            check_activation,
            kind=str,
            known=ACTIVATIONS,
        ),
    )
    attention: str | Sequence[str | None] | None = field(
        default=None,
        metadata=about(
            'after every block: "full", "linear", "axial", "window", "channel", "spatial", several in '
            'order joined by + ("cbam" is "channel+spatial"), or None; costs in dynunet.attention.',
            check_attention,
            per=LEVEL,
            kind=str,
            known=ATTENTIONS,
        ),
    )
    num_heads: int | Sequence[int] = field(
        default=4,
        metadata=about(
            "attention heads; they must divide the channels.", checks.whole(), per=LEVEL, kind=int
        ),
    )
    skip_attention: bool | str | Sequence[bool | str] = field(
        default=False,
        metadata=about(
            "on the skips: True for an attention gate (Oktay et al. 2018), or one of the names of attention.",
            check_skip_attention,
            per=LEVEL,
            of=_UNET,
            known=ATTENTIONS,
        ),
    )
    downsample: str | Sequence[str] = field(
        default="conv",
        metadata=about(
            '"conv" (strided), "max" or "avg" (pools).',
            checks.choice(DOWNSAMPLES),
            per=TRANSITION,
            kind=str,
            known=DOWNSAMPLES,
        ),
    )
    upsample: str | Sequence[str] = field(
        default="nearest",
        metadata=about(
            '"nearest" or "linear" (then a convolution), "transpose" (kernel = stride) or "shuffle" '
            "(sub-pixel convolution).",
            checks.choice(UPSAMPLES),
            per=TRANSITION,
            of=_UNET,
            kind=str,
            known=UPSAMPLES,
        ),
    )
    skips: str = field(
        default="block",
        metadata=about(
            'what the decoder gets of the encoder: "block", the output of every block and every input of a '
            'level, for one block more than that has; or "level", the last output of each level but the '
            "deepest, for as many blocks.",
            checks.choice(SKIPS),
            of=_UNET,
            kind=str,
            known=SKIPS,
        ),
    )
    mid_blocks: int = field(
        default=2,
        metadata=about(
            "blocks in the bottleneck: 2 with its attention between them, 1 before it, or 0.",
            checks.whole(0, 2),
            of=_UNET,
            kind=int,
        ),
    )
    mid_attention: str | None = field(
        default=None,
        metadata=about(
            "attention in the bottleneck, as attention.",
            check_attention,
            of=_UNET,
            kind=str,
            known=ATTENTIONS,
        ),
    )
    num_groups: int = field(
        default=32,
        metadata=about(
            "groups of group norm at most; the largest divisor of the channels is taken.",
            checks.whole(),
            kind=int,
        ),
    )
    norm_eps: float = field(default=1e-5, metadata=about("added to variances.", checks.positive))
    dropout: float | Sequence[float] = field(
        default=0.0, metadata=about("probability in the blocks.", checks.probability, per=LEVEL, kind=float)
    )
    padding_mode: str | Sequence[str] = field(
        default="zeros",
        metadata=about(
            '"zeros", "reflect", "replicate" or "circular".',
            checks.per_axis(checks.choice(PADDING_MODES)),
            per=AXIS,
            kind=str,
            known=PADDING_MODES,
        ),
    )
    positions: str | None = field(
        default=None,
        metadata=about(
            'what tells attention where a token is: "rotary", "sinusoidal" or None.',
            checks.optional_choice(POSITIONS),
            kind=str,
            known=POSITIONS,
        ),
    )
    time_embedding: bool | str = field(
        default=False,
        metadata=about(
            'whether the network takes a time t: True or "sinusoidal", "ddpm" or "fourier", see '
            "dynunet.embeddings.TimeEmbedding.",
            check_time_embedding,
            known=TIME_EMBEDDINGS,
        ),
    )
    time_scale: float = field(
        default=1000.0,
        metadata=about(
            "t is multiplied by it before the sinusoids, so that [0, 1] spans their periods.", checks.positive
        ),
    )
    num_classes: int | None = field(
        default=None,
        metadata=about(
            "number of class labels the network can be conditioned on; None for none.",
            checks.optional(checks.whole()),
        ),
    )
    cond_channels: int = field(
        default=0,
        metadata=about(
            "channels of an image-like condition, resized to the input and put beside it.", checks.whole(0)
        ),
    )
    cond_features: int = field(
        default=0, metadata=about("length of a free vector the network is conditioned on.", checks.whole(0))
    )
    context_features: int | None = field(
        default=None,
        metadata=about(
            "features of context tokens; levels with attention and the bottleneck attend to them.",
            checks.optional(checks.whole()),
        ),
    )
    in_layer: Callable[[Tensor], Tensor] | None = field(
        default=None,
        metadata=about(
            "module or function before the first convolution; its out_channels, if it has them, are "
            "what that reads.",
            checks.layer,
        ),
    )
    out_layer: Callable[[Tensor], Tensor] | None = field(
        default=None,
        metadata=about(
            "module or function after the last convolution; its in_channels, if it has them, are what "
            "that gives. Both may change the spatial size.",
            checks.layer,
            of=_UNET,
        ),
    )
    gradient_checkpointing: bool = field(
        default=False,
        metadata=about(
            "whether training computes the blocks a second time instead of keeping what is inside "
            "them: less memory, a third more time.",
            checks.flag,
            kind=bool,
        ),
    )
    modulation: str = field(
        default="shift",
        metadata=about(
            'how time, class and features reach a block: "shift" adds them to its channels, '
            '"scale_shift" scales and shifts its norm (FiLM, AdaGN).',
            checks.choice(MODULATIONS),
            kind=str,
            known=MODULATIONS,
        ),
    )
    deep_supervision: int = field(
        default=0,
        metadata=about(
            "how many levels below the first also give an output in training mode.", checks.whole(0), of=_UNET
        ),
    )
    causal: bool | Sequence[bool] = field(
        default=False,
        metadata=about(
            "whether nothing along an axis depends on later entries: group and instance norm are then of all "
            "entries so far, and batch norm is causal in evaluation mode.",
            checks.per_axis(checks.flag, bool, "bool"),
            per=AXIS,
            kind=bool,
        ),
    )
    lookahead: int | Sequence[int] = field(
        default=0,
        metadata=about(
            "how many later entries an output may depend on along causal axes.",
            checks.per_axis(checks.whole(0), int, "int"),
            per=AXIS,
            of=_UNET,
            kind=int,
        ),
    )
    levels: tuple[LevelSpec, ...] = field(init=False, repr=False, compare=False)
    transitions: tuple[TransitionSpec, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name, option in options():
            object.__setattr__(self, name, self._normal(name, option))
        object.__setattr__(self, "levels", self._each(LevelSpec, len(self.channels)))
        object.__setattr__(self, "transitions", self._each(TransitionSpec, len(self.channels) - 1))
        check_heads(self)
        check_causal(self)
        most = len(self.levels) - 1
        if self.deep_supervision > most:
            raise ValueError(
                f"deep_supervision must be at most {most}, the levels below the first, "
                f"got {self.deep_supervision}"
            )

    def _normal(self, name: str, option: Option) -> Any:
        value, n = getattr(self, name), self.spatial_dims
        if option.per[:1] == ("level",):
            return checks.per_level(option.check, value, name, n, len(self.channels), "levels")
        if option.per[:1] == ("transition",):
            count, each = len(self.channels) - 1, "transitions between levels"
            return checks.per_level(option.check, value, name, n, count, each)
        return option.check(value, name, n)

    def _each(self, kind: Any, count: int) -> tuple[Any, ...]:
        names = [f.name for f in fields(kind)]
        return tuple(kind(**{name: getattr(self, name)[i] for name in names}) for i in range(count))

    @property
    def causal_axes(self) -> tuple[bool, ...]:
        """Whether each axis is causal."""
        return cast(tuple[bool, ...], self.causal)

    @property
    def lookaheads(self) -> tuple[int, ...]:
        """The look-ahead along each axis."""
        return cast(tuple[int, ...], self.lookahead)

    def ahead(self, i: int) -> tuple[int, ...]:
        """Entries of level i, along each axis, that what reads them for the next level (the bottleneck, after
        the last) looks ahead: lookahead in as large steps as it has."""
        strides = [step.strides for step in self.transitions]
        finer = [prod(axis) for axis in zip(*strides[:i], strict=True)] or [1] * self.spatial_dims
        found = [n // factor for n, factor in zip(self.lookaheads, finer, strict=True)]
        return (
            tuple(n % s for n, s in zip(found, strides[i], strict=True)) if i < len(strides) else tuple(found)
        )

    def skip_channels(self, i: int) -> list[int]:
        """The channels of the skip of each block of the decoder at level ``i``, 0 for a block without one."""
        level = self.levels[i]
        if self.skips == "block":
            return [level.channels] * level.num_blocks + [self.levels[max(i - 1, 0)].channels]
        return [level.channels] + [0] * (level.num_blocks - 1) if i < len(self.transitions) else []

    @property
    def embedding_features(self) -> int:
        """The length of the embedding of time, class and features; 0 if there is none."""
        embedded = bool(self.time_embedding) or self.num_classes is not None or self.cond_features > 0
        return 4 * self.channels[0] if embedded else 0


def options(of: str = "") -> Iterator[tuple[str, Option]]:
    """Name and description of every option in order, or only of the options of a class.

    >>> [name for name, option in options("Encoder") if option.of]
    ['out_features']
    """
    for f in option_fields(of):
        yield f.name, f.metadata["option"]


def option_fields(of: str = "") -> list[Field[Any]]:
    """The fields of all options in order, or only of the options of a class."""
    found = [f for f in fields(NetworkSpec) if "option" in f.metadata]
    return [f for f in found if not of or f.metadata["option"].of in ("", of)]


def with_an_axis_more(given: Mapping[str, Any], spatial_dims: int) -> dict[str, Any]:
    """Options of a network, and for a last axis that is not causal.

    Args:
        given: arguments of a network of ``spatial_dims`` axes.
        spatial_dims: axes without that one.
    """
    made = dict(given)
    for name, none in (("causal", False), ("lookahead", 0)):
        if name in made:
            value = made[name]
            each = [*value] if isinstance(value, Sequence) else [value]
            each = each * spatial_dims if len(each) == 1 else each
            made[name] = (*each, none)
    return made
