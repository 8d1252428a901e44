"""torch's interpolation and grid-sampling kernels by number of axes."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..arguments import Ints
from .memory import channels_lie_last
from .pool import on_planes

_LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}
_CUBIC = {2: "bicubic"}
_GRID_MODES = {"linear": 0, "nearest": 1, "cubic": 2}
_GRID_PADDINGS = {"zeros": 0, "border": 1, "reflection": 2}


@on_planes
def interpolate(
    input: Tensor,
    sizes: Ints,
    scales: Sequence[float | None],
    mode: str,
    align_corners: bool | None,
    antialias: bool,
) -> Tensor:
    if channels_lie_last(input):
        unit = (1, *sizes), (1, *scales)
        return interpolate(input.unsqueeze(2), *unit, mode, align_corners, antialias).squeeze(2)
    factors = None if None in scales else [float(s) for s in scales if s is not None]
    return F.interpolate(
        input,
        sizes if factors is None else None,
        factors,
        interpolation_mode(mode, len(sizes)),
        align_corners,
        antialias=antialias,
    )


def interpolation_mode(mode: str, n: int) -> str:
    """torch's name of an interpolation mode on ``n`` axes."""
    return {"linear": _LINEAR, "cubic": _CUBIC}.get(mode, {}).get(n, mode)


def interpolated_axes(mode: str, n: int) -> int:
    """How many of ``n`` axes torch can interpolate at once, 0 for none."""
    known = _CUBIC if mode == "cubic" else _LINEAR
    return max([0, *[k for k in known if k <= n]])


def samples_grids(mode: str, padding: Sequence[str]) -> bool:
    """True if torch can sample grids in this mode, on this many axes, with this padding on each."""
    one = len(set(padding)) == 1 and padding[0] in _GRID_PADDINGS
    return one and len(padding) in ((2,) if mode == "cubic" else (2, 3))


def grid_sample(x: Tensor, grid: Tensor, mode: str, padding: str, align_corners: bool) -> Tensor:
    """Sample ``x (N, C, *sizes)`` at points ``(N, K, n)``: ``(N, C, K)``."""
    options = _GRID_MODES[mode], _GRID_PADDINGS[padding], align_corners
    return torch.grid_sampler(x, _with_unit_axes(grid), *options).flatten(2)


def _with_unit_axes(places: Tensor) -> Tensor:
    """View ``(N, K, n)`` as a grid with n spatial axes."""
    return places.view(places.shape[0], *(1,) * (places.shape[-1] - 1), *places.shape[1:])


def grid_sample_gradients(
    y: Tensor, x: Tensor, grid: Tensor, mode: str, padding: str, align_corners: bool, by: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of ``<y, grid_sample(x, grid)>``, as far as they are needed."""
    kernels = {
        4: torch.ops.aten.grid_sampler_2d_backward,
        5: torch.ops.aten.grid_sampler_3d_backward,
    }
    options = _GRID_MODES[mode], _GRID_PADDINGS[padding], align_corners
    at = _with_unit_axes(grid)
    by_x, by_grid = kernels[x.ndim](y.view(*y.shape[:2], *at.shape[1:-1]), x, at, *options, by)
    return by_x if by[0] else None, by_grid.view_as(grid) if by[1] else None
