r"""Likelihood: the density that a model gives data, by the probability-flow ODE (Song et al. 2021, eq. 39).

That ODE, which the deterministic samplers solve, carries noisy data to the noise at time 1, whose density is
known; along it the log density changes by the divergence of the slope. With y = x / alpha, r = sigma / alpha
and D = E[x_0 | x] it is dy/dr = (y - D) / r. Here it is integrated for

    w = y / sqrt(1 + r^2)       over        tau = -asinh(1 / r),

where nothing is singular: w is x itself in a schedule that preserves the variance, equal steps of tau are
equal factors of r where there is little noise, and in pure noise tau is 0. For n entries

    dw / dtau = -tanh(tau) w - D,       d log p(w) / dtau = n tanh(tau) + tr dD/dw.

The method has five stages and order four (Spiteri and Ruuth 2002, SSPRK(5,4)). All of them lie before the end
of a step, so that the network is not asked about pure noise, where the prediction ``epsilon`` says nothing of
the data. Steps do not adapt to the data, so that a value does not depend on the batch.

The trace is exact, by one vector-Jacobian product for each entry, or estimated as the mean of ``v^T J v``
over probes v of random signs (Hutchinson 1989). Each is the same along the whole way (Grathwohl et al. 2019),
so that it gives one value of the density, and the scatter of these a standard error of their mean.

Which density: that of ``x_0 + sigma noise``, for a small sigma above 0. Data that takes few values, or lies
on a surface, has no density itself: with less and less noise it grows without limit, by log(1 / sigma) for
every direction in which the data has no extent. Where there is a density that is smooth on the scale of sigma
the two are nearly the same: for Gaussian data up to about sigma^2 / (2 std^2) for each entry.
"""

from collections.abc import Callable
from math import asinh, cosh, exp, log, pi, sqrt, tanh
from typing import NamedTuple

import torch
from torch import Tensor

from convnd.arguments import integer

from ..ensembles import std
from ..progress import Bar
from .checks import check_data, check_finite
from .noise import Noise, randn
from .restoration import time_of
from .schedules import ScheduleLike, as_schedule
from .spacing import FIRST_STEP
from .steps import Denoise, Level, estimate, level

EXACT = 256  # entries of a sample up to which the trace is exact by default
PROBES = 16  # otherwise

# The coefficients of the stages, and of the step.
_STAGES = (
    (),
    (0.391752226571890,),
    (0.217669096261169, 0.368410593050371),
    (0.082692086657811, 0.139958502191895, 0.251891774271694),
    (0.067966283637115, 0.115034698504632, 0.207034898597386, 0.544974750228521),
)
_STEP = (0.146811876084786, 0.248482909444976, 0.104258830331981, 0.274438900901350, 0.226007483236906)

Trace = Callable[[Tensor, Tensor], Tensor]  # of the derivative of x_0 by x: (K, N), one for each of K probes


@torch.inference_mode(False)
@torch.no_grad()
def log_likelihood(
    denoise: Denoise,
    x: Tensor,
    schedule: ScheduleLike,
    steps: int = 50,
    *,
    sigma: float | None = None,
    probes: int | None = None,
    generator: Noise = None,
    progress: bool = False,
) -> tuple[Tensor, Tensor]:
    """The log density of data under any denoiser.

    Args:
        denoise: ``denoise(x, t) -> x_0`` estimate, differentiable, with ``t`` of shape ``(N,)``.
        x: data ``(N, C, *spatial)``.
        schedule: ``alpha, sigma = schedule(t)``; noise at time 1 has the standard deviation sigma(1).
        steps, sigma, probes, generator, progress: see :meth:`dynunet.Diffusion.log_likelihood`.

    Returns:
        The value in nats and its standard error (0 with an exact trace, NaN with one probe), ``(N,)`` each.

    >>> import torch
    >>> from dynunet.diffusion import Cosine
    >>> from dynunet.testing import Gaussian
    >>> data = Gaussian(mean=0.5, std=0.2)
    >>> value, _ = log_likelihood(data.denoiser(Cosine()), torch.full((1, 1, 2), 0.6), Cosine(), steps=20)
    >>> expected = torch.distributions.Normal(0.5, 0.2).log_prob(torch.full((1, 1, 2), 0.6)).sum()
    >>> round(value.item(), 3) == round(expected.item(), 3)
    True
    """
    check_data(x, "x", denoise)
    check_finite(x, "x")
    steps = integer(steps, "steps")
    first = level(schedule, FIRST_STEP if sigma is None else time_of(schedule, sigma))
    trace = _trace(x, probes, generator)
    wide = x.detach().to(torch.promote_types(x.dtype, torch.float32), copy=True)
    values, exact = _log_density(denoise, wide, schedule, first, steps, trace, progress), trace is _exact
    value, k = values.mean(0), len(values)
    if exact or k == 1:
        return value, torch.full_like(value, 0 if exact else torch.nan)
    return value, std(values) / sqrt(k)


def _log_density(
    denoise: Denoise,
    x: Tensor,
    schedule: ScheduleLike,
    first: Level,
    steps: int,
    trace: Trace,
    progress: bool,
) -> Tensor:
    """The log density of data with the noise of the first level, by each probe: ``(K, N)``."""
    n = x.shape[1:].numel()
    begin, end = (-asinh(exp(at.log_ratio)) for at in (first, level(schedule, 1.0)))
    h = (end - begin) / steps
    places = _places(schedule, begin, h, steps)

    def slope(w: Tensor, at: _Place) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            noisy = (at.scale * w).requires_grad_()
            x0 = estimate(denoise, noisy, at.t)
            if not x0.requires_grad:
                raise ValueError("model must be differentiable: its estimate has no gradient by x_t")
            traces = trace(x0, noisy)
        return -tanh(at.tau) * w - x0.detach(), n * tanh(at.tau) + at.scale * traces

    w, change = -tanh(begin) * x, x.new_zeros(())
    for step in Bar(range(steps), desc="likelihood", leave=False, delay=1, disable=not progress):
        slopes: list[tuple[Tensor, Tensor]] = []
        for row, at in zip(_STAGES, places[step], strict=True):
            near = sum((h * a * dw for a, (dw, _) in zip(row, slopes, strict=True)), w)
            slopes.append(slope(near, at))
        for b, (dw, dl) in zip(_STEP, slopes, strict=True):
            w, change = w + h * b * dw, change + h * b * dl
    noise = cosh(end) * w
    at_end = -0.5 * (noise.square().flatten(1).sum(1) + n * log(2 * pi)) + n * log(cosh(end))
    return at_end - change + n * log(-tanh(begin))


class _Place(NamedTuple):
    """Where the denoiser is evaluated, and x for a w of 1 there."""

    tau: float
    t: float
    scale: float


def _places(schedule: ScheduleLike, begin: float, h: float, steps: int) -> list[list[_Place]]:
    """Those of each step."""
    within = torch.tensor([sum(row) for row in _STAGES], dtype=torch.float64)
    tau = (begin + h * (torch.arange(steps, dtype=torch.float64).unsqueeze(1) + within)).flatten()
    t = as_schedule(schedule).time(2 * (-tau.sinh()).log())
    alpha, sigma = schedule(t)
    rows = list(map(_Place, tau.tolist(), t.tolist(), torch.hypot(alpha, sigma).tolist()))
    return [rows[i : i + len(within)] for i in range(0, len(rows), len(within))]


def _trace(x: Tensor, probes: int | None, generator: Noise) -> Trace:
    """The trace of a Jacobian, exact where there are no more entries than products to take."""
    n = x.shape[1:].numel()
    if probes is None:
        probes = EXACT if n <= EXACT else PROBES
    if integer(probes, "probes") >= n:
        return _exact
    drawn = randn((len(x), probes, *x.shape[1:]), generator, x.device, torch.float32)
    signs = torch.where(drawn < 0, -1.0, 1.0).to(torch.promote_types(x.dtype, torch.float32)).transpose(0, 1)

    def estimated(x0: Tensor, x: Tensor) -> Tensor:
        products = (torch.autograd.grad(x0, x, v, retain_graph=True)[0] * v for v in signs)
        return torch.stack([product.detach().flatten(1).sum(1) for product in products])

    return estimated


def _exact(x0: Tensor, x: Tensor) -> Tensor:
    rows = x0.flatten(1)
    total = x.new_zeros(len(x))
    for i in range(rows.shape[1]):
        (row,) = torch.autograd.grad(rows[:, i].sum(), x, retain_graph=True)
        total += row.flatten(1)[:, i]
    return total.unsqueeze(0)
