"""Sampling at given places against torch up to three axes, SciPy and plain loops beyond."""

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates
from torch import Tensor

import convnd.functional as F

RANKS = (1, 2, 3, 4, 5)
PADDINGS = ("zeros", "border", "reflection", "circular")
TORCH_MODES = {"linear": "bilinear", "nearest": "nearest", "cubic": "bicubic"}


@st.composite
def grid_cases(
    draw: st.DrawFn, max_dims: int = 5, modes: tuple[str, ...] = tuple(TORCH_MODES)
) -> dict[str, Any]:
    """Arguments of a call: sizes down to 1, coordinates that lie on entries, between them and far outside."""
    n = draw(st.integers(1, max_dims))
    mode = draw(st.sampled_from(modes if n < 4 else [m for m in modes if m != "cubic"] or modes))
    sizes = draw(st.tuples(*[st.integers(1, 5 if n < 4 else 3)] * n))
    out = draw(st.lists(st.integers(0, 3), min_size=0, max_size=3))
    batch = draw(st.integers(0, 2))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    x = rng.standard_normal((batch, draw(st.integers(0, 2)), *sizes))
    grid = rng.uniform(-draw(st.sampled_from([1.0, 3.0])), 1.0, (batch, *out, n))
    return {
        "input": torch.tensor(x),
        "grid": torch.tensor(grid),
        "mode": mode,
        "padding_mode": draw(st.sampled_from(PADDINGS)),
        "align_corners": draw(st.booleans()),
    }


def lifted(x: Tensor, grid: Tensor, axes: int) -> tuple[Tensor, Tensor]:
    """The same with size-1 axes in front of the others, and a batch of places of as many axes."""
    missing = axes - (x.ndim - 2)
    x = x.view(*x.shape[:2], *(1,) * missing, *x.shape[2:])
    grid = torch.cat([grid, grid.new_zeros(*grid.shape[:-1], missing)], -1)
    return x, grid


@given(grid_cases(max_dims=3))
def test_equals_torch_and_its_gradients_up_to_three_axes(case: dict[str, Any]) -> None:
    n, mode = case["grid"].shape[-1], case["mode"]
    if case["padding_mode"] == "circular" or (mode == "cubic" and n != 2):
        return
    x, grid = (case[name].requires_grad_() for name in ("input", "grid"))
    one = {**case, "mode": TORCH_MODES[mode]}
    one["input"], at = lifted(x, grid, max(n, 2))
    places = at[..., 0].numel() // max(len(at), 1)
    one["grid"] = at.reshape(len(at), *(1,) * (max(n, 2) - 1), places, max(n, 2))
    out = F.grid_sample(**case)
    expected = torch.nn.functional.grid_sample(**one).reshape(out.shape)
    torch.testing.assert_close(out, expected)
    direction = torch.randn(out.shape, dtype=out.dtype)
    for create_graph in (False, True):
        gradients = [
            torch.autograd.grad(
                (y * direction).sum(),
                (x, grid),
                retain_graph=True,
                create_graph=create_graph,
                allow_unused=True,
            )
            for y in (out, expected)
        ]
        for ours, torchs in zip(*gradients, strict=True):
            torch.testing.assert_close(torch.zeros_like(torchs) if ours is None else ours, torchs)


@given(grid_cases(modes=("linear", "nearest")))
def test_equals_scipy(case: dict[str, Any]) -> None:
    x, grid, corners = case["input"], case["grid"], case["align_corners"]
    modes = {
        "zeros": "grid-constant",
        "border": "nearest",
        "reflection": "mirror" if corners else "reflect",
        "circular": "grid-wrap",
    }
    sizes = np.array(x.shape[2:])
    at = (grid.numpy()[..., ::-1] + 1) / 2 * (sizes - 1 if corners else sizes) - (0 if corners else 0.5)
    if case["mode"] == "nearest":
        at = at.round()
    out = F.grid_sample(**case)
    for b, c in np.ndindex(x.shape[:2]):
        places = at[b].reshape(-1, len(sizes)).T
        expected = map_coordinates(x[b, c].numpy(), places, order=1, mode=modes[case["padding_mode"]])
        np.testing.assert_allclose(out[b, c].numpy().reshape(-1), expected, rtol=1e-9, atol=1e-9)


def keys(d: float, a: float = -0.75) -> float:
    """The kernel of cubic convolution."""
    d = abs(d)
    if d <= 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    return a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a if d < 2 else 0.0


def entry(i: int, size: int, padding: str, corners: bool) -> int | None:
    """Where to read entry i of an axis, by walking there."""
    if padding == "zeros":
        return i if 0 <= i < size else None
    if padding == "border":
        return min(max(i, 0), size - 1)
    if padding == "circular":
        return i % size
    there = [*range(size), *(range(size - 2, 0, -1) if corners else range(size - 1, -1, -1))]
    return there[i % len(there)]


@pytest.mark.parametrize("corners", [True, False])
@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("n", RANKS)
def test_cubic_equals_plain_loops(n: int, padding: str, corners: bool) -> None:
    rng = np.random.default_rng(n)
    sizes = (3, 4, 1, 2, 3)[:n]
    x, grid = rng.standard_normal(sizes), rng.uniform(-2, 1.5, (2, n))
    out = F.grid_sample(
        torch.tensor(x)[None, None], torch.tensor(grid)[None], "cubic", padding, align_corners=corners
    )
    for k, place in enumerate(grid):
        at = [
            (c + 1) / 2 * (s - 1) if corners else ((c + 1) * s - 1) / 2
            for c, s in zip(place[::-1], sizes, strict=True)
        ]
        total = 0.0
        for tap in product(range(-1, 3), repeat=n):
            near = [int(np.floor(a)) + t for a, t in zip(at, tap, strict=True)]
            found = [entry(i, s, padding, corners) for i, s in zip(near, sizes, strict=True)]
            if None not in found:
                total += x[tuple(found)] * np.prod([keys(a - i) for a, i in zip(at, near, strict=True)])
        assert out[0, 0, k].item() == pytest.approx(total, rel=1e-9, abs=1e-9)


@given(grid_cases(), st.data())
def test_permuting_the_axes_changes_nothing(case: dict[str, Any], data: st.DataObject) -> None:
    n = case["grid"].shape[-1]
    order = data.draw(st.permutations(range(n)))
    paddings = data.draw(st.tuples(*[st.sampled_from(PADDINGS)] * n))
    other = {
        **case,
        "input": case["input"].permute(0, 1, *(2 + i for i in order)),
        "grid": case["grid"].flip(-1)[..., list(order)].flip(-1),
        "padding_mode": [paddings[i] for i in order],
    }
    torch.testing.assert_close(F.grid_sample(**other), F.grid_sample(**{**case, "padding_mode": paddings}))


@pytest.mark.parametrize("corners", [True, False, None])
@pytest.mark.parametrize("mode", TORCH_MODES)
@pytest.mark.parametrize("n", RANKS)
def test_the_identity_gives_every_entry_back(n: int, mode: str, corners: bool | None) -> None:
    x = torch.randn(2, 1, *(2, 3, 1, 2, 4)[:n], dtype=torch.float64)
    theta = torch.eye(n, n + 1, dtype=x.dtype).expand(2, -1, -1)
    grid = F.affine_grid(theta, x.shape, corners)
    torch.testing.assert_close(F.grid_sample(x, grid, mode, "border", corners), x)


@pytest.mark.parametrize("corners", [True, False])
@pytest.mark.parametrize("n", RANKS)
def test_affine_grid_equals_torch_and_the_matrix(n: int, corners: bool) -> None:
    sizes = (2, 1, *(3, 1, 2, 4, 2)[:n])
    theta = torch.randn(2, n, n + 1, dtype=torch.float64, requires_grad=True)
    grid = F.affine_grid(theta, sizes, corners)
    if n in (2, 3):
        torch.testing.assert_close(grid, torch.affine_grid_generator(theta, sizes, corners))
    for at in np.ndindex(sizes[2:]):
        place = [0.0 if s == 1 else (2 * i / (s - 1) if corners else (2 * i + 1) / s) - 1
                 for i, s in zip(at, sizes[2:], strict=True)]  # fmt: skip
        expected = theta[:, :, :n] @ torch.tensor(place[::-1], dtype=theta.dtype) + theta[:, :, n]
        torch.testing.assert_close(grid[(slice(None), *at)], expected)
    assert torch.autograd.gradcheck(lambda t: F.affine_grid(t, sizes, corners), theta, fast_mode=True)


@pytest.mark.parametrize(
    ("mode", "n"), [("linear", 1), ("linear", 2), ("linear", 4), ("cubic", 2), ("cubic", 3)]
)
@pytest.mark.parametrize("padding", PADDINGS)
def test_derivatives_of_both_orders_by_both_operands(mode: str, n: int, padding: str) -> None:
    generator = torch.Generator().manual_seed(n)
    options = {"dtype": torch.float64, "generator": generator}
    x = torch.randn(1, 2, *(3, 2, 3, 2)[:n], **options).requires_grad_()
    grid = (torch.rand(1, 3, n, **options) * 2.6 - 1.4).requires_grad_()

    def sampled(x: Tensor, grid: Tensor) -> Tensor:
        return F.grid_sample(x, grid, mode, padding)

    assert torch.autograd.gradcheck(sampled, (x, grid), check_forward_ad=True, fast_mode=True)
    assert torch.autograd.gradgradcheck(sampled, (x, grid), fast_mode=True)


@pytest.mark.parametrize("n", RANKS)
def test_labels_stay_labels(n: int) -> None:
    labels = torch.randint(0, 200, (1, 1, *(3,) * n), dtype=torch.uint8)
    grid = torch.rand(1, 9, n) * 2 - 1
    out = F.grid_sample(labels, grid, "nearest")
    assert out.dtype == torch.uint8
    assert torch.equal(out.double(), F.grid_sample(labels.double(), grid.double(), "nearest"))


@pytest.mark.parametrize("n", RANKS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_takes_a_grid_of_single(n: int, dtype: torch.dtype) -> None:
    x, grid = torch.randn(1, 2, *(3,) * n).to(dtype), torch.rand(1, 5, n) * 2 - 1
    out = F.grid_sample(x, grid)
    assert torch.equal(out, F.grid_sample(x.float(), grid).to(dtype))


@pytest.mark.parametrize("n", [2, 4])
@pytest.mark.filterwarnings("ignore")  # the compiler's own
def test_compiles_and_exports_with_dynamic_sizes(n: int) -> None:
    class Sampled(torch.nn.Module):
        def forward(self, x: Tensor, grid: Tensor) -> Tensor:
            return F.grid_sample(x, grid, padding_mode="border")

    model, x, grid = Sampled(), torch.randn(2, 1, *(4,) * n), torch.rand(2, 5, n)
    torch.testing.assert_close(
        torch.compile(model, fullgraph=True, backend="aot_eager")(x, grid), model(x, grid)
    )
    batch, size = torch.export.Dim("batch", min=1, max=9), torch.export.Dim("size", min=2, max=99)
    shapes = ({0: batch, 2: size}, {0: batch})
    program = torch.export.export(model, (x, grid), dynamic_shapes=shapes)
    x, grid = torch.randn(3, 1, 7, *(4,) * (n - 1)), torch.rand(3, 5, n)
    torch.testing.assert_close(program.module()(x, grid), model(x, grid))


X, GRID = torch.zeros(2, 1, 3, 3, 3, 3), torch.zeros(2, 5, 4)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: F.grid_sample(X, GRID[..., :3]), ValueError, r"grid must be \(N, \*out, 4\)"),
        (lambda: F.grid_sample(X, GRID[:1]), ValueError, "with N = 2 as in input"),
        (lambda: F.grid_sample(X, GRID.int()), TypeError, "grid must be a floating-point tensor"),
        (lambda: F.grid_sample(X.int(), GRID), TypeError, "input must be a floating-point tensor"),
        (lambda: F.grid_sample(X[..., :0], GRID), ValueError, "no empty spatial axis"),
        (lambda: F.grid_sample(X, GRID, "area"), ValueError, "mode must be one of 'linear'"),
        (lambda: F.grid_sample(X, GRID, padding_mode="reflect"), ValueError, "padding_mode must be one of"),
        (
            lambda: F.grid_sample(X, GRID, padding_mode=["zeros"] * 3),
            ValueError,
            "each of the 4 spatial axes",
        ),
        (
            lambda: F.grid_sample(None, GRID),  # type: ignore[arg-type]
            TypeError,
            "input must be a torch.Tensor",
        ),
        (lambda: F.affine_grid(torch.zeros(1, 2, 3), (1, 1, 3)), ValueError, r"\(1, 1, 2\)"),
        (lambda: F.affine_grid(torch.zeros(1, 2, 3), (1, 1)), ValueError, r"\(N, C, \*spatial\)"),
        (lambda: F.affine_grid(torch.zeros(1, 1, 2), (1, 1, 0)), ValueError, r"size\[2\] must be at least 1"),
    ],
)
def test_bad_arguments_are_named(call: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        call()
