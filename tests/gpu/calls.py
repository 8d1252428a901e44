"""A call of every public function and module of convnd, over any number of axes."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

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
from tests.convnd import calls
from tests.convnd.calls import SIZES

from .compare import Call

RANKS = (1, 2, 3, 4, 5)
_HEALTH_CHECKS: Any = tuple(HealthCheck)
T = TypeVar("T")


def drawn(strategy: st.SearchStrategy[T], count: int) -> list[T]:
    """So many cases of a strategy, the same in every run."""
    cases: list[T] = []

    @seed(0)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=_HEALTH_CHECKS,
    )
    @given(strategy)
    def collect(case: T) -> None:
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
    x, found = random(2, 4, *SIZES[n]), dict[str, list[Call]]()
    for name, f in calls.functions(n).items():
        input = x.abs() + 0.5 if name.startswith("lp_pool") else x
        operands, constants = ([t.double() for t in given] for given in (f.operands, f.constants))
        call = Call(f"{n}-D {name}", f.function, [input, *operands], constants, f.exact)
        found.setdefault(name.split()[0], []).append(call)
    for name, more in _with_indices_and_grids(n, x).items():
        found.setdefault(name, []).extend(more)
    return found


def _with_indices_and_grids(n: int, x: Tensor) -> dict[str, list[Call]]:
    """Those of which compilers are not asked."""

    def call(name: str, function: Callable[..., Any], *tensors: Tensor, **options: Any) -> Call:
        label = ", ".join([name, *(f"{key}={value}" for key, value in options.items())])
        return Call(f"{n}-D {label}", lambda *given: function(*given, **options), tensors)

    k: dict[str, Any] = {"spatial_dims": n, "return_indices": True}
    grid = random(2, *SIZES[n], n, low=-1.2, high=1.2) + 1 / 1024  # away from the corners of the modes
    theta = random(2, n, n + 1)
    return {
        "max_pool": [call("max_pool", F.max_pool, x, kernel_size=3, stride=1, padding=1, **k)],
        "adaptive_max_pool": [call("adaptive_max_pool", F.adaptive_max_pool, x, output_size=2, **k)],
        "lp_pool": [
            call("lp_pool", F.lp_pool, x.abs() + 0.5, norm_type=p, kernel_size=2, spatial_dims=n)
            for p in (1.0, 3.0)
        ],
        "grid_sample": [
            call("grid_sample", F.grid_sample, x, grid, mode=mode, padding_mode=outside, align_corners=False)
            for mode in ("bilinear", "nearest")
            for outside in ("zeros", "border", "reflection")
        ],
        "affine_grid": [
            call("affine_grid", F.affine_grid, theta, size=(2, 4, *SIZES[n]), align_corners=False)
        ],
    }


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
