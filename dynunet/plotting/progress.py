"""Pictures of training and of sampling: losses over steps, from noise to data, animations."""

import csv
from collections.abc import Mapping, Sequence
from math import ceil, sqrt
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from .tiles import DPI, draw_sheet, figure, in_rows, pasted, spread, view

_MANY = 200  # losses of one curve


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
    curves = _curves(log)
    if not curves:
        raise ValueError("log must have rows with step and a loss, got none")
    page = figure(800, 400, layout="constrained")
    axes = page.add_subplot(xlabel="step", ylabel="loss")
    for name, (steps, losses) in curves.items():
        _draw_curve(axes, name, steps, losses)
    if all((losses > 0).all() for _, losses in curves.values()):
        axes.set_yscale("log")
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    page.savefig(path, dpi=DPI)


def _curves(log: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Steps and losses, by the name of the loss, without those that no row has."""
    names = [name for name in (log[0] if log else ()) if "loss" in name]
    points = {
        name: [(float(row["step"]), float(row[name])) for row in log if row.get(name)] for name in names
    }
    return {name: np.array(found).T for name, found in points.items() if found}


def _draw_curve(axes: Any, name: str, steps: np.ndarray, losses: np.ndarray) -> None:
    """Losses; of many, which are of single batches, their running mean, and themselves faintly."""
    if len(losses) <= _MANY:
        axes.plot(steps, losses, label=name, marker="o" if len(losses) == 1 else None)
        return
    width = len(losses) // 50
    (line,) = axes.plot(steps, losses, alpha=0.25)
    mean = np.convolve(losses, np.full(width, 1 / width), "valid")
    axes.plot(steps[width - 1 :], mean, color=line.get_color(), label=name)


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
    chosen = [steps[i] for i in spread(len(steps), most)]
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
