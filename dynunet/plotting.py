"""Pictures. Needs matplotlib, which the ``examples`` extra installs."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

import convnd.functional as F

_SMALLEST = 48  # images with shorter sides than this, in pixels, are enlarged


def image_grid(
    images: Tensor,
    path: str | Path,
    *,
    row_labels: Sequence[str] = (),
    column_titles: Sequence[tuple[int, int, str]] = (),
    low: float = -1.0,
    high: float = 1.0,
) -> None:
    """Write a labelled grid of grey images; small ones are enlarged by cubic interpolation.

    Args:
        images: ``(rows, columns, H, W)``.
        path: the PNG file to write; its folder must exist.
        row_labels: one text per row.
        column_titles: ``(first, last, text)`` above each group of columns; a gap is left between groups.
        low, high: values shown as black and as white.

    Raises:
        ValueError: if ``images`` does not have four axes or ``row_labels`` not one text per row.
    """
    from matplotlib.figure import Figure  # only this module needs matplotlib

    if images.ndim != 4:
        raise ValueError(f"images must be (rows, columns, H, W), got shape {tuple(images.shape)}")
    images = images.double().cpu()
    factor = max(1, _SMALLEST // max(images.shape[2:]))
    if factor > 1:
        images = F.interpolate(images, scale_factor=factor, mode="cubic")
    rows, columns, h, w = images.shape
    if row_labels and len(row_labels) != rows:
        raise ValueError(f"row_labels must have one text for each of {rows} rows, got {len(row_labels)}")
    lefts = _column_positions(columns, w, [last for _, last, _ in column_titles])
    gap = max(1, w // 8)
    canvas = np.full((rows * (h + gap) - gap, lefts[-1] + w), np.nan)
    for r in range(rows):
        for c, left in enumerate(lefts):
            canvas[r * (h + gap) : r * (h + gap) + h, left : left + w] = images[r, c].numpy()

    inch = 1 / 96
    size = (canvas.shape[1] * inch + 0.8, canvas.shape[0] * inch + 0.6)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    axes.imshow(canvas, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
    for edge in axes.spines.values():
        edge.set_visible(False)
    axes.tick_params(length=0)
    axes.set_yticks([r * (h + gap) + (h - 1) / 2 for r in range(len(row_labels))], row_labels)
    axes.xaxis.tick_top()
    centres = [(lefts[a] + lefts[b] + w - 1) / 2 for a, b, _ in column_titles]
    axes.set_xticks(centres, [text for _, _, text in column_titles])
    figure.savefig(path, dpi=96)


def _column_positions(columns: int, width: int, group_ends: Sequence[int]) -> list[int]:
    """The left edge of every column: a small gap between columns, half an image between groups."""
    gap = max(1, width // 8)
    lefts, left = [], 0
    for c in range(columns):
        lefts.append(left)
        left += width + (gap + width // 2 if c in group_ends else gap)
    return lefts
