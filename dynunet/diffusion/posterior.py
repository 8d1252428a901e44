r"""Posterior sampling: data that a measurement ``y = A(x_0) + noise`` may have been made of.

Given y the score of x_t is that of the data plus ``grad log p(y | x_t)`` (Bayes), and so the estimate of x_0
that a sampler needs is

    E[x_0 | x_t, y] = D + sigma^2 / alpha  grad log p(y | x_t),        D = E[x_0 | x_t].

Each method is a guess of p(x_0 | x_t), which gives p(y | x_t). It changes the estimate alone, so that every
sampler works with it as it is. With J the Jacobian of D, the covariance of x_0 given x_t is

    V = sigma^2 / alpha  J,

and ``sigma^2 / alpha J^T v`` is one vector-Jacobian product: the network is evaluated once, and its graph
used again. In pure noise, where alpha is 0, J says nothing about V; there the estimate is that at the
noisiest level of the spacings.

    mmps        p(x_0 | x_t) = N(D, V)                  exact for Gaussian data
    pigdm       p(x_0 | x_t) = N(D, r_t^2 I)
    dps         p(x_0 | x_t) is D alone
    repaint     no likelihood: known entries replace the estimate, for masks without noise

An operator that is not linear is replaced by its tangent at D.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from math import expm1
from typing import Any

import torch
from torch import Tensor

from convnd.arguments import integer

from .._solvers import norm, solve
from ..arguments import number, positive
from ..config import Data
from ..operators import Mask, Operator
from .guidance import threshold
from .measurement import Measurement, Tangent
from .restoration import inpainting
from .schedules import ScheduleLike
from .spacing import with_signal
from .steps import Denoise, Level, Sampler, level

_TOLERANCE = 1e-3


class Guidance(Data, ABC):
    """A method that adds to the estimate; called with a sampler, it gives one that samples the posterior."""

    tolerance: float = _TOLERANCE

    @abstractmethod
    def correction(self, at: Tangent) -> Tensor:
        """``sigma^2 / alpha grad log p(y | x_t)``, in the shape of the data."""

    def __call__(
        self, sampler: Sampler, measurement: Measurement, clip: float | str | None = None
    ) -> Sampler:
        """A sampler of the posterior.

        Args:
            sampler: any sampler.
            measurement: what is known of the data.
            clip: keeps estimates in range, see :func:`dynunet.diffusion.threshold`.
        """

        @wraps(sampler)  # with the same options
        def run(
            denoise: Denoise,
            x: Tensor,
            schedule: ScheduleLike,
            times: Tensor,
            *args: Any,
            **options: Any,
        ) -> Tensor:
            finite = _Finite(measurement.operator)

            @wraps(denoise)  # with its attributes, such as time_device
            def conditioned(x: Tensor, t: Tensor) -> Tensor:
                if not len(x):
                    return denoise(x, t)
                now = level(schedule, t[0].item())
                at = with_signal(schedule, now)
                with torch.inference_mode(False), torch.enable_grad():
                    tangent = Tangent(
                        denoise,
                        measurement,
                        at.sigma / now.sigma * x,
                        torch.full_like(t, at.t),
                        (at.alpha, at.sigma),
                        pull(schedule, times, now),
                    )
                    x0 = tangent.x0 + self.correction(tangent)
                finite.note(x0, tangent)
                return threshold(x0, clip)

            out = sampler(conditioned, x, schedule, times, *args, **options)
            finite.check()
            return measurement.kept(out, self.tolerance)

        return run


@dataclass(frozen=True)
class _Solving(Guidance):
    """A method that solves a linear equation for each estimate."""

    max_iterations: int
    tolerance: float = _TOLERANCE

    def __post_init__(self) -> None:
        integer(self.max_iterations, "max_iterations")
        number(self.tolerance, "tolerance", 0, 1)

    def solved(self, matrix: Callable[[Tensor], Tensor], at: Tangent, memory: int | None = None) -> Tensor:
        """u with ``matrix(u) = y - A D``, each entry in units of about its standard deviation.

        These matter where the noise is not alike everywhere: else entries with much of it hide the others.
        """
        weight = (at.variances + _spread(at)).rsqrt()
        b = weight * at.residual

        def weighted(u: Tensor) -> Tensor:
            return weight * matrix(weight * u)

        return weight * solve(weighted, b, self.max_iterations, self.tolerance * norm(b), memory)


@dataclass(frozen=True)
class MMPS(_Solving):
    """Moment matching posterior sampling (Rozet et al. 2024, section 4.2, eq. 19 to 22).

    With p(x_0 | x_t) = N(D, V), and V = sigma^2 / alpha J by Tweedie's formula, the measurement is
    N(A D, S + A V A^T), where S is the covariance of the noise, and

        E[x_0 | x_t, y] = D + V A^T u,        (S + A V A^T) u = y - A D.

    The equation is solved with products alone, one vector-Jacobian product of the network each. The paper
    uses conjugate gradients; those here need no symmetry, which the Jacobian of a network lacks.

    Args:
        max_iterations: of the solver, in each evaluation of the network.
        tolerance: of the residual of that equation, relative to its right side: a sample stops there.
    """

    max_iterations: int = 3

    def correction(self, at: Tangent) -> Tensor:
        def matrix(u: Tensor) -> Tensor:
            return at.variances * u + at.measured(at.covariance(at.adjoint(u)))

        u = self.solved(matrix, at)
        return at.covariance(at.adjoint(u))


@dataclass(frozen=True)
class PiGDM(_Solving):
    """Pseudoinverse-guided diffusion (Song et al. 2023, section 3).

    With p(x_0 | x_t) = N(D, r_t^2 I) and r_t^2 = sigma^2 / (alpha^2 + sigma^2), right for white data of unit
    variance, the measurement is N(A D, r_t^2 A A^T + S), and

        E[x_0 | x_t, y] = D + V A^T (r_t^2 A A^T + S)^-1 (y - A D).

    The equation is solved without the network, which takes one vector-Jacobian product.

    Args:
        max_iterations: of the solver.
        tolerance: of the residual of that equation, relative to its right side: a sample stops there.
    """

    max_iterations: int = 30

    def correction(self, at: Tangent) -> Tensor:
        spread = _spread(at)

        def matrix(u: Tensor) -> Tensor:
            return at.variances * u + spread * at.measured(at.adjoint(u))

        u = self.solved(matrix, at, memory=1)  # the matrix is symmetric
        return at.covariance(at.adjoint(u))


@dataclass(frozen=True)
class DPS(Guidance):
    """Diffusion posterior sampling (Chung et al. 2023, eq. 16 and algorithm 1).

    p(y | x_t) is p(y | x_0 = D), and a step of ancestral sampling to x' is followed by

        x' <- x' - scale grad ||y - A D||,

    the gradient with respect to x_t (the paper's step size is ``scale / ||y - A D||`` times the gradient of
    the square, up to a factor of 2). Here the estimate changes by as much as moves x' by that. The level of
    the noise is not used: the scale stands for it.

    Args:
        scale: length of the steps, the paper's zeta', there between 0.3 and 1 in a thousand steps.
    """

    scale: float = 1.0

    def __post_init__(self) -> None:
        positive(self.scale, "scale")

    def correction(self, at: Tangent) -> Tensor:
        length = norm(at.residual)
        direction = torch.where(length > 0, at.residual / torch.where(length > 0, length, 1), 0)
        to_gradient = at.alpha / at.sigma**2  # V is the Jacobian times its inverse
        return self.scale / at.pull * to_gradient * at.covariance(at.adjoint(direction))


@dataclass(frozen=True)
class RePaint(Data):
    """RePaint (Lugmayr et al. 2022, algorithm 1), for masks without noise.

    Args:
        resamplings, jump: see :func:`dynunet.diffusion.inpainting`.
    """

    resamplings: int = 4
    jump: int = 1

    def __post_init__(self) -> None:
        integer(self.resamplings, "resamplings")
        integer(self.jump, "jump")

    def __call__(
        self, sampler: Sampler, measurement: Measurement, clip: float | str | None = None
    ) -> Sampler:
        """A sampler that keeps known entries; the arguments are those of :class:`Guidance`."""
        operator, y = measurement.operator, measurement.y
        if not isinstance(operator, Mask):
            raise ValueError(f"method 'repaint' fills masks alone, operator must be a Mask, got {operator}")
        if measurement.noisy:
            raise ValueError("method 'repaint' keeps what is measured, noise_std must be 0")
        known = measurement.known & operator.measured(y)

        @wraps(sampler)
        def run(denoise: Denoise, x: Tensor, *args: Any, **options: Any) -> Tensor:
            @wraps(denoise)
            def in_range(x: Tensor, t: Tensor) -> Tensor:
                return threshold(denoise(x, t), clip)

            all_y, all_known = (measurement.repeated(value, x) for value in (y, known))
            painting = inpainting(sampler, all_y, all_known, self.resamplings, self.jump)
            return painting(in_range, x, *args, **options)

        return run


Method = Callable[..., Sampler]
METHODS: dict[str, Method] = {"mmps": MMPS(), "pigdm": PiGDM(), "dps": DPS(), "repaint": RePaint()}


def _spread(at: Tangent) -> float:
    """r_t^2, the variance of x_0 given x_t for white data of unit variance."""
    return at.sigma**2 / (at.alpha**2 + at.sigma**2)


def pull(schedule: ScheduleLike, times: Tensor, now: Level) -> float:
    """The factor of x_0 in a step of ancestral sampling (Ho et al. 2020, eq. 7) to the next of the times."""
    later = times[times < now.t * (1 - 1e-6)]
    then = level(schedule, later.max().item() if len(later) else 0.0)
    return then.alpha * -expm1(-2 * (then.log_ratio - now.log_ratio))


class _Finite:
    """Refuses estimates that are not finite, and says where that comes from.

    On the CPU at once; elsewhere at the end of the run, as it would wait for the device at every step.
    """

    def __init__(self, operator: Operator) -> None:
        self.operator = operator
        self.counts: list[Tensor] = []  # entries that are not, of an estimate and of that without measurement

    def note(self, x0: Tensor, at: Tangent) -> None:
        self.entries = x0.numel()
        self.counts.append(torch.stack([(~t.isfinite()).sum() for t in (x0, at.x0)]))
        if x0.device.type == "cpu":
            self.check()

    def check(self) -> None:
        rows = torch.stack(self.counts).tolist() if self.counts else []
        self.counts = []
        for wrong, of_model in rows:
            if wrong:
                source = (
                    "model must give finite estimates"
                    if of_model
                    else f"the derivative of {self.operator} must be finite"
                )
                raise ValueError(f"{source}, got {wrong} of {self.entries} entries that are NaN or infinite")
