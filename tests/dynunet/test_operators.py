"""Measurement operators: values against NumPy and SciPy, adjoints by their law, errors by name."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import scipy.ndimage
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dynunet.operators import (
    Blur,
    Clip,
    Compose,
    Downsample,
    Fourier,
    Function,
    Mask,
    Operator,
    Project,
    Quantise,
)

MODES = {"zeros": "constant", "reflect": "mirror", "replicate": "nearest", "circular": "wrap"}
LINEAR = ("mask", "average", "stride", "blur", "axis blur", "fourier", "complex", "mean", "function")
OTHERS = ("max", "clip", "quantise")
WRONG: Any = 3  # where something else is wanted


@dataclass(frozen=True)
class Case:
    """An operator, data that fits it, and the same measurement in NumPy."""

    operator: Operator
    x: np.ndarray
    oracle: Callable[[np.ndarray], np.ndarray]

    @property
    def data(self) -> Tensor:
        return torch.from_numpy(self.x)


def alternating(c: np.ndarray) -> np.ndarray:
    """Complex channels as two real ones each, side by side."""
    return np.stack([np.real(c), np.imag(c)], axis=2).reshape(c.shape[0], -1, *c.shape[2:])


def blurred(x: np.ndarray, kernel: np.ndarray, mode: str) -> np.ndarray:
    full = kernel.reshape(1, 1, *kernel.shape)
    return scipy.ndimage.convolve(x, full, mode=mode)


@st.composite
def cases(draw: Any, kinds: tuple[str, ...] = LINEAR + OTHERS) -> Case:
    kind, dims = draw(st.sampled_from(kinds)), draw(st.integers(1, 5))
    sizes = draw(st.lists(st.integers(2, 6 if dims < 4 else 3), min_size=dims, max_size=dims))
    n, c = draw(st.integers(1, 2)), draw(st.integers(1, 2))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    axis = draw(st.integers(-dims, dims - 1))
    one = 2 + axis % dims
    factors = draw(st.lists(st.integers(1, 3), min_size=dims, max_size=dims))
    if kind == "average":
        sizes = [max(size // factor, 1) * factor for size, factor in zip(sizes, factors, strict=True)]
    c *= 2 if kind == "complex" else 1
    x = rng.standard_normal((n, c, *sizes))
    if kind == "mask":
        known = rng.random((draw(st.sampled_from([1, n])), 1, *sizes)) < 0.5
        return Case(Mask(torch.from_numpy(known)), x, lambda x: np.where(known, x, 0))
    if kind == "average":
        split = [part for s, f in zip(sizes, factors, strict=True) for part in (s // f, f)]
        within = tuple(range(3, 3 + 2 * dims, 2))
        return Case(Downsample(factors), x, lambda x: x.reshape(n, c, *split).mean(within))
    if kind == "stride":
        at = (slice(None), slice(None), *(slice(None, None, f) for f in factors))
        return Case(Downsample(factors, "stride"), x, lambda x: x[at])
    if kind == "blur":
        mode = draw(st.sampled_from([*MODES]))
        kernel = rng.standard_normal([draw(st.integers(1, min(size, 4))) for size in sizes])
        return Case(Blur(torch.from_numpy(kernel), mode), x, lambda x: blurred(x, kernel, MODES[mode]))
    if kind == "axis blur":
        modes = [draw(st.sampled_from([*MODES])) for _ in sizes]
        kernels = [rng.standard_normal(draw(st.integers(1, min(size, 4)))) for size in sizes]
        left_out = draw(st.integers(0, dims))

        def along_axes(x: np.ndarray) -> np.ndarray:
            for i, kernel in enumerate(kernels):
                if i != left_out:
                    shape = [1] * dims
                    shape[i] = len(kernel)
                    x = blurred(x, kernel.reshape(shape), MODES[modes[i]])
            return x

        given = [None if i == left_out else torch.from_numpy(k) for i, k in enumerate(kernels)]
        return Case(Blur(given, modes), x, along_axes)
    if kind in ("fourier", "complex"):
        is_complex = kind == "complex"
        axes = draw(st.sets(st.integers(0, dims - 1), min_size=1)) if draw(st.booleans()) else None
        mask = rng.random((1, 1, *sizes)) < 0.5

        def transformed(x: np.ndarray) -> np.ndarray:
            z = x[:, ::2] + 1j * x[:, 1::2] if is_complex else x
            along = None if axes is None else tuple(2 + a for a in axes)
            z = np.fft.fftn(z, axes=along or tuple(range(2, 2 + dims)), norm="ortho")
            return alternating(np.where(mask, z, 0))

        chosen = None if axes is None else tuple(axes)
        return Case(Fourier(torch.from_numpy(mask), chosen, is_complex), x, transformed)
    if kind == "mean":
        return Case(Project(axis), x, lambda x: x.mean(one, keepdims=True))
    if kind == "function":
        return Case(Function(lambda x: x.flip(-1) - x, linear=True), x, lambda x: x[..., ::-1] - x)
    if kind == "max":
        return Case(Project(axis, "max"), x, lambda x: x.max(one, keepdims=True))
    if kind == "clip":
        return Case(Clip(-0.5, 0.4), x, lambda x: np.clip(x, -0.5, 0.4))
    return Case(Quantise(0.3), x, lambda x: 0.3 * np.round(x / 0.3))


def composed(case: Case) -> Case:
    """The case after a sum with the neighbour and before a reversal of an axis."""

    def around(x: np.ndarray) -> np.ndarray:
        return case.oracle(x + np.roll(x, 1, -1))[:, :, ::-1]

    before = Function(lambda x: x + x.roll(1, -1), linear=True)
    return Case(Compose(before, case.operator, Function(lambda x: x.flip(2), linear=True)), case.x, around)


@given(cases(), st.booleans())
def test_values_are_those_of_numpy(case: Case, compose: bool) -> None:
    case = composed(case) if compose else case
    wanted = case.oracle(case.x)
    np.testing.assert_allclose(case.operator(case.data).numpy(), wanted, rtol=1e-12, atol=1e-12)
    assert case.operator(case.data.float()).dtype == torch.float32, "in the precision of the data"


@given(cases(LINEAR), st.booleans())
def test_the_adjoint_of_every_linear_operator(case: Case, compose: bool) -> None:
    case = composed(case) if compose else case
    x, operator = case.data, case.operator
    assert operator.linear
    out = operator(x)
    y = torch.from_numpy(np.random.default_rng(1).standard_normal(out.shape))
    back = operator.adjoint(y, x.shape)
    assert back.shape == x.shape
    scale = max((out.norm() * y.norm()).item(), 1.0)
    assert abs(((out * y).sum() - (x * back).sum()).item()) < 1e-10 * scale
    twice = operator(2 * x - 3 * back) - 2 * out + 3 * operator(back)
    assert twice.abs().max().item() < 1e-10 * scale, "it is linear"


@given(cases(("mask", "average", "blur", "fourier", "complex")))
def test_the_shape_of_the_data_follows_from_that_of_the_measurement(case: Case) -> None:
    y = case.operator(case.data)
    assert case.operator.data_shape(y.shape) == case.x.shape
    assert Compose(case.operator, Blur([None] * (y.ndim - 2))).data_shape(y.shape) == case.x.shape
    assert torch.equal(case.operator.adjoint(y), case.operator.adjoint(y, case.x.shape))


@given(cases(), st.booleans())
def test_projection_keeps_what_is_measured(case: Case, some_missing: bool) -> None:
    operator, truth = case.operator, case.data
    y = operator(truth)
    known = torch.ones_like(y, dtype=torch.bool)
    if some_missing:
        known = torch.from_numpy(np.random.default_rng(2).random(y.shape) < 0.6)
    start = torch.from_numpy(np.random.default_rng(3).standard_normal(case.x.shape))
    out = operator.project(start, torch.where(known, y, 0), known, 1e-3)
    if isinstance(operator, Function) or (isinstance(operator, Project) and not operator.linear):
        assert operator.linear or torch.equal(out, start)
        return
    away = torch.where(known, operator(out) - y, 0)
    exact = not isinstance(operator, (Blur, Fourier))  # real data has fewer free coefficients than these
    assert away.norm() <= (1e-10 if exact else 2e-3) * y.norm() + 1e-12, f"{away.norm() / y.norm()}"
    if isinstance(operator, (Mask, Clip)):
        assert torch.equal(torch.where(known, operator(out), 0), torch.where(known, y, 0)), "to the bit"


def test_gradients_of_adjoint_and_measurement() -> None:
    """Both are differentiable, as often as one likes."""
    x = torch.randn(1, 2, 4, 3, dtype=torch.float64, requires_grad=True)
    for operator in (Blur(torch.rand(2, 3, dtype=torch.float64)), Downsample((2, 1)), Project(0)):
        assert torch.autograd.gradcheck(operator, (x,))
        y = operator(x).detach().requires_grad_()
        assert torch.autograd.gradcheck(lambda y, operator=operator: operator.adjoint(y, x.shape), (y,))


def test_clipping_constrains_only_what_is_outside() -> None:
    operator = Clip(-1.0, 1.0)
    y = torch.tensor([[[0.5, 1.0, 1.0, -1.0, 0.5]]], dtype=torch.float64)
    x = torch.tensor([[[0.2, 3.0, 0.4, 0.0, 1.5]]], dtype=torch.float64, requires_grad=True)
    residual = operator.residual(x, y)
    torch.testing.assert_close(residual.detach(), torch.tensor([[[0.3, 0.0, 0.6, -1.0, -1.0]]]).double())
    (slope,) = torch.autograd.grad(residual.sum(), x)
    assert slope.flatten().tolist() == [-1, 0, -1, -1, -1]


def test_operators_under_inference_mode() -> None:
    with torch.inference_mode():
        A = Downsample(2)
        assert torch.equal(A.adjoint(A(torch.ones(1, 1, 4))), torch.full((1, 1, 4), 0.5))


X = torch.zeros(2, 1, 4, 6)


@pytest.mark.parametrize(
    ("error", "pattern", "call"),
    [
        (TypeError, "known must be a bool tensor, .*float32", lambda: Mask(X)(X)),
        (ValueError, r"known must have the axes of the data, \(2, 1, 4, 6\)", lambda: Mask(X[0] > 0)(X)),
        (ValueError, "mode must be one of 'average', 'stride', got 'mean'", lambda: Downsample(2, "mean")),
        (ValueError, "factor must be at least 1, got 0", lambda: Downsample(0)),
        (
            ValueError,
            "factor must .* each of the 2 spatial",
            lambda: Downsample((2, 2, 2))(X),
        ),
        (ValueError, "factor must divide .* got 4 on axis 1 of size 6", lambda: Downsample(4)(X)),
        (
            ValueError,
            r"kernel must have one axis .* 2 .* \(3,\)",
            lambda: Blur(torch.ones(3))(X),
        ),
        (ValueError, "kernel must have one entry for each of the 2 .* got 1", lambda: Blur([None])(X)),
        (ValueError, "kernel must have tensors of one axis", lambda: Blur([torch.ones(2, 2)])),
        (ValueError, "kernel must be of finite", lambda: Blur(torch.tensor([torch.nan]))),
        (ValueError, "kernel must be of finite .*int64", lambda: Blur(torch.ones(3).long())),
        (TypeError, "kernel must be a tensor or a sequence", lambda: Blur(WRONG)),
        (ValueError, "padding_mode must be one of", lambda: Blur(torch.ones(3, 3), "wrap")(X)),
        (TypeError, "mask must be a bool tensor", lambda: Fourier(X)(X)),
        (ValueError, "two channels for each complex", lambda: Fourier(X > 0, None, True)(X)),
        (ValueError, "axes must be from -2 to 1, got 2", lambda: Fourier(X > 0, (2,))(X)),
        (TypeError, "complex_data must be True or False", lambda: Fourier(X > 0, None, WRONG)),
        (ValueError, "axis must be from -2 to 1, got 5", lambda: Project(5)(X)),
        (ValueError, "mode must be one of 'mean', 'max'", lambda: Project(0, "median")),
        (ValueError, "low must be below high, got 1 and 1", lambda: Clip(1, 1)),
        (ValueError, "step must be positive", lambda: Quantise(0)),
        (ValueError, "operators must be at least one", lambda: Compose()),
        (TypeError, "function must be a function of data, got 3", lambda: Compose(WRONG)),
        (ValueError, r"linear to have an adjoint, got Clip\(low=0, high=1\)", lambda: Clip(0, 1).adjoint(X)),
        (ValueError, r"shape must be given: .* Project\(axis=0", lambda: Project(0).adjoint(X)),
        (ValueError, r"y must have the shape that Downsample", lambda: Downsample(2).adjoint(X, X.shape)),
        (ValueError, "y must have the shape that Project", lambda: Project(0).check(X, X.shape)),
        (
            ValueError,
            r"\(<lambda>\) must return the dtype",
            lambda: Function(lambda x: x.double())(X),
        ),
        (ValueError, "must return .N, C, .spatial. with the axes", lambda: Function(lambda x: x.mean(-1))(X)),
        (ValueError, "must return .N, C, .spatial. with the axes", lambda: Function(lambda x: x[:1])(X)),
        (TypeError, "Function.* must return a tensor, got int", lambda: Function(lambda x: WRONG)(X)),
        (ValueError, "Function.* must measure finite data as finite, got 48", lambda: Function(torch.log)(X)),
        (TypeError, "data must be a floating-point tensor", lambda: Clip(0, 1)(X.long())),
        (ValueError, "data must be .N, C, .spatial.", lambda: Clip(0, 1)(X[0, 0, 0])),
    ],
)
def test_what_does_not_fit_is_refused_by_name(error: Any, pattern: str, call: Any) -> None:
    with pytest.raises(error, match=pattern):
        call()
