"""PadNd and InterpolateNd."""

from collections.abc import Sequence

from torch import Tensor, nn

from .. import functional as F
from .._fx import leaf_function, leaf_module
from .._spatial.interpolate import MODES
from ..arguments import BORDER_MODES, PerAxis, batched, choice, integer, numbers, per_axis


@leaf_function
def _padded(input: Tensor, padding: Sequence[int], mode: str, value: float, n: int) -> Tensor:
    batched(input, n)
    return F.pad(input, padding, mode, value, spatial_dims=n)


@leaf_module
class PadNd(nn.Module):
    """Padding layer, torch's ``ZeroPad``, ``ConstantPad``, ``ReflectionPad``, ... for any number of axes.

    Args:
        spatial_dims: number of spatial axes, at least 1.
        padding: int, or ``(before, after)`` of the last axis, then of the one before it and so on, flat
            (torch's order).
        mode: ``"constant"``, ``"reflect"``, ``"replicate"`` or ``"circular"``.
        value: the fill value of ``"constant"``.

    Shape:
        ``(N, C, *spatial)`` or ``(C, *spatial)``; each axis grows by its two amounts.

    Raises:
        ValueError, TypeError: naming the argument, the rule and the value received.

    >>> import torch
    >>> from convnd import PadNd
    >>> PadNd(4, 1, "circular")(torch.randn(1, 3, 4, 4, 4, 4)).shape
    torch.Size([1, 3, 6, 6, 6, 6])
    """

    def __init__(
        self, spatial_dims: int, padding: int | Sequence[int], mode: str = "constant", value: float = 0.0
    ) -> None:
        super().__init__()
        self.spatial_dims = integer(spatial_dims, "spatial_dims")
        sides = 2 * spatial_dims
        if isinstance(padding, Sequence) and len(padding) != sides:
            raise ValueError(f"padding must be an int or {sides} ints, two for each axis, got {padding!r}")
        self.padding = per_axis(padding, sides, "padding", None)
        self.mode = choice(mode, ("constant", *BORDER_MODES), "mode")
        if mode != "constant" and value != 0:
            raise ValueError(f"value must be left out with mode {mode!r}, got {value!r}")
        self.value = value

    def extra_repr(self) -> str:
        value = f", value={self.value}" if self.value else ""
        return f"{self.spatial_dims}, {self.padding}, mode={self.mode!r}{value}"

    def forward(self, input: Tensor) -> Tensor:
        return _padded(input, self.padding, self.mode, self.value, self.spatial_dims)


@leaf_module
class InterpolateNd(nn.Module):
    """Resampling layer, ``torch.nn.Upsample`` for any number of axes.

    Args:
        spatial_dims: number of spatial axes, at least 1.
        size: output size, int or one per axis.
        scale_factor: output size over input size, a number or one per axis.
        mode: ``"nearest"``, ``"nearest-exact"``, ``"linear"``, ``"cubic"`` or ``"area"``.
        align_corners: whether first and last entries coincide, for linear and cubic.
        recompute_scale_factor: use the ratio of the rounded sizes instead of ``scale_factor``.
        antialias: widen the kernel of the linear and cubic modes where they shrink an axis.

    Shape:
        ``(N, C, *spatial)`` to ``(N, C, *size)``.

    Raises:
        ValueError, TypeError: naming the argument, the rule and the value received.

    >>> import torch
    >>> from convnd import InterpolateNd
    >>> InterpolateNd(4, scale_factor=2)(torch.randn(1, 3, 4, 4, 4, 4)).shape
    torch.Size([1, 3, 8, 8, 8, 8])
    """

    def __init__(
        self,
        spatial_dims: int,
        size: PerAxis | None = None,
        scale_factor: float | Sequence[float] | None = None,
        mode: str = "nearest",
        align_corners: bool | None = None,
        recompute_scale_factor: bool | None = None,
        antialias: bool = False,
    ) -> None:
        super().__init__()
        self.spatial_dims = integer(spatial_dims, "spatial_dims")
        if (size is None) == (scale_factor is None):
            raise ValueError(
                f"exactly one of size and scale_factor must be given, got {size!r} and {scale_factor!r}"
            )
        if size is not None:
            per_axis(size, spatial_dims, "size")
        else:
            numbers(scale_factor, spatial_dims, "scale_factor")
        self.size = size
        self.scale_factor = scale_factor
        self.mode = choice(mode, MODES, "mode")
        self.align_corners = align_corners
        self.recompute_scale_factor = recompute_scale_factor
        self.antialias = antialias

    def extra_repr(self) -> str:
        how = f"scale_factor={self.scale_factor}" if self.size is None else f"size={self.size}"
        return f"{self.spatial_dims}, {how}, mode={self.mode!r}"

    def forward(self, input: Tensor) -> Tensor:
        return F.interpolate(
            input,
            self.size,
            self.scale_factor,
            self.mode,
            self.align_corners,
            self.recompute_scale_factor,
            self.antialias,
            spatial_dims=self.spatial_dims,
        )
