"""What all operators have in common, and the general ones: a function, and one operator after another.

The adjoint of every linear operator is the derivative that autograd takes of it, which for convolutions,
pooling and Fourier transforms is their exact adjoint.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .._solvers import norm, solve
from ..arguments import flag

_ITERATIONS = 100  # of a projection at most


class Operator(ABC):
    """A measurement: data ``(N, C, *spatial)`` to ``(N, ...)`` of the same dtype and number of axes.

    A subclass defines :meth:`measure`; all else follows, and may be overridden.
    """

    @property
    def linear(self) -> bool:
        """Whether it is linear, and so has an adjoint."""
        return False

    @property
    def variance(self) -> float:
        """Variance that :meth:`residual` has by the measurement itself, besides the noise."""
        return 0.0

    @abstractmethod
    def measure(self, x: Tensor) -> Tensor:
        """A(x), differentiable, for x that has been checked."""

    def __call__(self, x: Tensor) -> Tensor:
        """A(x).

        Raises:
            ValueError, TypeError: if x does not fit the operator, or the operator changes dtype, batch or
                number of axes, or on the CPU makes NaN or infinity of finite data.
        """
        out = self._measured(x)
        if x.device.type != "cpu":  # it would wait for the device at every evaluation
            return out
        if not out.isfinite().all() and x.isfinite().all():
            wrong = int((~out.isfinite()).sum())
            raise ValueError(
                f"{self} must measure finite data as finite, got {wrong} of {out.numel()} entries that are "
                f"NaN or infinite"
            )
        return out

    def adjoint(self, y: Tensor, shape: Sequence[int] | None = None) -> Tensor:
        """A^T y of a linear operator.

        Args:
            y: of the shape of a measurement.
            shape: of the data, ``(N, C, *spatial)``; by default as :meth:`data_shape` says.

        Returns:
            A tensor of that shape.

        Raises:
            ValueError: if the operator is not linear, or y does not have the shape of a measurement.
        """
        if not self.linear:
            raise ValueError(f"operator must be linear to have an adjoint, got {self}")
        with torch.inference_mode(False), torch.enable_grad():
            y = y.clone() if y.is_inference() else y
            size = self.data_shape(y.shape) if shape is None else tuple(shape)
            x = torch.zeros(size, dtype=y.dtype, device=y.device, requires_grad=True)
            out = self._measured(x)
            check_measurement(y, self, out.shape, size)
            return torch.autograd.grad(out, x, y, create_graph=y.requires_grad)[0]

    def data_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The shape of data whose measurement has a shape; unless overridden the same.

        Raises:
            ValueError: if a measurement does not tell the shape of its data.
        """
        return tuple(shape)

    def check(self, y: Tensor, shape: Sequence[int]) -> None:
        """Refuse y that is not a measurement of data of a shape.

        Raises:
            ValueError, TypeError: naming what does not fit.
        """
        x = torch.zeros(tuple(shape), dtype=y.dtype, device=y.device)
        check_measurement(y, self, self._measured(x).shape, x.shape)

    def residual(self, x: Tensor, y: Tensor) -> Tensor:
        """How far A(x) is from y, differentiable in x: ``y - A(x)``."""
        return y - self(x)

    def project(self, x: Tensor, y: Tensor, known: Tensor, tolerance: float) -> Tensor:
        """The data nearest to x with the measurement y, ``x + A^T (A A^T)^-1 (y - A x)``.

        One step of the solver is exact where A A^T is a multiple of the identity: for averages, Fourier
        coefficients and every so many entries. Not linear operators leave x as it is, unless they override
        this.

        Args:
            x: data.
            y: its measurement.
            known: bool of the shape of y, False where y is not to be kept.
            tolerance: of other linear operators: what may remain of the residual, as a fraction of y.
        """
        if not self.linear:
            return x

        def adjoint(u: Tensor) -> Tensor:
            return self.adjoint(torch.where(known, u, 0), x.shape)

        def both(u: Tensor) -> Tensor:
            return torch.where(known, self(adjoint(u)), 0)

        size = norm(torch.where(known, y, 0))
        for iterations, enough in ((1, 0.0), (_ITERATIONS, tolerance)):
            missing = torch.where(known, y - self(x), 0)
            x = x + adjoint(solve(both, missing, iterations, enough * size, memory=1))
        return x

    def _measured(self, x: Tensor) -> Tensor:
        """A(x), whatever its values are."""
        if not isinstance(x, Tensor) or not x.is_floating_point():
            got = f"dtype {x.dtype}" if isinstance(x, Tensor) else type(x).__name__
            raise TypeError(f"data must be a floating-point tensor for {self}, got {got}")
        if x.ndim < 2:
            raise ValueError(f"data must be (N, C, *spatial) for {self}, got shape {tuple(x.shape)}")
        out: Any = self.measure(x)
        if not isinstance(out, Tensor):
            raise TypeError(f"{self} must return a tensor, got {type(out).__name__}")
        if out.dtype != x.dtype:
            raise ValueError(f"{self} must return the dtype of the data, {x.dtype}, got {out.dtype}")
        if out.ndim != x.ndim or len(out) != len(x):
            raise ValueError(
                f"{self} must return (N, C, *spatial) with the axes and samples of the data, "
                f"{tuple(x.shape)}, got {tuple(out.shape)}"
            )
        return out

    def __repr__(self) -> str:
        given = vars(self).items()
        return f"{type(self).__name__}({', '.join(f'{name}={_brief(value)}' for name, value in given)})"


class LinearOperator(Operator):
    """An operator that is linear."""

    @property
    def linear(self) -> bool:
        return True


class Function(Operator):
    """Any differentiable function of data ``(N, C, *spatial)``, sample by sample.

    Args:
        function: a callable from tensor to tensor, which keeps the dtype, N and the number of axes.
        linear: whether it is linear, and so has an adjoint.
    """

    def __init__(self, function: Callable[[Tensor], Tensor], linear: bool = False) -> None:
        if isinstance(function, type) or not callable(function):
            raise TypeError(f"function must be a function of data, got {function!r}")
        self.function = function
        self._linear = flag(linear, "linear")

    @property
    def linear(self) -> bool:
        return self._linear

    def measure(self, x: Tensor) -> Tensor:
        return self.function(x)

    def data_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        raise ValueError(f"shape must be given: the measurement of {self} does not tell that of the data")

    def __repr__(self) -> str:
        return f"Function({_brief(self.function)}{', linear=True' * self.linear})"


class Compose(Operator):
    """Operators one after another, the first one first.

    Args:
        operators: at least one; functions are taken as :class:`Function`.
    """

    def __init__(self, *operators: Operator | Callable[[Tensor], Tensor]) -> None:
        if not operators:
            raise ValueError("operators must be at least one, got none")
        self.operators = tuple(as_operator(operator) for operator in operators)

    @property
    def linear(self) -> bool:
        return all(operator.linear for operator in self.operators)

    @property
    def variance(self) -> float:
        return self.operators[-1].variance

    def measure(self, x: Tensor) -> Tensor:
        for operator in self.operators:
            x = operator(x)
        return x

    def data_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        for operator in reversed(self.operators):
            shape = operator.data_shape(shape)
        return tuple(shape)

    def residual(self, x: Tensor, y: Tensor) -> Tensor:
        for operator in self.operators[:-1]:
            x = operator(x)
        return self.operators[-1].residual(x, y)

    def project(self, x: Tensor, y: Tensor, known: Tensor, tolerance: float) -> Tensor:
        alone = self.operators[0] if len(self.operators) == 1 else super()
        return alone.project(x, y, known, tolerance)

    def __repr__(self) -> str:
        return f"Compose({', '.join(map(repr, self.operators))})"


def as_operator(operator: Any) -> Operator:
    """An operator as it is, any other callable as :class:`Function`."""
    return operator if isinstance(operator, Operator) else Function(operator)


def check_measurement(y: Tensor, operator: Operator, wanted: Sequence[int], shape: Sequence[int]) -> None:
    """Refuse y of another shape than the operator makes of data."""
    if tuple(y.shape) != tuple(wanted):
        raise ValueError(
            f"y must have the shape that {operator} makes of data of shape {tuple(shape)}, {tuple(wanted)}, "
            f"got {tuple(y.shape)}"
        )


def _brief(value: Any) -> str:
    """A value in an error: of a tensor, its shape."""
    if isinstance(value, Tensor):
        return f"tensor of shape {tuple(value.shape)}"
    if isinstance(value, (list, tuple)):
        return f"({', '.join(map(_brief, value))})"
    return getattr(value, "__name__", repr(value))
