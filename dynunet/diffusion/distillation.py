"""Consistency models: from noise to data in one to four steps (Song et al. 2023).

The estimate of a diffusion model is the mean of the data that x may have come from. That of a consistency
model is one of them: the end of the path of the probability-flow ODE that leads through x, so that it is the
same all along a path, and x itself at its end. Such a model is tuned from a trained one (Geng et al. 2024,
*Consistency models made easy*), by making its estimate at a time t that at an earlier time r of the path:

    loss = weight(t) | f(x_t, t) - f(x_r, r) |

with f(x_r, r) without gradient, and x_r / alpha_r where sigma_r is 0. With the noise level s = sigma / alpha,
that of r is ``s_r = s_t (1 - n(s_t) / 2^a)``, or 0 if this is less, with ``n(s) = 1 + 8 sigmoid(-s)`` and a
from 2 to 8 in equal parts of the tuning: from few long steps, the last of them to the data, to steps so short
that paths are followed closely. Without a teacher x_r has the noise of x_t, which is right on average; with
one it is a step of :func:`..samplers.heun` along its path, and guidance of the teacher becomes part of the
student.

|.| is the root of the mean square over the entries of a sample. The weight is one over the prediction's gain
(:meth:`..predictions.Prediction.gains`), so that all noise levels count alike for the network's output.
"""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any, NoReturn

import torch
from torch import Tensor

from ..arguments import integer
from .losses import Elementwise, LogNormal
from .model import Diffusion
from .noise import Generators, randn
from .predictions import Prediction
from .sampling import evaluation_mode
from .schedules import ScheduleLike, as_schedule

STAGES = 7
_FIRST = 2  # a of the first one
_TIMES = LogNormal(-0.6, 1.8)  # noise levels in tuning: higher than the paper's -1.1, 2, for few steps
_SMALL = 1e-4  # error, below which the loss is quadratic


class Teacher:
    """A trained model that stays as it is: a copy of what has it, such as an average, has the same."""

    def __init__(self, model: Diffusion, **guidance: Any) -> None:
        self.model, self.guidance = model, guidance

    def __deepcopy__(self, memo: Any) -> "Teacher":
        return self

    def __call__(self, x: Tensor, t: Tensor, cond: Mapping[str, Any]) -> Tensor:
        """Its estimate of the data, on the device of x."""
        if next(self.model.parameters(), x).device != x.device:
            self.model.to(x.device)
        with evaluation_mode(self.model):
            return self.model.predict(x, t, **self.guidance, **cond)


class Consistency(Diffusion):
    """A diffusion model tuned to few steps, as :meth:`dynunet.Diffusion.distill` makes it.

    :meth:`sample` takes few steps of the sampler ``"consistency"``, :meth:`predict` gives the end of the path
    through x instead of the mean, and with it :meth:`denoise` and :meth:`sdedit` one of the possible results.
    What needs the mean, :meth:`reconstruct`, :meth:`inpaint` and :meth:`log_likelihood`, takes the model it
    was tuned from.

    Args:
        model, schedule, prediction, cond_dropout, sigma_data, zero_terminal_snr, shift, data: as of
            :class:`dynunet.Diffusion`.
        steps: of :meth:`sample`, where none are given.
    """

    teacher: Callable[[Tensor, Tensor, Mapping[str, Any]], Tensor] | None = None

    def __init__(
        self,
        model: Any,
        schedule: str | ScheduleLike = "cosine",
        prediction: str | Prediction = "v_prediction",
        cond_dropout: float = 0.1,
        *,
        sigma_data: float = 0.5,
        zero_terminal_snr: bool = False,
        shift: float = 1.0,
        data: Mapping[str, Any] | None = None,
        steps: int = 2,
    ) -> None:
        self.steps = integer(steps, "steps")
        more: dict[str, Any] = {"sigma_data": sigma_data, "zero_terminal_snr": zero_terminal_snr}
        super().__init__(model, schedule, prediction, None, cond_dropout, shift=shift, data=data, **more)

    @classmethod
    def of(cls, teacher: Diffusion, steps: int = 2, **guidance: Any) -> "Consistency":
        """A copy of a trained model, to be tuned.

        Args:
            teacher: the trained model.
            steps: see the class.
            guidance: options of :meth:`dynunet.Diffusion.predict`, of the teacher.
        """
        how = teacher.schedule, teacher.prediction, teacher.cond_dropout
        student = cls(deepcopy(teacher.model), *how, data=teacher.data, steps=steps)
        student.teacher = Teacher(deepcopy(teacher), **guidance)
        return student

    def loss(self, x0: Tensor, *, progress: float = 1.0, **more: Any) -> Tensor:
        """The mean of :meth:`loss_sum` over the entries that count."""
        total, count = self.loss_sum(x0, progress=progress, **more)
        return total / count.clamp(min=1)

    def loss_sum(
        self,
        x0: Tensor,
        *,
        mask: Tensor | None = None,
        loss: str | Elementwise = "l2",
        quantiles: Tensor | None = None,
        generator: Generators = None,
        progress: float = 1.0,
        **cond: Any,
    ) -> tuple[Tensor, Tensor]:
        """The error between two times of a path as a sum, and the number of its entries.

        Args:
            x0, mask, quantiles, generator, cond: see :meth:`dynunet.Diffusion.loss`.
            loss: left out.
            progress: in [0, 1], the part of the tuning that is done, which says how far apart the times are.
        """
        if loss != "l2":
            raise ValueError(f"loss must be left out for a Consistency, which has its own, got {loss!r}")
        x0, mask, quantiles, cond = self._examples(x0, mask, quantiles, generator, cond)
        times = _TIMES.times(quantiles, self.schedule).float()
        noise = randn(x0.shape, generator, x0.device, x0.dtype)
        cond = self._drop(cond, x0, generator)
        _, alpha, sigma = self._scales(times, x0)
        x = alpha * x0 + sigma * noise
        with torch.no_grad(), torch.random.fork_rng([x.device] if x.device.type == "cuda" else []):
            target = self._target(x0, noise, x, times, cond, progress)
        # With the same dropout as the target: the generators are as they were.
        error = (self._estimate(self.model, x, times, cond) - target).float()
        there = torch.ones_like(error) if mask is None else mask.to(error.dtype)
        axes = tuple(range(1, x.ndim))
        count = there.sum(axes, keepdim=True)
        square = torch.where(there > 0, error, 0).square().sum(axes, keepdim=True) / count.clamp(min=1)
        size = (square + _SMALL**2).sqrt() - _SMALL
        gain = self.prediction.gains(alpha, sigma)[0].float().clamp(min=_SMALL)
        return (count * size / gain).sum(), count.sum()

    def _target(
        self,
        x0: Tensor,
        noise: Tensor,
        x: Tensor,
        times: Tensor,
        cond: Mapping[str, Any],
        progress: float,
    ) -> Tensor:
        """The estimate at an earlier time of the path."""
        earlier = before(times, self.schedule, progress)
        _, alpha, sigma = self._scales(earlier, x0)
        if self.teacher is None:
            x = alpha * x0 + sigma * noise
        else:
            x = self._taught(self.teacher, x, times, earlier, cond)
        return torch.where(sigma > 0, self._estimate(self.model, x, earlier, cond), x / alpha)

    def _taught(
        self,
        teacher: Callable[..., Tensor],
        x: Tensor,
        times: Tensor,
        earlier: Tensor,
        cond: Mapping[str, Any],
    ) -> Tensor:
        """x at the earlier times, by one step of :func:`..samplers.heun` with the teacher."""
        _, alpha, sigma = self._scales(times, x)
        _, alpha_then, sigma_then = self._scales(earlier, x)
        least = torch.finfo(x.dtype).tiny
        x0 = teacher(x, times, cond)
        slope = (x - alpha * x0) / sigma.clamp(min=least)
        x = alpha_then * x0 + sigma_then * slope
        slope_then = (x - alpha_then * teacher(x, earlier, cond)) / sigma_then.clamp(min=least)
        ratio = sigma_then / alpha_then.clamp(min=least)
        factor = torch.minimum((sigma / alpha.clamp(min=least) - ratio) / 2, ratio)
        return torch.where(ratio > 0, x - alpha_then * factor * (slope_then - slope), x)

    def sample(
        self, shape: Sequence[int], steps: int | None = None, *, sampler: Any = "consistency", **options: Any
    ) -> Tensor:
        """Draw new data, see :meth:`dynunet.Diffusion.sample`, in the steps that the model was tuned to."""
        return super().sample(shape, self.steps if steps is None else steps, sampler=sampler, **options)

    def reconstruct(self, *given: Any, **options: Any) -> NoReturn:
        """Takes the mean of the data, which this model does not estimate."""
        _refuse("reconstruct and inpaint")

    def log_likelihood(self, *given: Any, **options: Any) -> NoReturn:
        """Takes the mean of the data, which this model does not estimate."""
        _refuse("log_likelihood")


def before(times: Tensor, schedule: ScheduleLike, progress: float) -> Tensor:
    """The earlier times of a path, see the module.

    Args:
        times: ``(N,)``.
        schedule: ``alpha, sigma = schedule(t)``.
        progress: in [0, 1], the part of the tuning that is done.

    Returns:
        ``(N,)``, float64 on the CPU; 0 where nothing is left.
    """
    alpha, sigma = schedule(times.cpu().double())
    level = sigma / alpha
    stage = _FIRST + min(int(progress * STAGES), STAGES - 1)
    share = (1 - (1 + 8 * torch.sigmoid(-level)) / 2**stage).clamp(min=0)
    return as_schedule(schedule).time(-2 * (level * share).log())


def _refuse(what: str) -> NoReturn:
    raise TypeError(f"{what} takes the mean of the data: ask the model that this one was tuned from")
