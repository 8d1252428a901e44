"""What describes an option of a network, the names that values may have, and checks of single values."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from . import checks
from .checks import Check

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


def check_attention(value: Any, name: str, n: int = 0) -> str | None:
    return "+".join(attention_names(value, name)) or None


def check_skip_attention(value: Any, name: str, n: int = 0) -> bool | str | None:
    return value if isinstance(value, bool) else check_attention(value, name, n)


def check_channels(value: Any, name: str, n: int = 0) -> tuple[int, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise TypeError(f"{name} must be a sequence of ints, one per level, got {value!r}")
    if not value:
        raise ValueError(f"{name} must have at least one level, got {value!r}")
    return tuple(checks.whole()(c, f"{name}[{i}]") for i, c in enumerate(value))


def check_activation(value: Any, name: str, n: int = 0) -> Any:
    if isinstance(value, str):
        return checks.choice(ACTIVATIONS, ", if not a callable,")(value, name)
    if not callable(value):
        raise TypeError(f"{name} must be a name or a callable, got {value!r}")
    return value


def check_time_embedding(value: Any, name: str, n: int = 0) -> str | bool:
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
    check: Callable[..., Any]
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


def about(help: str, check: Check, **more: Any) -> dict[str, Option]:
    return {"option": Option(help, check, **more)}


LEVEL, LEVEL_AXIS, TRANSITION, AXIS = ("level",), ("level", "axis"), ("transition",), ("axis",)
