"""A solver of linear equations for every sample of a batch on its own."""

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["dot", "norm", "solve"]

_ROUNDING = 100  # units of rounding in a product, relative to the norm of the matrix
_OFTEN = 8  # iterations after which a device is waited for, to see whether all samples are done


def solve(
    matrix: Callable[[Tensor], Tensor],
    b: Tensor,
    max_iterations: int,
    enough: Tensor,
    memory: int | None = None,
) -> Tensor:
    """Solve ``matrix(u) = b`` by generalised conjugate residuals (Eisenstat, Elman and Schultz 1983).

    In exact arithmetic this is GMRES: the matrix need not be symmetric, the residual never grows, and where
    there is no solution it becomes the smallest possible. Each sample stops on its own, so that its result
    does not depend on the others in the batch.

    Args:
        matrix: the linear map, for a batch; each sample of the result must depend on that sample alone.
        b: ``(N, ...)``.
        max_iterations: applications of the matrix at most.
        enough: a sample is done when its residual has at most this length, ``(N, 1, ...)``.
        memory: number of earlier directions to stay conjugate to; all by default. One is enough for a
            symmetric matrix, and takes less memory.

    Returns:
        u, in the shape of b.
    """
    u, residual = torch.zeros_like(b), b
    active, scale = torch.ones_like(enough, dtype=torch.bool), torch.zeros_like(enough)
    tiny = torch.finfo(b.dtype).tiny
    directions: list[tuple[Tensor, Tensor]] = []  # p and matrix(p), the latter of length 1
    often = 1 if b.device.type == "cpu" else _OFTEN
    for i in range(max_iterations):
        active = active & (norm(residual) > enough)
        if (i + 1) % often == 0 and not active.any():
            break
        p, image = residual, matrix(residual)
        scale = torch.maximum(scale, norm(image) / norm(p).clamp(min=tiny))
        for earlier, its_image in directions:
            share = dot(image, its_image)
            p, image = p - share * earlier, image - share * its_image
        # What is left may be rounding, where the matrix is singular: no step helps there.
        length = norm(image)
        active = active & (length > _ROUNDING * torch.finfo(b.dtype).eps * scale * norm(residual))
        inverse = torch.where(active, 1 / length.clamp(min=tiny), 0)
        p, image = inverse * p, inverse * image
        step = dot(residual, image)
        u, residual = u + step * p, residual - step * image
        directions.append((p, image))
        if memory is not None:
            del directions[:-memory]
    return u


def dot(a: Tensor, b: Tensor) -> Tensor:
    """The inner product of each sample, ``(N, 1, ...)`` to multiply it with."""
    return (a * b).flatten(1).sum(1).view(-1, *(1,) * (a.ndim - 1))


def norm(a: Tensor) -> Tensor:
    """The length of each sample, ``(N, 1, ...)``."""
    return torch.linalg.vector_norm(a.flatten(1), dim=1).view(-1, *(1,) * (a.ndim - 1))
