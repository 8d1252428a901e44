"""Pictures of data with one axis, two, three, four or more. Needs matplotlib, and :func:`gif` pillow.

Data are ``(N, C, *spatial)`` in model units, about [-1, 1]. The channels of one sample stand beside each
other, below each other in 1-D; three channels in 2-D and beyond are red, green and blue. Entries that are
missing (NaN) are drawn in a colour of their own, turquoise, which no colour map here contains.
"""

import csv
from collections.abc import Mapping, Sequence
from math import ceil, sqrt
from pathlib import Path
from typing import Any

import numpy as np
from einops import rearrange
from torch import Tensor

from convnd.arguments import choice

from .signals import draw_signals
from .tiles import DPI, SMALLEST, draw_sheet, figure, in_rows, pasted, tiles, view

__all__ = [
    "film_strip",
    "gif",
    "image_grid",
    "loss_curve",
    "mosaic",
    "pictures",
    "slices",
    "spectrogram",
    "waveform",
]

_MOST = {1: 12, 2: 64, 3: 12}  # samples in one picture by rank, 6 beyond


def pictures(
    x: Tensor, path: str | Path, sample_rate: float | None = None, *, columns: int | None = None
) -> None:
    """One picture of some samples, as suits the number of their axes.

    Args:
        x: ``(N, C, *spatial)``. 1-D: waveforms, beside them spectrograms if there is a ``sample_rate``; 2-D:
            a grid; 3-D: three slices of each; 4-D: a mosaic; more: the mosaic in the middle of the first
            axes. The first 64 samples are drawn in 2-D, 12 in 1-D and 3-D, 6 beyond.
        path: the file to write (PNG, PDF, ...); its folder must exist.
        sample_rate: of 1-D data, in Hz.
        columns: of the grid in 2-D; by default it is about square.

    Raises:
        ValueError: if ``x`` has no spatial axis or an axis of size 0.
    """
    if x.ndim < 3 or 0 in x.shape:
        raise ValueError(f"x must be (N, C, *spatial), no size 0, got shape {tuple(x.shape)}")
    dims = x.ndim - 2
    x = x[: _MOST.get(dims, 6)]
    if dims == 1:
        draw_signals(x, path, sample_rate, ("waveform", "spectrogram") if sample_rate else ("waveform",), ())
    elif dims == 2:
        draw_sheet(in_rows(tiles(x, -1, 1), columns or ceil(sqrt(len(x)))), path)
    elif dims == 3:
        slices(x, path)
    else:
        for size in x.shape[2 : dims - 2]:
            x = x[:, :, size // 2]
        mosaic(x, path)


def waveform(
    x: Tensor, path: str | Path, sample_rate: float | None = None, *, labels: Sequence[str] = ()
) -> None:
    """Signals over time, one below the other.

    Args:
        x: ``(T,)``, ``(C, T)`` or ``(N, C, T)``.
        path: the file to write.
        sample_rate: in Hz; without it the axis counts entries.
        labels: one text per sample.
    """
    draw_signals(_batched(x, 1), path, sample_rate, ("waveform",), labels)


def spectrogram(
    x: Tensor, path: str | Path, sample_rate: float | None = None, *, labels: Sequence[str] = ()
) -> None:
    """Power of signals over time and frequency, in dB below the loudest entry of the picture.

    Windows are 32 ms long (256 entries without ``sample_rate``). Arguments are those of :func:`waveform`.
    """
    draw_signals(_batched(x, 1), path, sample_rate, ("spectrogram",), labels)


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
    labels: Sequence[str] = (),
    low: float = -1.0,
    high: float = 1.0,
) -> None:
    """Three orthogonal slices through the middle of volumes: across the first axis, the second, the third.

    Of the two axes in a slice the earlier runs to the right and the later upwards, as scans are read:
    sagittal, coronal and axial, if the axes run right, anterior and superior (RAS).

    Args:
        volume: ``(X, Y, Z)``, ``(C, X, Y, Z)`` or ``(N, C, X, Y, Z)``.
        path: the file to write.
        spacing: size of an entry along every axis, in any unit.
        labels: one text per volume.
        low, high: values shown as black and as white.
    """
    volume = _batched(volume, 3)
    if len(spacing) != 3 or not all(0 < s < float("inf") for s in spacing):
        raise ValueError(f"spacing must be three positive numbers, got {spacing!r}")
    across = []
    for axis in range(3):
        cut = volume.select(axis + 2, volume.shape[axis + 2] // 2)
        cut = rearrange(cut, "n c earlier later -> n c later earlier").flip(-2)
        first, second = (s for i, s in enumerate(spacing) if i != axis)
        across.append(tiles(cut, low, high, 4 * SMALLEST, (second / min(spacing), first / min(spacing))))
    titles = [(i, i, f"axis {i}") for i in range(3)]
    draw_sheet([list(row) for row in zip(*across, strict=True)], path, labels, titles)


def mosaic(
    x: Tensor,
    path: str | Path,
    *,
    axes: Sequence[int] = (0, 1, 2, 3),
    origin: str = "upper",
    most: int = 8,
    low: float = -1.0,
    high: float = 1.0,
) -> None:
    """Slices of 4-D data as a table: rows along one axis, columns along another, numbered by their index.

    Args:
        x: four spatial axes, ``(C, *spatial)`` or ``(N, C, *spatial)``; one table below the other.
        path: the file to write.
        axes: spatial axes along the rows, along the columns, and in a slice down and to the right.
        origin: ``"upper"`` or ``"lower"``: where a slice has its first row.
        most: rows and columns at most, spread evenly over longer axes.
        low, high: values shown as black and as white.
    """
    x = _batched(x, 4)
    if sorted(axes) != [0, 1, 2, 3]:
        raise ValueError(f"axes must name 0, 1, 2 and 3 in some order, got {axes!r}")
    x = x.permute(0, 1, *(a + 2 for a in axes))
    if choice(origin, ("upper", "lower"), "origin") == "lower":
        x = x.flip(-2)
    down, right = (_spread(size, most) for size in x.shape[2:4])
    shown = rearrange(x[:, :, down][:, :, :, right], "n c rows columns h w -> (n rows columns) c h w")
    rows = in_rows(tiles(shown, low, high, 2 * SMALLEST), len(right))
    labels = [str(i) for i in down] * len(x)
    draw_sheet(rows, path, labels, [(i, i, str(index)) for i, index in enumerate(right)])


def loss_curve(log: str | Path | Sequence[Mapping[str, Any]], path: str | Path) -> None:
    """Losses over the steps of training.

    Args:
        log: a CSV file, or rows of one, with a column ``step`` and others with ``loss`` in their names, which
            are drawn; empty cells are passed over.
        path: the file to write.

    Raises:
        ValueError: if there is nothing to draw.
    """
    if isinstance(log, (str, Path)):
        with Path(log).open(newline="", encoding="utf-8") as file:
            log = list(csv.DictReader(file))
    names = [name for name in (log[0] if log else ()) if "loss" in name]
    points = {name: [(float(r["step"]), float(r[name])) for r in log if r.get(name)] for name in names}
    points = {name: list_ for name, list_ in points.items() if list_}
    if not points:
        raise ValueError("log must have rows with step and a loss, got none")
    page = figure(800, 400, layout="constrained")
    axes = page.add_subplot(xlabel="step", ylabel="loss")
    for name, curve in points.items():
        steps, losses = np.array(curve).T
        dense = len(losses) > 200  # the losses of single batches: show their mean, and them faintly
        width = len(losses) // 50
        (line,) = axes.plot(steps, losses, alpha=0.25 if dense else 1, label=None if dense else name)
        if dense:
            mean = np.convolve(losses, np.full(width, 1 / width), "valid")
            axes.plot(steps[width - 1 :], mean, color=line.get_color(), label=name)
    if all(loss > 0 for curve in points.values() for _, loss in curve):
        axes.set_yscale("log")
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    page.savefig(path, dpi=DPI)


def film_strip(steps: Sequence[tuple[int, float, Tensor, Tensor]], path: str | Path, most: int = 10) -> None:
    """From noise to data: the noisy sample above, the estimate of the data below, time running right.

    Args:
        steps: what the callback of :meth:`dynunet.Diffusion.sample` was given, ``(step, t, x, x_0)``; the
            first sample is drawn, in 3-D and beyond its middle slice.
        path: the file to write.
        most: columns at most, spread evenly over the steps.

    >>> steps = []
    >>> # diffusion.sample(shape, callback=lambda *step: steps.append(step)); film_strip(steps, "film.png")
    """
    if not steps:
        raise ValueError("steps must have at least one step, got none")
    chosen = [steps[i] for i in _spread(len(steps), most)]
    rows = [[view(x[:1])[0] for _, _, x, _ in chosen], [view(x0[:1])[0] for _, _, _, x0 in chosen]]
    titles = [(i, i, f"t = {step[1]:.2f}") for i, step in enumerate(chosen)]
    draw_sheet(rows, path, ["noisy", "estimate"], titles)


def gif(frames: Sequence[Tensor], path: str | Path, *, fps: float = 10, hold: float = 1.0) -> None:
    """An animation that repeats.

    Args:
        frames: each ``(N, C, *spatial)``, all alike: a grid of N images, in 1-D curves, in 3-D and beyond
            middle slices. To move through a volume ``(C, X, Y, Z)``: ``volume.unsqueeze(0).unbind(2)``.
        path: the file to write, named ``.gif``.
        fps: frames per second.
        hold: seconds for which the last one stays.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError("gif needs pillow: pip install 'dynunet[files]'") from error
    if not frames or not fps > 0 or not hold >= 0:
        raise ValueError(f"frames, fps > 0 and hold >= 0 are needed, got {len(frames)} frames, {fps}, {hold}")
    columns = ceil(sqrt(len(frames[0])))
    sheets = [pasted(in_rows(view(frame, max(96, 384 // columns)), columns))[0] for frame in frames]
    drawn = [Image.fromarray(sheet).quantize(256, dither=Image.Dither.NONE) for sheet in sheets]
    durations = [round(1000 / fps)] * (len(drawn) - 1) + [max(round(1000 * hold), 20)]
    drawn[0].save(path, save_all=True, append_images=drawn[1:], duration=durations, loop=0)


def _batched(x: Tensor, dims: int) -> Tensor:
    """With the axes of samples and channels."""
    if not dims <= x.ndim <= dims + 2 or 0 in x.shape:
        raise ValueError(f"x must have {dims} spatial axes, no size 0, got shape {tuple(x.shape)}")
    return x.reshape(*(1,) * (dims + 2 - x.ndim), *x.shape)


def _spread(size: int, most: int) -> list[int]:
    """Indices from the first to the last, at most so many."""
    return sorted({round(i) for i in np.linspace(0, size - 1, min(size, most))})
