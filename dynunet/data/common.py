"""What files have in common: most of them decide, the others are skipped or converted."""

from collections import Counter
from collections.abc import Hashable, Iterable
from typing import TypeVar

from convnd.arguments import per_axis

from .files import READERS
from .options import DataOptions
from .sieve import File, Sieve
from .sources import Info, Units

_T = TypeVar("_T", bound=Hashable)


def common_units(files: list[File], options: DataOptions, sieve: Sieve) -> tuple[Units, list[File]]:
    """What most files are, and the files that can be read so."""
    kind, dims = most((f.info.kind, len(f.info.shape)) for f in weighted(files))
    files = sieve.keep(files, lambda f: wrong_kind(f.info, kind, dims))
    channels = options.channels or most(f.info.channels for f in weighted(files))
    files = sieve.keep(files, lambda f: wrong_channels(f.info, channels))
    _check_fits(options, kind, dims)
    rate = None
    if kind == "audio":
        rate = options.sample_rate or most(f.info.sample_rate for f in weighted(files))
    scaled = options.percentiles if kind == "volumes" and options.value_range is None else None
    units = Units(
        kind,
        dims,
        channels,
        resize=options.resize,
        sample_rate=rate,
        spacing=_spacing(options, dims),
        channel_axis=options.channel_axis,
        series=options.series,
        stored=most(f.info.stored for f in weighted(files)),
        percentiles=scaled,
        missing=options.missing,
        coordinates=options.coordinates,
    )
    return units, files


def _check_fits(options: DataOptions, kind: str, dims: int) -> None:
    """Refuse options that mean nothing for these files, rather than ignore them."""
    arrays = ("volumes", "arrays")
    for name, kinds in {
        "spacing": ("volumes",),
        "sample_rate": ("audio",),
        "value_range": arrays,
        "channel_axis": arrays,
        "series": arrays,
    }.items():
        value = getattr(options, name)
        if value not in (None, False) and kind not in kinds:
            raise ValueError(f"{name} is of {' and '.join(kinds)}, and the files are {kind}, got {value}")
    if options.resize and kind == "audio":
        raise ValueError("resize would change the pitch of audio; give size alone, for random crops")
    if any(axis >= dims for axis in options.flips):
        raise ValueError(f"flips must be axes below {dims}, got {options.flips}")


def weighted(files: list[File]) -> list[File]:
    """Every file as often as it has examples, up to a number that keeps this short."""
    return [f for f in files for _ in range(min(f.info.entries, 1000))]


def most(values: Iterable[_T]) -> _T:
    return Counter(values).most_common(1)[0][0]


def wrong_kind(info: Info, kind: str, dims: int) -> str | None:
    if (info.kind, len(info.shape)) == (kind, dims):
        return None
    return f"it is one of {info.kind} with {len(info.shape)} spatial axes; {kind} with {dims} are used"


def wrong_channels(info: Info, channels: int) -> str | None:
    if info.channels == channels or READERS[info.format].convertible(info, channels):
        return None
    return f"it has {info.channels} channels, and {channels} are used"


def _spacing(options: DataOptions, dims: int) -> tuple[float, ...] | None:
    """One entry per axis, 0 for an axis that stays as it is: time, unless it is given too."""
    if options.spacing is None:
        return None
    given = options.spacing * min(dims, 3) if len(options.spacing) == 1 else options.spacing
    if len(given) not in (dims, min(dims, 3)):
        raise ValueError(f"spacing must be one number or one for each of {dims} axes, got {options.spacing}")
    return given + (0.0,) * (dims - len(given))


def example_size(files: list[File], options: DataOptions, units: Units) -> tuple[int, ...]:
    if options.size is not None:
        return per_axis(options.size, units.spatial_dims, "size")
    grids = Counter(f.grid for f in weighted(files))
    grid, count = grids.most_common(1)[0]
    if 2 * count < grids.total():
        some = ", ".join(times(g) for g in list(grids)[:4])
        raise ValueError(
            f"size must be given, to crop (or resize) to: the files have {len(grids)} sizes, such as {some}"
        )
    return grid


def wrong_size(file: File, units: Units, options: DataOptions) -> str | None:
    size = units.size or file.grid
    if options.size is None:
        same = file.grid == size
        return (
            None
            if same
            else f"its size is {times(file.grid)}, that of most is {times(size)}, and none was given"
        )
    if units.resize or units.kind == "audio" or all(n >= s for n, s in zip(file.grid, size, strict=True)):
        return None
    return (
        f"it is smaller than an example, {times(file.grid)} and {times(size)}; resize=True would enlarge it"
    )


def times(sizes: Iterable[int]) -> str:
    return "x".join(map(str, sizes))
