"""A call of every public function and module of convnd, over any number of axes."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import convnd
import convnd.functional as F
from convnd.testing import (
    Case,
    conv_cases,
    conv_transpose_cases,
    interpolate_cases,
    pad_cases,
    pool_cases,
)

from .compare import Call

RANKS = (1, 2, 3, 4, 5)
_HEALTH_CHECKS: Any = tuple(HealthCheck)
SIZES = {1: (11,), 2: (7, 6), 3: (6, 4, 5), 4: (4, 5, 3, 4), 5: (3, 4, 3, 3, 3)}


def drawn(strategy: st.SearchStrategy[Case], count: int) -> list[Case]:
    """So many cases of a strategy, the same in every run."""
    cases: list[Case] = []

    @seed(0)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=_HEALTH_CHECKS,
    )
    @given(strategy)
    def collect(case: Case) -> None:
        cases.append(case)

    collect()
    return cases[:count]


STRATEGIES: dict[str, Callable[..., st.SearchStrategy[Case]]] = {
    "conv": conv_cases,
    "conv_transpose": conv_transpose_cases,
    "max_pool": pool_cases,
    "avg_pool": lambda **k: pool_cases(average=True, **k),
    "pad": pad_cases,
    "interpolate": interpolate_cases,
}


def of_case(case: Case) -> Call:
    """A drawn case; operands are tensors, arguments as they are."""
    function = getattr(F, case.operator)
    arguments = dict(case.kwargs)
    if case.operator not in ("conv", "conv_transpose"):
        arguments["spatial_dims"] = case.spatial_dims
    operands = [case.input] if case.weight is None else [case.input, case.weight]
    operands += [] if case.bias is None else [case.bias]
    tensors = [torch.from_numpy(a.copy()) for a in operands]
    return Call(repr(case), lambda *given: function(*given, **arguments), tensors)


def random(*shape: int, low: float = -2.0, high: float = 2.0) -> Tensor:
    """Numbers that float16 and bfloat16 hold, all far enough from each other for a maximum to be one."""
    g = torch.Generator().manual_seed(sum(shape))
    numbers = torch.rand(shape, generator=g, dtype=torch.float64) * (high - low) + low
    return numbers.to(torch.bfloat16).to(torch.float16).double()


def functions(n: int) -> dict[str, list[Call]]:
    """Of each function, the options that take a way of their own."""
    sizes = SIZES[n]
    half = tuple(max(s // 2, 1) for s in sizes)
    x, k = random(2, 4, *sizes), {"spatial_dims": n}
    samples = random(2, 4, n, low=0.0, high=0.99)
    pooled, indices = F.max_pool(x, 2, 2, ceil_mode=True, return_indices=True, spatial_dims=n)
    columns = F.unfold(x, 2, **k)
    shuffled = random(1, 2 * 2**n, *half)

    def call(name: str, function: Callable[..., Any], *tensors: Tensor, **options: Any) -> Call:
        constants, exact = options.pop("constants", ()), options.pop("exact", False)
        label = ", ".join([name, *(f"{key}={value}" for key, value in options.items())])
        return Call(f"{n}-D {label}", lambda *given: function(*given, **options), tensors, constants, exact)

    weight, back = random(6, 2, *(3,) * n), random(4, 3, *(3,) * n)
    found = {
        "conv": [
            *(call("conv", F.conv, x, weight, padding=1, groups=2, padding_mode=m) for m in PADDED),
            call("conv", F.conv, x, weight, stride=2, padding="same", groups=2),
            call("conv", F.conv, x, random(3, 4, *(1,) * n)),
            call("conv", F.conv, x, random(3, 4, *half), stride=half),
        ],
        "conv_transpose": [
            *(
                call("conv_transpose", F.conv_transpose, x, back, padding=1, groups=2, padding_mode=m)
                for m in PADDED
            ),
            call("conv_transpose", F.conv_transpose, x, back, stride=2, padding="same"),
            call("conv_transpose", F.conv_transpose, x, random(4, 3, *(2,) * n), stride=2),
        ],
        "max_pool": [
            call("max_pool", F.max_pool, x, kernel_size=3, stride=1, padding=1, return_indices=True, **k),
            call("max_pool", F.max_pool, x, kernel_size=2, ceil_mode=True, **k),
        ],
        "avg_pool": [
            call("avg_pool", F.avg_pool, x, kernel_size=3, stride=2, padding=1, count_include_pad=False, **k),
            call("avg_pool", F.avg_pool, x, kernel_size=2, ceil_mode=True, **k),
        ],
        "lp_pool": [
            call("lp_pool", F.lp_pool, x.abs() + 0.5, norm_type=p, kernel_size=2, **k)
            for p in (1.0, 2.0, 3.0)
        ],
        "adaptive_avg_pool": [call("adaptive_avg_pool", F.adaptive_avg_pool, x, output_size=half, **k)],
        "adaptive_max_pool": [
            call("adaptive_max_pool", F.adaptive_max_pool, x, output_size=half, return_indices=True, **k)
        ],
        "fractional_max_pool": [
            call(
                "fractional_max_pool",
                lambda x, r: F.fractional_max_pool(x, 2, half, None, True, r, **k),
                x,
                constants=(samples,),
                exact=True,
            )
        ],
        "max_unpool": [
            call(
                "max_unpool",
                lambda p, i: F.max_unpool(p, i, 2, 2, output_size=sizes, **k),
                pooled,
                constants=(indices,),
            )
        ],
        "pad": [call("pad", F.pad, x, pad=(1, 2) * n, mode=m) for m in (*PADDED[1:], "constant")],
        "interpolate": [
            *(call("interpolate", F.interpolate, x, scale_factor=1.5, mode=m, **k) for m in MODES),
            *(call("interpolate", F.interpolate, x, size=half, mode=m, **k) for m in MODES),
            *(
                call("interpolate", F.interpolate, x, size=half, mode=m, antialias=True, **k)
                for m in ("linear", "cubic")
            ),
            call("interpolate", F.interpolate, x, scale_factor=2, mode="linear", align_corners=True, **k),
        ],
        "unfold": [call("unfold", F.unfold, x, kernel_size=2, stride=2, padding=1, **k)],
        "fold": [call("fold", F.fold, columns, output_size=sizes, kernel_size=2, **k)],
        "pixel_shuffle": [call("pixel_shuffle", F.pixel_shuffle, shuffled, upscale_factor=2, **k)],
        "pixel_unshuffle": [
            call("pixel_unshuffle", F.pixel_unshuffle, random(1, 2, *(4,) * n), downscale_factor=2, **k)
        ],
    }
    return found | _grids(n, x, call)


PADDED = ("zeros", "reflect", "replicate", "circular")
MODES = ("nearest", "nearest-exact", "linear", "cubic", "area")


def _grids(n: int, x: Tensor, call: Callable[..., Call]) -> dict[str, list[Call]]:
    """Sampling at any positions, inside and outside."""
    grid = random(2, *SIZES[n], n, low=-1.2, high=1.2) + 1 / 1024  # away from the corners of the modes
    return {
        "grid_sample": [
            call("grid_sample", sample, x, grid, mode=mode, padding_mode=outside, align_corners=False)
            for sample in _where("grid_sample")
            for mode in ("bilinear", "nearest")
            for outside in ("zeros", "border", "reflection")
        ],
        "affine_grid": [
            call("affine_grid", affine, random(2, n, n + 1), size=(2, 4, *SIZES[n]), align_corners=False)
            for affine in _where("affine_grid")
        ],
    }


def _where(name: str) -> list[Callable[..., Any]]:
    return [getattr(F, name)] if hasattr(F, name) else []


def modules(n: int) -> dict[str, list[Call]]:
    """Of each module, in training mode, and in evaluation where that differs."""
    sizes = SIZES[n]
    half = tuple(max(s // 2, 1) for s in sizes)
    x, positive = random(2, 4, *sizes), random(2, 4, *sizes).abs() + 0.5
    samples = random(2, 4, n, low=0.0, high=0.99)
    pooled, indices = F.max_pool(x, 2, 2, ceil_mode=True, return_indices=True, spatial_dims=n)

    def call(module: nn.Module, *tensors: Tensor, constants: Sequence[Tensor] = ()) -> list[Call]:
        module = module.double()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module(*tensors, *constants)  # a lazy one becomes what it will be
        made = [Call(f"{n}-D {module}", module, tensors, constants)]
        if any(True for _ in module.buffers()):
            made += [Call(f"{n}-D {module} eval", _evaluating(module), tensors, constants)]
        return made

    torch.manual_seed(0)
    return {
        "ConvNd": [
            *call(convnd.ConvNd(n, 4, 6, 3, 2, 1, groups=2), x),
            *call(convnd.ConvNd(n, 4, 6, 3, padding=1, padding_mode="circular"), x),
        ],
        "ConvTransposeNd": call(convnd.ConvTransposeNd(n, 4, 6, 3, 2, 1, 1, groups=2), x),
        "LazyConvNd": call(convnd.LazyConvNd(n, 6, 3, padding="same"), x),
        "LazyConvTransposeNd": call(convnd.LazyConvTransposeNd(n, 6, 2, 2), x),
        "MaxPoolNd": call(convnd.MaxPoolNd(n, 3, 2, 1), x),
        "AvgPoolNd": call(convnd.AvgPoolNd(n, 3, 2, 1), x),
        "LPPoolNd": call(convnd.LPPoolNd(n, 2.0, 2), positive),
        "AdaptiveAvgPoolNd": call(convnd.AdaptiveAvgPoolNd(n, half), x),
        "AdaptiveMaxPoolNd": call(convnd.AdaptiveMaxPoolNd(n, half), x),
        "FractionalMaxPoolNd": [
            Call(f"{n}-D FractionalMaxPoolNd", _fractional(n, half), [x], [samples], exact=True),
        ],
        "MaxUnpoolNd": [
            Call(
                f"{n}-D MaxUnpoolNd",
                lambda p, i: convnd.MaxUnpoolNd(n, 2)(p, i, output_size=sizes),
                [pooled],
                [indices],
            )
        ],
        "PadNd": call(convnd.PadNd(n, 1, "reflect"), x),
        "InterpolateNd": call(convnd.InterpolateNd(n, scale_factor=2, mode="linear"), x),
        "UnfoldNd": call(convnd.UnfoldNd(n, 2), x),
        "FoldNd": call(convnd.FoldNd(n, sizes, 2), F.unfold(x, 2, spatial_dims=n)),
        "PixelShuffleNd": call(convnd.PixelShuffleNd(n, 2), random(1, 2 * 2**n, *half)),
        "PixelUnshuffleNd": call(convnd.PixelUnshuffleNd(n, 2), random(1, 2, *(4,) * n)),
        "BatchNormNd": call(convnd.BatchNormNd(n, 4), x),
        "LazyBatchNormNd": call(convnd.LazyBatchNormNd(n, bias=False), x),
        "InstanceNormNd": call(convnd.InstanceNormNd(n, 4, affine=True, track_running_stats=True), x),
        "DropoutNd": call(convnd.DropoutNd(n).eval(), x),
    }


def _evaluating(module: nn.Module) -> nn.Module:
    import copy

    return copy.deepcopy(module).eval()


def _fractional(n: int, sizes: tuple[int, ...]) -> Callable[..., Any]:
    return lambda x, r: convnd.FractionalMaxPoolNd(n, 2, sizes, _random_samples=r)(x)
