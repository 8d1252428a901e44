"""One call on the device against the same in float64 on the CPU, forward and backward, in every precision.

Operands are rounded to the precision first, so that the answer is what exact arithmetic gives of what the
device got. An error is the largest difference against the largest value of a result (at least 1).
"""

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from .rows import Setting

ROUNDINGS = 8  # that a result may be off by, in units of its precision


@dataclass(frozen=True)
class Precision:
    name: str
    dtype: torch.dtype
    tolerance: float
    tf32: bool = False


def _rounding(bits: int) -> float:
    return ROUNDINGS * 2.0**-bits


FLOAT32 = Precision("float32", torch.float32, 1e-4)
BF16 = Precision("bf16", torch.bfloat16, _rounding(8))
PRECISIONS = (
    Precision("float64", torch.float64, 1e-9),
    FLOAT32,
    Precision("tf32", torch.float32, _rounding(10), tf32=True),
    BF16,
    Precision("fp16", torch.float16, _rounding(10)),
)


def precisions(setting: Setting) -> tuple[Precision, ...]:
    """TF32 is of GPUs alone; a quick run tries one that is exact and one that rounds."""
    if setting.quick:
        return FLOAT32, BF16
    return tuple(p for p in PRECISIONS if setting.gpu or not p.tf32)


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Whether float32 products may be rounded to TF32."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


class Mismatch(AssertionError):
    """Results that differ; with the figures measured all the same."""

    def __init__(self, text: str, figures: dict[str, Any]) -> None:
        super().__init__(text)
        self.figures = figures


@dataclass(frozen=True)
class Call:
    """A function of tensors in float64 on the CPU, or a module, whose parameters then count too."""

    name: str
    function: Callable[..., Any]
    tensors: Sequence[Tensor] = field(default_factory=tuple)
    constants: Sequence[Tensor] = field(default_factory=tuple)  # no gradient is taken of these
    exact: bool = False  # rounding in half precision may choose other entries

    def at(self, device: str, dtype: torch.dtype, through: torch.dtype | None = None) -> "Call":
        """On a device, rounded to ``through`` and in ``dtype``."""

        def moved(x: Tensor) -> Tensor:
            return x.to(device, through).to(dtype) if x.is_floating_point() else x.to(device)

        function = self.function
        if isinstance(function, nn.Module):
            function = copy.deepcopy(function).to(device, through).to(dtype)
        tensors, constants = ([*map(moved, given)] for given in (self.tensors, self.constants))
        return replace(self, function=function, tensors=tensors, constants=constants)

    def laid_out(self, layout: Callable[[Tensor], Tensor]) -> "Call":
        return replace(self, tensors=[*map(layout, self.tensors)])

    def results(self) -> dict[str, Tensor]:
        """Outputs, and gradients of the first by all tensors and parameters; buffers of a module."""
        leaves = [t.detach().requires_grad_(t.is_floating_point()) for t in self.tensors]
        output = self.function(*leaves, *self.constants)
        outputs = list(output) if isinstance(output, (tuple, list)) else [output]
        found = {f"output {i}": x.detach() for i, x in enumerate(outputs)}
        module = self.function if isinstance(self.function, nn.Module) else nn.Module()
        named = [(f"input {i}", leaf) for i, leaf in enumerate(leaves) if leaf.requires_grad]
        named += list(module.named_parameters())
        if outputs[0].requires_grad:
            directions = [pattern(x) for x in outputs if x.requires_grad]
            gradients = torch.autograd.grad(
                [x for x in outputs if x.requires_grad], [t for _, t in named], directions, allow_unused=True
            )
            found |= {
                f"gradient of {name}": g.detach()
                for (name, _), g in zip(named, gradients, strict=True)
                if g is not None
            }
        return found | {name: b.detach().clone() for name, b in module.named_buffers()}


def pattern(like: Tensor) -> Tensor:
    """Small whole numbers without a period that an axis may have."""
    numbers = (torch.arange(like.numel(), dtype=torch.float64) * 7919 % 101 % 5) - 2
    return numbers.reshape(like.shape).to(like)


def error(got: Tensor, expected: Tensor) -> float:
    """The largest difference against the largest value; infinite where the results are of other kinds."""
    got, expected = got.cpu().double(), expected.cpu().double()
    if got.shape != expected.shape or not torch.equal(got.isfinite(), expected.isfinite()):
        return float("inf")
    if not got.numel():
        return 0.0
    difference = (got - expected).nan_to_num(0.0, 0.0, 0.0).abs().max()
    return float(difference / expected.nan_to_num(0.0, 0.0, 0.0).abs().max().clamp(min=1.0))


def worst(got: dict[str, Tensor], expected: dict[str, Tensor]) -> tuple[float, str]:
    """The largest error, and of which result."""
    if got.keys() != expected.keys():
        return float("inf"), f"results {sorted(got)} instead of {sorted(expected)}"
    errors = [(error(got[name], expected[name]), name) for name in got]
    return max(errors, default=(0.0, ""))


def check(
    calls: Iterable[Call], setting: Setting, chosen: Sequence[Precision] | None = None, layouts: bool = True
) -> dict[str, Any]:
    """The worst error of each precision, and of float32 in each layout of memory, judged at the end."""
    figures: dict[str, Any] = {}
    wrong: list[str] = []
    count = 0

    def note(what: str, call: Call, allowed: float, run: Callable[[], tuple[float, str]]) -> None:
        try:
            found, where = run()
        except Exception as problem:
            found, where = float("inf"), f"{type(problem).__name__}: {problem}".splitlines()[0]
        figures[what] = max(figures.get(what, 0.0), found)
        if not found <= allowed:
            wrong.append(f"{what}: {call.name}: {where} off by {found:.3g}, allowed {allowed:.3g}")

    for call in calls:
        count += 1
        for precision in chosen or precisions(setting):
            if call.exact and precision.dtype.itemsize < 4:
                continue

            def run(call: Call = call, precision: Precision = precision) -> tuple[float, str]:
                expected = call.at("cpu", torch.float64, precision.dtype).results()
                with tf32(precision.tf32):
                    return worst(call.at(setting.device, precision.dtype).results(), expected)

            note(precision.name, call, precision.tolerance, run)
        if layouts:
            expected = call.at("cpu", torch.float64, torch.float32).results()
            for name, layout in LAYOUTS.items():

                def placed(call: Call = call, layout: Any = layout, expected: Any = expected) -> Any:
                    with tf32(False):
                        laid_out = call.at(setting.device, torch.float32).laid_out(layout)
                        return worst(laid_out.results(), expected)

                note(name, call, FLOAT32.tolerance, placed)
    if wrong:
        raise Mismatch(
            "\n".join([f"{len(wrong)} of {count} cases and their precisions", *wrong[:4]]), figures
        )
    return {"cases": count, **figures}


def channels_last(x: Tensor) -> Tensor:
    return x.movedim(1, -1).contiguous().movedim(-1, 1) if x.ndim > 2 else x


def reversed_axes(x: Tensor) -> Tensor:
    """The first axis is the fastest."""
    order = tuple(reversed(range(x.ndim)))
    return x.permute(order).contiguous().permute(order)


def sliced(x: Tensor) -> Tensor:
    """Every other entry of a larger tensor, which does not begin at its beginning."""
    if x.ndim == 0:
        return x
    larger = x.new_full((*(n + 1 for n in x.shape[:-1]), 2 * x.shape[-1] + 1), float("nan"))
    part = larger[(*(slice(1, None),) * (x.ndim - 1), slice(1, None, 2))]
    return part.copy_(x)


LAYOUTS = {"channels last": channels_last, "reversed": reversed_axes, "sliced": sliced}
