"""``channels_last``: torch's kernel on copies in channels-last memory format."""

from torch import Tensor

from ..._torch.conv import MAX_AXES
from ..._torch.memory import channels_last
from ..algorithm import Algorithm
from ..cost import COPY, FEW_CHANNELS, native_seconds, single_precision_on_cpu, workspace
from ..problem import Problem
from .native import native_conv, native_transpose, native_weight


class ChannelsLast(Algorithm):
    """For two or three axes, whose kernels support that layout."""

    name = "channels_last"
    copies_result = False

    def applies(self, p: Problem) -> bool:
        return 1 < len(p.kernel) <= MAX_AXES

    def beats_native(self, p: Problem) -> bool:
        if not single_precision_on_cpu(p) or p.op == "conv":
            return False
        if p.op == "transpose":
            return max(p.geometry.stride) > 1
        return p.geometry.groups == 1 and 1 < p.inputs <= FEW_CHANNELS and p.outputs <= FEW_CHANNELS

    def workspace(self, p: Problem) -> int:
        return p.result_bytes if p.op == "weight" else 0

    def seconds(self, p: Problem) -> float:
        return native_seconds(p, (1,) * len(p.kernel)) + workspace(p, self) / COPY

    def conv(self, p: Problem, x: Tensor, w: Tensor, bias: Tensor | None) -> Tensor:
        return native_conv(channels_last(x), w, bias, p.geometry)

    def transpose(self, p: Problem, y: Tensor, w: Tensor, bias: Tensor | None) -> Tensor:
        return native_transpose(channels_last(y), w, bias, p.geometry, p.sizes)

    def weight(self, p: Problem, x: Tensor, y: Tensor) -> Tensor:
        return native_weight(channels_last(x), channels_last(y), p.geometry, p.kernel)


ALGORITHM = ChannelsLast()
