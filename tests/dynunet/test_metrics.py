"""Figures of quality against closed forms and SciPy."""

import numpy as np
import pytest
import scipy.linalg
import torch

from dynunet.metrics import frechet_distance


def test_frechet_distance_equals_the_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(200, 5, generator=generator, dtype=torch.float64) @ torch.randn(
        5, 5, generator=generator, dtype=torch.float64
    )
    b = 1 + torch.randn(100, 5, generator=generator, dtype=torch.float64)
    ca, cb = np.cov(a.numpy().T), np.cov(b.numpy().T)
    root = np.real(np.asarray(scipy.linalg.sqrtm(ca @ cb)))
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum().item() + np.trace(ca + cb - 2 * root)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-8)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-6)


def test_bad_features_are_refused() -> None:
    with pytest.raises(ValueError, match="same D and at least two rows"):
        frechet_distance(torch.zeros(1, 2), torch.zeros(5, 2))
