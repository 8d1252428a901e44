"""``onednn``: oneDNN's kernel for a single small sample, for which torch would not choose it.

The weight gradient is that of a batch of two, the halves of the sample, which torch passes to oneDNN.
"""

import torch
from torch import Tensor

from ..._spatial.pad import zero_pad_fast
from ..._torch import conv as kernels
from ..algorithm import Algorithm
from ..cost import native_seconds, single_precision_on_cpu
from ..problem import Problem
from .native import native_weight


class OneDNN(Algorithm):
    """For convolutions up to three axes on the CPU and their weight gradients."""

    name = "onednn"

    def applies(self, p: Problem) -> bool:
        few = kernels.onednn_skipped(p.batch, p.inputs, p.sizes, p.dtype)
        return len(p.kernel) <= kernels.MAX_AXES and p.device == "cpu" and p.op != "transpose" and few

    def beats_native(self, p: Problem) -> bool:
        return single_precision_on_cpu(p) and self.applies(p)

    def seconds(self, p: Problem) -> float:
        return native_seconds(p, (1,) * len(p.kernel))

    def conv(self, p: Problem, x: Tensor, w: Tensor, bias: Tensor | None) -> Tensor:
        x, g = p.geometry.even(x)
        x, w = kernels.usual_strides(x), kernels.usual_weight(w)
        padding, dilation = tuple(a for a, _ in g.pads), kernels.dilation_between_taps(g.dilation, p.kernel)
        return torch.ops.aten.mkldnn_convolution(x, w, bias, padding, g.stride, dilation, g.groups)

    def weight(self, p: Problem, x: Tensor, y: Tensor) -> Tensor:
        """One sample as a batch of two: the halves of the longest axis of ``y`` and the inputs they read."""
        g, kernel, counts = p.geometry, p.kernel, tuple(y.shape[2:])
        axis = max(range(len(counts)), key=counts.__getitem__)
        half, s, e = (counts[axis] + 1) // 2, g.stride[axis], g.extents(kernel)[axis]
        before, size = g.pads[axis][0], x.shape[2 + axis]
        around = [(0, 0)] * len(kernel)

        def halves(t: Tensor, pair: tuple[int, int], length: int, step: int) -> Tensor:
            t = zero_pad_fast(t, (*around[:axis], pair, *around[axis + 1 :]))
            return torch.cat([t.narrow(2 + axis, start, length) for start in (0, step)])

        x = halves(x, (before, (2 * half - 1) * s + e - before - size), (half - 1) * s + e, half * s)
        y = halves(y, (0, 2 * half - counts[axis]), half, half)
        pads = tuple((0, 0) if i == axis else pair for i, pair in enumerate(g.pads))
        return native_weight(x, y, g._replace(pads=pads), kernel)


ALGORITHM = OneDNN()
