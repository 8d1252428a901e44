"""What ``dynunet train`` takes where it is told nothing: a size, channels and a batch for the data at hand.

The rule is simple and the same every time. Without a GPU an example is as large as two cores train on in some
hours: 4096 samples, 32x32 pixels, 16x16x16 or 8x8x8x8 voxels, and the network has half the channels that a
GPU would have. Files that are alike and no larger are taken whole; pictures are resized, for a crop of a
photo is a texture; all else is cropped. A batch is 16 examples, up to 64 where they are small, or as many as
fit.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod, sqrt
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from .data import DataOptions
    from .data.formats import Format

__all__ = [
    "CHANNELS",
    "GENERATION",
    "LABEL_MAPS",
    "TOO_SMALL",
    "Examples",
    "batch_that_fits",
    "channels_for",
    "examples_for",
    "examples_in_batch",
    "looked_at",
    "typical",
]

# By number of spatial axes: what trains in hours on one GPU. Long signals want a large receptive field.
CHANNELS: Mapping[int, tuple[int, ...]] = {1: (32, 64, 128, 256), 2: (64, 128, 256), 3: (32, 64, 128)}
_BEYOND = (16, 32, 64)
# For maps of classes: nnU-Net's network (Isensee et al. 2021), on whose steps less time is spent.
LABEL_MAPS: Mapping[str, Any] = {
    "block": "plain",
    "norm": "instance",
    "activation": "leaky_relu",
    "skips": "level",
    "mid_blocks": 0,
    "upsample": "transpose",
}
# For a diffusion model without a GPU: half the work for a step, and more is learnt in the same time.
GENERATION: Mapping[str, Any] = {"num_blocks": 1, "skips": "level", "mid_blocks": 0, "num_groups": 8}
_BATCH = 16, 64  # examples
_BATCH_ENTRIES = 2**15

_SIDES = {1: (4096, 16384), 2: (32, 64), 3: (16, 48), 4: (8, 16)}  # without a GPU, and with one
_SIDES_BEYOND = (4, 8)
_MEMORY = 2e9, 8e9  # bytes of features
_KEPT = 4 * 40  # bytes of features of an entry, for each channel of the first level
_LOOKED_AT = 200  # files
_MULTIPLE = 4  # of a resized size
_LONGEST = 2  # square root of the ratio of its axes
TOO_SMALL = 0.1  # share of the files that may be smaller than an example


@dataclass(frozen=True)
class Examples:
    """Sizes of examples, and why these."""

    size: tuple[int, ...] | None  # None for whole files
    resize: bool
    why: str


def channels_for(spatial_dims: int, gpu: bool = True) -> tuple[int, ...]:
    """Channels of the levels of a network."""
    full = CHANNELS.get(spatial_dims, _BEYOND)
    return full if gpu else tuple(c // 2 for c in full)


def examples_in_batch(size: Sequence[int]) -> int:
    """A power of 2 from 16 to 64: as many as have 32,768 entries."""
    least, batch = _BATCH
    while batch > least and batch * prod(size) > _BATCH_ENTRIES:
        batch //= 2
    return batch


def batch_that_fits(size: Sequence[int], channels: Sequence[int], gpu: bool) -> int:
    """The examples in a batch, or fewer, whose features fit in the memory of a small machine."""
    fits = _MEMORY[gpu] / (_KEPT * channels[0] * prod(size))
    batch = examples_in_batch(size)
    while batch > 1 and batch > fits:
        batch //= 2
    return batch


def examples_for(grids: Sequence[tuple[int, ...]], own: "Format", gpu: bool, crops: bool) -> Examples:
    """Sizes of examples.

    Args:
        grids: sizes of files, as they are read.
        own: their format.
        crops: whether only a crop has what is to be learnt: noise, a place, or a label map.
    """
    from .data.formats.format import times

    dims = len(grids[0])
    side = _SIDES.get(dims, _SIDES_BEYOND)[gpu]
    shown, alike = times(grids[0]), len(set(grids)) == 1
    if alike and prod(grids[0]) <= side**dims and not own.pads:
        return Examples(None, False, f"whole files, all of {shown}")
    of = f"all files are {shown}" if alike else f"the files have {len(set(grids))} sizes"
    if own.kind == "images" and not crops:
        tall = min(max(sqrt(median(rows / columns for rows, columns in grids)), 1 / _LONGEST), _LONGEST)
        size = tuple(max(round(n / _MULTIPLE), 1) * _MULTIPLE for n in (side * tall, side / tall))
        return Examples(size, True, f"{of}, and a crop of a picture is a texture")
    usual = typical(grids, 1.0 if own.pads else TOO_SMALL)
    return Examples(tuple(min(side, n) for n in usual), False, f"random crops, {of}")


def typical(grids: Sequence[tuple[int, ...]], below: float) -> tuple[int, ...]:
    """Along each axis the size that a share of the files is below."""
    axes = (sorted(axis) for axis in zip(*grids, strict=True))
    return tuple(axis[min(int(below * len(axis)), len(axis) - 1)] for axis in axes)


def looked_at(source: "Path", options: "DataOptions") -> "tuple[list[tuple[int, ...]], Format] | None":
    """Sizes of some files, spread over all of them, and their format; None if none of these can be read."""
    from .data import find
    from .data.channel_files import cases
    from .data.errors import UnreadableError, attempt
    from .data.formats import of_kind
    from .data.selection import Selection, common_spec

    paths, selection = cases(find(source), options.channel_files, {}), Selection()
    try:
        files = selection.read_headers(paths[:: -(-len(paths) // _LOOKED_AT)], options)
        spec, files = common_spec(files, options, selection)
    except ValueError:
        return None  # looking at all files says why
    grids = []
    for file in files:
        try:
            grids.append(attempt(lambda h=file.header: h.format.grid(h, spec)))
        except UnreadableError:
            continue
    return (grids, of_kind(spec.kind)) if grids else None
