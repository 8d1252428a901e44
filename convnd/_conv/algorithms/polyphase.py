"""``polyphase``: a transposed convolution as several plain ones, each by its own best algorithm."""

from functools import partial
from math import prod

from torch import Tensor

from ..._torch.conv import MAX_AXES, onednn_skipped
from ..._torch.dtypes import LOW_PRECISION
from ..algorithm import Algorithm
from ..cost import (
    CALL,
    COPY,
    FEW_CHANNELS,
    copied_result,
    estimated_best,
    seconds,
    single_precision_on_cpu,
    workspace,
)
from ..execution import convolution
from ..problem import Problem
from .im2col import ALGORITHM as IM2COL
from .transposed import convolutions_of, polyphase_transpose


class Polyphase(Algorithm):
    """For transposed convolutions only."""

    name = "polyphase"
    old_name = "phases"

    def applies(self, p: Problem) -> bool:
        return p.op == "transpose"

    def considered(self, p: Problem) -> bool:
        instead = max(p.geometry.stride) == 1 or p.dtype in LOW_PRECISION  # instead of im2col
        return len(p.kernel) > MAX_AXES and p.op == "transpose" and instead

    def beats_native(self, p: Problem) -> bool:
        if not single_precision_on_cpu(p) or p.op != "transpose" or max(p.geometry.stride) > 1:
            return False
        few = p.outputs <= 2 or max(p.inputs, p.outputs) <= FEW_CHANNELS
        return onednn_skipped(p.batch, p.outputs, p.counts, p.dtype) or (few and p.geometry.groups == 1)

    def workspace(self, p: Problem) -> int:
        return workspace(convolutions_of(p), IM2COL)

    def seconds(self, p: Problem) -> float:
        inside = convolutions_of(p)
        each = prod(p.geometry.stride) * CALL
        return each + seconds(inside, estimated_best(inside)) + copied_result(p, self) / COPY

    def transpose(self, p: Problem, y: Tensor, w: Tensor, bias: Tensor | None) -> Tensor:
        convolve = partial(convolution, forced=None)
        return polyphase_transpose(y, w, bias, p.geometry, p.sizes, convolve)


ALGORITHM = Polyphase()
