"""Options of a training run, checked once, and the learning rate they mean."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from math import cos, inf, pi
from typing import Any, ClassVar, Literal, get_args

from ..arguments import average_length, choice, flag, integer, number, positive
from ..compiling import COMPILE_MODES, CompileMode
from ..defaults import examples_in_batch

# With other values of these the same run would take another course.
_FIXED = ("lr", "weight_decay", "warmup", "decay", "clip", "ema", "precision", "loss", "seed")


_LR_OF_ONE, _HIGHEST_LR, _LR_OF_OTHERS = 0.064, 4e-3, 2e-4

Precision = Literal["auto", "no", "bf16", "fp16"]
Loss = Literal["l2", "l1", "huber", "l1+stft", "ce", "dice", "dice+ce", "focal", "auto"]


@dataclass(frozen=True)
class TrainOptions:
    """Options of training. A step uses ``batch_size * accumulate * processes`` samples."""

    losses: ClassVar[tuple[str, ...]] = ("l2", "l1", "huber", "l1+stft")

    steps: int = 10_000
    """Steps of the optimiser."""
    batch_size: int | None = None
    """Samples at a time, in each process; by default 16, up to 64 of fewer than 2048 entries each."""
    accumulate: int = 1
    """Batches whose gradients are averaged into one step: a larger batch in the same memory."""
    lr: float | None = None
    """Highest learning rate, of AdamW; by default .064 over the channels of the network's first level, but
    at most .004; .0002 for a network of another library."""
    weight_decay: float = 0.0
    """Of AdamW, decoupled."""
    warmup: int = 500
    """Steps in which the learning rate rises from 0, at most a tenth of all."""
    decay: Literal["cosine", "constant"] = "cosine"
    """Then the learning rate falls to 0 along half a cosine, or stays."""
    clip: float | None = 1.0
    """Largest norm of the gradients; None for no limit."""
    ema: float = 0.999
    """Decay of the exponential moving average of the weights, (1 + step) / (10 + step) where that is less."""
    ema_lengths: tuple[float, ...] = ()
    """Lengths of power-function averages to store, in parts of the training, from which dynunet.average makes
    one of any length: 0.05 0.1 is usual. Each takes the memory of the weights, and on the disk up to 17 times
    that; none costs nothing."""
    precision: Precision = "auto"
    """Mixed precision: auto is bf16 on a CPU that has instructions for it, for a network that is faster by
    them, else no, and that of the run if one is resumed; fp16 needs a GPU."""
    tf32: bool = True
    """Compute products of float32 in TF32 where the GPU can; False for the full float32."""
    loss: Loss = "l2"
    """Error of single entries of a diffusion model: l2, l1 or huber; or l1+stft, with that of short-time
    spectra along the last axis, for a model that predicts the sample."""
    workers: int = 0
    """Processes that read data ahead, for each process of training."""
    seed: int = 0
    """Of the order of the data, their random changes, the noise and dropout."""
    save_every: int = 500
    """Steps between checkpoints."""
    validate_every: int = 500
    """Steps between losses on held-out data; 0 for none."""
    validation_samples: int = 128
    """Samples of held-out data for it: the same ones each time, some often if there are fewer."""
    sample_every: int = 1000
    """Steps between pictures of samples; 0 for none."""
    num_samples: int = 4
    """Samples in such a picture."""
    log_every: int = 50
    """Steps between rows of the log."""
    tensorboard: bool = True
    """Write the log for TensorBoard too, if that is installed."""
    compile: bool = False
    """Compile the network with torch.compile."""
    compile_mode: CompileMode = "default"
    """Of torch.compile; reduce-overhead replays CUDA graphs, for small networks on a GPU."""
    cpu: bool = False
    """Use the CPU even if there is a GPU."""
    device: str | None = None
    """Device of the one process: cpu, cuda, cuda:1, mps, ...; by default the fastest."""

    def __post_init__(self) -> None:
        if self.batch_size is not None:
            integer(self.batch_size, "batch_size")
        for name in ("steps", "accumulate", "save_every", "log_every"):
            integer(getattr(self, name), name)
        for name in ("validation_samples", "num_samples"):
            integer(getattr(self, name), name)
        for name in ("warmup", "workers", "seed", "validate_every", "sample_every"):
            integer(getattr(self, name), name, 0)
        if self.seed >= 2**64:
            raise ValueError(f"seed must have at most 64 bits, got {self.seed}")
        if self.lr is not None:
            positive(self.lr, "lr")
        if self.clip is not None and number(self.clip, "clip", 0, inf) == 0:
            raise ValueError(f"clip must be positive, or None for no limit, got {self.clip}")
        number(self.weight_decay, "weight_decay", 0, inf)
        if number(self.ema, "ema", 0, 1) == 1:
            raise ValueError(f"ema must be below 1, got {self.ema}")
        object.__setattr__(self, "ema_lengths", _lengths(self.ema_lengths))
        choice(self.decay, ("cosine", "constant"), "decay")
        for name in ("compile", "tf32"):
            flag(getattr(self, name), name)
        self._check_device()
        choice(self.compile_mode, COMPILE_MODES, "compile_mode")
        choice(self.precision, get_args(Precision), "precision")
        choice(self.loss, self.losses, "loss")

    def _check_device(self) -> None:
        if self.device is not None and not isinstance(self.device, str):
            raise TypeError(f"device must be a name, such as 'cuda:1', got {self.device!r}")
        if self.cpu and self.device not in (None, "cpu"):
            raise ValueError(f"device must be left out with cpu, got {self.device!r}")


@dataclass(frozen=True)
class Chosen(TrainOptions):
    """Those of a run that begins, see :func:`chosen`."""

    batch_size: int = 16
    lr: float = 2e-4

    def learning_rate(self, step: int) -> float:
        """The learning rate of the step that follows ``step`` earlier ones."""
        warmup = min(self.warmup, self.steps // 10)
        if step < warmup:
            return self.lr * (step + 1) / (warmup + 1)
        if self.decay == "constant":
            return self.lr
        return self.lr * (1 + cos(pi * (step - warmup) / max(1, self.steps - warmup))) / 2

    def fixed(self, processes: int) -> dict[str, Any]:
        """Values that have to stay as they are when a run is resumed.

        The samples of a step may be divided otherwise into batches and processes: its loss then differs in
        the last digits at most.
        """
        samples = self.batch_size * self.accumulate * processes
        return {
            "batch_size * accumulate * processes": samples,
            **{name: getattr(self, name) for name in _FIXED},
            **({"ema_lengths": [*self.ema_lengths]} if self.ema_lengths else {}),
        }


def _lengths(given: Any) -> tuple[float, ...]:
    """Lengths of averages, each once."""
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise TypeError(f"ema_lengths must be a sequence of numbers, got {given!r}")
    lengths = tuple(average_length(value, f"ema_lengths[{i}]") for i, value in enumerate(given))
    if len(set(lengths)) < len(lengths):
        raise ValueError(f"ema_lengths must be different ones, got {lengths}")
    return lengths


def chosen(options: TrainOptions, channels: int | None, size: Sequence[int]) -> Chosen:
    """Options with a learning rate and a batch, where none was given.

    The learning rate that serves falls with the width of a network (Yang et al. 2022, Tensor Programs V,
    table 3). Examples that are small leave a processor idle, so that more of them cost little more.

    Args:
        options: as given.
        channels: of the first level of the network; None if it is of another library.
        size: of the spatial axes of an example.
    """
    given = {field.name: getattr(options, field.name) for field in fields(TrainOptions)}
    if options.lr is None:
        given["lr"] = usual_rate(channels)
    if options.batch_size is None:
        given["batch_size"] = examples_in_batch(size)
    return Chosen(**given)


def usual_rate(channels: int | None) -> float:
    """The learning rate for a network of this width, None for one of another library."""
    return _LR_OF_OTHERS if channels is None else min(_LR_OF_ONE / channels, _HIGHEST_LR)


def train_options(options: TrainOptions | None, given: Mapping[str, Any]) -> TrainOptions:
    """Options with some of them replaced by keyword."""
    if options is not None and not isinstance(options, TrainOptions):
        raise TypeError(f"options must be TrainOptions, got {options!r}")
    known = [field.name for field in fields(TrainOptions)]
    for name in given:
        if name not in known:
            near = get_close_matches(name, known, 1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; options are {', '.join(known)}"
            raise TypeError(f"Trainer takes no argument {name!r}{hint}")
    return replace(options or TrainOptions(), **given)
