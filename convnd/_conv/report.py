"""Reports which algorithms a convolution will use and what they cost, before anything is computed."""

from typing import Any, NamedTuple

from torch import Tensor

from ..arguments import Padding, PerAxis
from . import settings
from .algorithm import Algorithm
from .checks import prepared
from .cost import copied_result, estimates, workspace
from .execution import choose
from .problem import Arguments, Op, Problem, problem_of


class Step(NamedTuple):
    """One of the three maps of a convolution.

    Attributes:
        algorithm: its name in the literature, as :func:`convnd.algorithm` lists them (``"im2col"``, not its
            older name ``"channels"``).
        flops: multiplications and additions of the definition (not of the algorithm).
        workspace: bytes of scratch memory beside one copy of the input.
        estimates: estimated seconds of each algorithm considered.
    """

    algorithm: str
    flops: int
    workspace: int
    estimates: dict[str, float]


class Plan(NamedTuple):
    """How a convolution and its two gradients will be computed."""

    forward: Step
    input_gradient: Step
    weight_gradient: Step

    def __str__(self) -> str:
        rows = [("", "algorithm", "GFLOP", "workspace", "estimated ms")]
        for name, step in zip(self._fields, self, strict=True):
            times = ", ".join(f"{k} {v * 1e3:.3g}" for k, v in step.estimates.items())
            size = f"{step.workspace / 2**20:.1f} MiB"
            rows.append((name.replace("_", " "), step.algorithm, f"{step.flops / 1e9:.3g}", size, times))
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines = ("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in rows)
        return "\n".join(line.rstrip() for line in lines)


def plan(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: PerAxis = 1,
    padding: Padding = 0,
    dilation: PerAxis = 1,
    groups: int = 1,
    *,
    output_padding: PerAxis = 0,
    transposed: bool = False,
    padding_mode: Any = "zeros",
) -> Plan:
    """Which algorithms :func:`~convnd.functional.conv` will use for these tensors, and at what cost.

    Nothing is computed, so tensors on the ``meta`` device will do; they get the plan for the CPU. The plan is
    what an eager call would do, with a forced algorithm (:func:`convnd.algorithm`) or by estimates. With
    :func:`convnd.benchmark` on, a call measures instead.

    Args:
        input, weight, bias, stride, padding, dilation, groups, padding_mode: as in
            :func:`~convnd.functional.conv`.
        output_padding: as in :func:`~convnd.functional.conv_transpose`.
        transposed: plan :func:`~convnd.functional.conv_transpose` instead.

    Returns:
        The three steps, printed as a table: ``forward``, ``input_gradient``, ``weight_gradient``.

    Raises:
        ValueError, TypeError: as the convolution itself, also if a forced algorithm does not apply.

    >>> import torch, convnd
    >>> x, w = torch.empty(1, 64, 9, 9, 9, 9, device="meta"), torch.empty(64, 64, 3, 3, 3, 3, device="meta")
    >>> convnd.plan(x, w, padding=1).forward.algorithm
    'winograd'
    """
    arguments = Arguments(stride, padding, dilation, groups, output_padding, padding_mode)
    first: Op = "transpose" if transposed else "conv"
    x, _, g, sizes = prepared(first, input, weight, bias, arguments)
    p = problem_of(first, tuple(x.shape), tuple(weight.shape), g, sizes, x.dtype, x.device.type)
    sizes, g = g.before_padding(p.sizes)
    p = p._replace(sizes=sizes, geometry=g)
    forced = settings.forced.get()
    if forced is not None and not forced.applies(p):
        raise ValueError(f"algorithm {forced.name!r} does not apply over {len(p.kernel)} axes")
    second: Op = "conv" if transposed else "transpose"
    return Plan(*(_step(p._replace(op=op), forced) for op in (first, second, "weight")))


def _step(p: Problem, forced: Algorithm | None) -> Step:
    algorithm = choose(p, forced)
    scratch = min(workspace(p, algorithm), settings.workspace_limit) + copied_result(p, algorithm)
    return Step(algorithm.name, p.flops, scratch, {a.name: t for a, t in estimates(p).items()})
