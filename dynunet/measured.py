"""How files were measured: what is missing, averaged, blurred, clipped, or known as coefficients."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path

from .arguments import choice, integer, number, several
from .data.options import missing_value

__all__ = ["Measured"]

_PADDING_MODES = ("zeros", "reflect", "replicate", "circular")


@dataclass(frozen=True)
class Measured:
    """How files were measured. Something is missing, or one of the others; what is blurred may be averaged.

    Attributes:
        missing: the value of what is missing: ``"nan"``, or a number as it is in the file.
        mask: a file of the same kind and size, not 0 (of images: bright) where something is missing; for a
            folder one for all, or a folder with one at the relative path of each.
        downsample: of how many entries of the result each one of the file is the mean, one number or one per
            axis.
        blur: an array (npy) with all spatial axes, the kernel that the result was convolved with.
        padding: what the blur saw around: ``"zeros"``, ``"reflect"``, ``"replicate"`` or ``"circular"``.
        clip: the values that the result was limited to, low and high, or one number for both signs.
        fourier: an array (npy), not 0 where a Fourier coefficient was measured, zero frequency first. The
            files are complex arrays (npy) then, unitary transforms over all spatial axes, and what is not
            measured in them does not matter.
        noise_std: standard deviation of the noise, in the units of the files.

    Raises:
        ValueError, TypeError: naming the argument, the rule and the value received.
    """

    missing: str | None = None
    mask: Path | str | None = None
    downsample: int | Sequence[int] | None = None
    blur: Path | str | None = None
    padding: str = "replicate"
    clip: float | Sequence[float] | None = None
    fourier: Path | str | None = None
    noise_std: float = 0.0

    def __post_init__(self) -> None:
        missing_value(self.missing)
        self.factors()
        self.limits()
        choice(self.padding, _PADDING_MODES, "padding")
        if not number(self.noise_std, "noise_std", 0) < inf:
            raise ValueError(f"noise_std must be finite, got {self.noise_std}")
        exclusive = {
            "missing": self.missing is not None,
            "mask": self.mask is not None,
            "downsample or blur": self.linear,
            "clip": self.clip is not None,
            "fourier": self.fourier is not None,
        }
        given = [name for name, there in exclusive.items() if there]
        if len(given) > 1:
            raise ValueError(f"{given[0]} and {given[1]} exclude each other: a file was measured in one way")
        if not given and not self.noise_std:
            raise ValueError(
                "one of missing, mask, downsample, blur, clip, fourier and noise_std must say how the files "
                "were measured"
            )

    @property
    def linear(self) -> bool:
        """Whether all entries are there, blurred or averaged."""
        return self.downsample is not None or self.blur is not None

    def factors(self) -> tuple[int, ...] | None:
        """Those of ``downsample``: one, or one per axis."""
        if self.downsample is None:
            return None
        return tuple(integer(factor, "downsample") for factor in several(self.downsample, "downsample"))

    def limits(self) -> tuple[float, float] | None:
        """Those of ``clip``, low and high."""
        if self.clip is None:
            return None
        given = several(self.clip, "clip")
        low, high = (-given[0], given[0]) if len(given) == 1 else given[:2]
        if len(given) > 2 or not number(low, "clip") < number(high, "clip"):
            raise ValueError(f"clip must be one positive number, or low below high, got {self.clip}")
        return low, high
