"""The averaged model on held-out data: its loss, and pictures of what it makes. Both are repeatable."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from ..diffusion.noise import hashed
from ..progress import say
from ..writing import replacing
from .engine import Engine
from .order import Stream


@torch.no_grad()
def validate(engine: Engine, stream: Stream) -> dict[str, float]:
    """Figures of the first samples of a stream, always with the same noise.

    Returns:
        ``validation_loss``, over the entries that count (see :class:`dynunet.training.engine.Objective`): the
        same however the samples are divided into batches, which the processes share. And the ``metrics`` of
        the model, if it has any, as ``validation_...``.
    """
    options, accelerator, model = engine.options, engine.accelerator, engine.average
    count, size = options.validation_samples, options.batch_size
    batches = [list(range(i, min(i + size, count))) for i in range(0, count, size)]
    mine = batches[accelerator.process_index :: accelerator.num_processes]
    losses, metrics = [], []
    # A process without a batch takes part in the sums over processes, with zeros of the right shapes.
    for numbers, batch in stream.batches(mine or batches[:1]):
        with accelerator.autocast():
            if hasattr(model, "validation_sums"):
                loss, sums = model.validation_sums(**engine.to_device(batch))
                metrics.append(sums if mine else torch.zeros_like(sums))
            else:
                loss = engine.loss(engine.average_objective, numbers, batch, stream)
            losses.append(loss if mine else torch.zeros_like(loss))
    row = {"validation_loss": engine.mean(torch.stack(losses).sum(0))}
    if metrics:
        figures = model.metrics(engine.over_processes(torch.stack(metrics).sum(0)))
        row |= {f"validation_{name}": value for name, value in figures.items()}
    return row


def criterion(model: Any, row: Mapping[str, float]) -> float:
    """The figure of :func:`validate` by which checkpoints are compared, so that less is better."""
    names = getattr(model, "metric_names", ())
    if not names:
        return row["validation_loss"]
    value = row[f"validation_{names[0]}"]
    return value if model.lower_is_better else -value


class Pictures:
    """Pictures of samples: the same data, conditions and noise each time.

    For restoration, with a condition of the channels of the data or more, each sample is three pictures: the
    condition, the estimate and the truth.
    """

    def __init__(self, folder: Path, stream: Stream, sample_args: Mapping[str, Any]) -> None:
        self.folder, self.stream, self.sample_args = folder, stream, sample_args
        self._missing = False

    def draw(self, engine: Engine, step: int) -> Path | None:
        """Write a picture; returns its file, None if there is none."""
        if self._missing:
            return None
        try:
            import matplotlib  # noqa: F401 (before samples are drawn in vain)

            from ..plotting import pictures
        except ImportError as error:
            self._missing = True
            say(f"no pictures of samples: {error}; pip install 'dynunet[examples]'")
            return None
        self.folder.mkdir(exist_ok=True)
        made = self.sample(engine) if hasattr(engine.average, "sample") else self.predict(engine)
        if made is None:
            return None
        x, names = made
        rate = (engine.average.data or {}).get("sample_rate")
        file = self.folder / f"step-{step:08d}.png"
        labels, columns = names * (len(x) // max(len(names), 1)), len(names) or None
        with replacing(file) as (picture,):
            pictures(x.float().cpu(), picture, sample_rate=rate, columns=columns, labels=labels)
        return file

    def sample(self, engine: Engine) -> tuple[Tensor, tuple[str, ...]]:
        """``(N, C, *spatial)``; or ``(3 N, C, *spatial)``, and the names of the three pictures of each."""
        numbers = range(engine.options.num_samples)
        _, batch = next(self.stream.batches([[*numbers]]))
        given = engine.to_device(batch)
        x0, mask = given.pop("x0"), given.pop("mask", None)
        generators = [
            torch.Generator(x0.device).manual_seed(hashed(self.stream.seed, "sample", n)) for n in numbers
        ]
        options = {"generator": generators, "progress": False, **given, **self.sample_args}
        with engine.accelerator.autocast():
            x = engine.average.sample(tuple(x0.shape), **options)
        cond, channels = given.get("cond"), x.shape[1]
        # Coordinates are a condition, too, but nothing to restore.
        restored = (engine.average.data or {}).get("restoration", True)
        if cond is None or cond.shape[1] < channels or not restored:
            return x, ()
        truth = x0 if mask is None else torch.where(mask, x0, torch.nan)
        return _interleaved(cond[:, :channels].to(x.dtype), x, truth.to(x.dtype)), (
            "given",
            "estimate",
            "truth",
        )

    def predict(self, engine: Engine) -> tuple[Tensor, tuple[str, ...]] | None:
        """``(3 N, 1, *spatial)`` and the names of the three pictures of each; None if there are none."""
        model = engine.average
        _, batch = next(self.stream.batches([[*range(engine.options.num_samples)]]))
        given = engine.to_device(batch)
        x0, target = given.pop("x0"), given.pop("target", None)
        spatial = x0.shape[2:]
        if target is None or not hasattr(model, "predict") or target.shape[-len(spatial) :] != spatial:
            return None
        with engine.accelerator.autocast():
            found = model.predict(x0, **given)
        parts = (part if part.ndim == x0.ndim else part.unsqueeze(1) for part in (x0, found, target))
        return _interleaved(*(_scaled(part[:, :1].float()) for part in parts)), ("given", "estimate", "truth")


def _interleaved(*pictures: Tensor) -> Tensor:
    """Those of each sample one after the other."""
    return rearrange(list(pictures), "kinds n ... -> (n kinds) ...")


def _scaled(x: Tensor) -> Tensor:
    """Into [-1, 1], what pictures have."""
    low, high = x.min(), x.max()
    return (x - low) / (high - low).clamp(min=1e-12) * 2 - 1
