"""What ends training early: signals, lack of memory, numbers that are not finite."""

import math
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import accelerate
import pytest
import torch
from torch import Tensor, nn

from dynunet import Diffusion
from dynunet.training import Interrupted, TrainingError, background, loop
from dynunet.training.state import Checkpoints, read

from .trainers import Random, Stop, assert_same, trainer

pytestmark = pytest.mark.usefixtures("without_the_curve")


@pytest.fixture
def heard() -> Iterator[None]:
    """Signals that are not ignored, as they may be where a shell or ``nohup`` began the tests."""
    defaults = {
        signal.SIGINT: signal.default_int_handler,
        signal.SIGTERM: signal.SIG_DFL,
        signal.SIGHUP: signal.SIG_DFL,
    }
    before = {number: signal.signal(number, handler) for number, handler in defaults.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("heard")
@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_saves_and_says_how_to_resume(tmp_path: Path, number: signal.Signals, workers: int) -> None:
    def stop(step: int, row: Any) -> None:
        if step == 6:
            readers = multiprocessing.active_children()
            assert len(readers) == workers
            # A terminal and a launcher signal the group.
            assert all(os.getpgid(reader.pid or 0) != os.getpgid(0) for reader in readers)
            os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    options: dict[str, Any] = {"steps": 20, "workers": workers}
    with pytest.raises(
        KeyboardInterrupt, match=rf"{number.name} after step 6 of 20, .*resume=True"
    ) as caught:
        trainer(tmp_path / "run", callbacks=[stop], **options).fit()
    assert isinstance(caught.value, Interrupted)
    assert signal.getsignal(number) is before
    assert Checkpoints(tmp_path / "run" / "checkpoints").steps()[-1] == 6
    resumed = trainer(tmp_path / "run", **options).fit(resume=True)
    assert_same(resumed, trainer(tmp_path / "whole", **options).fit())


def test_where_no_signal_can_be_sent_the_file_of_the_process_says_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "SIGNALS", False)
    monkeypatch.setattr(loop, "_LOOK", 0.0)
    monkeypatch.setattr(os, "kill", lambda *given: pytest.fail(f"{given}"))  # which ends processes on Windows

    def stop(step: int, row: Any) -> None:
        if step == 6:
            background.stop(tmp_path / "run")

    with pytest.raises(Interrupted, match="stopped by another process after step 6 of 20, saved"):
        trainer(tmp_path / "run", callbacks=[stop]).fit(20)
    assert background.process_of(tmp_path / "run") is None
    resumed = trainer(tmp_path / "run").fit(20, resume=True)
    assert_same(resumed, trainer(tmp_path / "whole").fit(20))


@pytest.mark.usefixtures("heard")
def test_a_second_signal_stops_at_once(tmp_path: Path) -> None:
    def stop(step: int, row: Any) -> None:
        if step == 6:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.2)  # another thread may receive it: two at once would count as one
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.2)

    with pytest.raises(KeyboardInterrupt) as caught:
        trainer(tmp_path / "run", callbacks=[stop]).fit(10)
    assert not isinstance(caught.value, Interrupted)
    assert Checkpoints(tmp_path / "run" / "checkpoints").steps() == [0, 4]


class Breaks(nn.Module):
    """A network that fails after some steps."""

    def __init__(self, error: BaseException | float, after: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.error, self.after, self.calls = error, after, 0

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        self.calls += 1
        if self.calls <= self.after:
            return x * self.weight
        if isinstance(self.error, BaseException):
            raise self.error
        return x * self.weight * self.error


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:119] DefaultCPUAllocator: can't allocate memory: you tried"
        ),
    ],
)
def test_out_of_memory_ends_with_advice(tmp_path: Path, error: BaseException) -> None:
    diffusion = Diffusion(Breaks(error, 6))
    with pytest.raises(TrainingError, match=r"batch_size with accumulate .*gradient_checkpointing"):
        trainer(tmp_path / "run", diffusion=diffusion, steps=20).fit()
    assert read(tmp_path / "run" / "checkpoints" / "step-00000004").numbers["step"] == 4


def test_other_errors_are_left_as_they_are(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"^odd$") as caught:
        trainer(tmp_path / "run", diffusion=Diffusion(Breaks(RuntimeError("odd"), 1)), steps=20).fit()
    assert not isinstance(caught.value, TrainingError)


@pytest.mark.parametrize("factor", [math.nan, math.inf, 1e30])
def test_a_loss_that_is_not_finite_ends_with_advice(tmp_path: Path, factor: float) -> None:
    diffusion = Diffusion(Breaks(factor, 6))
    with pytest.raises(TrainingError, match=r"NaN or infinite by step 8.* lower lr.*step-00000004$"):
        trainer(tmp_path / "run", diffusion=diffusion, steps=20, log_every=100, clip=None).fit()
    saved = read(tmp_path / "run" / "checkpoints" / "step-00000004")
    assert saved.state["model"]["model.weight"].isfinite()
    assert Checkpoints(tmp_path / "run" / "checkpoints").steps() == [0, 4]


def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = loop.Engine.step

    def step(self: Any, step: int, *rest: Any) -> Tensor:
        result = original(self, step, *rest)
        if step == 7:
            next(self.model.parameters()).data.fill_(math.nan)
        return result

    monkeypatch.setattr(loop.Engine, "step", step)
    with pytest.raises(TrainingError, match=r"the weights became NaN"):
        trainer(tmp_path / "run", steps=20).fit()
    assert Checkpoints(tmp_path / "run" / "checkpoints").steps() == [0, 4]


class Steep(nn.Module):
    """Its gradient is beyond the range of fp16 until the loss is scaled less."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv1d(1, 1, 1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return 30 * self.layer(x)


def test_a_step_left_out_for_the_range_of_fp16_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Scaled(accelerate.Accelerator):
        """As on a GPU, where alone accelerate scales the loss for fp16."""

        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self.native_amp, self.scaler = True, torch.amp.GradScaler("cpu")
            self.state._mixed_precision = "fp16"

    monkeypatch.setattr(accelerate, "Accelerator", Scaled)

    def fit(name: str, resume: bool = False, **more: Any) -> Diffusion:
        torch.manual_seed(0)
        run = trainer(tmp_path / name, Random(), diffusion=Diffusion(Steep()), steps=12, **more)
        return run.fit(resume=resume)

    def stop(step: int, row: Any) -> None:
        if step == 10:
            raise Stop

    whole = fit("whole")
    with pytest.raises(Stop):
        fit("run", callbacks=[stop])
    scaler = read(tmp_path / "run" / "checkpoints" / "step-00000008").state["scaler"]
    assert 0 < scaler["scale"] < 65536, "no step was left out"
    assert_same(fit("run", resume=True), whole)


def test_fp16_is_refused_on_a_cpu(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"precision must be 'bf16' or 'no' on a CPU, got 'fp16'"):
        trainer(tmp_path / "run", precision="fp16", cpu=True, steps=2).fit()
    trainer(tmp_path / "run", precision="bf16", cpu=True, steps=2).fit()
