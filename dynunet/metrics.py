"""Figures of quality."""

import torch
from torch import Tensor


def frechet_distance(a: Tensor, b: Tensor) -> float:
    r"""Fréchet distance between Gaussians fitted to two sets of features (Heusel et al. 2017, eq. 6).

    .. math:: |\mu_a - \mu_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^{1/2})

    Args:
        a, b: features ``(N, D)`` with at least two rows each; any feature extractor may have made them.

    Returns:
        The squared distance, at least 0 up to rounding, in float64. It is biased upwards by the finite
        number of samples, so compare only distances of sets of similar size.

    Raises:
        ValueError: if the sets are not ``(N, D)`` with the same D and N at least 2.

    >>> import torch
    >>> x = torch.randn(100, 3)
    >>> round(frechet_distance(x, x + 1), 3)
    3.0
    """
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise ValueError(
            "a and b must be (N, D) with the same D and at least two rows, "
            f"got shapes {tuple(a.shape)} and {tuple(b.shape)}"
        )
    a, b = a.double(), b.double()
    cov_a, cov_b = (torch.cov(x.T).reshape(x.shape[1], x.shape[1]) for x in (a, b))
    # The eigenvalues of a product of two covariances are real and not negative.
    root = torch.linalg.eigvals(cov_a @ cov_b).real.clamp(min=0).sqrt().sum()
    return ((a.mean(0) - b.mean(0)).square().sum() + cov_a.trace() + cov_b.trace() - 2 * root).item()
