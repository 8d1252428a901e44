r"""``im2col`` over the leading axes: their taps become input channels of one native call over the others.

Their output positions become batch entries, and the native kernel over the other axes does all the
arithmetic. If there are few output channels, neighbouring positions along the last leading axis become
output channels too (:mod:`.tiles`). In a strided transposed convolution the taps become output channels,
whose results are then added at their positions (:mod:`.kn2row`).
"""

from functools import lru_cache, partial
from math import prod

from torch import Tensor

from ..._spatial.windows import windows
from ..._torch.conv import MAX_AXES
from ..._torch.dtypes import LOW_PRECISION, wide
from ..._torch.memory import channels_last, empty, in_layout
from ...arguments import Ints
from .. import settings
from ..cost import CALL, COPY, RATE, copied_result, filled, native_seconds, workspace
from ..problem import Geometry, Problem, leading
from .kn2row import add_taps, piece_bytes
from .leading import pad_leading
from .native import native_conv, native_transpose, native_weight
from .tiles import (
    added_shifts,
    at_shifts,
    best_tiles,
    bias_at_shifts,
    few_in_long_vectors,
    join_tiles,
    kernel_at_shifts,
    split_tiles,
    split_tiles_last,
    strided,
)
from .transposed import ByConvolutions


@lru_cache(maxsize=4096)
def leading_tiles(p: Problem) -> Ints:
    """How many neighbouring output positions become channels, along the last leading axis only."""
    return best_tiles(p, (leading(len(p.kernel)) - 1,))


@lru_cache(maxsize=4096)
def native_problem(p: Problem) -> Problem:
    """The convolution over the other axes, with the taps of the leading axes and their tiles as channels."""
    lead, tiles = leading(len(p.kernel)), leading_tiles(p)
    return p._replace(
        batch=p.batch * prod(-(-count // b) for count, b in zip(p.counts[:lead], tiles, strict=False)),
        inputs=p.inputs * prod(k + b - 1 for k, b in zip(p.kernel[:lead], tiles, strict=False)),
        outputs=p.outputs * prod(tiles),
        sizes=p.sizes[lead:],
        counts=p.counts[lead:],
        kernel=p.kernel[lead:],
        geometry=p.geometry.others(lead),
    )


def prefers_channels_last(p: Problem) -> bool:
    """As :func:`.tiles.prefers_channels_last`, for tiles that need no copy into place."""
    inside = native_problem(p)
    return not few_in_long_vectors(inside.inputs, inside.outputs, p.dtype)


def taps_as_channels(
    x: Tensor, kernel: Ints, g: Geometry, last: bool = True
) -> tuple[Tensor, Ints, Geometry]:
    """``(N * positions, groups * taps * C / groups, *others)``, the positions, and the remaining geometry.

    Taps and positions are those of the leading axes. With ``last`` the result is in channels-last memory, so
    that the copy moves whole runs of channels and the native kernel gets its layout; otherwise contiguous.
    """
    n = len(g.stride)
    lead = leading(n)
    x, rest = pad_leading(x, g, lead, last)
    for axis in range(lead):
        x = windows(x, 2 + axis, kernel[axis], g.stride[axis], g.dilation[axis])
    x = x.unflatten(1, (g.groups, -1))  # (N, groups, C / groups, *positions, *others, *taps)
    batch, positions, others = x.shape[0], tuple(x.shape[3 : 3 + lead]), tuple(x.shape[3 + lead : 3 + n])
    outer, inner = range(3, 3 + lead), range(3 + lead, 3 + n)
    channels = 1, *range(3 + n, x.ndim), 2
    merged = batch * prod(positions), prod([x.shape[axis] for axis in channels])  # a list: for Dynamo
    if not last:
        return x.permute(0, *outer, *channels, *inner).reshape(*merged, *others), positions, rest
    x = x.permute(0, *outer, *inner, *channels).reshape(merged[0], *others, merged[1])
    return x.movedim(-1, 1), positions, rest


def outputs_of_taps(y: Tensor, batch: int, positions: Ints) -> Tensor:
    """Reshape ``(N * positions, O, *others)`` to ``(N, O, *outputs)``."""
    return y.unflatten(0, (batch, *positions)).movedim(1 + len(positions), 1)


def weight_of_taps(w: Tensor) -> Tensor:
    """The kernel with the taps of the leading axes as input channels."""
    lead = leading(w.ndim - 2)
    return w.movedim(1, 1 + lead).flatten(1, 1 + lead)


def im2col_conv(x: Tensor, w: Tensor, bias: Tensor | None, g: Geometry) -> Tensor:
    """The convolution; traceable."""
    batch = x.shape[0]
    x, positions, rest = taps_as_channels(x, tuple(w.shape[2:]), g)
    y = native_conv(channels_last(x), weight_of_taps(w), bias, rest)
    return outputs_of_taps(y, batch, positions)


class Im2col(ByConvolutions):
    """For the leading axes beyond the last three, at least one."""

    name = "im2col"
    old_name = "channels"

    def applies(self, p: Problem) -> bool:
        return len(p.kernel) > 1

    def considered(self, p: Problem) -> bool:
        # Made of parts, a transposed convolution is many small calls and one long shuffle, but rounds
        # half precision only once.
        added = max(p.geometry.stride) > 1 and p.dtype not in LOW_PRECISION
        return len(p.kernel) > MAX_AXES and (p.op != "transpose" or added)

    def spreads_inputs(self, p: Problem) -> bool:
        return p.op == "conv" and max(leading_tiles(p)) > 1

    def workspace(self, p: Problem) -> int:
        if p.op == "transpose":
            return piece_bytes(p) if max(p.geometry.stride) > 1 else super().workspace(p)
        inside = native_problem(p)
        alone = max(leading_tiles(p)) == 1 or (not prefers_channels_last(p) and p.geometry.groups == 1)
        written = 0 if p.op == "conv" and alone else inside.result_bytes
        return p.dtype.itemsize * inside.batch * inside.inputs * prod(inside.sizes) + written

    def seconds(self, p: Problem) -> float:
        moved = workspace(p, self) / COPY
        if p.op != "transpose":
            inside = native_problem(p)
            return 8 * CALL + native_seconds(inside, (1,) * len(inside.kernel)) + moved
        if max(p.geometry.stride) == 1:
            return super().seconds(p)
        taps = prod(p.kernel[: leading(len(p.kernel))])
        rate = RATE * filled(p.inputs // p.geometry.groups * taps, p.dtype)
        return CALL * (2 + taps) + p.flops / rate + moved + copied_result(p, self) / COPY

    def conv(self, p: Problem, x: Tensor, w: Tensor, bias: Tensor | None) -> Tensor:
        g, tiles, last = p.geometry, leading_tiles(p), prefers_channels_last(p)
        w, bias = at_shifts(w, tiles, g.groups), bias_at_shifts(bias, tiles, g.groups)
        x, positions, rest = taps_as_channels(x, tuple(w.shape[2:]), strided(g, p.counts, tiles), last)
        y = native_conv(in_layout(x, last), weight_of_taps(w), bias, rest)
        return join_tiles(outputs_of_taps(y, p.batch, positions), tiles, g.groups, p.counts, last)

    def transpose(self, p: Problem, y: Tensor, w: Tensor, bias: Tensor | None) -> Tensor:
        """The result is not cut, but the terms added to it are. Writes in place."""
        g, n = p.geometry, len(p.kernel)
        if max(g.stride) == 1:
            return super().transpose(p, y, w, bias)
        lead, dtype = leading(n), y.dtype
        y, w = channels_last(wide(y)), wide(w)
        x = empty(y, (y.shape[0], w.shape[1] * g.groups, *p.sizes), True)
        rows = zip(p.kernel, g.pads[:lead], g.dilation, strict=False)
        offsets = [tuple(t * d - before for t in range(k)) for k, (before, _), d in rows]
        w, rest, sizes = weight_of_taps(w), g.others(lead), p.sizes[lead:]
        transpose = partial(native_transpose, w=w, bias=None, g=rest, sizes=sizes)
        into = split_tiles(x.movedim(1, 1 + lead), (1,) * (n - lead), g.groups)
        add_taps(into, bias, y.movedim(1, 1 + lead), g.stride, offsets, transpose, settings.workspace_limit)
        return x.to(dtype)

    def weight(self, p: Problem, x: Tensor, y: Tensor) -> Tensor:
        g, tiles = p.geometry, leading_tiles(p)
        y = split_tiles_last(y, tiles, g.groups).contiguous().movedim(-1, 1)
        within, kernel = strided(g, tuple(y.shape[2:]), tiles), kernel_at_shifts(p.kernel, tiles)
        x, positions, rest = taps_as_channels(x, kernel, within)
        lead = len(positions)
        y = channels_last(y.movedim(1, 1 + lead).flatten(0, lead))
        w = native_weight(channels_last(x), y, rest, kernel[lead:])
        w = w.unflatten(1, (*kernel[:lead], -1)).movedim(1 + lead, 1)
        return added_shifts(w, p.kernel, tiles, g.groups)


ALGORITHM = Im2col()
