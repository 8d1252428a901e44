"""Calls of every function and layer, from one input of a rank: compilers, exporters and devices try them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import convnd
import convnd.functional as F

SIZES = {1: (7,), 2: (5, 7), 3: (5, 4, 6), 4: (4, 4, 5, 4), 5: (4, 4, 4, 4, 5)}
Call = Callable[[Tensor], Tensor]
MODES = ("nearest", "nearest-exact", "linear", "cubic", "area")
PADDED = ("zeros", "reflect", "replicate", "circular")


@dataclass(frozen=True)
class Function:
    """A function of an input ``(N, 4, *sizes)`` and of other tensors; constants have no gradient.

    Rounding an ``exact`` one in half precision may choose other entries.
    """

    function: Callable[..., Any]
    operands: tuple[Tensor, ...] = ()
    constants: tuple[Tensor, ...] = ()
    exact: bool = False

    def of_input(self) -> Call:
        function, others = self.function, (*self.operands, *self.constants)
        return lambda x: function(x, *others)


def data(n: int, batch: int = 2, longer: int = 0) -> Tensor:
    """Positive, and without ties."""
    shape = batch, 4, *(size + longer for size in SIZES[n])
    order = torch.randperm(torch.Size(shape).numel(), generator=torch.Generator().manual_seed(0))
    return (order.float() / len(order) + 0.1).view(shape)


def weight(n: int, groups: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(4, 4 // groups, *(2,) * n, generator=generator)


def _unpooled(x: Tensor, n: int) -> Tensor:
    values, indices = F.max_pool(x, 2, return_indices=True, spatial_dims=n)
    return F.max_unpool(values, indices, 2, output_size=x.shape[2:])


def convolutions(n: int) -> dict[str, Function]:
    w, grouped = weight(n), weight(n, 2)
    calls = {
        "conv": Function(lambda x, w: F.conv(x, w, stride=2, padding=1), (w,)),
        "conv groups": Function(lambda x, w: F.conv(x, w, dilation=2, padding=2, groups=2), (grouped,)),
        "conv same": Function(lambda x, w: F.conv(x, w, stride=2, padding="same"), (w,)),
        "conv one tap": Function(lambda x, w: F.conv(x, w), (w[(..., *(slice(1),) * n)],)),
        "conv patches": Function(lambda x, w: F.conv(x, w, stride=2), (w,)),
        "conv_transpose": Function(
            lambda x, w: F.conv_transpose(x, w, stride=2, padding=1, output_padding=1), (w,)
        ),
        "conv_transpose same": Function(
            lambda x, w: F.conv_transpose(x, w, stride=2, padding="same", groups=2), (grouped,)
        ),
        "conv_transpose patches": Function(lambda x, w: F.conv_transpose(x, w, stride=2), (w,)),
    }
    for mode in PADDED:
        calls[f"conv {mode}"] = Function(
            lambda x, w, mode=mode: F.conv(x, w, padding=1, padding_mode=mode), (w,)
        )
        calls[f"conv_transpose {mode}"] = Function(
            lambda x, w, mode=mode: F.conv_transpose(x, w, padding=1, padding_mode=mode), (w,)
        )
    return calls


def pools(n: int) -> dict[str, Function]:
    samples = torch.full((1, 4, n), 0.4)
    return {
        "max_pool": Function(lambda x: F.max_pool(x, 3, 2, 1)),
        "max_pool ceil": Function(lambda x: F.max_pool(x, 2, ceil_mode=True)),
        "max_pool dilated": Function(lambda x: F.max_pool(x, 2, 1, 1, 2)),
        "max_unpool": Function(lambda x: _unpooled(x, n)),
        "avg_pool": Function(lambda x: F.avg_pool(x, 3, 2, 1)),
        "avg_pool ceil": Function(lambda x: F.avg_pool(x, 2, ceil_mode=True)),
        "avg_pool ceil padded": Function(lambda x: F.avg_pool(x, 3, 2, 1, ceil_mode=True)),
        "avg_pool ceil uncounted": Function(lambda x: F.avg_pool(x, 3, 2, 1, True, count_include_pad=False)),
        "avg_pool divisor": Function(lambda x: F.avg_pool(x, 3, 2, 1, ceil_mode=True, divisor_override=5)),
        "avg_pool dilated": Function(lambda x: F.avg_pool(x, 2, 1, dilation=2)),
        "lp_pool": Function(lambda x: F.lp_pool(x, 2, 2)),
        "lp_pool ceil": Function(lambda x: F.lp_pool(x, 3, 2, ceil_mode=True)),
        "lp_pool infinite": Function(lambda x: F.lp_pool(x, float("inf"), 2)),
        "adaptive_avg_pool": Function(lambda x: F.adaptive_avg_pool(x, 2)),
        "adaptive_max_pool": Function(lambda x: F.adaptive_max_pool(x, 2)),
        "fractional_max_pool": Function(
            lambda x, samples: F.fractional_max_pool(
                x, 2, 2, _random_samples=samples.expand(x.shape[0], -1, -1)
            ),
            constants=(samples,),
            exact=True,
        ),
    }


def paddings(n: int) -> dict[str, Function]:
    calls: dict[str, Function] = {}
    for mode in ("constant", "reflect", "replicate", "circular"):
        calls[f"pad {mode}"] = Function(lambda x, mode=mode: F.pad(x, (2, 1) * n, mode))
        calls[f"pad {mode} cropped"] = Function(lambda x, mode=mode: F.pad(x, (2, -1) * n, mode))
    return calls


def resamplings(n: int) -> dict[str, Function]:
    places = _places(n)
    calls: dict[str, Function] = {}
    for mode in MODES:
        calls[f"interpolate {mode} size"] = Function(lambda x, mode=mode: F.interpolate(x, 4, mode=mode))
        for scale in (2, 1.5, 0.5):
            calls[f"interpolate {mode} {scale}"] = Function(
                lambda x, mode=mode, scale=scale: F.interpolate(x, scale_factor=scale, mode=mode)
            )
        calls[f"interpolate {mode} unchanged"] = Function(
            lambda x, mode=mode: F.interpolate(F.interpolate(x, 3), scale_factor=1.3, mode=mode)
        )
    for mode in ("linear", "cubic"):
        calls[f"interpolate {mode} corners"] = Function(
            lambda x, mode=mode: F.interpolate(x, scale_factor=2, mode=mode, align_corners=True)
        )
        calls[f"interpolate {mode} antialias"] = Function(
            lambda x, mode=mode: F.interpolate(x, scale_factor=0.5, mode=mode, antialias=True)
        )
    calls["grid_sample"] = Function(
        lambda x, places: F.grid_sample(x, places.expand(x.shape[0], -1, -1)), (places,)
    )
    return calls


def _places(n: int) -> Tensor:
    """Some of them outside."""
    return torch.rand(1, 6, n, generator=torch.Generator().manual_seed(2)) * 2.4 - 1.2


def rearrangements(n: int) -> dict[str, Function]:
    factors = (2, 2, *(1,) * n)[:n]
    return {
        "unfold": Function(lambda x: F.unfold(x, 2, padding=1, stride=2)),
        "fold": Function(lambda x: F.fold(F.unfold(x, 2), x.shape[2:], 2, spatial_dims=n)),
        "pixel_shuffle": Function(lambda x: F.pixel_shuffle(x, factors, spatial_dims=n)),
        "pixel_unshuffle": Function(
            lambda x: F.pixel_unshuffle(F.pixel_shuffle(x, factors, spatial_dims=n), factors)
        ),
    }


def layers(n: int) -> dict[str, Call]:
    """Those that are more than a call of their function."""
    torch.manual_seed(0)
    return {
        "BatchNormNd": convnd.BatchNormNd(n, 4),
        "BatchNormNd evaluated": convnd.BatchNormNd(n, 4).eval(),
        "InstanceNormNd": convnd.InstanceNormNd(n, 4, affine=True),
        "InstanceNormNd evaluated": convnd.InstanceNormNd(n, 4, track_running_stats=True).eval(),
        "DropoutNd": convnd.DropoutNd(n),
    }


def functions(n: int) -> dict[str, Function]:
    makers = convolutions, pools, paddings, resamplings, rearrangements
    return {name: function for maker in makers for name, function in maker(n).items()}


def of_input(functions: dict[str, Function]) -> dict[str, Call]:
    return {name: function.of_input() for name, function in functions.items()}


def everything(n: int) -> dict[str, Call]:
    return of_input(functions(n)) | layers(n)
