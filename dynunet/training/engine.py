"""The model in training, on the devices of ``accelerate``: weights, their optimiser and their average.

``accelerate`` moves to the device, casts to lower precision, scales and clips gradients, and averages them
over processes; which samples a process gets is decided in :mod:`dynunet.training.order`.
"""

import inspect
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_model
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from .._devices import moved, placed
from ..averages import decay
from ..compiling import begin_step
from ..diffusion.noise import hashed
from ..runs import chosen_device
from .options import Chosen, TrainOptions
from .order import CHANCE, Stream
from .precision import float32_products, has_tf32

Batch = tuple[Sequence[int], Mapping[str, Any]]
_FUSED = ("cpu", "cuda", "mps", "xpu")  # where one pass over memory does what takes several elsewhere


class Objective(nn.Module):
    """The loss as the forward pass of a module, which is where gradients are averaged over processes.

    It is a sum, and the count to divide it by in the end: those of the model's ``loss_sum``, if it has that,
    else ``loss`` times the number of samples and that number. ``(2,)``, of which the first has a gradient.
    """

    def __init__(self, model: nn.Module, loss: str) -> None:
        super().__init__()
        self.model = model
        self.sums = _is_summed(model)
        self.takes = _keywords(model)
        self.options = {"loss": loss} if "loss" in self.takes else {}
        if not self.options and loss != TrainOptions.loss:
            kind = type(model).__name__
            raise ValueError(f"loss must be left out for a {kind}, which has its own, got {loss!r}")

    def forward(self, count: int, **batch: Any) -> Tensor:
        model: Any = self.model
        if self.sums:
            total, number = model.loss_sum(**batch, **self.options)
            return torch.stack([total.float(), moved(number.detach().float(), total.device)])
        mean = model.loss(**batch, **self.options).float()
        return torch.stack([mean * count, mean.new_full((), count)])


def _is_summed(model: nn.Module) -> bool:
    """True if ``loss`` is the mean of ``loss_sum``; not so in a subclass that has a loss alone."""
    parts = {"loss", "loss_sum"}
    own = next((parts & vars(cls).keys() for cls in type(model).__mro__ if parts & vars(cls).keys()), ())
    return "loss_sum" in own and not getattr(model, "per_batch", False)


def _keywords(model: nn.Module) -> set[str]:
    """Those that the model's loss has by name, or that of a class it is derived from."""
    losses = [vars(cls)["loss"] for cls in type(model).__mro__ if "loss" in vars(cls)]
    return {name for loss in losses for name in inspect.signature(loss).parameters}


def _accelerator(options: TrainOptions, sums: bool) -> Any:
    """Accelerate's, on the device that the options name, for a loss that is a sum or not."""
    from accelerate import Accelerator
    from accelerate.utils import GradientAccumulationPlugin, GradScalerKwargs

    device = None if options.device is None else chosen_device(options.device)
    accelerator = Accelerator(
        mixed_precision=options.precision,
        # Else an environment variable may rule.
        gradient_accumulation_plugin=GradientAccumulationPlugin(options.accumulate),
        cpu=options.cpu or (device is not None and device.type == "cpu"),
        # A sum of many entries is as large as fp16 needs it from the start.
        kwargs_handlers=[GradScalerKwargs(init_scale=1.0)] if sums else None,
    )
    if device is not None:
        if accelerator.num_processes > 1:
            raise ValueError(f"device must be left out with several processes, got {options.device!r}")
        cast(Any, accelerator.state).device = device
    return accelerator


class Engine:
    """One process of training."""

    def __init__(self, model: nn.Module, options: Chosen) -> None:
        self.model: Any = model.train()
        objective = Objective(model, options.loss)
        self.accelerator = _accelerator(options, objective.sums)
        # From here on they say what is done: that goes into the record.
        self.options = options = replace(options, tf32=options.tf32 and has_tf32(self.accelerator.device))
        if options.precision == "fp16" and self.accelerator.device.type == "cpu":
            raise ValueError("precision must be 'bf16' or 'no' on a CPU, got 'fp16'")
        model.to(self.accelerator.device)
        if not any(p.requires_grad for p in objective.parameters()):
            raise ValueError("model must have parameters to train, got a model without any")
        optimizer = torch.optim.AdamW(
            model.parameters(),
            options.lr,
            weight_decay=options.weight_decay,
            fused=self.accelerator.device.type in _FUSED or None,
        )
        self.objective, self.optimizer = self.accelerator.prepare(objective, optimizer)
        self.average: Any = deepcopy(model)
        self.averaged = 0  # of so many steps
        self.tracked: dict[float, Any] = {length: deepcopy(model) for length in options.ema_lengths}
        self.average_objective = Objective(self.average, options.loss).eval()
        network = getattr(model, "model", model)
        if options.compile and isinstance(network, nn.Module):
            network.compile(mode=options.compile_mode)

    @property
    def main(self) -> bool:
        return self.accelerator.is_main_process

    def step(self, step: int, batches: Iterator[Batch], stream: Stream) -> Tensor:
        """Train on the next batches; returns their mean loss and the norm of its gradient, ``(2,)``.

        The mean is over the entries that count of all batches and processes, and so is the gradient: that of
        the sum is divided once the count of all is known.
        """
        if self.options.compile:
            begin_step(self.options.compile_mode)  # no gradient is left of the one before
        for group in self.optimizer.param_groups:
            group["lr"] = self.options.learning_rate(step)
        sums, norm = torch.zeros(2, device=self.accelerator.device), torch.tensor(0.0)
        for part in range(self.options.accumulate):
            numbers, batch = next(batches)
            with self.accelerator.accumulate(self.objective):
                # Dropout is the one thing that draws from the global generators.
                torch.manual_seed(
                    hashed(self.options.seed, "step", step, part, self.accelerator.process_index)
                )
                progress = step / self.options.steps
                error = self.loss(self.objective, numbers, batch, stream, progress=progress)
                self.accelerator.backward(error[0])
                sums += error.detach()
                if self.accelerator.sync_gradients:
                    sums = self.over_processes(sums)
                    norm = self._clip(sums[1])
                self.optimizer.step()
                self.optimizer.zero_grad()
        self._update_average()
        return torch.stack([divided(*sums), moved(norm.to(sums.dtype), sums.device)])

    def loss(
        self,
        objective: nn.Module,
        numbers: Sequence[int],
        batch: Mapping[str, Any],
        stream: Stream,
        **more: Any,
    ) -> Tensor:
        """The loss of a batch, wherever it is, as a sum and its count, see :class:`Objective`.

        Of ``more`` it is told what it takes, such as ``progress``, the part of the training that is done.
        """
        takes = self.average_objective.takes
        chance = stream.chance(numbers, self.accelerator.device) if takes.intersection(CHANCE) else {}
        chance = {name: value for name, value in (chance | more).items() if name in takes}
        return objective(len(numbers), **self.to_device(batch), **chance)

    def mean(self, sums: Tensor) -> float:
        """The mean that sums and counts ``(2,)`` of all processes give."""
        return divided(*self.over_processes(sums)).item()

    def to_device(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        return placed(batch, self.accelerator.device)

    def stopping(self, wanted: bool) -> bool:
        """True if any process is to stop: all do so after the same step."""
        if self.accelerator.num_processes == 1:
            return wanted
        if wanted:
            self.accelerator.set_trigger()
        return self.accelerator.check_trigger()

    def over_processes(self, sums: Tensor) -> Tensor:
        """Sums over all processes."""
        added: Any = self.accelerator.reduce(sums, "sum")
        return added

    def finite(self) -> bool:
        """True if all weights are finite, also the averaged ones."""
        tensors = [*self.model.parameters(), *self.average.parameters()]
        return all(bool(t.detach().isfinite().all()) for t in tensors)

    def state(self) -> dict[str, Any]:
        """The state that training is resumed from, but for the average, which is a checkpoint of its own."""
        scaler = self.accelerator.scaler
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "averaged": self.averaged,
            "tracked": [module.state_dict() for module in self.tracked.values()],
            "scaler": {} if scaler is None else scaler.state_dict(),
        }

    def load_state(self, state: Mapping[str, Any], average: Path) -> None:
        """Resume from a state, and an average in a safetensors file.

        Raises:
            ValueError: if they are not of this model.
        """
        try:
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            load_model(self.average, average)
            self.averaged = int(state["averaged"])
            for module, held in zip(self.tracked.values(), state.get("tracked", ()), strict=True):
                module.load_state_dict(held)
            if self.accelerator.scaler is not None:
                self.accelerator.scaler.load_state_dict(state["scaler"])
        except (RuntimeError, KeyError, TypeError, ValueError, AttributeError) as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"{average.parent} must hold a state of this model: {reason}") from None

    def _clip(self, count: Tensor) -> Tensor:
        """Make the gradients those of the mean over so many entries, and limit them.

        Returns:
            Their norm before, 0 where a step in fp16 is left out for it.
        """
        # accelerate has divided by the number of batches in each process, and by that of the processes.
        batches = self.options.accumulate * self.accelerator.num_processes
        gradients = [p.grad for p in self.objective.parameters() if p.grad is not None]
        cast(Any, torch)._foreach_mul_(gradients, divided(torch.full_like(count, batches), count))
        limit = inf if self.options.clip is None else self.options.clip
        norm = self.accelerator.clip_grad_norm_(self.objective.parameters(), limit)
        norm = torch.as_tensor(0.0 if norm is None else norm)
        return norm if self.accelerator.scaler is None else torch.where(norm.isfinite(), norm, 0)

    @torch.no_grad()
    def _update_average(self) -> None:
        """One step of the moving averages."""
        limited = min(self.options.ema, (1 + self.averaged) / (10 + self.averaged))
        _move(self.average, self.model, limited if self.averaged else 0.0)
        self.averaged += 1
        for length, average in self.tracked.items():
            _move(average, self.model, decay(length, self.averaged))


def _move(average: nn.Module, model: nn.Module, decay: float) -> None:
    """One step of a moving average; a counter or an index among the buffers is copied, all if decay is 0.

    As torch's AveragedModel does it, whose counter, a tensor, would be waited for on a device.
    """
    moving = defaultdict(list)
    for old, new in zip(_tensors(average), _tensors(model), strict=True):
        if decay and (old.is_floating_point() or old.is_complex()):
            moving[old.dtype].append((old, new))
        else:
            old.copy_(new)
    for same in moving.values():
        olds, news = map(list, zip(*same, strict=True))
        get_ema_multi_avg_fn(decay)(olds, news, 1)


def _tensors(module: nn.Module) -> list[Tensor]:
    return [t.detach() for t in (*module.parameters(), *module.buffers())]


def divided(total: Tensor, count: Tensor) -> Tensor:
    """A mean, 0 where nothing counts."""
    return total / torch.where(count == 0, 1, count)


@contextmanager
def engine(model: nn.Module, options: Chosen) -> Iterator[Engine]:
    """An engine; what it sets for the whole process is afterwards as it was."""
    try:
        from accelerate.state import AcceleratorState, PartialState
    except ImportError as error:
        raise ImportError("Trainer needs accelerate: pip install 'dynunet[train]'") from error
    fresh, alone = not AcceleratorState._shared_state, not PartialState._shared_state
    try:
        made = Engine(model, options)
        device = made.accelerator.device
        generators = torch.random.fork_rng([device] if device.type == "cuda" else [])
        with generators, float32_products(made.options.tf32, device):
            yield made
    finally:
        if fresh:  # another engine may want another precision, which accelerate refuses
            # Or another device, which it would not hear of.
            alone = alone and PartialState._shared_state.get("num_processes", 1) == 1
            AcceleratorState._reset_state(reset_partial_state=alone)
