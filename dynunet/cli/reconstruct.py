"""``dynunet reconstruct``: what files may have been measured of, and how sure that is."""

from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Literal

from ..measured import Measured
from .flags import check_counts
from .on_files import Sampling

_MEASURED = tuple(f.name for f in fields(Measured))


@dataclass(frozen=True)
class Reconstruct(Sampling):
    """Find what files may have been measured of: mean, standard deviation and samples of each.

    Say how they were measured: by --missing or --mask, --downsample and --blur, --clip, or --fourier, and
    --noise-std. The mean has the name of the file; -std and -sample-01 ... lie beside it. Results that are
    there are kept, so that the same command goes on where it was interrupted.
    """

    out: Path
    """folder for the results, with the names of the files; for one file also the file of the mean"""
    missing: str | None = None
    """value of what is missing: nan, or a number as it is in the file"""
    mask: Path | None = None
    """file of the same kind and size, not 0 (of images: bright) where something is missing; for a folder one
    for all, or a folder with one at the relative path of each"""
    downsample: tuple[int, ...] | None = None
    """of how many entries of the result each one of the file is the mean, one number or one per axis"""
    blur: Path | None = None
    """array (npy) with all spatial axes: the kernel that the result was convolved with"""
    padding: Literal["zeros", "reflect", "replicate", "circular"] = "replicate"
    """what the blur saw around"""
    clip: tuple[float, ...] | None = None
    """values that the result was limited to, low and high, or one for both signs"""
    fourier: Path | None = None
    """array (npy), not 0 where a Fourier coefficient was measured, zero frequency first; the files are
    complex arrays (npy), unitary transforms over all spatial axes"""
    noise_std: float = 0.0
    """standard deviation of the noise, in the units of the files"""
    num: int = 32
    """samples of each file"""
    steps: int = 20
    """of the sampler: more are better and slower"""
    method: Literal["mmps", "pigdm", "dps", "repaint"] = "mmps"
    """of posterior sampling; repaint is for --missing and --mask without noise"""

    def check(self) -> None:
        self.measured()
        check_counts(num=self.num, steps=self.steps)
        super().check()

    def measured(self) -> Measured:
        return Measured(**{name: getattr(self, name) for name in _MEASURED})

    def run(self) -> None:
        from ..reconstruction import reconstruct

        self.use(partial(reconstruct, measured=self.measured()), without=_MEASURED)
