"""The public functions of convolution and transposed convolution."""

from collections.abc import Sequence

from torch import Tensor

from .._conv.dispatch import convolve, torch_result
from .._conv.problem import Arguments
from .._fx import leaf_function
from ..arguments import Padding, PerAxis, same_padding


@leaf_function
def conv(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: PerAxis = 1,
    padding: Padding = 0,
    dilation: PerAxis = 1,
    groups: int = 1,
    *,
    padding_mode: str | Sequence[str] = "zeros",
) -> Tensor:
    r"""Convolution (cross-correlation) over as many axes as the weight has.

    .. math:: out[n, c, o] = bias[c] + \sum_{c', t} weight[c, c', t] \, input[n, c', o s + t d - p]

    Args:
        input: ``(N, C, *spatial)`` or ``(C, *spatial)``, floating-point, complex or integer; integers wrap
            around on overflow. Batch and channels may be empty: a sum over no channels is the bias.
        weight: ``(O, C / groups, *kernel)``; it determines the number of spatial axes.
        bias: ``(O,)`` or None.
        stride, dilation: int, or one per axis.
        padding: int, one int per axis, one ``(before, after)`` pair per axis, ``"valid"`` (none) or
            ``"same"`` (output size ``ceil(size / stride)``, the odd one after).
        groups: channels are split into this many independent convolutions.
        padding_mode: ``"zeros"``, ``"reflect"``, ``"replicate"`` or ``"circular"``, or one per axis.

    Returns:
        ``(N, O, *out)`` with ``out = (size + before + after - dilation * (kernel - 1) - 1) // stride + 1``.

    Raises:
        ValueError, TypeError: naming the argument, the rule and the value received.

    >>> import torch
    >>> import convnd.functional as F
    >>> F.conv(torch.randn(1, 3, 8, 8, 8, 8), torch.randn(16, 3, 3, 3, 3, 3), padding="same").shape
    torch.Size([1, 16, 8, 8, 8, 8])
    """
    arguments = Arguments(stride, padding, dilation, groups, 0, padding_mode)
    out = torch_result("conv", input, weight, bias, arguments)
    return convolve("conv", input, weight, bias, arguments) if out is None else out


@leaf_function
def conv_transpose(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: PerAxis = 1,
    padding: Padding = 0,
    output_padding: PerAxis = 0,
    groups: int = 1,
    dilation: PerAxis = 1,
    *,
    padding_mode: str | Sequence[str] = "zeros",
) -> Tensor:
    r"""Transposed convolution: the adjoint of :func:`conv` with the same weight and arguments.

    .. math:: out[n, c, i s + t d - p] \mathrel{+}= weight[c', c, t] \, input[n, c', i]

    Args:
        input: ``(N, C, *spatial)`` or ``(C, *spatial)``, as in :func:`conv`.
        weight: ``(C, O / groups, *kernel)``.
        bias: ``(O,)`` or None.
        stride, dilation: int, or one per axis.
        padding: that of the :func:`conv` whose adjoint this is; ``"same"`` gives ``size * stride``.
        output_padding: entries added after each axis, less than stride or dilation.
        groups: channels are split into this many independent convolutions.
        padding_mode: as in :func:`conv`; contributions to entries that padding repeats are summed.

    Returns:
        ``(N, O, *out)`` with ``out = (size - 1) * stride - before - after + dilation * (kernel - 1)
        + output_padding + 1``.

    Raises:
        ValueError, TypeError: naming the argument, the rule and the value received.

    >>> import torch
    >>> import convnd.functional as F
    >>> F.conv_transpose(torch.randn(1, 16, 4, 4, 4, 4), torch.randn(16, 3, 2, 2, 2, 2), stride=2).shape
    torch.Size([1, 3, 8, 8, 8, 8])
    """
    arguments = Arguments(stride, padding, dilation, groups, output_padding, padding_mode)
    out = torch_result("transpose", input, weight, bias, arguments)
    return convolve("transpose", input, weight, bias, arguments) if out is None else out


def transposed_same(
    inputs: Sequence[int],
    outputs: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
) -> tuple[tuple[tuple[int, int], ...], tuple[int, ...]]:
    """Padding and output padding with which ``"same"`` is the adjoint of a "same" convolution."""
    pads = tuple(map(same_padding, outputs, kernel, stride, dilation))
    reach = (
        (i - 1) * s + d * (k - 1) + 1 for i, k, s, d in zip(inputs, kernel, stride, dilation, strict=True)
    )
    return pads, tuple(o + sum(p) - r for o, p, r in zip(outputs, pads, reach, strict=True))
