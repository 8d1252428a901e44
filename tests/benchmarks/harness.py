"""Cases, their contenders, and the interleaved timing of one against the other."""

import gc
import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor

THREADS = 2
OURS = "ours"
PASSES = ("forward", "both")
SHORT = 0.1  # seconds
SAMPLE = 0.02  # seconds; after a foreign load a call of a millisecond is slower three times over

Call = Callable[[], Any]


@dataclass(frozen=True)
class Contender:
    """One implementation applied to the tensors of a case."""

    forward: Call
    both: Callable[[Tensor], Call]  # forward and backward, given the gradient of the result


Build = Callable[[Sequence[Tensor]], Contender]


@dataclass(frozen=True)
class Case:
    name: str
    shapes: Sequence[tuple[int, ...]]  # of the tensors that a gradient is taken of
    contenders: dict[str, Build]  # OURS among them
    flops: float = 0.0  # of a forward pass
    dtype: torch.dtype = torch.float32

    def tensors(self, device: str) -> list[Tensor]:
        torch.manual_seed(0)
        return [torch.randn(shape).to(device, self.dtype) for shape in self.shapes]


@dataclass(frozen=True)
class Table:
    title: str
    cases: Sequence[Case]
    tiny: bool = False  # microseconds and their differences instead of ratios
    memory: bool = False
    mean_of: Sequence[str] = ()  # contenders whose ratios get a geometric mean
    note: str = ""


@dataclass(frozen=True)
class Settings:
    device: str = "cpu"
    least: int = 5  # repeats
    most: int = 50
    budget: float = 2.0  # seconds per contender, where the least number of repeats allows
    fastest: bool = False  # the shortest time instead of the median
    sample: float = SAMPLE  # seconds that a sample of a short call takes at least


def first(result: Any) -> Tensor:
    return result if isinstance(result, Tensor) else result[0]


def differentiable(
    function: Callable[..., Any],
    tensors: Sequence[Tensor],
    context: Callable[[], AbstractContextManager[Any]] = nullcontext,
    parameters: Sequence[Tensor] = (),
) -> Contender:
    """A function of tensors, and of parameters it holds; the gradient is that of its (first) result."""

    def forward() -> Any:
        with context():
            return function(*tensors)

    def both(direction: Tensor) -> Call:
        inputs = [t.detach().clone().requires_grad_() for t in tensors]
        leaves = [*inputs, *parameters]

        def call() -> list[Tensor | None]:
            with context():
                first(function(*inputs)).backward(direction)
            gradients = [leaf.grad for leaf in leaves]
            for leaf in leaves:
                leaf.grad = None
            return gradients

        return call

    return Contender(forward, both)


def of(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Build:
    """``function(*tensors, *args, **kwargs)`` as a contender."""
    return lambda tensors: differentiable(lambda *given: function(*given, *args, **kwargs), tensors)


def wait(device: str) -> None:
    if device != "cpu":
        torch.accelerator.synchronize()


def interleaved(calls: dict[str, Call], settings: Settings) -> dict[str, float]:
    """Median seconds of each call. One sample of each in turn, so that a drift of the machine meets all.

    A sample of a short call is the mean of as many as take about as long as the roof's product. An untimed
    call precedes it, so that each finds the caches and threads as its own kind leaves them.
    Every call must have run.
    """
    gc.collect()
    gc.disable()
    try:
        samples = {name: [_sample(call, 1, settings.device)] for name, call in calls.items()}
        inner = {name: max(1, int(settings.sample / taken[0])) for name, taken in samples.items()}
        samples = {name: taken if inner[name] == 1 else [] for name, taken in samples.items()}
        waiting = list(calls)
        while waiting:
            for name in waiting:
                if samples[name][:1] < [SHORT]:
                    calls[name]()
                samples[name].append(_sample(calls[name], inner[name], settings.device))
            waiting = [n for n in waiting if _unfinished(samples[n], inner[n], settings)]
    finally:
        gc.enable()
    return {name: (min if settings.fastest else median)(taken) for name, taken in samples.items()}


def _sample(call: Call, inner: int, device: str) -> float:
    wait(device)
    clock = _events if device.startswith("cuda") else _seconds
    return clock(call, inner) / inner


def _seconds(call: Call, inner: int) -> float:
    start = time.perf_counter()
    for _ in range(inner):
        call()
    return time.perf_counter() - start


def _events(call: Call, inner: int) -> float:
    """By the clock of the device, from before the first kernel to after the last."""
    start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(inner):
        call()
    stop.record()
    stop.synchronize()
    return start.elapsed_time(stop) / 1e3


def _unfinished(samples: Sequence[float], inner: int, settings: Settings) -> bool:
    in_time = len(samples) < settings.most and sum(samples) * inner < settings.budget
    return in_time or len(samples) < settings.least


def median_time(call: Call, settings: Settings) -> float:
    call()
    return interleaved({"": call}, settings)[""]


def roof(settings: Settings, size: int = 2048) -> float:
    """FLOP/s of a square float32 matrix product: what the machine gives at this moment."""
    a, b = torch.randn(2, size, size, device=settings.device)
    return 2 * size**3 / median_time(lambda: a @ b, settings)


def _values(result: Any) -> list[Tensor]:
    """A result as tensors, whatever library it comes from."""
    if isinstance(result, (tuple, list)):
        return [value for r in result for value in _values(r)]
    if isinstance(result, Tensor):
        return [result.detach().double().cpu()]
    return [torch.from_numpy(np.asarray(result).astype(np.float64))]


def _equal(a: Any, b: Any, tolerance: float = 1e-2) -> bool:
    """True where the largest difference is small against the largest value, of each tensor."""
    pairs = zip(_values(a), _values(b), strict=True)
    return all(x.shape == y.shape and (x - y).abs().max() <= tolerance * y.abs().max() for x, y in pairs)


@dataclass
class Row:
    """The figures of one case; times in seconds, memory in bytes."""

    name: str
    share: dict[str, float] = field(default_factory=dict)  # of the roof, by pass
    seconds: dict[str, dict[str, float]] = field(default_factory=dict)  # by pass and contender
    memory: dict[str, int] = field(default_factory=dict)  # by pass
    left_out: dict[str, str] = field(default_factory=dict)  # contenders that failed, and how

    def ratio(self, which: str, contender: str) -> float | None:
        seconds = self.seconds[which].get(contender)
        return None if seconds is None else seconds / self.seconds[which][OURS]


def _calls(case: Case, device: str) -> tuple[dict[str, dict[str, Call]], dict[str, str]]:
    """For each pass the contenders that can do it and agree with ours; why the others are left out."""
    tensors = case.tensors(device)
    expected: dict[str, Any] = {}
    direction = torch.empty(0)
    calls: dict[str, dict[str, Call]] = {which: {} for which in PASSES}
    left_out: dict[str, str] = {}
    for name in (OURS, *(n for n in case.contenders if n != OURS)):
        try:
            contender = case.contenders[name](tensors)
            for which in PASSES:
                call = contender.forward if which == "forward" else contender.both(direction)
                result = call()
                wait(device)
                if name == OURS:
                    expected[which] = result
                    direction = torch.randn_like(first(result)) if which == "forward" else direction
                elif not _equal(result, expected[which]):
                    raise ArithmeticError(f"{which}: result differs from ours")
                calls[which][name] = call
        except Exception as error:
            if name == OURS:
                raise
            left_out[name] = f"{type(error).__name__}: {str(error).strip().splitlines()[0][:90]}"
    return calls, left_out


def measure(case: Case, settings: Settings) -> Row:
    calls, left_out = _calls(case, settings.device)
    row = Row(case.name, left_out=left_out)
    best = roof(settings) if case.flops else math.inf
    for which in PASSES:
        row.seconds[which] = interleaved(calls[which], settings)
        if case.flops:
            flops = case.flops * (1 if which == "forward" else 3)
            row.share[which] = flops / row.seconds[which][OURS] / best
    return row
