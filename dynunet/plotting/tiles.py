"""Pixels: data as tiles in RGB, tiles on a sheet. What :mod:`dynunet.plotting` draws with.

A tile is an array ``(H, W, 3)`` of uint8. Tiles of one row share their middle line, those of one column their
left edge, and each pixel of a tile is one pixel of the file.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from einops import rearrange, repeat
from torch import Tensor

import convnd.functional as F

MISSING = (64, 184, 175)  # red, green and blue of entries that are NaN
DPI = 96
SMALLEST, LARGEST = 48, 512  # longest side of a tile in pixels: others are enlarged or shrunk
GAP = 12  # pixels between tiles, at most
_LETTER = 7  # pixels per letter, at most, of the text beside the tiles

Pixels = np.ndarray[Any, Any]


def figure(width: int, height: int, **options: Any) -> Any:
    """A figure of matplotlib with a size in pixels."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("pictures need matplotlib: pip install matplotlib") from error
    return Figure(figsize=(width / DPI, height / DPI), dpi=DPI, **options)


def tiles(
    images: Tensor, low: float, high: float, smallest: int = SMALLEST, stretch: Sequence[float] = (1, 1)
) -> list[Pixels]:
    """One tile for each image, in grey, or in colour if there are three channels.

    Args:
        images: ``(N, C, H, W)``; NaN is missing. Other numbers of channels stand beside each other.
        low, high: values shown as black and as white.
        smallest: pixels of the longest side at least.
        stretch: pixels per entry down and to the right, before all are enlarged alike.
    """
    images = images.detach().cpu().double()
    sides = [size * by for size, by in zip(images.shape[2:], stretch, strict=True)]
    longest = max(sides)
    factor = float(max(1, round(smallest / longest))) if longest <= LARGEST else LARGEST / longest
    size = [max(1, round(side * factor)) for side in sides]
    missing = images.isnan().any(1, keepdim=True)
    scaled = ((images - low) / (high - low)).clamp(0, 1).nan_to_num()
    if size != list(images.shape[2:]):
        # Interpolation would spread what is missing over its surroundings.
        mode = "area" if factor < 1 else "nearest" if missing.any() else "cubic"
        scaled = F.interpolate(scaled, size, mode=mode).clamp(0, 1)
        missing = F.interpolate(missing.double(), size, mode="nearest").bool()
    if scaled.shape[1] != 3:
        missing = repeat(missing, "n 1 h w -> n 1 h (c w)", c=scaled.shape[1])
        scaled = repeat(scaled, "n c h w -> n rgb h (c w)", rgb=3)
    pixels = rearrange((scaled * 255).round().byte(), "n rgb h w -> n h w rgb").numpy().copy()
    pixels[missing[:, 0].numpy()] = MISSING
    return list(pixels)


def trace(
    signals: Tensor, low: float, high: float, height: int = SMALLEST, width: int = 2 * SMALLEST
) -> Pixels:
    """Curves ``(C, T)``, one below the other, as a tile: in each column the range of what falls there."""
    curves = [_curve(s, low, high, height, width) for s in signals.detach().cpu().double().numpy()]
    return np.concatenate(curves)


def _curve(signal: Pixels, low: float, high: float, height: int, width: int) -> Pixels:
    signal = np.repeat(signal, max(1, width // len(signal)))
    count = -(-len(signal) // width)
    columns = np.pad(signal, (0, -len(signal) % count), "edge").reshape(-1, count)
    following = np.append(columns[1:, 0], columns[-1, -1])  # so that the curve has no gaps
    ends = np.fmin(np.fmin.reduce(columns, 1), following), np.fmax(np.fmax.reduce(columns, 1), following)
    bottom, top = (
        np.nan_to_num(((high - end) / (high - low)).clip(0, 1) * (height - 1)).round() for end in ends
    )
    row = np.arange(height)[:, None]
    tile = np.full((height, len(columns), 3), 255, np.uint8)
    tile[(row >= top) & (row <= bottom)] = (31, 78, 121)
    tile[:, np.isnan(columns).any(1)] = MISSING
    return tile


def view(x: Tensor, smallest: int = 2 * SMALLEST, low: float = -1, high: float = 1) -> list[Pixels]:
    """A tile for every sample ``(N, C, *spatial)``: a curve, an image, or the slice in the middle."""
    if x.ndim < 3 or 0 in x.shape:
        raise ValueError(f"samples must be (N, C, *spatial), no size 0, got shape {tuple(x.shape)}")
    if x.ndim == 3:
        return [trace(sample, low, high, smallest // 2, smallest) for sample in x]
    if x.ndim == 5:  # upright, as plotting.slices shows it
        x = x.mT.flip(-2)
    while x.ndim > 4:
        x = x[:, :, x.shape[2] // 2]
    return tiles(x, low, high, smallest)


def in_rows(tiles: list[Pixels], columns: int) -> list[list[Pixels]]:
    return [tiles[i : i + columns] for i in range(0, len(tiles), columns)]


def pasted(
    rows: Sequence[Sequence[Pixels]], group_ends: Sequence[int] = ()
) -> tuple[Pixels, list[float], list[tuple[int, int]]]:
    """Tiles on one white sheet, with a gap between them and a wide one after each of ``group_ends``.

    Returns:
        the sheet, the middle of every row, and the left and right edge of every column.
    """
    columns = max(map(len, rows))
    widths = [max(row[c].shape[1] for row in rows if c < len(row)) for c in range(columns)]
    heights = [max(tile.shape[0] for tile in row) for row in rows]
    gap = min(max(2, min(widths) // 8), GAP)
    edges, left = [], 0
    for c, width in enumerate(widths):
        edges.append((left, left + width))
        left += width + (gap + width // 2 if c in group_ends else gap)
    sheet = np.full((sum(heights) + gap * (len(rows) - 1), edges[-1][1], 3), 255, np.uint8)
    middles, top = [], 0
    for row, height in zip(rows, heights, strict=True):
        for (left, _), tile in zip(edges, row, strict=False):
            at = top + (height - tile.shape[0]) // 2
            sheet[at : at + tile.shape[0], left : left + tile.shape[1]] = tile
        middles.append(top + height / 2)
        top += height + gap
    return sheet, middles, edges


def draw_sheet(
    rows: Sequence[Sequence[Pixels]],
    path: str | Path,
    row_labels: Sequence[str] = (),
    column_titles: Sequence[tuple[int, int, str]] = (),
    group_ends: Sequence[int] = (),
) -> None:
    """Write a sheet of tiles; labels stand left of the rows, titles ``(first, last, text)`` above columns."""
    if row_labels and len(row_labels) != len(rows):
        raise ValueError(f"row_labels must have one text for each of {len(rows)} rows, got {len(row_labels)}")
    sheet, middles, edges = pasted(rows, group_ends)
    height, width = sheet.shape[:2]
    left = 8 + max((_LETTER * len(text) + 6 for text in row_labels), default=0)
    top = 8 + (18 if column_titles else 0)
    full = left + width + 8, top + height + 8
    page = figure(*full)
    axes = page.add_axes((left / full[0], 8 / full[1], width / full[0], height / full[1]))
    axes.imshow(sheet, interpolation="nearest", aspect="auto", extent=(0, width, height, 0))
    axes.set_axis_off()
    for text, middle in zip(row_labels, middles, strict=False):
        axes.text(-6, middle, text, ha="right", va="center", fontsize=9)
    for first, last, text in column_titles:
        centre = (edges[first][0] + edges[last][1]) / 2
        axes.text(centre, -5, text, ha="center", va="bottom", fontsize=9)
    page.savefig(path, dpi=DPI)


def batched(x: Tensor, dims: int) -> Tensor:
    """With the axes of samples and channels."""
    if not dims <= x.ndim <= dims + 2 or 0 in x.shape:
        raise ValueError(f"x must have {dims} spatial axes, no size 0, got shape {tuple(x.shape)}")
    return x.reshape(*(1,) * (dims + 2 - x.ndim), *x.shape)


def spread(size: int, most: int) -> list[int]:
    """Indices from the first to the last, at most so many."""
    return sorted({round(i) for i in np.linspace(0, size - 1, min(size, most))})


def check_labels(labels: Sequence[str], count: int, things: str) -> None:
    """Refuse labels that are neither none nor one for each of so many things."""
    if labels and len(labels) != count:
        raise ValueError(f"labels must have one text for each of {count} {things}, got {len(labels)}")
