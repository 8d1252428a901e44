"""Laws of spatial operators, each a function of an implementation and a case.

An implementation is a function of NumPy arrays, called with torch's arguments in torch's order
(:func:`~convnd.testing.torch_on_arrays` makes one from a function of tensors). A law calls it on the
case and on variations of it. If the results are inconsistent, it raises
:class:`~convnd.testing.Counterexample`, an AssertionError that reproduces the case. No expected values are
needed. A law that does not apply to a case (permuting a single axis, say) passes. ``atol`` is the largest
difference to accept.

``LAWS`` lists the laws of each operator:

>>> [law.__name__ for law in LAWS["max_pool"]]
['size_one_axis', 'permuted_axes', 'strided', 'constant', 'adds_constant', 'monotone']
"""

from collections.abc import Callable

import numpy as np

from . import reference
from .cases import NEUTRAL, Array, Case, Counterexample, Implementation, array_code, call

__all__ = [
    "LAWS",
    "Law",
    "adds_constant",
    "adjointness",
    "bias_added_once",
    "constant",
    "differs",
    "linear_in_input",
    "linear_in_weight",
    "monotone",
    "permuted_axes",
    "separable",
    "size_one_axis",
    "strided",
    "translation",
    "zero_stuffed",
]

Law = Callable[..., None]


def differs(left: Array, right: Array, atol: float) -> bool:
    """True if shapes differ, or values by more than ``atol``; NaN equals NaN."""
    if left.shape != right.shape:
        return True
    with np.errstate(invalid="ignore"):  # infinity minus infinity
        near = np.isclose(left, right, rtol=0, atol=atol, equal_nan=True)
    return not near.all()


def _require(law: str, case: Case, left: Array, right: Array, atol: float) -> None:
    """Require both sides of a law to be equal, in shape and in values."""
    if differs(left, right, atol):
        _fail(law, case, left, right)


def _fail(law: str, case: Case, left: Array, right: Array) -> None:
    statement = _STATEMENTS[law]
    raise Counterexample(
        f"{case.operator} breaks the law {law}: {statement}\n"
        f"case = {case!r}\nlaws.{law}(fn, case)\n"
        f"left:  {array_code(left)}\nright: {array_code(right)}",
        case,
        [law],
    )


def _another(like: Array) -> Array:
    """Small integers unrelated to the case, the same for equal shapes."""
    return np.random.default_rng(like.size).integers(-3, 4, like.shape).astype(np.float64)


def _insert(values: tuple, at: int, value: object) -> tuple:
    return (*values[:at], value, *values[at:])


def _neutral(name: str, like: object) -> object:
    """The neutral entry of an argument; for padding given in pairs, a pair."""
    return (0, 0) if isinstance(like, tuple) else NEUTRAL[name]


def _entrywise(case: Case, axis: int) -> Case:
    """The case with all arguments neutral except on one axis."""
    changes = {
        name: tuple(v if i == axis else _neutral(name, v) for i, v in enumerate(value))
        for name, value in case.kwargs.items()
        if name in NEUTRAL
    }
    return case.replace(**changes)


def size_one_axis(fn: Implementation, case: Case, *, atol: float = 0.0) -> None:
    """Inserting an axis of size 1 with neutral arguments anywhere changes nothing."""
    expected = call(fn, case)
    for at in range(case.spatial_dims + 1):
        changes = {
            name: _insert(value, at, _neutral(name, value[0]))
            for name, value in case.kwargs.items()
            if name in NEUTRAL
        }
        weight = None if case.weight is None else np.expand_dims(case.weight, 2 + at)
        lifted = case.replace(input=np.expand_dims(case.input, 2 + at), weight=weight, **changes)
        _require(
            "size_one_axis",
            case,
            call(fn, lifted),
            np.expand_dims(expected, min(2 + at, expected.ndim)),
            atol,
        )


def permuted_axes(fn: Implementation, case: Case, *, atol: float = 0.0) -> None:
    """Permuting the axes of input, kernel and arguments permutes the output."""
    n = case.spatial_dims
    expected = call(fn, case)
    for order in {tuple(reversed(range(n))), (*range(1, n), 0)} - {tuple(range(n))}:
        axes = (0, 1, *(2 + a for a in order))
        changes = {k: tuple(v[a] for a in order) for k, v in case.kwargs.items() if k in NEUTRAL}
        weight = None if case.weight is None else case.weight.transpose(axes)
        permuted = case.replace(input=case.input.transpose(axes), weight=weight, **changes)
        right = expected.transpose(axes) if expected.ndim == n + 2 else expected
        _require("permuted_axes", case, call(fn, permuted), right, atol)


def linear_in_input(fn: Implementation, case: Case, *, atol: float = 0.0) -> None:
    """``fn(2 x + 3 y) = 2 fn(x) + 3 fn(y)`` without bias."""
    other = _another(case.input)
    parts = [call(fn, case.replace(input=x, bias=None)) for x in (case.input, other)]
    mixed = call(fn, case.replace(input=2 * case.input + 3 * other, bias=None))
    _require("linear_in_input", case, mixed, 2 * parts[0] + 3 * parts[1], atol)


def linear_in_weight(fn: Implementation, case: Case, *, atol: float = 0.0) -> None:
    """``fn(x, 2 w + 3 v) = 2 fn(x, w) + 3 fn(x, v)`` without bias."""
    assert case.weight is not None
    other = _another(case.weight)
    parts = [call(fn, case.replace(weight=w, bias=None)) for w in (case.weight, other)]
    mixed = call(fn, case.replace(weight=2 * case.weight + 3 * other, bias=None))
    _require("linear_in_weight", case, mixed, 2 * parts[0] + 3 * parts[1], atol)


def bias_added_once(fn: Implementation, case: Case, *, atol: float = 0.0) -> None:
    """The output with a bias is the output without it plus the bias of each channel."""
    if case.bias is not None:
        plain = call(fn, case.replace(bias=None))
        bias = case.bias.reshape(-1, *[1] * case.spatial_dims)
        _require("bias_added_once", case, call(fn, case), plain + bias, atol)


def translation(fn: Implementation, case: Case, *, atol: float = 0.0) -> None:
    """Shifting an input surrounded by zeros shifts the output, on every axis.

    With stride s, a shift by s inputs is one output of a convolution, and a shift by one input is s outputs
    of a transposed convolution.
    """
    transposed = case.operator == "conv_transpose"
    triples = zip(case.per_axis("stride"), case.padding_pairs, case.per_axis("padding_mode"), strict=True)
    for axis, (s, pads, mode) in enumerate(triples, start=2):
        margin = 0 if mode == "zeros" else max(pads) + 1  # so that padding is zero in any mode
        step, moved = (1, s) if transposed else (s, 1)
        outputs = []
        for before, after in [(0, step), (step, 0)]:
            widths = [(0, 0)] * case.input.ndim
            widths[axis] = (margin + before, margin + after)
            outputs.append(call(fn, case.replace(input=np.pad(case.input, widths), bias=None)))
        if min(out.ndim for out in outputs) > axis:
            still, late = (np.moveaxis(out, axis, 0) for out in outputs)
            _require("translation", case, late[moved:], still[: max(len(still) - moved, 0)], atol)


def separable(fn: Implementation, case: Case, *, atol: float = 0.0) -> None:
    """A kernel that is an outer product equals a chain of 1-D kernels, one per axis."""
    assert case.weight is not None
    n = case.spatial_dims
    lines = [np.moveaxis(case.weight[0, 0], axis, -1)[(0,) * (n - 1)] for axis in range(n)]
    kernels = [line.reshape([-1 if i == axis else 1 for i in range(n)]) for axis, line in enumerate(lines)]
    whole = np.ones((1,) * n)
    for kernel in kernels:
        whole = whole * kernel
    single = case.replace(input=case.input[:, :1], weight=whole[None, None], bias=None, groups=1)
    chain = single
    for axis, kernel in enumerate(kernels):
        step = _entrywise(single, axis).replace(input=chain.input, weight=kernel[None, None])
        chain = chain.replace(input=call(fn, step))
    _require("separable", case, call(fn, single), chain.input, atol)


def strided(fn: Implementation, case: Case, *, atol: float = 0.0) -> None:
    """The output with stride s is every s-th output with stride 1 (for pools, without ``ceil_mode``)."""
    if "stride" in case.kwargs:
        case_ = case.replace(ceil_mode=False)
        dense = call(fn, case_.replace(stride=(1,) * case.spatial_dims))
        every = tuple(slice(None, None, s) for s in case.per_axis("stride"))
        right = dense[(slice(None), slice(None), *every)] if dense.ndim == case.input.ndim else dense
        _require("strided", case, call(fn, case_), right, atol)


def zero_stuffed(fn: Implementation, case: Case, *, atol: float = 0.0) -> None:
    """Stride s of a transposed convolution equals stride 1 on the input with zeros inserted."""
    if "stride" in case.kwargs:
        strides, extra = case.per_axis("stride"), case.per_axis("output_padding")
        sizes = [(i - 1) * s + 1 + e for i, s, e in zip(case.input.shape[2:], strides, extra, strict=True)]
        stuffed = np.zeros((*case.input.shape[:2], *sizes))
        at = (slice(0, (i - 1) * s + 1, s) for i, s in zip(case.input.shape[2:], strides, strict=True))
        stuffed[(slice(None), slice(None), *at)] = case.input
        n = case.spatial_dims
        dense = case.replace(input=stuffed, stride=(1,) * n, output_padding=(0,) * n)
        _require("zero_stuffed", case, call(fn, case), call(fn, dense), atol)


def adjointness(
    fn: Implementation, case: Case, *, adjoint: Implementation | None = None, atol: float = 0.0
) -> None:
    """``<conv x, y> = <x, conv_transpose y>`` with the same weight; ``fn`` may be either operator.

    ``adjoint`` is the implementation of the other operator, on NumPy arrays; by default the plain loops of
    the reference, which support zero padding only.
    """
    modes = {m for m in case.per_axis("padding_mode") if m != "zeros"}
    if modes and (adjoint is None or case.operator == "conv_transpose"):
        return
    out = call(fn, case.replace(bias=None))
    other = _adjoint_case(case, out, bool(modes))
    if other is None:
        _fail("adjointness", case, out, case.input)
        return
    back = reference.evaluate(other) if adjoint is None else call(adjoint, other)
    # With an output_padding above the stride, the output has room for windows beyond the input.
    back = back[tuple(slice(None if axis < 2 else size) for axis, size in enumerate(case.input.shape))]
    if back.shape != case.input.shape:
        _fail("adjointness", case, case.input, back)
    left, right = (out * other.input).sum(), (case.input * back).sum()
    _require("adjointness", case, left, right, atol * max(1, out.size))


def _adjoint_case(case: Case, out: Array, with_modes: bool) -> Case | None:
    """The case of the adjoint operator on an input shaped like ``out``; None if there is none."""
    if out.ndim != case.input.ndim or min(out.shape) < 1:
        return None
    found = _conv_of(case, out) if case.operator == "conv_transpose" else _transpose_of(case, out)
    if found is not None and with_modes:
        found.kwargs["padding_mode"] = case.per_axis("padding_mode")
    return found


def _conv_of(case: Case, out: Array) -> Case | None:
    """The convolution whose adjoint is a transposed one; None if ``out`` does not fit."""
    assert case.weight is not None
    s, p, d = case.per_axis("stride"), case.padding_pairs, case.per_axis("dilation")
    groups = case.kwargs.get("groups", 1)
    if out.shape[1] != case.weight.shape[1] * groups:
        return None
    outputs = zip(out.shape[2:], p, d, case.weight.shape[2:], strict=True)
    if any(n + sum(pair) < e * (k - 1) + 1 for n, pair, e, k in outputs):
        return None
    kwargs = {"stride": s, "padding": p, "dilation": d, "groups": groups}
    return Case(_another(out), case.weight, None, kwargs, "conv")


def _transpose_of(case: Case, out: Array) -> Case | None:
    """The adjoint of a convolution; None if ``out`` does not fit."""
    assert case.weight is not None
    s, p, d = case.per_axis("stride"), case.padding_pairs, case.per_axis("dilation")
    if out.shape[1] != len(case.weight):
        return None
    rows = zip(out.shape[2:], s, p, d, case.weight.shape[2:], strict=True)
    reach = [(o - 1) * si - sum(pi) + di * (k - 1) + 1 for o, si, pi, di, k in rows]
    extra = tuple(n - r for n, r in zip(case.input.shape[2:], reach, strict=True))
    if any(not 0 <= e < si for e, si in zip(extra, s, strict=True)):
        return None
    groups = case.kwargs.get("groups", 1)
    kwargs = {"stride": s, "padding": p, "output_padding": extra, "groups": groups, "dilation": d}
    return Case(_another(out), case.weight, None, kwargs, "conv_transpose")


def constant(fn: Implementation, case: Case, *, atol: float = 0.0) -> None:
    """Pooling a constant gives the constant, if no padding is counted."""
    value, sizes = -3.0, case.input.shape[2:]
    uncounted = case.replace(divisor_override=None, count_include_pad=False)
    if case.operator == "avg_pool" and "count_include_pad" not in case.kwargs:
        sizes = tuple(n + 2 * p for n, p in zip(sizes, case.per_axis("padding"), strict=True))
        uncounted = uncounted.replace(padding=(0,) * len(sizes))
    out = call(fn, uncounted.replace(input=np.full((*case.input.shape[:2], *sizes), value)))
    _require("constant", case, out, np.full(out.shape, value), atol)


def adds_constant(fn: Implementation, case: Case, *, atol: float = 0.0) -> None:
    """Adding a constant to the input of maximum pooling adds it to the output."""
    moved = call(fn, case.replace(input=case.input - 9))
    _require("adds_constant", case, moved, call(fn, case) - 9, atol)


def monotone(fn: Implementation, case: Case, *, atol: float = 0.0) -> None:
    """Increasing the input of maximum pooling does not decrease the output, entry by entry."""
    low = call(fn, case)
    high = call(fn, case.replace(input=case.input + np.maximum(_another(case.input), 0)))
    _require("monotone", case, np.maximum(high, low) if high.shape == low.shape else low, high, atol)


_CONV = (size_one_axis, permuted_axes, linear_in_input, linear_in_weight, bias_added_once, translation)
_POOL = (size_one_axis, permuted_axes, strided, constant)
LAWS: dict[str, tuple[Law, ...]] = {
    "conv": (*_CONV, separable, strided, adjointness),
    "conv_transpose": (*_CONV, separable, zero_stuffed, adjointness),
    "max_pool": (*_POOL, adds_constant, monotone),
    "avg_pool": (*_POOL, linear_in_input),
}
_STATEMENTS = {law.__name__: (law.__doc__ or "").splitlines()[0] for group in LAWS.values() for law in group}
