"""What comes with clean files: their degraded versions, or recordings of noise."""

from dataclasses import replace
from pathlib import Path

from .common import most, times, weighted, wrong_channels, wrong_kind
from .files import READERS, search, stem
from .options import DataOptions
from .sieve import File, Sieve
from .sources import Info, Units, attempt, shown


def paired(
    files: list[File], root: Path, options: DataOptions, units: Units, sieve: Sieve
) -> tuple[Units, list[File]]:
    """Each clean file with the degraded one at the same relative path, whatever their suffixes."""
    assert options.pairs is not None
    found = search(options.pairs, "pairs")
    if {f.info.path.resolve() for f in files} & {p.resolve() for p in found.files}:
        raise ValueError(f"pairs must be a folder outside of the source, got {shown(options.pairs)}")
    others = replace(options, labels=None, spatial_dims=units.spatial_dims)
    sieve.skipped.update(found.unusable)
    pairs = {stem(f.info.path, found.root): f for f in sieve.look(found.files, others)}
    degraded = list(pairs.values())
    cond = replace(units, channels=most(f.info.channels for f in weighted(degraded)), size=None)

    def match(file: File) -> str | None:
        pair = pairs.pop(stem(file.info.path, root), None)
        if pair is None:
            return f"there is no file of its name in {shown(found.root)}, or none that can be read"
        info = pair.info
        wrong = wrong_kind(info, units.kind, units.spatial_dims) or wrong_channels(info, cond.channels)
        if wrong is not None:
            return f"its pair: {wrong}"
        pair.grid = attempt(lambda: READERS[info.format].grid(info, cond))
        if pair.grid != file.grid or info.entries != file.info.entries:
            sizes = f"{info.entries} x {times(pair.grid)}, not {file.info.entries} x {times(file.grid)}"
            return f"its pair has another size: {sizes}"
        file.pair = pair
        return None

    try:
        return cond, sieve.keep(files, match)
    finally:
        for pair in pairs.values():
            sieve.skipped[pair.info.path] = "there is no clean file of its name"


def recorded_noise(options: DataOptions, units: Units, sieve: Sieve) -> list[Info]:
    """The files of recorded noise; the channels may be mixed or copied."""
    if options.noise is None:
        return []
    others = replace(options, labels=None, spatial_dims=units.spatial_dims)
    found = search(options.noise, "noise")
    sieve.skipped.update(found.unusable)
    files = sieve.look(found.files, others)
    files = sieve.keep(
        files,
        lambda f: (
            wrong_kind(f.info, units.kind, units.spatial_dims) or wrong_channels(f.info, units.channels)
        ),
    )
    return [f.info for f in files]
