"""Selecting the files of a data set: most of them decide what it is, the others are skipped or converted.

The kind, the number of axes, the channels and (without a crop size) the size are those of most examples; a
file that cannot be read like them is skipped, with the reason.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from convnd.arguments import per_axis

from ..progress import Bar
from .channel_files import cases, stack_of
from .errors import UnreadableError, attempt, count, shown
from .formats import FORMATS, Format, Header, of_kind, of_path
from .formats.format import most, times
from .options import DataOptions
from .ranges import Ranges
from .spec import DataSpec

_REASONS = 10  # that are listed
_Item = TypeVar("_Item")


@dataclass
class File:
    """A file that can be used."""

    header: Header
    grid: tuple[int, ...] = ()  # sizes of an example once read, before it is cropped
    folder: str = ""  # the top-level sub-folder it is in
    ranges: Ranges | None = None  # of its values
    pair: "File | None" = None  # its degraded version
    target: "File | None" = None  # its label map, or that of its values
    row: tuple[str, ...] | None = None  # its labels in a table


@dataclass
class Selection:
    """Files that are skipped, and why; and files of which only some examples are."""

    skipped: dict[Path, str] = field(default_factory=dict)
    partly: dict[Path, str] = field(default_factory=dict)

    def read_headers(
        self,
        paths: Iterable[Path],
        options: DataOptions,
        header: Callable[[Format, Path, DataOptions], Header] | None = None,
    ) -> list[File]:
        files, read = [], header or _header
        for path in watched(cases(paths, options.channel_files, self.skipped), "looking at files"):
            found = of_path(path)
            try:
                if found is None:
                    raise UnreadableError("its suffix is not known")
                files.append(File(attempt(lambda f=found, p=path: read(f, p, options))))
            except UnreadableError as error:
                self.skipped[path] = str(error)
        return self.left(files)

    def keep(self, files: Iterable[File], reason: Callable[[File], str | None]) -> list[File]:
        """The files for which there is no reason to skip them."""
        kept = []
        for file in files:
            try:
                why = reason(file)
            except UnreadableError as error:
                why = str(error)
            if why is None:
                kept.append(file)
            else:
                self.skipped[file.header.path] = why
        return self.left(kept)

    def left(self, files: list[File]) -> list[File]:
        if not files:
            raise ValueError(
                "\n  ".join([f"none of {count(len(self.skipped), 'file')} can be used:", *self._why()])
            )
        return files

    def _why(self) -> list[str]:
        """Each reason with the first file that it is of, and how many more there are."""
        first = {why: path for path, why in reversed(self.skipped.items())}
        often = Counter(self.skipped.values()).most_common()
        said = [f"{shown(first[why])}{f' and {n - 1} more' * (n > 1)}: {why}" for why, n in often[:_REASONS]]
        return said + ([f"and {len(often) - _REASONS} other reasons"] if len(often) > _REASONS else [])


def _header(own: Format, path: Path, options: DataOptions) -> Header:
    """Of one file, or of the files of all channels."""
    return stack_of(own, options.channel_files).header(path, options)


def watched(items: Iterable[_Item], text: str) -> Iterable[_Item]:
    """Show a progress bar, if it takes a while."""
    return Bar(items, desc=text, leave=False, delay=1)


def common_spec(files: list[File], options: DataOptions, selection: Selection) -> tuple[DataSpec, list[File]]:
    """The spec that most files have, and the files that can be read with it."""
    kind, dims = most((f.header.kind, len(f.header.shape)) for f in weighted(files))
    files = selection.keep(files, lambda f: wrong_kind(f.header, kind, dims))
    channels = options.channels or most(f.header.channels for f in weighted(files))
    files = selection.keep(files, lambda f: wrong_channels(f.header, channels))
    _check_options(options, kind, dims)
    headers = [f.header for f in weighted(files)]
    spec = DataSpec(
        kind,
        dims,
        channels,
        resize=options.resize,
        channel_axis=options.channel_axis,
        channel_files=options.channel_files,
        series=options.series,
        stored=most(h.stored for h in headers),
        missing=options.missing,
        coordinates=options.coordinates,
        **of_kind(kind).spec_fields(options, headers, dims),
    )
    return spec, files


def _check_options(options: DataOptions, kind: str, dims: int) -> None:
    """Refuse options that mean nothing for these files, rather than ignore them."""
    own = of_kind(kind)
    for name in sorted({name for f in FORMATS for name in f.options} - own.options):
        value = getattr(options, name)
        if value not in (None, False):
            kinds = dict.fromkeys(f.kind for f in FORMATS if name in f.options)
            raise ValueError(f"{name} is of {' and '.join(kinds)}, and the files are {kind}, got {value}")
    own.check_options(options, dims)


def weighted(files: list[File]) -> list[File]:
    """Every file as often as it has examples, up to a number that keeps this short."""
    return [f for f in files for _ in range(min(f.header.entries, 1000))]


def wrong_kind(header: Header, kind: str, dims: int) -> str | None:
    if (header.kind, len(header.shape)) == (kind, dims):
        return None
    return f"it is one of {header.kind} with {len(header.shape)} spatial axes; {kind} with {dims} are used"


def wrong_channels(header: Header, channels: int) -> str | None:
    if header.channels == channels or header.format.convertible(header, channels):
        return None
    return f"it has {header.channels} channels, and {channels} are used"


def mixes_noise(file: File, spec: DataSpec) -> str | None:
    """Why the noise of a file is not what it was once the file is read."""
    if file.grid != file.header.shape:
        return "it would be resampled, and the noise in it would not be what self_supervised takes it for"
    if file.header.channels != spec.channels:
        return f"it would be converted to {spec.channels} channels, and the noise in it with it"
    return None


def example_size(files: list[File], options: DataOptions, spec: DataSpec) -> tuple[int, ...]:
    if options.size is not None:
        return per_axis(options.size, spec.spatial_dims, "size")
    grids = Counter(f.grid for f in weighted(files))
    grid, count = grids.most_common(1)[0]
    if 2 * count < grids.total():
        some = ", ".join(times(g) for g in list(grids)[:4])
        raise ValueError(
            f"size must be given, to crop (or resize) to: the files have {len(grids)} sizes, such as {some}"
        )
    return grid


def wrong_size(file: File, spec: DataSpec, options: DataOptions) -> str | None:
    size = spec.size or file.grid
    if options.size is None:
        same = file.grid == size
        return (
            None
            if same
            else f"its size is {times(file.grid)}, that of most is {times(size)}, and none was given"
        )
    if spec.resize or file.header.format.pads or all(n >= s for n, s in zip(file.grid, size, strict=True)):
        return None
    return (
        f"it is smaller than an example, {times(file.grid)} and {times(size)}; resize=True would enlarge it"
    )
