"""What the tests of training share: a small model, data, a trainer, and runs that break off."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from dynunet import Diffusion, UNet
from dynunet.checkpoints import Checkpoint
from dynunet.training import Trainer
from dynunet.training.state import read

QUIET: dict[str, Any] = {"progress": False, "sample_every": 0, "tensorboard": False, "validate_every": 0}


class Small(Checkpoint, nn.Module):
    """Small, with all there is to keep: dropout, running statistics, a counter."""

    def __init__(self, width: int = 4, gradient_checkpointing: bool = False) -> None:
        super().__init__()
        self.first, self.last = nn.Conv1d(2, width, 3, padding=1), nn.Conv1d(width, 1, 3, padding=1)
        self.norm, self.dropout = nn.BatchNorm1d(width), nn.Dropout(0.1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        x = torch.cat([x, t.to(x)[:, None, None].expand(x.shape)], 1)
        return self.last(self.dropout(torch.relu(self.norm(self.first(x)))))


def model(**options: Any) -> Diffusion:
    torch.manual_seed(0)
    return Diffusion(Small(**options))


def unet(**options: Any) -> Diffusion:
    torch.manual_seed(0)
    return Diffusion(UNet(1, 1, channels=(4, 8), num_blocks=1, num_groups=2, time_embedding=True, **options))


def data(n: int = 10) -> Tensor:
    return torch.rand(n, 1, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1


def trainer(out: Path, dataset: Any = None, **options: Any) -> Trainer:
    options = {**QUIET, "batch_size": 4, "save_every": 4, "lr": 1e-2, "log_every": 2, **options}
    return Trainer(
        options.pop("diffusion", None) or model(), data() if dataset is None else dataset, out, **options
    )


def weights(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def assert_same(a: Any, b: Any) -> None:
    """The same names and bits."""
    a, b = (weights(m) if isinstance(m, nn.Module) else m for m in (a, b))
    assert a.keys() == b.keys()
    wrong = [name for name in a if not torch.equal(a[name], b[name])]
    assert not wrong, (
        f"{len(wrong)} of {len(a)} differ, first {wrong[0]} by {(a[wrong[0]] - b[wrong[0]]).abs().max()}"
    )


class Random(Dataset[Any]):
    """Random in torch, NumPy and Python."""

    def __len__(self) -> int:
        return 7

    def __getitem__(self, i: int) -> Any:
        noise = 0.1 * torch.randn(1, 8) + 0.1 * float(np.random.rand()) + 0.1 * random.random()
        return {"x0": data()[i] + noise, "mask": torch.rand(1, 8) > 0.2}


class Gaps(Dataset[Any]):
    """As many values missing as there can be: from none of a sample to all."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, i: int) -> Any:
        return {"x0": data()[i], "mask": (torch.arange(8) < i * 8 // 7)[None]}


class Stop(Exception):
    pass


def stopped(out: Path, at: int, **options: Any) -> None:
    """Break off in the middle, without saving."""

    def stop(step: int, row: Any) -> None:
        if step >= at:
            raise Stop

    with pytest.raises(Stop):
        trainer(out, Random(), callbacks=[stop], **options).fit()


def assert_resumes(folder: Path, at: int, **options: Any) -> None:
    """A run that breaks off and is resumed, ``run``, ends with the bits of one that does not, ``whole``."""
    whole = trainer(folder / "whole", Random(), **options).fit()
    stopped(folder / "run", at, **options)
    torch.manual_seed(99)
    resumed = trainer(folder / "run", Random(), **options).fit(resume=True)
    assert_same(resumed, whole)
    last = f"step-{options['steps']:08d}"
    ends = [read(folder / name / "checkpoints" / last) for name in ("whole", "run")]
    assert_same(*(end.state["model"] for end in ends))
