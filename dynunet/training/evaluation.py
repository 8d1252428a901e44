"""The averaged model on held-out data: its loss, and pictures of what it makes. Both are repeatable."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..progress import say
from ..writing import replacing
from .engine import Engine
from .order import Stream, hashed


@torch.no_grad()
def validation_loss(engine: Engine, stream: Stream) -> float:
    """The mean loss over the first samples of a stream, always with the same noise.

    It is over their entries that count, see :class:`dynunet.training.engine.Objective`: the same however the
    samples are divided into batches, which the processes share.
    """
    options, accelerator = engine.options, engine.accelerator
    count, size = options.validation_samples, options.batch_size
    batches = [list(range(i, min(i + size, count))) for i in range(0, count, size)]
    mine = batches[accelerator.process_index :: accelerator.num_processes]
    sums = torch.zeros(2, device=accelerator.device)
    for numbers, batch in stream.batches(mine):
        with accelerator.autocast():
            sums += engine.loss(engine.average_objective, numbers, batch, stream)
    return engine.mean(sums)


class Pictures:
    """Pictures of samples: the same data, conditions and noise each time.

    For restoration, with a condition of the channels of the data or more, each sample is three pictures: the
    condition, the estimate and the truth.
    """

    def __init__(self, folder: Path, stream: Stream, sample_args: Mapping[str, Any]) -> None:
        self.folder, self.stream, self.sample_args = folder, stream, sample_args
        self._missing = False

    def draw(self, engine: Engine, step: int) -> None:
        if self._missing:
            return
        try:
            import matplotlib  # noqa: F401 (before samples are drawn in vain)

            from ..plotting import pictures
        except ImportError as error:
            self._missing = True
            say(f"no pictures of samples: {error}; pip install 'dynunet[examples]'")
            return
        self.folder.mkdir(exist_ok=True)
        x, columns = self.sample(engine)
        rate = (engine.average.data or {}).get("sample_rate")
        file = self.folder / f"step-{step:08d}.png"
        with replacing(file) as (picture,):
            pictures(x.float().cpu(), picture, sample_rate=rate, columns=columns)

    def sample(self, engine: Engine) -> tuple[Tensor, int | None]:
        """``(N, C, *spatial)``, or ``(3 N, C, *spatial)`` and 3, with condition and truth around each."""
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
            return x, None
        truth = x0 if mask is None else torch.where(mask, x0, torch.nan)
        return torch.stack([cond[:, :channels].to(x), x, truth.to(x)], 1).flatten(0, 1), 3
