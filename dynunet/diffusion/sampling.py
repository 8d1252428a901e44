"""A run of a sampler: the sampler by its name and options, evaluation mode, a progress bar."""

import inspect
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch._functorch.config as functorch_config
from torch import Tensor, nn

from ..arguments import real
from ..progress import Bar
from .checks import look_up
from .guidance import Estimate, threshold
from .samplers import SAMPLERS
from .schedulers import from_scheduler, is_scheduler
from .steps import Callback, Sampler


@dataclass(frozen=True)
class Denoiser:
    """The denoiser of a sampler: an estimate with its conditions, kept in range; times on the CPU."""

    estimate: Estimate
    cond: Mapping[str, Any]
    clip: float | str | None
    time_device: str = "cpu"

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        return threshold(self.estimate(x, t, self.cond), self.clip)


def as_sampler(sampler: Any, eta: Any = None) -> Sampler:
    """A sampler by its name, as a function, or as a scheduler object of diffusers, with its eta."""
    scheduler = is_scheduler(sampler)
    run: Any = look_up(sampler, SAMPLERS, "sampler") if isinstance(sampler, str) else sampler
    step: Any = run.step if scheduler else run
    if not callable(step):
        raise TypeError(
            f"sampler must be a name, a function or a scheduler of diffusers, got a {type(sampler).__name__}"
        )
    if eta is None:
        return from_scheduler(run) if scheduler else cast(Sampler, run)
    eta = real(eta, "eta")
    if "eta" not in inspect.signature(step).parameters:
        name = getattr(run, "__name__", type(run).__name__)
        raise ValueError(f"eta must be left out with sampler {name!r}, which has no such option, got {eta}")
    if not eta >= 0:
        raise ValueError(f"eta must be at least 0, got {eta}")
    return from_scheduler(run, eta=eta) if scheduler else partial(cast(Sampler, run), eta=eta)


def check_own_times(scheduler: Any, spacing: str, start: Any) -> None:
    """Refuse what a scheduler, which has times of its own from noise to data, cannot follow."""
    name = type(scheduler).__name__
    if spacing != "uniform":
        raise ValueError(
            f"spacing must be left out for a scheduler with its own times, {name}, got {spacing!r}"
        )
    if start is not None and start[1] != 1:
        raise ValueError(
            f"sampler must be a name or a function to start from data that is noised in part, as denoise and "
            f"sdedit do, here at time {start[1]:.6g}: {name} walks its own times from pure noise"
        )


@contextmanager
def progress_bar(steps: int, progress: bool, callback: Callback | None) -> Iterator[Callback]:
    """A callback that moves a progress bar and calls the user's."""
    with Bar(total=steps, desc="sampling", leave=False, delay=1, disable=not progress) as bar:

        def after_step(step: int, t: float, x: Tensor, x0: Tensor) -> None:
            bar.update()
            if callback is not None:
                callback(step, t, x, x0)

        yield after_step


@contextmanager
def evaluation_mode(*models: Any) -> Iterator[None]:
    """Evaluation mode for a while (no dropout, running statistics), then each module as it was.

    Models that are no modules are left as they are.
    """
    modules = _modules(models)
    training = {m: m.training for module in modules for m in module.modules()}
    for module in modules:
        module.eval()
    try:
        yield
    finally:
        for m, mode in training.items():
            m.training = mode


@contextmanager
def differentiable(*models: Any) -> Iterator[None]:
    """For a while gradients are those of the data alone, and several can be taken of one evaluation.

    Parameters are without gradients, so that none are computed and kept for them. A network that is compiled
    meanwhile keeps the tensors that its backward pass would otherwise write over.
    """
    trained = [p for module in _modules(models) for p in module.parameters() if p.requires_grad]
    for p in trained:
        p.requires_grad_(False)
    try:
        with functorch_config.patch(donated_buffer=False):
            yield
    finally:
        for p in trained:
            p.requires_grad_()


def _modules(models: Iterable[Any]) -> list[nn.Module]:
    return [model for model in models if isinstance(model, nn.Module)]
