"""Convolution beyond three axes beside cuDNN's own of equal FLOPs, by every algorithm, and what is copies.

"roof" is ``conv3d`` with the same channels and kernel per axis, the leading axis in the batch and three times
as many samples, so that it does the same multiplications; the faster of contiguous and channels-last memory.
Shares are of it: 1 is as fast as cuDNN where it has the operator.
"""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as nnF

import convnd
import convnd.functional as F
from tests.benchmarks.peers import installed
from tests.convnd.planning import ALGORITHMS

from .compare import channels_last
from .rows import Row, Setting
from .timing import dtype_of, kinds, memory_of, precision, timed

SLOW = 0.02  # seconds; algorithms that take longer are no candidates
PASSES = ("forward", "input", "weight")  # the map and its two gradients, each by itself


@dataclass(frozen=True)
class Problem:
    """A convolution with "same" padding."""

    n: int
    batch: int
    inputs: int
    outputs: int
    size: int
    kernel: int = 3
    groups: int = 1

    def __str__(self) -> str:
        groups = f" groups {self.groups}" if self.groups > 1 else ""
        sizes = f"{self.inputs}->{self.outputs} {self.batch}x{self.size}^{self.n}"
        return f"{self.n}-D k{self.kernel} {sizes}{groups}"

    @property
    def flops(self) -> int:
        taps = self.inputs // self.groups * self.kernel**self.n
        return 2 * self.batch * self.outputs * taps * self.size**self.n

    def tensors(self, device: str, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        torch.manual_seed(0)
        x = torch.randn(self.batch, self.inputs, *(self.size,) * self.n, device=device)
        w = torch.randn(self.outputs, self.inputs // self.groups, *(self.kernel,) * self.n, device=device)
        return x.to(dtype), (w / prod(w.shape[1:]) ** 0.5).to(dtype)

    def roof(self, device: str, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Operands of the native convolution over three axes that has as many FLOPs."""
        extra = self.n - 3
        samples = self.batch * (self.size * self.kernel) ** extra
        inside = Problem(3, samples, self.inputs, self.outputs, self.size, self.kernel, self.groups)
        assert inside.flops == self.flops
        return inside.tensors(device, dtype)


BEYOND = (
    Problem(4, 2, 64, 64, 16),
    Problem(4, 2, 32, 32, 24),
    Problem(4, 2, 128, 128, 12),
    Problem(4, 8, 256, 256, 6),
    Problem(4, 4, 16, 16, 24),
    Problem(5, 1, 32, 32, 10),
    Problem(4, 2, 1, 32, 24),
    Problem(4, 2, 32, 1, 24),
    Problem(4, 2, 4, 4, 24),
    Problem(4, 2, 64, 64, 16, 1),
    Problem(5, 2, 16, 16, 8),
    Problem(4, 1, 16, 16, 20, 5),
    Problem(4, 2, 64, 64, 12, 3, 64),
    Problem(4, 1, 8, 8, 24, 7),
)
QUICK = (Problem(4, 1, 4, 4, 4), Problem(5, 1, 2, 2, 3))


def passes(x: Tensor, w: Tensor, function: Callable[..., Tensor]) -> dict[str, Callable[[], Any]]:
    """Each pass as a call. A gradient is that of a graph, kept, in which nothing else requires one."""
    x, w = x.detach(), w.detach()

    def forward() -> Tensor:
        with torch.no_grad():
            return function(x, w)

    direction = torch.randn_like(forward())

    def gradient(which: int) -> Callable[[], Any]:
        operands = [t.clone(memory_format=torch.preserve_format) for t in (x, w)]
        of = operands[which].requires_grad_()
        out = function(*operands)
        return lambda: torch.autograd.grad(out, of, direction, retain_graph=True)

    return {"forward": forward, "input": gradient(0), "weight": gradient(1)}


def _same(p: Problem) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda x, w: F.conv(x, w, padding=p.kernel // 2, groups=p.groups)


def _by(name: str, p: Problem) -> Callable[[Tensor, Tensor], Tensor]:
    def run(x: Tensor, w: Tensor) -> Tensor:
        with convnd.algorithm(name):
            return F.conv(x, w, padding=p.kernel // 2, groups=p.groups)

    return run


def _torchnd(p: Problem) -> Callable[[Tensor, Tensor], Tensor]:
    conv_nd = importlib.import_module("torchnd.functional").conv_nd
    return lambda x, w: conv_nd(x, w, tuple(range(-p.n, 0)), padding=p.kernel // 2, groups=p.groups)


def _native(p: Problem) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda x, w: nnF.conv3d(x, w, padding=p.kernel // 2, groups=p.groups)


def _made(build: Callable[[], dict[str, Callable[[], Any]]]) -> dict[str, Callable[[], Any]] | str:
    """The passes of a contender, or why there are none."""
    try:
        return build()
    except Exception as error:
        return f"{type(error).__name__}: {str(error).strip().splitlines()[0][:120]}"


def beyond(setting: Setting) -> list[Row]:
    def run(p: Problem, kind: str) -> dict[str, Any]:
        dtype = dtype_of(kind)
        x, w = p.tensors(setting.device, dtype)
        roof_x, roof_w = p.roof(setting.device, dtype)
        contenders: dict[str, tuple[Tensor, Tensor, Callable[[Tensor, Tensor], Tensor]]] = {
            "ours": (x, w, _same(p)),
            "ours channels-last": (channels_last(x), channels_last(w), _same(p)),
            "roof": (roof_x, roof_w, _native(p)),
            "roof channels-last": (channels_last(roof_x), channels_last(roof_w), _native(p)),
        }
        within = "native", "onednn", "channels_last", "tiles", "polyphase"  # up to three axes, or transposed
        names = [a for a in ALGORITHMS if a not in within]
        contenders |= {name: (x, w, _by(name, p)) for name in names}
        if installed("torchnd"):
            contenders["torchnd"] = (x, w, _torchnd(p))
        with precision(kind):
            chosen = convnd.plan(x, w, padding=p.kernel // 2, groups=p.groups)
            figures = _measured(contenders, setting)
            figures["forward share"] = _share(figures, "ours", ("forward",))
            figures["both share"] = _share(figures, "ours", PASSES)
            figures["TFLOP/s"] = p.flops / figures["seconds"]["ours forward"] / 1e12
            figures["best"] = {which: _best(figures, names, which) for which in PASSES}
            figures["chosen"] = dict(zip(PASSES, (step.algorithm for step in chosen), strict=True))
            figures["memory"] = memory_of(
                lambda: F.conv(x, w, padding=p.kernel // 2, groups=p.groups), setting
            )
        figures["problem"] = p.__dict__ | {"flops": p.flops}
        return figures

    problems = QUICK if setting.quick else BEYOND
    # Every problem in half precision first, which is what matters most on a GPU.
    return [Row(f"{p} {k}", lambda p=p, k=k: run(p, k), limit=90) for k in kinds(setting) for p in problems]


def _measured(
    contenders: dict[str, tuple[Tensor, Tensor, Callable[[Tensor, Tensor], Tensor]]], setting: Setting
) -> dict[str, Any]:
    """Seconds by contender and pass; those that cannot, and why."""
    calls: dict[str, Callable[[], Any]] = {}
    left_out: dict[str, str] = {}
    for name, (x, w, function) in contenders.items():
        made = _made(lambda x=x, w=w, function=function: passes(x, w, function))
        if isinstance(made, str):
            left_out[name] = made
        else:
            calls |= {f"{name} {which}": call for which, call in made.items()}
    seconds, failed = timed(calls, setting, 0.1, SLOW)
    return {"seconds": seconds, "left out": {**left_out, **failed}}


def _total(figures: dict[str, Any], name: str, which: Sequence[str]) -> float:
    """Infinite where a pass of it did not run."""
    return sum(figures["seconds"].get(f"{name} {each}", float("inf")) for each in which)


def _share(figures: dict[str, Any], name: str, which: Sequence[str]) -> float:
    """Of the faster of the two roofs."""
    best = min(_total(figures, roof, which) for roof in ("roof", "roof channels-last"))
    return best / _total(figures, name, which)


def _best(figures: dict[str, Any], names: Sequence[str], which: str) -> str:
    return min(names, key=lambda name: _total(figures, name, (which,)))


WITHIN = (
    Problem(3, 8, 64, 64, 32),
    Problem(3, 8, 16, 16, 48),
    Problem(3, 8, 1, 32, 48),
    Problem(2, 32, 64, 64, 128),
)
WITHIN_QUICK = (Problem(2, 1, 4, 4, 6), Problem(3, 1, 4, 4, 4))


def within(setting: Setting) -> list[Row]:
    """Up to three axes beside torch's own, in both layouts of memory."""

    def run(p: Problem, kind: str) -> dict[str, Any]:
        native = getattr(nnF, f"conv{p.n}d")
        x, w = p.tensors(setting.device, dtype_of(kind))

        def theirs(x: Tensor, w: Tensor) -> Tensor:
            return native(x, w, padding=p.kernel // 2, groups=p.groups)

        last = channels_last(x), channels_last(w)
        contenders = {
            "ours": (x, w, _same(p)),
            "ours channels-last": (*last, _same(p)),
            "torch": (x, w, theirs),
            "torch channels-last": (*last, theirs),
        }
        with precision(kind):
            figures = _measured(contenders, setting)
        for end in ("", " channels-last"):
            times = _total(figures, f"torch{end}", PASSES), _total(figures, f"ours{end}", PASSES)
            figures[f"torch / ours{end}"] = times[0] / times[1]
        return figures

    problems = WITHIN_QUICK if setting.quick else WITHIN
    return [Row(f"{p} {k}", lambda p=p, k=k: run(p, k)) for k in kinds(setting) for p in problems]


# Kinds of kernels by words in their names; the first that fits.
KERNELS: dict[str, tuple[str, ...]] = {
    "layouts": ("nchwtonhwc", "nhwctonchw", "permute", "transpose", "converttensor"),
    "products": (
        "conv",
        "gemm",
        "xmma",
        "cutlass",
        "wgrad",
        "dgrad",
        "implicit",
        "cudnn",
        "mkldnn",
        "mm",
        "nvjet",
    ),
    "fft": ("fft", "regular_", "vector_"),
    "copies": ("copy", "memcpy", "memset", "cat", "index", "fill", "pad"),
    "sums": ("reduce", "add", "sum"),
}


def copies(setting: Setting) -> list[Row]:
    """Where the time of a forward and backward pass goes, by kinds of kernels."""

    def run(p: Problem, kind: str) -> dict[str, Any]:
        x, w = (t.requires_grad_() for t in p.tensors(setting.device, dtype_of(kind)))

        def step() -> None:
            out = _same(p)(x, w)
            torch.autograd.grad(out, (x, w), torch.ones_like(out))

        with precision(kind):
            step()
            return _kernels(step, setting)

    problems = QUICK if setting.quick else BEYOND[:7]
    return [Row(f"{p} {k}", lambda p=p, k=k: run(p, k)) for k in kinds(setting)[:2] for p in problems]


def _kernels(step: Callable[[], None], setting: Setting) -> dict[str, Any]:
    from torch.profiler import ProfilerActivity, profile

    activities = [ProfilerActivity.CUDA] if setting.gpu else [ProfilerActivity.CPU]
    with profile(activities=activities) as profiler:
        step()
        if setting.gpu:
            torch.cuda.synchronize()
    times: dict[str, float] = {}
    names: dict[str, float] = {}
    for event in profiler.key_averages():
        spent = event.self_device_time_total if setting.gpu else event.self_cpu_time_total
        if spent <= 0:
            continue
        kind = next(
            (k for k, words in KERNELS.items() if any(w in event.key.lower() for w in words)), "other"
        )
        times[kind] = times.get(kind, 0.0) + spent
        names[event.key[:80]] = names.get(event.key[:80], 0.0) + spent
    whole = sum(times.values())
    if not whole:
        raise RuntimeError("the profiler saw no kernel")
    shares = {kind: times.get(kind, 0.0) / whole for kind in (*KERNELS, "other")}
    longest = sorted(names.items(), key=lambda item: -item[1])[:12]
    listed = [f"{t / whole:.3f} {name}" for name, t in longest]
    return {"milliseconds": whole / 1e3, "part": shares, "longest": listed}
