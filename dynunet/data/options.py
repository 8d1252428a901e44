"""Options of a dataset: which examples are made of files.

Every field is of a plain type, so that a command line can be made of it and JSON can hold it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite, isnan
from pathlib import Path
from typing import Any, ClassVar, Literal

from ..arguments import choice, integer, interval, number, positive, several

_TABLES = (".csv", ".tsv")
TASKS = ("segmentation", "classification", "regression")
SELF_SUPERVISED = ("r2r", "noise2void")


@dataclass(frozen=True)
class DataOptions:
    """Options for making training examples of a folder of files."""

    flag_names: ClassVar[Mapping[str, str]] = {"channels": "data_channels", "seed": "data_seed"}
    paths: ClassVar[tuple[str, ...]] = ("noise", "pairs", "targets", "class_names")

    spatial_dims: int | None = None
    """number of spatial axes of an example; by default that of most files"""
    size: tuple[int, ...] | None = None
    """of an example, one number for all axes or one per axis; without it whole files, which must be alike"""
    resize: bool = False
    """resize whole files to size, instead of cropping at random places"""
    coordinates: bool = False
    """give the network the place of a crop in its file, from -1 to 1: one condition channel per axis"""
    flips: tuple[int, ...] = ()
    """spatial axes along which training examples are mirrored at random, the first is 0"""
    channels: int | None = None
    """channels of an example; by default those of most files"""
    sample_rate: int | None = None
    """of audio, in Hz; other files are resampled. By default that of most files"""
    spacing: tuple[float, ...] | None = None
    """of volumes, in the files' units (mm): resample to it. One number for all axes or one per axis"""
    channel_axis: int | None = None
    """the axis of arrays (npy, npz) and volumes that counts channels, -1 is the last; by default none"""
    channel_files: tuple[str, ...] | None = None
    """channels are in files of their own: the ends of their names, such as _0000 _0001 (nnU-Net), or their
    folders, T1/ T2/; what is predicted from them has the rest of the name"""
    series: bool = False
    """files may have one axis more, which counts examples: the first of arrays, the last of volumes"""
    percentiles: tuple[float, float] = (0.5, 99.5)
    """of every volume, what becomes -1 and 1: the units of MRI are arbitrary"""
    value_range: tuple[float, float] | None = None
    """of arrays, images and volumes, what becomes -1 and 1; by default the range of the training files
    (arrays), the full scale (images; of 16 bits as many as are used) or the percentiles of each file
    (volumes)"""
    labels: Literal["folder", "file"] | None = None
    """class labels: the names of the top-level sub-folders, or those inside IDX, CIFAR-10 and npz files"""
    missing: str | None = None
    """what missing entries are, "nan" or a number (NaN then is too): they do not count in the loss"""
    noise: Path | None = None
    """folder of noise, in files of the same kind; such noise is what it learns to take away. With r2r it has
    the level that it has in the noisy files"""
    coloured: bool = False
    """learn to take noise away whose power falls as 1 / f^a, with a random a from 0 (white) to 2 (brown)"""
    snr: tuple[float, float] = (0.0, 10.0)
    """signal-to-noise ratio of that noise in dB, uniform from low to high"""
    level: float | None = None
    """of audio to restore: the root mean square to bring every degraded example to, and its clean one with
    it, so that what is learnt holds for any loudness (0.25 is about right); by default loudness stays"""
    pairs: Path | None = None
    """folder of degraded files, each at the relative path of its clean one: learn to restore those"""
    self_supervised: Literal["r2r", "noise2void"] | None = None
    """learn to take noise off files that are all noisy, without clean ones: r2r takes off Gaussian noise,
    white of a known level (noise_std) or as recorded by itself (noise), noise2void noise of any level that is
    independent from entry to entry; noise that is not so stays"""
    noise_std: float | None = None
    """standard deviation of the white noise in the files, in their own units, for r2r"""
    targets: Path | None = None
    """what is to be learned: a folder of label maps (or of values), each at the relative path of its file; or
    a table, labels.csv, with the columns file and label (or several of numbers)"""
    task: Literal["segmentation", "classification", "regression"] | None = None
    """what is learned from targets; by default classes of whole numbers and of words, and values of other
    numbers. classification without targets is that of sub-folders, or of --labels"""
    class_names: Path | None = None
    """JSON file with the names of the classes and their values in label maps, {"liver": 1, ...}, as nnU-Net's
    dataset.json has them; by default all values that there are"""
    ignore_index: int | None = None
    """value in label maps of what does not count"""
    validation: float = 0.1
    """share of the examples that is held out"""
    seed: int = 0
    """of the choice of what is held out"""
    cache: float = 1.0
    """GB of decoded files kept in memory by each process, where reading a part of a file needs all of it"""

    def __post_init__(self) -> None:
        for name, value in (self._shapes() | self._values() | self._paths()).items():
            object.__setattr__(self, name, value)
        self._check_restoration()
        self._check_targets()
        if not -(2**63) <= self.seed < 2**64:
            raise ValueError(f"seed must have at most 64 bits, got {self.seed}")
        if not 0 <= self.validation < 1:
            raise ValueError(f"validation must be a share in [0, 1), got {self.validation!r}")
        number(self.cache, "cache", 0)

    def _shapes(self) -> dict[str, Any]:
        """Counts of axes, channels and entries, in their normal forms."""
        for name in ("spatial_dims", "channels", "sample_rate"):
            if getattr(self, name) is not None:
                integer(getattr(self, name), name)
        if self.resize and self.size is None:
            raise ValueError("resize needs a size to resize to, got size=None")
        size = None if self.size is None else tuple(integer(n, "size") for n in several(self.size, "size"))
        return {"size": size, "flips": tuple(integer(n, "flips", 0) for n in several(self.flips, "flips"))}

    def _values(self) -> dict[str, Any]:
        """Ranges of values, in their normal forms."""
        found: dict[str, Any] = {
            "percentiles": interval(self.percentiles, "percentiles", 0, 100),
            "snr": interval(self.snr, "snr", equal=True),
        }
        if self.spacing is not None:
            found["spacing"] = tuple(positive(s, "spacing") for s in several(self.spacing, "spacing"))
        if self.value_range is not None:
            found["value_range"] = interval(self.value_range, "value_range")
        if self.noise_std is not None:
            found["noise_std"] = positive(self.noise_std, "noise_std")
        if self.missing is not None:
            missing_value(str(self.missing))
            found["missing"] = str(self.missing)
        if self.task is not None:
            choice(self.task, TASKS, "task")
        labels = self.labels
        if labels is None and self.task == "classification" and self.targets is None:
            found["labels"] = labels = "folder"
        if labels is not None:
            choice(labels, ("folder", "file"), "labels")
        if self.channel_files is not None:
            found["channel_files"] = _channel_names(self.channel_files)
        if self.ignore_index is not None:
            found["ignore_index"] = integer(self.ignore_index, "ignore_index", None)
        return found

    def _paths(self) -> dict[str, Any]:
        given = {name: getattr(self, name) for name in self.paths}
        return {name: Path(path) for name, path in given.items() if path is not None}

    def _check_restoration(self) -> None:
        if self.pairs is not None and (self.noise is not None or self.coloured):
            raise ValueError("pairs are degraded already: leave out noise and coloured, or pairs")
        self._check_self_supervised()
        if self.level is not None:
            positive(self.level, "level")
            if not self.restores:
                raise ValueError(
                    f"level needs noise, coloured, pairs or self_supervised, got {self.level!r} without them"
                )

    def _check_self_supervised(self) -> None:
        how, known = self.self_supervised, (self.noise is not None) + (self.noise_std is not None)
        if how is None:
            if self.noise_std is not None:
                raise ValueError(f"noise_std needs self_supervised='r2r', got {self.noise_std:g} without it")
            return
        choice(how, SELF_SUPERVISED, "self_supervised")
        if self.pairs is not None or self.coloured:
            raise ValueError("self_supervised is for noisy files alone: leave out pairs and coloured, or it")
        if self.resize or self.spacing is not None:
            raise ValueError("self_supervised takes noise as it is: leave out resize and spacing")
        if self.snr != type(self).snr:
            raise ValueError(f"self_supervised takes noise as it is: leave out snr, got {self.snr}")
        if how == "r2r" and known != 1:
            raise ValueError(
                "self_supervised='r2r' needs to know the noise: give either noise_std, if it is white, or "
                f"noise, a folder of it, got {'both' if known else 'neither'}"
            )
        if how == "noise2void" and known:
            raise ValueError("self_supervised='noise2void' needs no noise: leave out noise and noise_std")

    def _check_targets(self) -> None:
        if self.channel_files is not None and not self.supervised:
            raise ValueError(f"channel_files are of models that predict targets, got {self.channel_files}")
        if self.targets is not None and self.labels is not None:
            raise ValueError("targets are labels: leave out labels, or targets")
        if self.supervised and self.restores:
            raise ValueError(
                "targets are for a model that predicts: leave out noise, coloured, pairs and self_supervised"
            )
        if self.task is not None and self.task != "classification" and self.targets is None:
            raise ValueError(f"task={self.task!r} needs targets, a folder or a table")
        for name in ("class_names", "ignore_index"):
            if getattr(self, name) is not None and self.targets is None:
                raise ValueError(f"{name} is of targets, and there are none, got {getattr(self, name)}")

    @property
    def supervised(self) -> bool:
        """True if examples come with targets, which are to be predicted."""
        return self.targets is not None or self.task is not None

    @property
    def table(self) -> bool:
        """True if the targets are a table, with labels or values of whole examples."""
        path = self.targets
        return path is not None and path.suffix.lower() in _TABLES and not path.is_dir()

    @property
    def restores(self) -> bool:
        """True if examples come with a degraded version, from which they are to be restored."""
        given = self.noise, self.pairs, self.self_supervised
        return self.coloured or any(value is not None for value in given)


def _channel_names(given: Any) -> tuple[str, ...]:
    """Different ends of names, or different folders."""
    names = tuple(str(name) for name in several(given, "channel_files"))
    folders = {name.endswith("/") for name in names}
    if len(names) < 2 or len(set(names)) < len(names) or len(folders) > 1 or {"", "/"} & set(names):
        raise ValueError(
            "channel_files must be two ends of names at least, such as _0000 _0001, or folders, T1/ T2/, "
            f"got {names}"
        )
    return names


def missing_value(missing: str | None) -> float | None:
    """The value of missing entries; NaN for ``"nan"``."""
    if missing is None:
        return None
    try:
        value = float(missing)
    except ValueError:
        raise ValueError(f"missing must be 'nan' or a number, got {missing!r}") from None
    if not (isfinite(value) or isnan(value)):
        raise ValueError(f"missing must be 'nan' or a finite number, got {missing!r}")
    return value
