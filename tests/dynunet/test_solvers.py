"""The solver of linear equations against LAPACK, for every sample on its own."""

from itertools import pairwise

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dynunet._solvers import norm, solve


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def solved(
    matrices: Tensor, b: Tensor, iterations: int, tolerance: float, memory: int | None = None
) -> Tensor:
    def matrix(u: Tensor) -> Tensor:
        return (matrices @ u.flatten(1).unsqueeze(-1)).view_as(u)

    return solve(matrix, b, iterations, tolerance * norm(b), memory)


def positive(n: int, size: int, seed: int) -> Tensor:
    factor = randn(n, size, size, seed=seed)
    return factor @ factor.mT / size + 0.3 * torch.eye(size).double()


@given(st.integers(1, 3), st.integers(1, 6), st.integers(0, 99), st.booleans())
def test_the_solution_is_that_of_lapack(n: int, size: int, seed: int, symmetric: bool) -> None:
    matrices, b = positive(n, size, seed), randn(n, 1, size, seed=seed + 1)
    if not symmetric:
        turn = randn(n, size, size, seed=seed + 2)
        matrices = matrices + 0.3 * (turn - turn.mT)
    wanted = torch.linalg.solve(matrices, b.mT).mT
    torch.testing.assert_close(solved(matrices, b, size + 2, 1e-13), wanted, rtol=1e-8, atol=1e-8)
    if symmetric:
        short = solved(matrices, b, 5 * size, 1e-13, memory=1)
        torch.testing.assert_close(short, wanted, rtol=1e-8, atol=1e-8)


@given(st.integers(1, 6), st.integers(0, 99))
def test_each_sample_stops_on_its_own(size: int, seed: int) -> None:
    matrices, b = positive(3, size, seed), randn(3, size, seed=seed + 1)
    matrices[1] = torch.eye(size) + 0.02 * matrices[1]  # one step, which is not exact
    b[2] = 0  # none
    together = solved(matrices, b, 10, 0.05)
    for i in range(3):
        alone = solved(matrices[i : i + 1], b[i : i + 1], 10, 0.05)
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-13, atol=1e-13)
    assert torch.equal(together[2], torch.zeros(size).double())
    far = (matrices @ together.unsqueeze(-1)).squeeze(-1) - b
    assert (norm(far) <= 0.05 * norm(b) + 1e-12).all()


@given(st.integers(2, 6), st.integers(0, 99), st.booleans())
def test_the_residual_of_a_singular_matrix_is_the_smallest(size: int, seed: int, has_solution: bool) -> None:
    factor = randn(1, size, size - 1, seed=seed)
    matrices, b = factor @ factor.mT, randn(1, size, seed=seed + 1)
    if has_solution:
        b = (matrices @ b.unsqueeze(-1)).squeeze(-1)
    lengths = []
    for iterations in range(size + 3):
        u = solved(matrices, b, iterations, 1e-13)
        lengths.append((b - (matrices @ u.unsqueeze(-1)).squeeze(-1)).norm().item())
    assert all(b <= a * (1 + 1e-9) + 1e-12 for a, b in pairwise(lengths)), lengths
    least = b - (matrices @ torch.linalg.pinv(matrices, rtol=1e-9) @ b.unsqueeze(-1)).squeeze(-1)
    assert abs(lengths[-1] - least.norm().item()) < 1e-6 * b.norm().item(), lengths


def test_applications_of_the_matrix_are_not_wasted() -> None:
    calls = 0

    def matrix(u: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return 2 * u

    b = torch.ones(2, 3)
    torch.testing.assert_close(solve(matrix, b, 50, 1e-6 * norm(b)), b / 2)
    assert calls == 1
    solve(lambda u: 0 * matrix(u), b, 50, 0 * norm(b))
    assert calls == 2, "no step helps"
