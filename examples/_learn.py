"""Shared by the learner's scripts: a ball to look at, pictures in a grid, and flags for any option."""

from ast import literal_eval
from collections.abc import Sequence
from pathlib import Path
from types import UnionType
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo


def noisy_ball(dims: int, size: int, seed: int = 0) -> Tensor:
    """(1, 1, *size) with dims axes: 1 within a ball, 0 around it, and noise."""
    axes = torch.meshgrid(*[torch.linspace(-1, 1, size)] * dims, indexing="ij")
    inside = torch.stack(axes).square().sum(0) < 0.4
    return (inside + 0.1 * torch.randn(inside.shape, generator=torch.manual_seed(seed)))[None, None]


def picture(x: Tensor, channel: int = 0) -> np.ndarray:
    """A slice of (1, C, *spatial) to draw: a channel, in the middle of all axes but the last two."""
    x = x[0, channel]
    while x.ndim > 2:
        x = x[len(x) // 2]
    return x.detach().numpy()


def show(path: Path, rows: Sequence[Sequence[tuple[str, np.ndarray]]]) -> None:
    """Write a grid of titled pictures: a line for one axis, grey values for two."""
    from matplotlib.figure import Figure

    columns = max(map(len, rows))
    figure = Figure(figsize=(1.9 * columns, 2 * len(rows)), layout="constrained")
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for row, line in zip(rows, grid, strict=True):
        low, high = min(x.min() for _, x in row), max(x.max() for _, x in row)  # lines share a scale
        for (title, x), axes in zip(row, line, strict=False):
            axes.set_title(title, fontsize=9)
            if x.ndim == 1:
                axes.plot(x, drawstyle="steps-mid")
                axes.set_ylim(low, high)
            else:
                axes.imshow(x, cmap="gray")
    save(figure, path)


def draw_points(path: Path, schedule: Any, film: Sequence[tuple[float, Tensor, Tensor]]) -> None:
    """Draw a schedule, and below it points in the plane at up to eight times and the estimates of the data.

    Args:
        path: the PNG file.
        schedule: called as ``alpha, sigma = schedule(t)``.
        film: ``(t, x, x_0)`` with points ``(N, 1, 2)``, in the order of the sampler.
    """
    from matplotlib.figure import Figure

    chosen = [film[round(i)] for i in np.linspace(0, len(film) - 1, min(8, len(film)))]
    figure = Figure(figsize=(2 * len(chosen), 6), layout="constrained")
    grid = figure.add_gridspec(3, len(chosen))
    axes = figure.add_subplot(grid[0, :])
    times = torch.linspace(0, 1, 200, dtype=torch.float64)
    for scale, name in zip(schedule(times), ("alpha: signal", "sigma: noise"), strict=True):
        axes.plot(times, scale, label=name)
    axes.set(xlabel="t, as the sampler walks", xlim=(1, 0), ylim=(0, 1.5))
    axes.legend()
    for column, (t, x, x0) in enumerate(chosen):
        for row, (title, points) in enumerate([(f"x at t = {t:.2f}", x), ("estimate of x_0", x0)], start=1):
            cell = figure.add_subplot(grid[row, column])
            reach = 2 * max(1.0, float(points.std()))
            cell.plot(*points[:, 0].T, ".", markersize=1)
            cell.set(
                title=title, xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", xticks=(), yticks=()
            )
    save(figure, path)


def save(figure: Any, path: Path) -> None:
    """Write a matplotlib figure, and say where."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    print(f"look at {path}")


def words() -> ConstructorRegistry:
    """How tyro reads options of several types: none, true, numbers, names; several words; 1,2,2 per axis."""
    registry = ConstructorRegistry()

    @registry.primitive_rule
    def _(kind: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
        if not isinstance(kind.type, UnionType) or all(
            t not in get_args(kind.type) for t in (str, int, float)
        ):
            return None

        def parsed(given: list[str]) -> Any:
            values = [value_of(word) for word in given]
            return values[0] if len(values) == 1 else values

        return PrimitiveConstructorSpec("*", "WORD [WORD ...]", parsed, lambda _: True, lambda v: [str(v)])

    return registry


def value_of(word: str) -> Any:
    """None, a truth value, a number or several, else the word itself."""
    try:
        return literal_eval(word.capitalize())
    except (ValueError, SyntaxError):
        return word
