"""A measurement as posterior sampling sees it, and its tangent at an estimate of the data."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..operators import Operator
from .steps import Denoise


@dataclass(frozen=True, eq=False)
class Measurement:
    """What has been measured of N samples; methods may ask it about several times as many.

    Args:
        y: ``(N, C, *spatial)``, finite.
        operator: what made it of the data.
        variance: of the noise, a tensor that broadcasts against y.
        known: bool, of the shape of y, False where it is missing.
        noisy: whether any variance is above 0.
    """

    y: Tensor
    operator: Operator
    variance: Tensor
    known: Tensor
    noisy: bool

    def residual(self, x: Tensor) -> Tensor:
        """How far the measurements of x, ``(k N, ...)``, are from y; 0 where y is missing."""
        parts = [self.operator.residual(part, self.y) for part in self._parts(x)]
        return torch.where(self.repeated(self.known, x), torch.cat(parts), 0)

    def variances(self, residual: Tensor) -> Tensor:
        """The variance of each entry of a residual: of the noise, and by the operator itself."""
        total = self.variance + self.operator.variance
        return self.repeated(total.expand_as(self.y), residual)

    def repeated(self, value: Tensor, x: Tensor) -> Tensor:
        """A value for each measurement as one for each sample of x."""
        return value.repeat(len(x) // max(len(value), 1), *(1,) * (value.ndim - 1))

    def kept(self, x: Tensor, tolerance: float) -> Tensor:
        """x, with what has been measured without noise kept."""
        exact = self.known & (self.variance == 0)
        if not exact.any():
            return x
        parts = [self.operator.project(part, self.y, exact, tolerance) for part in self._parts(x)]
        return torch.cat(parts)

    def _parts(self, x: Tensor) -> tuple[Tensor, ...]:
        return x.split(max(len(self.y), 1))


class Tangent:
    """The estimate at noisy data, the residual of the measurement there, and their derivatives.

    Attributes:
        x0: the estimate D.
        residual: ``r = y - A(D)``.
        variances: of the noise in each entry of r.
        alpha, sigma: the scales of x_t.
        pull: by how much a step of ancestral sampling from here moves x for a change of the estimate.
    """

    def __init__(
        self,
        denoise: Denoise,
        measurement: Measurement,
        x: Tensor,
        t: Tensor,
        scales: tuple[float, float],
        pull: float,
    ) -> None:
        (self.alpha, self.sigma), self.pull = scales, pull
        self._x = x.detach().clone().requires_grad_()
        self._x0 = denoise(self._x, t)
        if not self._x0.requires_grad:
            raise ValueError("model must be differentiable: its estimate has no gradient with respect to x_t")
        self.x0 = self._x0.detach().to(x.dtype)
        self._leaf = self.x0.clone().requires_grad_()
        residual = measurement.residual(self._leaf)
        if not residual.requires_grad:
            raise ValueError(f"operator must be differentiable, got {measurement.operator}")
        self.residual, self.variances = residual.detach(), measurement.variances(residual)
        self._graph = residual
        # The derivative of a vector-Jacobian product with respect to its vector is the Jacobian.
        self._vector = torch.zeros_like(residual, requires_grad=True)
        self._product = torch.autograd.grad(residual, self._leaf, self._vector, create_graph=True)[0]

    def measured(self, v: Tensor) -> Tensor:
        """A v, with the Jacobian of the operator at D."""
        return -torch.autograd.grad(self._product, self._vector, v, retain_graph=True)[0]

    def adjoint(self, u: Tensor) -> Tensor:
        """A^T u."""
        return -torch.autograd.grad(self._graph, self._leaf, u, retain_graph=True)[0]

    def covariance(self, v: Tensor) -> Tensor:
        """V v: a vector-Jacobian product with the network."""
        (product,) = torch.autograd.grad(self._x0, self._x, v.to(self._x0.dtype), retain_graph=True)
        return self.sigma**2 / self.alpha * product
