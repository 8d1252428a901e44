"""The single definition of every option of a network: type, default, help, allowed values and scope.

:class:`NetworkSpec` has a field for each argument of :class:`dynunet.UNet` and :class:`dynunet.Encoder`. It
checks them all at construction and then holds their normal forms. The constructors, the command line and the
examples read it; nothing here imports torch.

A per-level option is one value for all levels or a flat sequence with one value per level. A nested sequence
is per level and per axis; a flat sequence is never read as axes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import Field, dataclass, field, fields
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from . import checks
from .checks import Check

if TYPE_CHECKING:
    from torch import Tensor, nn

    from .blocks import Activation

MOST_AXES, MOST_BLOCKS = 62, 1000  # torch has 64 axes at most, two of which are for samples and channels

BLOCKS = ("residual", "plain", "convnext")
NORMS = ("group", "batch", "instance", "layer", "rms")
ACTIVATIONS = ("relu", "leaky_relu", "elu", "gelu", "silu", "tanh")
ATTENTIONS = ("full", "linear", "axial", "window", "channel", "spatial", "cbam")
MULTI_HEAD = frozenset({"full", "linear", "axial", "window"})  # kinds of attention with heads
DOWNSAMPLES = ("conv", "max", "avg")
UPSAMPLES = ("nearest", "linear", "transpose", "shuffle")
SKIPS = ("block", "level")
POSITIONS = ("rotary", "sinusoidal")
TIME_EMBEDDINGS = ("sinusoidal", "ddpm", "fourier")
MODULATIONS = ("shift", "scale_shift")
PADDING_MODES = ("zeros", "reflect", "replicate", "circular")
CAUSAL_PADDING_MODES = ("zeros", "replicate")  # of which nothing comes from later entries
NOT_CAUSAL = frozenset({"linear"})  # kinds of attention that weigh all positions at once


def attention_names(value: Any, name: str = "attention") -> tuple[str, ...]:
    """Split None, a name, or several names joined by ``+`` into a tuple; ``cbam`` is ``channel+spatial``.

    Raises:
        ValueError: for anything else, naming the argument ``name``, the known names and the value.

    >>> attention_names("full+cbam", "attention")
    ('full', 'channel', 'spatial')
    """
    if value is None:
        return ()
    names = value.split("+") if isinstance(value, str) else [""]
    if not set(names) <= set(ATTENTIONS):
        known = ", ".join(map(repr, ATTENTIONS))
        raise ValueError(
            f"{name}, if not None, must be one of {known}, or several joined by '+', got {value!r}"
        )
    return tuple("+".join(names).replace("cbam", "channel+spatial").split("+"))


def needs_heads(names: Sequence[str]) -> bool:
    """True if any of these splits the channels into heads, whose number must then divide the channels."""
    return not MULTI_HEAD.isdisjoint(names)


def _attention(value: Any, name: str, n: int = 0) -> str | None:
    return "+".join(attention_names(value, name)) or None


def _skip_attention(value: Any, name: str, n: int = 0) -> bool | str | None:
    return value if isinstance(value, bool) else _attention(value, name, n)


def _channels(value: Any, name: str, n: int = 0) -> tuple[int, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise TypeError(f"{name} must be a sequence of ints, one per level, got {value!r}")
    if not value:
        raise ValueError(f"{name} must have at least one level, got {value!r}")
    return tuple(checks.whole()(c, f"{name}[{i}]") for i, c in enumerate(value))


def _activation(value: Any, name: str, n: int = 0) -> Any:
    if isinstance(value, str):
        return checks.choice(ACTIVATIONS, ", if not a callable,")(value, name)
    if not callable(value):
        raise TypeError(f"{name} must be a name or a callable, got {value!r}")
    return value


def _time_embedding(value: Any, name: str, n: int = 0) -> str | bool:
    if isinstance(value, bool):
        return TIME_EMBEDDINGS[0] if value else False
    return checks.choice(TIME_EMBEDDINGS, ", if not True or False,")(value, name)


class Option(NamedTuple):
    """The description of one option.

    Attributes:
        help: one sentence or less; the same as in the docstring of the constructor.
        check: returns the normal form of one value, or raises an error.
        per: ``"level"`` or ``"transition"`` if there may be one value for each, followed by ``"axis"`` if
            such a value may have an entry per axis; ``"axis"`` alone for one value per axis of the network.
        of: the class that has the option, if only one of the two has it.
        kind: the type of one value on the command line, str for sizes such as ``1x2x2``; None for options
            that are not flags, because they are Python objects or follow from the data.
        known: the names, if a value is one of some or several joined by ``+``; for lists to choose from.
    """

    help: str
    check: Check
    per: tuple[str, ...] = ()
    of: str = ""
    kind: type | None = None
    known: tuple[str, ...] = ()

    @property
    def scope(self) -> str:
        """How several values are read, as a sentence: ``"Per level, or nested per level and axis."``."""
        if len(self.per) < 2:
            return f"Per {self.per[0]}." if self.per else ""
        return f"Per {self.per[0]}, or nested per {self.per[0]} and {self.per[1]}."


def _about(help: str, check: Check, **more: Any) -> dict[str, Option]:
    return {"option": Option(help, check, **more)}


_LEVEL, _LEVEL_AXIS, _TRANSITION, _AXIS = ("level",), ("level", "axis"), ("transition",), ("axis",)
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

    def check_heads(self, channels: int, where: str) -> None:
        """Refuse heads that do not divide the channels of an attention."""
        if channels % self.num_heads:
            raise ValueError(
                f"num_heads must divide the channels where there is attention, got {self.num_heads} heads "
                f"for {channels} channels at {where}"
            )


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
        metadata=_about("number of spatial axes, at least 1.", checks.whole(1, MOST_AXES))
    )
    in_channels: int = field(metadata=_about("channels of the input.", checks.whole()))
    out_channels: int | None = field(
        default=None,
        metadata=_about(
            "channels of the output; those of the input by default.",
            checks.optional(checks.whole()),
            of=_UNET,
        ),
    )
    out_features: int | None = field(
        default=None,
        metadata=_about(
            "length of the output: classes, or values to regress.",
            checks.optional(checks.whole()),
            of=_ENCODER,
        ),
    )
    channels: Sequence[int] = field(
        default=(64, 128, 256),
        metadata=_about(
            "one entry per level, in any order, at least one: the list is the network.",
            _channels,
            kind=int,
        ),
    )
    num_blocks: int | Sequence[int] = field(
        default=2,
        metadata=_about("encoder blocks of a level.", checks.whole(1, MOST_BLOCKS), per=_LEVEL, kind=int),
    )
    kernel_size: int | Sequence[int] | Sequence[Sequence[int]] = field(
        default=3,
        metadata=_about("of the convolutions in the blocks.", checks.sizes, per=_LEVEL_AXIS, kind=str),
    )
    strides: int | Sequence[int] | Sequence[Sequence[int]] = field(
        default=2,
        metadata=_about(
            "down-sampling into each level but the first, so one entry fewer than levels.",
            checks.sizes,
            per=("transition", "axis"),
            kind=str,
        ),
    )
    block: str | Sequence[str] = field(
        default="residual",
        metadata=_about(
            '"residual", "plain" or "convnext".', checks.choice(BLOCKS), per=_LEVEL, kind=str, known=BLOCKS
        ),
    )
    norm: str | None = field(
        default="group",
        metadata=_about(
            '"group", "batch", "instance", "layer" or "rms" (these two over the channels at each '
            "position) or None.",
            checks.optional_choice(NORMS),
            kind=str,
            known=NORMS,
        ),
    )
    activation: str | Activation | type[nn.Module] = field(
        default="silu",
        metadata=_about(
            'a name ("silu", "relu", "gelu", "leaky_relu", "elu" or "tanh"), or in Python a function or a '
            "module.",
            _activation,
            kind=str,
            known=ACTIVATIONS,
        ),
    )
    attention: str | Sequence[str | None] | None = field(
        default=None,
        metadata=_about(
            'after every block: "full", "linear", "axial", "window", "channel", "spatial", several in '
            'order joined by + ("cbam" is "channel+spatial"), or None; costs in dynunet.attention.',
            _attention,
            per=_LEVEL,
            kind=str,
            known=ATTENTIONS,
        ),
    )
    num_heads: int | Sequence[int] = field(
        default=4,
        metadata=_about(
            "attention heads; they must divide the channels.", checks.whole(), per=_LEVEL, kind=int
        ),
    )
    skip_attention: bool | str | Sequence[bool | str] = field(
        default=False,
        metadata=_about(
            "on the skips: True for an attention gate (Oktay et al. 2018), or one of the names of attention.",
            _skip_attention,
            per=_LEVEL,
            of=_UNET,
            known=ATTENTIONS,
        ),
    )
    downsample: str | Sequence[str] = field(
        default="conv",
        metadata=_about(
            '"conv" (strided), "max" or "avg" (pools).',
            checks.choice(DOWNSAMPLES),
            per=_TRANSITION,
            kind=str,
            known=DOWNSAMPLES,
        ),
    )
    upsample: str | Sequence[str] = field(
        default="nearest",
        metadata=_about(
            '"nearest" or "linear" (then a convolution), "transpose" (kernel = stride) or "shuffle" '
            "(sub-pixel convolution).",
            checks.choice(UPSAMPLES),
            per=_TRANSITION,
            of=_UNET,
            kind=str,
            known=UPSAMPLES,
        ),
    )
    skips: str = field(
        default="block",
        metadata=_about(
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
        metadata=_about(
            "blocks in the bottleneck: 2 with its attention between them, 1 before it, or 0.",
            checks.whole(0, 2),
            of=_UNET,
            kind=int,
        ),
    )
    mid_attention: str | None = field(
        default=None,
        metadata=_about(
            "attention in the bottleneck, as attention.", _attention, of=_UNET, kind=str, known=ATTENTIONS
        ),
    )
    num_groups: int = field(
        default=32,
        metadata=_about(
            "groups of group norm at most; the largest divisor of the channels is taken.",
            checks.whole(),
            kind=int,
        ),
    )
    norm_eps: float = field(default=1e-5, metadata=_about("added to variances.", checks.positive))
    dropout: float | Sequence[float] = field(
        default=0.0, metadata=_about("probability in the blocks.", checks.probability, per=_LEVEL, kind=float)
    )
    padding_mode: str | Sequence[str] = field(
        default="zeros",
        metadata=_about(
            '"zeros", "reflect", "replicate" or "circular".',
            checks.per_axis(checks.choice(PADDING_MODES)),
            per=_AXIS,
            kind=str,
            known=PADDING_MODES,
        ),
    )
    positions: str | None = field(
        default=None,
        metadata=_about(
            'what tells attention where a token is: "rotary", "sinusoidal" or None.',
            checks.optional_choice(POSITIONS),
            kind=str,
            known=POSITIONS,
        ),
    )
    time_embedding: bool | str = field(
        default=False,
        metadata=_about(
            'whether the network takes a time t: True or "sinusoidal", "ddpm" or "fourier", see '
            "dynunet.embeddings.TimeEmbedding.",
            _time_embedding,
            known=TIME_EMBEDDINGS,
        ),
    )
    time_scale: float = field(
        default=1000.0,
        metadata=_about(
            "t is multiplied by it before the sinusoids, so that [0, 1] spans their periods.", checks.positive
        ),
    )
    num_classes: int | None = field(
        default=None,
        metadata=_about(
            "number of class labels the network can be conditioned on; None for none.",
            checks.optional(checks.whole()),
        ),
    )
    cond_channels: int = field(
        default=0,
        metadata=_about(
            "channels of an image-like condition, resized to the input and put beside it.", checks.whole(0)
        ),
    )
    cond_features: int = field(
        default=0, metadata=_about("length of a free vector the network is conditioned on.", checks.whole(0))
    )
    context_features: int | None = field(
        default=None,
        metadata=_about(
            "features of context tokens; levels with attention and the bottleneck attend to them.",
            checks.optional(checks.whole()),
        ),
    )
    in_layer: Callable[[Tensor], Tensor] | None = field(
        default=None,
        metadata=_about(
            "module or function before the first convolution; its out_channels, if it has them, are "
            "what that reads.",
            checks.layer,
        ),
    )
    out_layer: Callable[[Tensor], Tensor] | None = field(
        default=None,
        metadata=_about(
            "module or function after the last convolution; its in_channels, if it has them, are what "
            "that gives. Both may change the spatial size.",
            checks.layer,
            of=_UNET,
        ),
    )
    gradient_checkpointing: bool = field(
        default=False,
        metadata=_about(
            "whether training computes the blocks a second time instead of keeping what is inside "
            "them: less memory, a third more time.",
            checks.flag,
            kind=bool,
        ),
    )
    modulation: str = field(
        default="shift",
        metadata=_about(
            'how time, class and features reach a block: "shift" adds them to its channels, '
            '"scale_shift" scales and shifts its norm (FiLM, AdaGN).',
            checks.choice(MODULATIONS),
            kind=str,
            known=MODULATIONS,
        ),
    )
    deep_supervision: int = field(
        default=0,
        metadata=_about(
            "how many levels below the first also give an output in training mode.", checks.whole(0), of=_UNET
        ),
    )
    causal: bool | Sequence[bool] = field(
        default=False,
        metadata=_about(
            "whether nothing along an axis depends on later entries: group and instance norm are then of all "
            "entries so far, and batch norm is causal in evaluation mode.",
            checks.per_axis(checks.flag, bool, "bool"),
            per=_AXIS,
            kind=bool,
        ),
    )
    lookahead: int | Sequence[int] = field(
        default=0,
        metadata=_about(
            "how many later entries an output may depend on along causal axes.",
            checks.per_axis(checks.whole(0), int, "int"),
            per=_AXIS,
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
        self._check_heads()
        self._check_causal()
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

    def _check_causal(self) -> None:
        """Refuse what would look at later entries of a causal axis."""
        for axis, (causal, mode) in enumerate(zip(self.causal_axes, self.padding_mode, strict=True)):
            if causal and mode not in CAUSAL_PADDING_MODES:
                raise ValueError(
                    "padding_mode must be 'zeros' or 'replicate' on a causal axis, for other modes put later "
                    f"entries before the first, got {mode!r} on axis {axis}"
                )
        for causal, n in zip(self.causal_axes, self.lookaheads, strict=True):
            if n and not causal:
                raise ValueError(
                    f"lookahead must be 0 on axes that are not causal, which see all, got {self.lookahead}"
                )
        if any(self.causal_axes):
            for name in ("attention", "skip_attention", "mid_attention"):
                self._check_causal_attention(name)

    def _check_causal_attention(self, option: str) -> None:
        value = getattr(self, option)
        for names in value if isinstance(value, tuple) else (value,):
            kinds = NOT_CAUSAL.intersection(attention_names(names) if isinstance(names, str) else ())
            if kinds:
                raise ValueError(
                    f"{option} must not have {' or '.join(map(repr, kinds))} in a causal network: it weighs "
                    f"all positions at once: use 'window', 'axial' or 'full', got {names!r}"
                )

    def ahead(self, i: int) -> tuple[int, ...]:
        """Entries of level i, along each axis, that what reads them for the next level (the bottleneck, after
        the last) looks ahead: lookahead in as large steps as it has."""
        strides = [step.strides for step in self.transitions]
        finer = [prod(axis) for axis in zip(*strides[:i], strict=True)] or [1] * self.spatial_dims
        found = [n // factor for n, factor in zip(self.lookaheads, finer, strict=True)]
        return (
            tuple(n % s for n, s in zip(found, strides[i], strict=True)) if i < len(strides) else tuple(found)
        )

    def _check_heads(self) -> None:
        decoder = () if self.out_features is not None else self._decoder_attention()
        for level, channels, where in (*self._encoder_attention(), *decoder):
            level.check_heads(channels, where)

    def _encoder_attention(self) -> Iterator[tuple[LevelSpec, int, str]]:
        """Every attention with heads in the encoder: its level, its channels, and where it is."""
        for i, level in enumerate(self.levels):
            if needs_heads(attention_names(level.attention)):
                yield level, level.channels, f"level {i}"
            if self.context_features is not None and level.attention:
                yield level, level.channels, f"level {i}, which attends to the context"

    def _decoder_attention(self) -> Iterator[tuple[LevelSpec, int, str]]:
        """Those in the bottleneck and on the skips."""
        bottom = self.levels[-1]
        if needs_heads(attention_names(self.mid_attention)):
            yield bottom, bottom.channels, "the bottleneck (mid_attention)"
        if self.context_features is not None:
            yield bottom, bottom.channels, "the bottleneck, which attends to the context"
        for i, level in reversed(list(enumerate(self.levels))):
            if isinstance(level.skip_attention, str) and needs_heads(attention_names(level.skip_attention)):
                for skip in filter(None, self.skip_channels(i)):
                    yield level, skip, f"level {i} (skip_attention)"

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
