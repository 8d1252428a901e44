"""Pictures of samples: grids, slices and mosaics, as suits the number of axes."""

from collections.abc import Sequence
from math import ceil, sqrt
from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor

from convnd.arguments import choice

from .signals import draw_signals
from .tiles import GAP, LARGEST, SMALLEST, batched, check_labels, draw_sheet, in_rows, spread, tiles

_MOST = {1: 12, 2: 64, 3: 12}  # samples in one picture by rank, 6 beyond
_COLOURS = (  # of classes, told apart also by those who see fewer colours (Wong 2011)
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)
_TALLEST = 1500  # pixels of a sheet of volumes or beyond, or that of a few samples


def pictures(
    x: Tensor,
    path: str | Path,
    sample_rate: float | None = None,
    *,
    columns: int | None = None,
    labels: Sequence[str] = (),
) -> None:
    """One picture of some samples, as suits the number of their axes.

    Args:
        x: ``(N, C, *spatial)``. 1-D: waveforms, beside them spectrograms if there is a ``sample_rate``; 2-D:
            a grid; 3-D: three slices of each; 4-D: a mosaic; more: the mosaic in the middle of the first
            axes. The first 64 samples are drawn in 2-D, 12 in 1-D and 3-D, 6 beyond; fewer if the sheet
            would be taller than 1500 pixels.
        path: the file to write (PNG, PDF, ...); its folder must exist.
        sample_rate: of 1-D data, in Hz.
        columns: of the grid in 2-D, by default it is about square; beyond, samples that belong together.
        labels: one text per sample; in a grid those of the first row are above its columns, which must be
            given with them.

    Raises:
        ValueError: if ``x`` has no spatial axis or an axis of size 0, or ``labels`` not one text per sample.
    """
    check_labels(labels, len(x), "samples")
    if x.ndim < 3 or 0 in x.shape:
        raise ValueError(f"x must be (N, C, *spatial), no size 0, got shape {tuple(x.shape)}")
    dims = x.ndim - 2
    x, labels = x[: _MOST.get(dims, 6)], labels[: _MOST.get(dims, 6)]
    if dims == 1:
        kinds = ("waveform", "spectrogram") if sample_rate else ("waveform",)
        draw_signals(x, path, sample_rate, kinds, labels)
    elif dims == 2:
        _grid(x, path, columns, labels)
    elif dims == 3:
        number = _fitting(len(x), 4 * SMALLEST, x.shape[2:], columns)
        slices(x[:number], path, labels=labels[:number])
    else:
        for size in x.shape[2 : dims - 2]:
            x = x[:, :, size // 2]
        number = _fitting(len(x), 2 * SMALLEST, x.shape[-2:], columns)
        names = labels[:number] or [f"sample {i}" for i in range(number) if number > 1]
        mosaic(x[:number], path, labels=names, axis_names=[f"axis {i}" for i in range(dims - 4, dims)])


def _fitting(number: int, smallest: int, sizes: Sequence[int], together: int | None) -> int:
    """How many of some samples are drawn below each other, in rows of about such tiles."""
    fits = max(1, _TALLEST // min(max(smallest, *sizes), LARGEST))
    together = together or 1
    return min(number, max(fits // together, 1) * together)


def _grid(x: Tensor, path: str | Path, columns: int | None, labels: Sequence[str]) -> None:
    titles = [(i, i, label) for i, label in enumerate(labels[: columns or 0])]
    draw_sheet(in_rows(tiles(x, -1, 1), columns or ceil(sqrt(len(x)))), path, (), titles)


def image_grid(
    images: Tensor,
    path: str | Path,
    *,
    row_labels: Sequence[str] = (),
    column_titles: Sequence[tuple[int, int, str]] = (),
    low: float = -1.0,
    high: float = 1.0,
) -> None:
    """Write a labelled grid of images; small ones are enlarged by cubic interpolation.

    Args:
        images: ``(rows, columns, H, W)``, grey, or ``(rows, columns, C, H, W)``.
        path: the file to write; its folder must exist.
        row_labels: one text per row.
        column_titles: ``(first, last, text)`` above each group of columns; a gap is left between groups.
        low, high: values shown as black and as white.

    Raises:
        ValueError: if ``images`` has other axes or ``row_labels`` not one text per row.
    """
    if images.ndim not in (4, 5) or 0 in images.shape:
        raise ValueError(
            "images must be (rows, columns, H, W) or (rows, columns, C, H, W), no size 0, "
            f"got shape {tuple(images.shape)}"
        )
    images = images.unsqueeze(2) if images.ndim == 4 else images
    flat = rearrange(images, "rows columns c h w -> (rows columns) c h w")
    rows = in_rows(tiles(flat, low, high), images.shape[1])
    draw_sheet(rows, path, row_labels, column_titles, [last for _, last, _ in column_titles])


def slices(
    volume: Tensor,
    path: str | Path,
    *,
    spacing: Sequence[float] = (1, 1, 1),
    at: Sequence[int] | None = None,
    labels: Sequence[str] = (),
    axis_names: Sequence[str] = ("axis 0", "axis 1", "axis 2"),
    low: float = -1.0,
    high: float = 1.0,
) -> None:
    """Three orthogonal slices through a place of volumes: across the first axis, the second, the third.

    Of the two axes in a slice the earlier runs to the right and the later upwards, as scans are read:
    sagittal, coronal and axial, if the axes run right, anterior and superior (RAS).

    Args:
        volume: ``(X, Y, Z)``, ``(C, X, Y, Z)`` or ``(N, C, X, Y, Z)``.
        path: the file to write.
        spacing: size of an entry along every axis, in any unit.
        at: the indices along the axes where they cross; by default the middle.
        labels: one text per volume.
        axis_names: of the three axes.
        low, high: values shown as black and as white.
    """
    volume = batched(volume, 3)
    if len(spacing) != 3 or not all(0 < s < float("inf") for s in spacing):
        raise ValueError(f"spacing must be three positive numbers, got {spacing!r}")
    at = [size // 2 for size in volume.shape[2:]] if at is None else list(at)
    if len(at) != 3 or not all(0 <= i < n for i, n in zip(at, volume.shape[2:], strict=True)):
        raise ValueError(f"at must be three indices of axes of {tuple(volume.shape[2:])}, got {at!r}")
    across = []
    for axis in range(3):
        cut = volume.select(axis + 2, at[axis])
        cut = rearrange(cut, "n c earlier later -> n c later earlier").flip(-2)
        first, second = (s for i, s in enumerate(spacing) if i != axis)
        across.append(tiles(cut, low, high, 4 * SMALLEST, (second / min(spacing), first / min(spacing))))
    titles = [(i, i, name) for i, name in enumerate(axis_names)]
    draw_sheet([list(row) for row in zip(*across, strict=True)], path, labels, titles)


def overlay(x: Tensor, labels: Tensor, strength: float = 0.5) -> Tensor:
    """Label maps in colours over the data that they are of, to be drawn by any of these functions.

    Args:
        x: ``(N, C, *spatial)``; its channels are shown as their mean, in grey.
        labels: numbers of classes ``(N, *spatial)``; 0, the background, and what is below have no colour.
        strength: of the colours, from 0 to 1.

    Returns:
        ``(N, 3, *spatial)``: red, green and blue.

    Raises:
        ValueError: if ``labels`` has another shape.
    """
    if labels.shape != (x.shape[0], *x.shape[2:]):
        raise ValueError(
            f"labels must be {(x.shape[0], *x.shape[2:])} beside x of {tuple(x.shape)}, "
            f"got {tuple(labels.shape)}"
        )
    grey = x.mean(1, keepdim=True).expand(-1, 3, *x.shape[2:])
    colours = torch.tensor(_COLOURS, dtype=x.dtype) / 127.5 - 1
    colour = rearrange(colours[(labels.long() - 1) % len(colours)], "n ... rgb -> n rgb ...")
    return torch.where(labels.unsqueeze(1) > 0, torch.lerp(grey, colour, strength), grey)


def mosaic(
    x: Tensor,
    path: str | Path,
    *,
    axes: Sequence[int] = (0, 1, 2, 3),
    origin: str = "upper",
    most: int = 8,
    labels: Sequence[str] = (),
    axis_names: Sequence[str] = ("axis 0", "axis 1", "axis 2", "axis 3"),
    low: float = -1.0,
    high: float = 1.0,
) -> None:
    """Slices of 4-D data as a table: rows along one axis, columns along another, each with its index.

    Args:
        x: four spatial axes, ``(C, *spatial)`` or ``(N, C, *spatial)``; one table below the other.
        path: the file to write.
        axes: spatial axes along the rows, along the columns, and in a slice down and to the right.
        origin: ``"upper"`` or ``"lower"``: where a slice has its first row.
        most: rows and columns at most, spread evenly over longer axes; fewer rows where the sheet would be
            taller than 1500 pixels.
        labels: one text per table, before its first row.
        axis_names: of the four spatial axes.
        low, high: values shown as black and as white.
    """
    x = batched(x, 4)
    if sorted(axes) != [0, 1, 2, 3]:
        raise ValueError(f"axes must name 0, 1, 2 and 3 in some order, got {axes!r}")
    x = x.permute(0, 1, *(a + 2 for a in axes))
    if choice(origin, ("upper", "lower"), "origin") == "lower":
        x = x.flip(-2)
    right = spread(x.shape[3], most)
    tile, *_ = tiles(x[:1, :, 0, 0], low, high, 2 * SMALLEST)
    down = spread(x.shape[2], max(1, min(most, _TALLEST // (len(x) * (len(tile) + GAP)))))
    shown = rearrange(x[:, :, down][:, :, :, right], "n c rows columns h w -> (n rows columns) c h w")
    rows = in_rows(tiles(shown, low, high, 2 * SMALLEST), len(right))
    check_labels(labels, len(x), "tables")
    first = [f"{label}, " for label in labels] or [""] * len(x)
    names = [f"{label * (i == down[0])}{axis_names[axes[0]]}: {i}" for label in first for i in down]
    titles = [(i, i, f"{axis_names[axes[1]]}: {index}") for i, index in enumerate(right)]
    draw_sheet(rows, path, names, titles)
