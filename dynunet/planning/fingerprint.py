"""What a plan is made from: sizes, spacings, values and classes of the files of a data set."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from statistics import median

from ..data import DataOptions
from ..data.classes import described
from ..data.formats import Format, of_kind
from ..data.memory import Cache
from ..data.scan import Scan, scan
from ..data.selection import File
from ..data.spec import DataSpec
from ..defaults import TOO_SMALL, typical

__all__ = ["Fingerprint", "fingerprint"]

_UNLIKE = 1.1  # times the usual spacing: files beyond it are resampled
_AXES_OF_SPACE = 3  # of volumes; a fourth is time
_ENTRY = 4  # bytes


@dataclass(frozen=True)
class Fingerprint:
    """Facts about a data set.

    Attributes:
        source: where the files are.
        options: how they are read; with the spacing that they are resampled to, if they have several.
        spec: the meaning of their numbers.
        shape: of a typical file as it is read, one entry per axis.
        spacing: of its entries, as far as they can be compared: 1 where files have none.
        files, examples: how many.
        task: generation, restoration, or one of :class:`dynunet.Supervised`.
        outputs: channels of the network's output.
        classes, counts: to predict, in words; how often each is there.
        whole: an example is a whole file, resized, rather than a crop.
        decoded: bytes of files that are kept decoded, as far as ``options.cache`` allows.
        why: how shape and spacing were found, in words.
    """

    source: Path
    options: DataOptions
    spec: DataSpec
    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    files: int
    examples: int
    task: str
    outputs: int
    maps: bool
    classes: str | None
    counts: tuple[int, ...]
    whole: bool
    decoded: int
    why: tuple[str, ...]

    @property
    def supervised(self) -> bool:
        """True if targets are predicted."""
        return self.task not in ("generation", "restoration")


def fingerprint(source: Path | str, options: DataOptions) -> Fingerprint:
    """Look through the files of a source.

    Raises:
        FileNotFoundError, ValueError: naming the argument, the rule and the value received, or what was
            looked for and not found.
    """
    found = scan(source, replace(options, size=(1,), resize=False), Cache(options.cache * 1e9))
    own, files, spec, why = of_kind(found.spec.kind), found.files, found.spec, []
    steps = _spacings(files)
    if steps and options.spacing is None and "spacing" in own.options:
        spacing = _common(steps)
        if spacing is not None:
            options = replace(options, spacing=spacing)
            spec = replace(spec, spacing=spacing + (0.0,) * (spec.spatial_dims - len(spacing)))
            why.append(f"spacing {_times(spacing)}: the median, to which all are resampled, for they differ")
    grids = [own.grid(f.header, spec) for f in files]
    return Fingerprint(
        Path(source),
        options,
        spec,
        typical(grids, 0.5 if own.pads else TOO_SMALL),
        _compared(steps, spec),
        len(files),
        len(found.entries),
        _task(options, found),
        _outputs(found),
        found.targets is not None and found.targets.spec.maps,
        None if found.targets is None or found.targets.classes is None else described(found.targets.classes),
        () if found.targets is None else found.targets.counts,
        _whole(options, found, own),
        0 if own.partial else min(int(options.cache * 1e9), _decoded(files, grids)),
        tuple(why),
    )


def _spacings(files: Sequence[File]) -> list[tuple[float, ...]]:
    """Of the files that have one for every axis."""
    found = [f.header.spacing for f in files]
    return [s for s in found if s is not None and min(s) > 0]


def _common(steps: Sequence[tuple[float, ...]]) -> tuple[float, ...] | None:
    """The median spacing along the axes of space, if the files have several."""
    usual = tuple(median(axis) for axis in zip(*steps, strict=True))[:_AXES_OF_SPACE]
    ratios = (s / u for step in steps for s, u in zip(step, usual, strict=False))
    differ = any(max(r, 1 / r) > _UNLIKE for r in ratios)
    return tuple(float(f"{s:.6g}") for s in usual) if differ else None


def _compared(steps: Sequence[tuple[float, ...]], spec: DataSpec) -> tuple[float, ...]:
    """The spacing as far as it can be compared: time counts as the finest axis of space."""
    n = spec.spatial_dims
    usual = [median(axis) for axis in zip(*steps, strict=True)] if steps else [1.0] * n
    wanted = spec.spacing or (0.0,) * n
    spacing = [w or u for w, u in zip(wanted, usual, strict=True)]
    space = spacing[:_AXES_OF_SPACE]
    return (*space, *[min(space)] * (n - len(space)))


def _task(options: DataOptions, found: Scan) -> str:
    if found.targets is not None:
        return found.targets.spec.task
    return "restoration" if options.restores else "generation"


def _outputs(found: Scan) -> int:
    if found.targets is None:
        return found.spec.channels
    classes = found.targets.classes
    return found.targets.spec.channels if classes is None else len(classes)


def _whole(options: DataOptions, found: Scan, own: Format) -> bool:
    """True if a crop does not have what is to be learnt: labels of whole examples, or what pictures show."""
    if options.size is not None:
        return options.resize
    if not own.resizable or options.restores or options.coordinates:
        return False
    return own.kind == "images" if found.targets is None else not found.targets.spec.maps


def _decoded(files: Sequence[File], grids: Sequence[tuple[int, ...]]) -> int:
    pairs = zip(files, grids, strict=True)
    return _ENTRY * sum(f.header.entries * f.header.channels * prod(grid) for f, grid in pairs)


def _times(values: Sequence[float]) -> str:
    return " x ".join(f"{v:g}" for v in values)
