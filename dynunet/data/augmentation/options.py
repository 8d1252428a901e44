"""Options of augmentation: which random changes there are, how strong they are, and how often.

Nothing here imports torch: the command line checks its flags with it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from functools import cached_property
from itertools import combinations
from math import inf
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from typing_extensions import Doc

from ...arguments import choice, flag, integer, interval, number, positive, several
from .presets import PROBABILITIES, TASKS, preset

if TYPE_CHECKING:
    from torch import Tensor

PADDINGS = ("reflection", "border", "circular", "missing")
_NEUTRAL = {"scale": 1.0, "stretch": 1.0, "gamma": 1.0, "contrast": 1.0, "resolution": 1.0}

# As they may be given; they are kept as tuples.
Axes = int | tuple[int, ...] | None
Angles = float | tuple[float, ...] | None
Range = tuple[float, float] | None
Paddings = str | tuple[str, ...]
Probabilities = float | Mapping[str, float] | str | tuple[str, ...] | None


@dataclass(frozen=True)
class Augment:
    """One random change of a training example, alike for everything in it that has places.

    Called with an example, a dict as :class:`dynunet.FolderDataset` gives it, it returns a new one. The
    :class:`dynunet.Trainer` does so with every training example, and never with held-out data.

    ======================= ======================================= =====================================
    entry                   changes of places                       changes of values
    ======================= ======================================= =====================================
    ``x0``                  by interpolation                        yes
    ``cond``                by interpolation, at its own size       its first ``given_channels``
    ``mask``                missing where most of the weight is     no; missing values stay 0
    ``target`` of integers  each label by interpolation, the one    no
                            with the most weight is taken
    ``target`` of booleans  by interpolation, True above a half     no
    ``target`` of floats    by interpolation (NaN is missing)       no
    anything else           no                                      no
    ======================= ======================================= =====================================

    So coordinates, which are channels of cond, go with what they are the coordinates of. A target without
    spatial axes (a class, values to regress) stays; so does a vector at every place: it is not rotated.

    Strengths are None where the preset decides (with ``preset=False``: for none), and the number that changes
    nothing (0, a factor of 1, no axes) for none. Random numbers are of torch's global generator alone.

    >>> import torch
    >>> from dynunet.data import Augment
    >>> example = {"x0": torch.rand(1, 8, 8, 8), "target": torch.randint(3, (8, 8, 8))}
    >>> changed = Augment(rotation=30, task="segmentation")(example)
    >>> changed["x0"].shape, changed["target"].dtype
    (torch.Size([1, 8, 8, 8]), torch.int64)
    >>> Augment(probability=0)(example)["x0"] is example["x0"]
    True
    """

    from_data: ClassVar[tuple[str, ...]] = ("task", "spacing", "given_channels")

    preset: Annotated[
        bool, Doc("random changes of training examples, by task and number of axes, where none are given")
    ] = True
    flip: Annotated[Axes, Doc("axes that are mirrored, each by itself; the first is 0")] = None
    rotation: Annotated[
        Angles, Doc("greatest angle in degrees: one, or one per plane, as (0 1), (0 2), (1 2)")
    ] = None
    scale: Annotated[Range, Doc("factors of size, low and high; recordings become as much slower")] = None
    stretch: Annotated[Range, Doc("more factors of size, of each axis by itself")] = None
    shear: Annotated[float | None, Doc("greatest angle in degrees, in every plane")] = None
    shift: Annotated[float | None, Doc("greatest shift, as a share of every axis")] = None
    elastic: Annotated[
        float | None, Doc("greatest standard deviation of a smooth displacement, as a share of every axis")
    ] = None
    axes: Annotated[Axes, Doc("axes that are rotated, scaled, ..., deformed; by default the first three")] = (
        None
    )
    gamma: Annotated[Range, Doc("exponents of values between the least and the greatest, low and high")] = (
        None
    )
    contrast: Annotated[Range, Doc("factors of the deviation from the mean, low and high")] = None
    brightness: Annotated[float | None, Doc("the most that is added to or taken from values")] = None
    noise: Annotated[float | None, Doc("greatest standard deviation of white noise")] = None
    blur: Annotated[float | None, Doc("greatest standard deviation of a Gaussian blur, in entries")] = None
    resolution: Annotated[
        float | None, Doc("lowest share of entries per axis that is kept and enlarged again, such as 0.5")
    ] = None
    gain: Annotated[Range, Doc("of recordings, in dB, low and high")] = None
    filter: Annotated[float | None, Doc("most that a smooth filter gives or takes, in dB")] = None
    erase: Annotated[
        float | None, Doc("longest share of every axis, of a box that becomes 0; of recordings a time mask")
    ] = None
    band_stop: Annotated[
        float | None, Doc("widest share of all frequencies, of a band that is left out: a frequency mask")
    ] = None
    probability: Annotated[
        Probabilities, Doc("of each change: a number for all of them, or for some as rotation=0.5")
    ] = None
    padding: Annotated[
        Paddings,
        Doc("what comes in from outside: reflection, border, circular or missing; one, or one per axis"),
    ] = ("reflection",)
    interpolation: Annotated[
        Literal["linear", "cubic"] | None, Doc("of values; by default linear, of recordings cubic")
    ] = None
    labels: Annotated[
        Literal["linear", "nearest"], Doc("the label at a place: the one with most weight, or the nearest")
    ] = "linear"
    condition: Annotated[
        bool, Doc("tell a model that makes new data what was changed, so that its samples look like the data")
    ] = True
    task: str | None = None
    """What the example is for: segmentation, classification, regression, restoration, generation. It decides
    about the preset. By default of the model that is trained."""
    spacing: tuple[float, ...] | None = None
    """Distance of entries along every axis, so that rotations keep shapes; by default that of the data."""
    given_channels: int | None = None
    """First channels of cond that show what x0 shows, such as its degraded version; values change in both,
    and noise, blur, resolution and erase only here. By default as the data say."""

    def __post_init__(self) -> None:
        for name, check in _CHECKS.items():
            if getattr(self, name) is not None:
                object.__setattr__(self, name, check(getattr(self, name), name))

    def __call__(self, example: "Mapping[str, Tensor]") -> "dict[str, Tensor]":
        """A changed copy of an example; what is not changed is the same tensor.

        Raises:
            ValueError, TypeError: if there is no x0 of floats, or options do not fit its axes.
        """
        from .item import augmented

        return augmented(example, self)

    @property
    def active(self) -> bool:
        """Whether there is a change at all."""
        return self.preset or any(self.has(name) for name in PROBABILITIES)

    def for_axes(self, n: int) -> "Augment":
        """The options for examples with n spatial axes, with the preset's values in place of None.

        Raises:
            ValueError: if an option makes no sense with so many axes.
        """
        key = f"_for_axes_{n}"
        if key not in self.__dict__:
            axes = tuple(range(min(n, 3))) if self.axes is None else self.several("axes")
            found = preset(self.task, n, axes) if self.preset else {}
            given = {f.name: getattr(self, f.name) for f in fields(self)}
            left = {name: value for name, value in found.items() if given[name] is None}
            smooth = self.interpolation or ("cubic" if n == 1 else "linear")
            made = replace(self, **left, preset=False, axes=axes, interpolation=smooth)
            made._check_axes(n)
            object.__setattr__(self, key, made)
        return self.__dict__[key]

    def has(self, name: str) -> bool:
        """Whether a change is of any strength."""
        value = getattr(self, name)
        if value is None or (isinstance(value, tuple) and name == "flip"):
            return bool(value)
        values = value if isinstance(value, tuple) else (value,)
        return any(v != _NEUTRAL.get(name, 0.0) for v in values)

    def chance(self, name: str) -> float:
        """The probability of a change; of mirroring, along each axis."""
        return self._chances[name]

    @property
    def tells(self) -> bool:
        """Whether examples get ``features`` that say what was changed: where new data are to be made."""
        return self.condition and self.task == "generation"

    def num_features(self, n: int) -> int:
        """How many ``features`` examples with n spatial axes get: ``cond_features`` of the network."""
        from .item import num_features

        return num_features(self.for_axes(n), n) if self.tells else 0

    def several(self, name: str) -> tuple[Any, ...]:
        """The values of an option that may have several, none for None."""
        value: Any = getattr(self, name)
        return () if value is None else value

    @cached_property
    def _chances(self) -> dict[str, float]:
        found = dict(PROBABILITIES)
        for text in self.several("probability"):
            name, equals, share = text.rpartition("=")
            found |= {name: float(share)} if equals else dict.fromkeys(found, float(share))
        return found

    def _check_axes(self, n: int) -> None:
        """Refuse what makes no sense with so many axes."""
        for name in ("flip", "axes"):
            if any(axis >= n for axis in self.several(name)):
                raise ValueError(f"{name} must be axes below {n}, got {getattr(self, name)}")
        axes, angles = self.several("axes"), self.several("rotation")
        planes = [*combinations(axes, 2)]
        for name in ("rotation", "shear"):
            if self.has(name) and not planes:
                value = getattr(self, name)
                raise ValueError(f"{name} must be left out with one axis, which has no plane, got {value}")
        if len(angles) not in (0, 1, len(planes)):
            raise ValueError(
                f"rotation must be one angle, or one for each of {len(planes)} planes of axes "
                f"{' '.join(map(str, axes))}, got {angles}"
            )
        for name, counts in (("padding", (1, n)), ("spacing", (0, n))):
            if len(self.several(name)) not in counts:
                raise ValueError(f"{name} must have one value per axis, {n}, got {getattr(self, name)}")


Check = Callable[[Any, str], Any]


def _range(low: float, high: float) -> Check:
    return lambda value, name: interval(value, name, low, high, equal=True)


def _number(low: float, high: float) -> Check:
    return lambda value, name: number(value, name, low, high)


def _one_of(*known: str) -> Check:
    return lambda value, name: choice(value, known, name)


def _each(check: Check) -> Check:
    return lambda value, name: tuple(check(v, name) for v in several(value, name))


def _axes(value: Any, name: str) -> tuple[int, ...]:
    axes = tuple(integer(axis, name, 0) for axis in several(value, name))
    if len(set(axes)) < len(axes):
        raise ValueError(f"{name} must have each axis once, got {value!r}")
    return tuple(sorted(axes))


def _paddings(value: Any, name: str) -> tuple[str, ...]:
    return _each(_one_of(*PADDINGS))((value,) if isinstance(value, str) else value, name)


def _probabilities(value: Any, name: str) -> tuple[str, ...]:
    """As texts: ``0.1``, ``rotation=0.5``; also a number, or a mapping of numbers by name."""
    if isinstance(value, Mapping):
        value = tuple(f"{key}={share}" for key, share in value.items())
    texts = tuple(map(str, (value,) if isinstance(value, str) else several(value, name)))
    for text in texts:
        key, equals, share = text.rpartition("=")
        if equals and key not in PROBABILITIES:
            near = get_close_matches(key, PROBABILITIES, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"{name} must be of {', '.join(PROBABILITIES)}, got {text!r}{hint}")
        try:
            good = 0 <= float(share) <= 1
        except ValueError:
            good = False
        if not good:
            raise ValueError(f"{name} must be in [0, 1], such as 0.5 or rotation=0.5, got {text!r}")
    return texts


_CHECKS: dict[str, Check] = {
    "preset": flag,
    "flip": _axes,
    "rotation": _each(_number(0, 180)),
    "scale": _range(0.1, 10),
    "stretch": _range(0.1, 10),
    "shear": _number(0, 45),
    "shift": _number(0, 1),
    "elastic": _number(0, 0.1),
    "axes": _axes,
    "gamma": _range(0.1, 10),
    "contrast": _range(0.01, 100),
    "brightness": _number(0, inf),
    "noise": _number(0, inf),
    "blur": _number(0, 100),
    "resolution": _number(0.01, 1),
    "gain": _range(-100, 100),
    "filter": _number(0, 100),
    "erase": _number(0, 1),
    "band_stop": _number(0, 1),
    "probability": _probabilities,
    "padding": _paddings,
    "interpolation": _one_of("linear", "cubic"),
    "labels": _one_of("linear", "nearest"),
    "condition": flag,
    "task": _one_of(*TASKS),
    "spacing": _each(positive),
    "given_channels": lambda value, name: integer(value, name, 0),
}
