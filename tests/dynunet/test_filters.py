"""Arithmetic of data keeps its digits, whatever the products of networks are rounded to.

There need not be a GPU: a mode rounds the factors of float32 products as tensor cores do.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

import convnd.functional as F
from dynunet import _filters
from dynunet.data.augmentation.values import gaussian
from dynunet.metrics import crps, ssim
from dynunet.operators import Blur, Downsample, Fourier, Project

ROUNDED = ("convolution", "mm", "addmv", "mv", "dot")  # parts of names
RANKS = (1, 2, 3, 4)
SIZES = (12, 13, 11, 12)


class TensorCores(TorchDispatchMode):
    """Convolutions and products of matrices take 10 bits of each factor in float32 (TF32), as on a GPU."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(part in func.name().removeprefix("aten::") for part in ROUNDED):
            args = tree_map_only(Tensor, _ten_bits, args)
        return func(*args, **(kwargs or {}))


def _ten_bits(x: Tensor) -> Tensor:
    return ((x.view(torch.int32) + 2**12) & -(2**13)).view(x.dtype) if x.dtype == torch.float32 else x


@pytest.fixture(params=["tensor cores", "autocast"])
def rounding(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    if request.param == "autocast":
        return torch.autocast("cpu", torch.bfloat16)
    monkeypatch.setattr(_filters, "_rounds", lambda _: True)
    return TensorCores()


def blurred(x: Tensor) -> list[Tensor]:
    """A measurement, its derivatives by data and kernel, and one after another; the adjoint."""
    n = x.ndim - 2
    kernel = _drawn(*(3,) * n).to(x).requires_grad_()
    y = Blur(kernel, "circular")(x)
    slopes = torch.autograd.grad(y.square().sum(), (x, kernel), create_graph=True)
    curved = torch.autograd.grad(slopes[0].square().sum(), (x, kernel))
    along = Blur([_drawn(4)] * n, "reflect")
    return [y, *slopes, *curved, along(x), along.adjoint(x.detach())]


def turned(x: Tensor) -> Tensor:
    n = x.ndim - 2
    return F.affine_grid(_drawn(len(x), n, n + 1).to(x), x.shape)


ARITHMETIC: dict[str, Callable[[Tensor], Tensor | list[Tensor]]] = {
    "blur": blurred,
    "average": Downsample(1),
    "mean": Project(0),
    "fourier": lambda x: Fourier(torch.ones_like(x, dtype=torch.bool))(x),
    "augmentation": lambda x: gaussian(x[0], 1.0),
    "ssim": lambda x: ssim(x, x.flip(2), 1.0),
    "crps": lambda x: crps(x.unsqueeze(1), x[:1]),
    "affine grid": turned,
    "average pooling": lambda x: [F.avg_pool(x, 3), F.adaptive_avg_pool(x, 5)],
    **{
        mode: lambda x, mode=mode: F.interpolate(x, scale_factor=1.5, mode=mode)
        for mode in ("linear", "cubic", "area")
    },
}


def _drawn(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0)) - 0.3


def _error(got: Tensor, expected: Tensor) -> float:
    return ((got - expected).abs().max() / expected.abs().max()).item()


def drawn_values(n: int) -> Tensor:
    return _drawn(3, 1, *SIZES[:n])


def several(results: Tensor | list[Tensor]) -> list[Tensor]:
    return results if isinstance(results, list) else [results]


@pytest.mark.parametrize("n", RANKS)
@pytest.mark.parametrize("kind", ARITHMETIC)
def test_no_digits_are_lost(kind: str, n: int, rounding: Any) -> None:
    x = drawn_values(n)
    with rounding:
        got = several(ARITHMETIC[kind](x.clone().requires_grad_()))
    expected = several(ARITHMETIC[kind](x.double().requires_grad_()))
    for i, (a, b) in enumerate(zip(got, expected, strict=True)):
        assert a.dtype == (torch.float64 if kind == "ssim" else torch.float32)
        assert _error(a, b) < 2e-6, f"result {i}"


def test_the_rounding_that_is_meant(rounding: Any) -> None:
    """The layers of a network are rounded."""
    x, weight = _drawn(1, 1, 9, 8), _drawn(1, 1, 3, 3)
    exact = F.conv(x.double(), weight.double())
    with rounding:
        assert _error(F.conv(x, weight), exact) > 1e-5
        assert _error(_filters.exact_conv(x, weight), exact) < 1e-7


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_dtype_is_that_of_the_data(dtype: torch.dtype, rounding: Any) -> None:
    x, weight = _drawn(2, 1, 9).to(dtype), _drawn(1, 1, 3).to(dtype)
    with rounding:
        y = _filters.exact_conv(x, weight, padding="same")
    assert torch.equal(y, F.conv(x.double(), weight.double(), padding="same").to(dtype)), "rounded once"


@pytest.mark.parametrize("n", RANKS)
def test_digits_of_float32_without_float64(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Autocast is left, for derivatives too, where the device has no float64."""
    monkeypatch.setattr(_filters, "_WITHOUT_FLOAT64", ("cpu",))
    monkeypatch.setattr(Tensor, "double", None)
    x = drawn_values(n)
    with torch.autocast("cpu", torch.bfloat16):
        got = blurred(x.clone().requires_grad_())
    monkeypatch.undo()
    for a, b in zip(got, blurred(x.double().requires_grad_()), strict=True):
        assert a.dtype == torch.float32
        assert _error(a, b) < 1e-5  # bfloat16 has 4e-3
