"""How each spatial layer is rebuilt with more axes: a rule for each kind of layer, and a table of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from torch import nn

from .. import modules
from ..arguments import Ints, padding_modes, padding_rule, per_axis


@dataclass(frozen=True)
class NewAxes:
    """How to treat the new axes; passed to the ``_inflate_`` method of modules that have one.

    ``kernel_size`` and ``stride`` have one entry per new axis.
    """

    old_dims: int
    spatial_dims: int
    new_axes: str
    kernel_size: Ints
    stride: Ints
    weights: str
    padding_mode: str

    def extend(self, old: Sequence[Any], new: Sequence[Any] | Any) -> tuple[Any, ...]:
        """Join the entries of the old axes and those (or one for all) of the new axes, in axis order."""
        if not isinstance(new, (list, tuple)):
            new = (new,) * len(self.stride)
        return (*new, *old) if self.new_axes == "leading" else (*old, *new)

    def strides(self, old: Sequence[float]) -> Ints:
        """Strides on the new axes for a layer with strides ``old``: 1 unless it changes the resolution."""
        return self.stride if any(s > 1 for s in old) else (1,) * len(self.stride)

    def taps(self, layer: Any) -> Ints:
        """Kernel sizes of a convolution on the new axes."""
        return self.strides(layer.stride) if layer.transposed else self.kernel_size


# Rules return the arguments of the new layer, by name. A ValueError says why a layer has no counterpart.


def _convolution(layer: Any, axes: NewAxes) -> dict[str, Any]:
    names = ("in_channels", "out_channels", "groups")
    arguments = {name: getattr(layer, name) for name in names}
    taps, modes = axes.taps(layer), padding_modes(layer.padding_mode, axes.old_dims)
    pads = [(0, 0) if layer.transposed else ((k - 1) // 2, k - 1 - (k - 1) // 2) for k in taps]
    # An axis without padding gets a mode already in use, so that torch's own kernels still apply.
    new_modes = [axes.padding_mode if any(p) else modes[0] for p in pads]
    rule = padding_rule(layer.padding, axes.old_dims)
    if layer.transposed:
        arguments["output_padding"] = axes.extend(layer.output_padding, 0)
    return arguments | {
        "kernel_size": axes.extend(layer.kernel_size, taps),
        "stride": axes.extend(layer.stride, axes.strides(layer.stride)),
        # "same" pads the new axes by the same pairs, or by less with a stride.
        "padding": rule if isinstance(rule, str) else axes.extend(rule, pads),
        "dilation": axes.extend(layer.dilation, 1),
        "bias": layer.bias is not None,
        "padding_mode": axes.extend(modes, new_modes),
    }


def _no_indices(layer: Any) -> None:
    if getattr(layer, "return_indices", False):
        raise ValueError("with return_indices=True it counts positions over all axes")


def _pool(layer: Any, axes: NewAxes) -> dict[str, Any]:
    _no_indices(layer)
    n = axes.old_dims
    kernel = per_axis(layer.kernel_size, n, "kernel_size")
    stride = kernel if layer.stride is None else per_axis(layer.stride, n, "stride")
    new = axes.strides(stride)
    return {
        "kernel_size": axes.extend(kernel, new),
        "stride": axes.extend(stride, new),
        "padding": axes.extend(per_axis(getattr(layer, "padding", 0), n, "padding", 0), 0),
        "dilation": axes.extend(per_axis(getattr(layer, "dilation", 1), n, "dilation"), 1),
        "ceil_mode": layer.ceil_mode,
    }


def _avg_pool(layer: Any, axes: NewAxes) -> dict[str, Any]:
    arguments = _pool(layer, axes)
    divisor = getattr(layer, "divisor_override", None)
    if divisor is not None:  # it counts the taps on the old axes
        old = per_axis(layer.kernel_size, axes.old_dims, "kernel_size")
        divisor *= prod(arguments["kernel_size"]) // prod(old)
    return arguments | {"count_include_pad": layer.count_include_pad, "divisor_override": divisor}


def _lp_pool(layer: Any, axes: NewAxes) -> dict[str, Any]:
    # It sums over its window: more than one tap on a new axis would scale the result.
    kernel = axes.extend(per_axis(layer.kernel_size, axes.old_dims, "kernel_size"), 1)
    return _pool(layer, axes) | {"norm_type": layer.norm_type, "kernel_size": kernel}


def _adaptive_pool(layer: Any, axes: NewAxes) -> dict[str, Any]:
    _no_indices(layer)
    size = layer.output_size
    old = tuple(size) if isinstance(size, Sequence) else (size,)
    old = old * axes.old_dims if len(old) == 1 else old
    return {"output_size": axes.extend(old, 1 if all(s == 1 for s in old) else None)}


def _norm(layer: Any, axes: NewAxes) -> dict[str, Any]:
    names = ("num_features", "eps", "momentum", "affine", "track_running_stats")
    return {name: getattr(layer, name) for name in names}


def _dropout(layer: Any, axes: NewAxes) -> dict[str, Any]:
    return {"p": layer.p, "inplace": layer.inplace}


_PAD_MODES = {"ReflectionPad": "reflect", "ReplicationPad": "replicate", "CircularPad": "circular"}


def _pad(layer: Any, axes: NewAxes) -> dict[str, Any]:
    none = (0, 0) * len(axes.stride)
    # A flat sequence, the last axis first.
    padding = (*layer.padding, *none) if axes.new_axes == "leading" else (*none, *layer.padding)
    mode = getattr(layer, "mode", None) or _PAD_MODES.get(type(layer).__name__[:-2], "constant")
    return {"padding": padding, "mode": mode, "value": getattr(layer, "value", 0.0)}


UPSAMPLE_RANKS = {"linear": 1, "bilinear": 2, "bicubic": 2, "trilinear": 3}
_UPSAMPLE_MODES = {"bilinear": "linear", "trilinear": "linear", "bicubic": "cubic"}


def _upsample(layer: Any, axes: NewAxes) -> dict[str, Any]:
    old = layer.scale_factor
    if old is None:
        raise ValueError(f"its size={layer.size} leaves none for the new axes; give it a scale_factor")
    old = tuple(old) if isinstance(old, Sequence) else (old,) * axes.old_dims
    shrinks = max(old) <= 1 and min(old) < 1
    new = [1 / s for s in axes.stride] if shrinks else axes.strides(old)
    return {
        "scale_factor": axes.extend(old, list(map(float, new))),
        "mode": _UPSAMPLE_MODES.get(layer.mode, layer.mode),
        "align_corners": layer.align_corners,
        "recompute_scale_factor": layer.recompute_scale_factor,
        "antialias": getattr(layer, "antialias", False),
    }


Rule = Callable[[Any, NewAxes], dict[str, Any]]

# The convnd layer, its rule, and the torch layers that it replaces ("?" stands for 1, 2 and 3).
_TABLE: dict[type[nn.Module], tuple[Rule, str]] = {
    modules.ConvNd: (_convolution, "Conv?d"),
    modules.ConvTransposeNd: (_convolution, "ConvTranspose?d"),
    modules.MaxPoolNd: (_pool, "MaxPool?d"),
    modules.AvgPoolNd: (_avg_pool, "AvgPool?d"),
    modules.LPPoolNd: (_lp_pool, "LPPool?d"),
    modules.AdaptiveAvgPoolNd: (_adaptive_pool, "AdaptiveAvgPool?d"),
    modules.AdaptiveMaxPoolNd: (_adaptive_pool, "AdaptiveMaxPool?d"),
    modules.BatchNormNd: (_norm, "BatchNorm?d"),
    modules.InstanceNormNd: (_norm, "InstanceNorm?d"),
    modules.DropoutNd: (_dropout, "Dropout?d"),
    modules.PadNd: (_pad, "ZeroPad?d ConstantPad?d ReflectionPad?d ReplicationPad?d CircularPad?d"),
    modules.InterpolateNd: (_upsample, "Upsample UpsamplingNearest2d UpsamplingBilinear2d"),
}
# The same table by class of the old layer: the class of the new one, and the rule.
LAYERS: dict[type, tuple[type[nn.Module], Rule]] = {
    old: (new, rule)
    for new, (rule, patterns) in _TABLE.items()
    for old in (new, *(getattr(nn, p.replace("?", n)) for p in patterns.split() for n in "123"))
}
