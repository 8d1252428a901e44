"""What surrounds a run of a sampler: its name and options, evaluation mode, a progress bar."""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from torch import Tensor, nn
from tqdm.auto import tqdm

from .checks import look_up
from .samplers import SAMPLERS
from .schedulers import from_scheduler, is_scheduler
from .steps import Callback, Sampler


def chosen(sampler: Any) -> Sampler:
    """A sampler by its name, as a function, or as a scheduler object of diffusers."""
    if is_scheduler(sampler):
        return from_scheduler(sampler)
    run: Any = look_up(sampler, SAMPLERS, "sampler")
    if not callable(run):
        raise TypeError(f"sampler must be a name, a function or a scheduler of diffusers, got {sampler!r}")
    return cast(Sampler, run)


def sampler_options(run: Sampler, eta: float | None) -> dict[str, Any]:
    """The options of a sampler that were given."""
    if eta is None:
        return {}
    if "eta" not in inspect.signature(run).parameters:
        raise ValueError(f"eta must be left out with sampler {getattr(run, '__name__', run)!r}, got {eta}")
    if not eta >= 0:
        raise ValueError(f"eta must be at least 0, got {eta}")
    return {"eta": eta}


@contextmanager
def shown(steps: int, progress: bool, callback: Callback | None) -> Iterator[Callback]:
    """A callback that moves a progress bar and calls the user's."""
    with tqdm(total=steps, desc="sampling", leave=False, disable=not progress) as bar:

        def after_step(step: int, t: float, x: Tensor, x0: Tensor) -> None:
            bar.update()
            if callback is not None:
                callback(step, t, x, x0)

        yield after_step


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while (no dropout, running statistics), then each module as it was."""
    training = {m: m.training for m in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for m, mode in training.items():
            m.training = mode
