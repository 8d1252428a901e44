"""Convolution and pooling beyond three axes against JAX, SciPy and ONNX's reference evaluator."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import convnd.functional as F

Check = tuple[str, Callable[[], None]]
Array = NDArray[np.float64]

RANKS = (4, 5)


def _close(ours: Any, theirs: Any) -> None:
    np.testing.assert_allclose(np.asarray(ours), np.asarray(theirs), rtol=1e-10, atol=1e-10)


class _Draw:
    """One random but reproducible call; small integers, exact in every implementation."""

    def __init__(self, seed: int, n: int) -> None:
        self.rng, self.n = np.random.default_rng(seed), n

    def axes(self, low: int, high: int) -> tuple[int, ...]:
        return tuple(int(v) for v in self.rng.integers(low, high + 1, self.n))

    def one(self, low: int, high: int) -> int:
        return int(self.rng.integers(low, high + 1))

    def values(self, *shape: int) -> Array:
        return self.rng.integers(-4, 5, shape).astype(np.float64)


def jax_conv(count: int = 60) -> Iterator[Check]:
    for n in RANKS:
        for seed in range(count):
            yield f"conv {n}-D [{seed}]", lambda n=n, seed=seed: _jax_conv(_Draw(seed, n), False)
            yield f"conv_transpose {n}-D [{seed}]", lambda n=n, seed=seed: _jax_conv(_Draw(seed, n), True)


def _jax_conv(d: _Draw, transposed: bool) -> None:
    import jax

    jax.config.update("jax_enable_x64", True)
    kernel, stride, dilation, groups = d.axes(1, 3), d.axes(1, 2), d.axes(1, 2), d.one(1, 2)
    before, after = d.axes(0, 2), d.axes(0, 2)
    extents = [k * dd - dd + 1 for k, dd in zip(kernel, dilation, strict=True)]
    sizes = [max(1, e - a - b) + d.one(0, 2) for e, a, b in zip(extents, before, after, strict=True)]
    spec = tuple(range(d.n + 2))
    numbers = jax.lax.ConvDimensionNumbers(spec, spec, spec)
    if not transposed:
        x = d.values(d.one(1, 2), 2 * groups, *sizes)
        weight = d.values(3 * groups, 2, *kernel)
        pads = tuple(zip(before, after, strict=True))
        expected = jax.lax.conv_general_dilated(
            jax.numpy.asarray(x),
            jax.numpy.asarray(weight),
            stride,
            pads,
            rhs_dilation=dilation,
            feature_group_count=groups,
            dimension_numbers=numbers,
        )
        out = F.conv(torch.tensor(x), torch.tensor(weight), None, stride, pads, dilation, groups)
        return _close(out, expected)
    x, weight = d.values(1, 2 * groups, *sizes), d.values(2 * groups, 3, *kernel)
    extra = tuple(d.one(0, s - 1) for s in stride)
    crop = [d.one(0, min(e - 1, 1)) for e in extents]
    pads = [(e - 1 - c, e - 1 - c + o) for e, c, o in zip(extents, crop, extra, strict=True)]
    # The kernel reversed, inputs and outputs exchanged within each group.
    turned = np.flip(weight.reshape(groups, 2, 3, *kernel).swapaxes(1, 2), tuple(range(3, d.n + 3)))
    expected = jax.lax.conv_general_dilated(
        jax.numpy.asarray(x),
        jax.numpy.asarray(turned.reshape(3 * groups, 2, *kernel)),
        (1,) * d.n,
        pads,
        lhs_dilation=stride,
        rhs_dilation=dilation,
        feature_group_count=groups,
        dimension_numbers=numbers,
    )
    if min(expected.shape) < 1:
        return None
    out = F.conv_transpose(torch.tensor(x), torch.tensor(weight), None, stride, crop, extra, groups, dilation)
    return _close(out, expected)


def jax_pool(count: int = 60) -> Iterator[Check]:
    for n in RANKS:
        for seed in range(count):
            yield f"max_pool {n}-D [{seed}]", lambda n=n, seed=seed: _jax_pool(_Draw(seed, n), True)
            yield f"avg_pool {n}-D [{seed}]", lambda n=n, seed=seed: _jax_pool(_Draw(seed, n), False)


def _jax_pool(d: _Draw, maximum: bool) -> None:
    import jax

    jax.config.update("jax_enable_x64", True)
    kernel, stride, dilation = d.axes(1, 3), d.axes(1, 3), d.axes(1, 2)
    padding = tuple(d.one(0, k // 2) for k in kernel)
    sizes = [dd * (k - 1) + 1 + d.one(0, 2) for dd, k in zip(dilation, kernel, strict=True)]
    x = d.values(2, 2, *sizes)
    window = {
        "window_dimensions": (1, 1, *kernel),
        "window_strides": (1, 1, *stride),
        "padding": ((0, 0), (0, 0), *((p, p) for p in padding)),
        "window_dilation": (1, 1, *dilation),
    }
    given = torch.tensor(x)
    if maximum:
        expected = jax.lax.reduce_window(x, -np.inf, jax.lax.max, **window)
        return _close(F.max_pool(given, kernel, stride, padding, dilation), expected)
    total = jax.lax.reduce_window(x, 0.0, jax.lax.add, **window)
    count = jax.lax.reduce_window(np.ones_like(x), 0.0, jax.lax.add, **window)
    included = F.avg_pool(given, kernel, stride, padding, dilation=dilation)
    _close(included, total / np.prod(kernel))
    excluded = F.avg_pool(given, kernel, stride, padding, count_include_pad=False, dilation=dilation)
    return _close(excluded, total / count)


SCIPY_MODES = {"zeros": "constant", "reflect": "mirror", "replicate": "nearest", "circular": "wrap"}


def scipy_correlate(count: int = 25) -> Iterator[Check]:
    for n in RANKS:
        for mode in SCIPY_MODES:
            for seed in range(count):
                name = f"{mode} {n}-D [{seed}]"
                yield name, lambda n=n, mode=mode, seed=seed: _scipy_correlate(_Draw(seed, n), mode)


def _scipy_correlate(d: _Draw, mode: str) -> None:
    import scipy.ndimage

    kernel = tuple(2 * k + 1 for k in d.axes(0, 1))
    x, weight = d.values(*d.axes(2, 4)), d.values(*kernel)
    expected = scipy.ndimage.correlate(x, weight, mode=SCIPY_MODES[mode])
    out = F.conv(
        torch.tensor(x)[None, None], torch.tensor(weight)[None, None], padding="same", padding_mode=mode
    )
    _close(out[0, 0], expected)


def onnx_reference(count: int = 20) -> Iterator[Check]:
    """Operators whose ONNX definition the reference evaluator runs on four and five axes."""
    kinds: dict[str, Callable[[_Draw], None]] = {
        "Conv": _onnx_conv,
        "ConvTranspose": _onnx_conv_transpose,
        "Pad": _onnx_pad,
        "AveragePool": _onnx_average_pool,
        "LpPool": _onnx_lp_pool,
        "Resize": _onnx_resize,
    }
    for name, check in kinds.items():
        for n in RANKS:
            for seed in range(count):
                yield f"{name} {n}-D [{seed}]", lambda c=check, n=n, seed=seed: c(_Draw(seed, n))


def _onnx(operator: str, *arrays: Any, **attributes: Any) -> Array:
    import onnx
    from onnx.reference import ReferenceEvaluator

    names = ["" if a is None else f"x{i}" for i, a in enumerate(arrays)]
    node = onnx.helper.make_node(operator, names, ["y"], **attributes)
    kinds = {"f": onnx.TensorProto.DOUBLE, "i": onnx.TensorProto.INT64}
    inputs = [
        onnx.helper.make_tensor_value_info(n, kinds[a.dtype.kind], a.shape)
        for n, a in zip(names, arrays, strict=True)
        if a is not None
    ]
    output = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.DOUBLE, None)
    graph = onnx.helper.make_graph([node], "g", inputs, [output])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 19)])
    feed = {n: a for n, a in zip(names, arrays, strict=True) if a is not None}
    result = ReferenceEvaluator(model).run(None, feed)
    return np.asarray(result[0])  # type: ignore[index]


def _onnx_pads(pairs: Any) -> list[int]:
    return [a for a, _ in pairs] + [b for _, b in pairs]


def _onnx_conv(d: _Draw) -> None:
    kernel, stride, dilation = d.axes(1, 2), d.axes(1, 2), d.axes(1, 2)
    x, weight, bias = d.values(1, 2, *d.axes(3, 4)), d.values(2, 2, *kernel), d.values(2)
    pads = tuple(zip(d.axes(0, 1), d.axes(0, 1), strict=True))
    expected = _onnx(
        "Conv",
        x,
        weight,
        bias,
        kernel_shape=kernel,
        strides=stride,
        dilations=dilation,
        pads=_onnx_pads(pads),
    )
    _close(
        F.conv(torch.tensor(x), torch.tensor(weight), torch.tensor(bias), stride, pads, dilation), expected
    )


def _onnx_conv_transpose(d: _Draw) -> None:
    kernel, stride = d.axes(2, 3), d.axes(1, 2)
    x, weight = d.values(1, 2, *d.axes(2, 3)), d.values(2, 2, *kernel)
    pads = tuple(zip(d.axes(0, 1), d.axes(0, 1), strict=True))
    expected = _onnx("ConvTranspose", x, weight, kernel_shape=kernel, strides=stride, pads=_onnx_pads(pads))
    _close(F.conv_transpose(torch.tensor(x), torch.tensor(weight), None, stride, pads), expected)


def _onnx_pad(d: _Draw) -> None:
    x, before, after = d.values(*d.axes(2, 4)), d.axes(0, 1), d.axes(0, 1)
    pads = np.array([*before, *after], dtype=np.int64)
    flat = [v for pair in reversed(list(zip(before, after, strict=True))) for v in pair]
    for ours, theirs in (
        ("constant", "constant"),
        ("reflect", "reflect"),
        ("replicate", "edge"),
        ("circular", "wrap"),
    ):
        _close(F.pad(torch.tensor(x), flat, ours), _onnx("Pad", x, pads, mode=theirs))


def _onnx_average_pool(d: _Draw) -> None:
    kernel, stride = d.axes(1, 3), d.axes(1, 2)
    x = d.values(1, 2, *d.axes(3, 4))
    padding = tuple(k // 2 for k in kernel)
    for include in (0, 1):
        expected = _onnx(
            "AveragePool",
            x,
            kernel_shape=kernel,
            strides=stride,
            pads=[*padding, *padding],
            count_include_pad=include,
        )
        _close(
            F.avg_pool(torch.tensor(x), kernel, stride, padding, count_include_pad=bool(include)), expected
        )


def _onnx_lp_pool(d: _Draw) -> None:
    kernel, stride = d.axes(1, 3), d.axes(1, 2)
    x = np.abs(d.values(1, 2, *d.axes(3, 4)))
    for p in (1, 2, 3):
        expected = _onnx("LpPool", x, kernel_shape=kernel, strides=stride, p=p, pads=[0] * 2 * d.n)
        _close(F.lp_pool(torch.tensor(x), p, kernel, stride), expected)


def _onnx_resize(d: _Draw) -> None:
    x, sizes = d.values(1, 1, *d.axes(2, 3)), d.axes(1, 5)
    whole = np.array([1, 1, *sizes], dtype=np.int64)
    transformation = "pytorch_half_pixel" if min(sizes) == 1 else "half_pixel"
    if min(sizes) > 1:
        expected = _onnx(
            "Resize", x, None, None, whole, mode="linear", coordinate_transformation_mode=transformation
        )
        _close(F.interpolate(torch.tensor(x), sizes, mode="linear"), expected)
    nearest = _onnx(
        "Resize",
        x,
        None,
        None,
        whole,
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )
    _close(F.interpolate(torch.tensor(x), sizes, mode="nearest"), nearest)
