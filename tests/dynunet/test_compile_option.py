"""The option ``compile`` of sampling and training: the same results, and steps as CUDA graphs need them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters
from torch._inductor import config as inductor

from dynunet import Diffusion, compiling
from dynunet.training import TrainOptions

from .trainers import data, trainer

MODES = (True, "default", "reduce-overhead", "max-autotune")
INDUCTOR = pytest.mark.inductor
QUIET = pytest.mark.filterwarnings("ignore")  # the compiler's own


class Tiny(nn.Module):
    """A network of noisy data, its time and labels."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv1d(1, 1, 3, padding=1)

    def forward(self, x: Tensor, t: Tensor, class_labels: Tensor | None = None) -> Tensor:
        labels = 0 if class_labels is None else class_labels[:, None, None]
        return self.conv(x) * (1 + t[:, None, None]) + 0.1 * labels


def sampled(compile: Any, model: Callable[..., Tensor] | None = None, **options: Any) -> Tensor:
    diffusion = Diffusion(model or Tiny(), prediction="sample")
    generator = torch.Generator().manual_seed(0)
    return diffusion.sample(
        (2, 1, 8), 4, generator=generator, progress=False, compile=compile, class_labels=[1, 2], **options
    )


class Graphs:
    """In the place of ``torch.compile``: results are overwritten as those of CUDA graphs are."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.modes: list[str | None] = []
        self.steps: list[int] = []  # runs in each step
        self.live: list[Tensor] = []
        monkeypatch.setattr(torch, "compile", self.compile)
        monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", self.begin)

    def begin(self) -> None:
        self.steps.append(0)
        for result in self.live:
            result.detach().fill_(torch.nan)
        self.live = []

    def compile(self, model: Callable[..., Tensor], mode: str | None = None) -> Callable[..., Tensor]:
        self.modes.append(mode)

        def run(*args: Any, **keywords: Any) -> Tensor:
            result = model(*args, **keywords)
            self.steps[-1:] = [n + 1 for n in self.steps[-1:]]
            self.live.append(result)
            return result

        return run


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("sampler", ["dpmpp_2m", "heun", "ddpm"])
@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_samples_outlive_the_graphs_that_made_them(
    mode: bool | str, sampler: str, scale: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"sampler": sampler, "guidance_scale": scale}
    expected = sampled(False, **options)
    graphs = Graphs(monkeypatch)
    assert torch.equal(sampled(mode, **options), expected)
    assert graphs.modes == ["default" if mode is True else mode]
    graphed = mode in ("reduce-overhead", "max-autotune")
    assert set(graphs.steps) == ({1} if graphed else set())


def test_a_step_of_training_is_one_of_the_graphs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With several batches: their gradients are added up."""
    begun: list[None] = []
    modes: list[Any] = []
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: begun.append(None))
    monkeypatch.setattr(nn.Module, "compile", lambda self, mode: modes.append(mode))
    options = {"steps": 3, "accumulate": 2, "compile_mode": "reduce-overhead"}
    trainer(tmp_path / "eager", **options).fit()
    assert (len(begun), modes) == (0, [])
    trainer(tmp_path / "run", compile=True, **options).fit()
    assert (len(begun), modes) == (3, ["reduce-overhead"])


def test_wrong_modes_are_named() -> None:
    with pytest.raises(ValueError, match=r"^compile must be one of 'default', .*, got 'fast'"):
        sampled("fast")
    with pytest.raises(ValueError, match=r"^compile_mode must be one of 'default', .*, got 'fast'"):
        TrainOptions(compile_mode="fast")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^compile must be True or False, got 'default'"):
        TrainOptions(compile="default")  # type: ignore[arg-type]


@QUIET
def test_inductor_samples_and_does_it_once() -> None:
    model = Tiny()
    expected = sampled(False, model)
    torch.testing.assert_close(sampled(True, model), expected)
    graphs = counters["stats"]["unique_graphs"]
    torch.testing.assert_close(sampled(True, model), expected)
    assert counters["stats"]["unique_graphs"] == graphs


@QUIET
@INDUCTOR
@pytest.mark.parametrize("mode", compiling.COMPILE_MODES)
def test_inductor_in_every_mode(mode: str, tmp_path: Path) -> None:
    torch.testing.assert_close(sampled(mode), sampled(False))
    options = {"steps": 4, "accumulate": 2, "dataset": data(12)}
    eager = trainer(tmp_path / "eager", **options).fit()
    with inductor.patch(fallback_random=True):  # dropout draws what it draws when not compiled
        compiled = trainer(tmp_path / "run", compile=True, compile_mode=mode, **options).fit()
    expected = dict(eager.named_parameters())
    # Batch norm takes this bias away: its gradient is rounding, which Adam makes as large as any.
    del expected["model.first.bias"]
    for name, found in compiled.named_parameters():
        if name in expected:
            torch.testing.assert_close(found, expected[name], rtol=1e-3, atol=1e-4)
