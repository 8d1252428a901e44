"""Builds a network for more axes from a trained one for fewer (Carreira and Zisserman 2017, section 2.3).

Every spatial layer is replaced by the convnd layer with new axes besides the old ones. Along a new axis
the kernel w of the old layer becomes w_t with

    average   w_t = w / k               for each of the k taps t
    center    w_t = w if t = (k - 1) // 2 else 0

Both sum to w, so an input that is constant along the new axes gives the same result as before. A
transposed convolution gets k = stride taps w_t = w: each output entry then has one tap, also at borders.

One table says how each layer is rebuilt; its rules give the arguments of the new layer, and one
function builds it and moves the state over.
"""

import copy
import re
from collections.abc import Sequence
from math import prod
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.utils.parametrize import is_parametrized

from .. import modules
from ..arguments import PADDING_MODES, PerAxis, choice, integer, per_axis
from .rules import LAYERS, UPSAMPLE_RANKS, NewAxes

M = TypeVar("M", bound=nn.Module)

_SPATIAL = (*LAYERS, _ConvNd, nn.PixelShuffle, nn.PixelUnshuffle, nn.Fold, nn.Unfold)


def _is_lazy(module: Any) -> bool:
    return isinstance(module, LazyModuleMixin) and module.has_uninitialized_params()  # type: ignore[misc]


def _refusal(module: Any) -> str | None:
    """Why a spatial module cannot be rebuilt; None if it can be, or is not spatial."""
    kind = type(module)
    named = re.search("[123]d$", kind.__name__) is not None and next(module.children(), None) is None
    ours = kind.__module__.startswith(f"{modules.__name__}.")
    if isinstance(module, torch.jit.ScriptModule):
        return "is compiled by TorchScript"
    if not (isinstance(module, _SPATIAL) or named or ours):
        return None
    if _is_lazy(module):
        return "is lazy and has no parameters yet; run the network once before"
    if is_parametrized(module) or not set(module._parameters) <= {"weight", "bias"}:
        return "is parametrized (weight norm, pruning, ...); remove the parametrization before"
    if kind in LAYERS:
        return None
    if isinstance(module, tuple(LAYERS)):
        return "is a subclass with code of its own; give it a method _inflate_"
    return "has no layer to stand for it on more axes"


def _rank(module: Any) -> int | None:
    """The number of spatial axes of a layer or container; None for one that takes any number."""
    if isinstance(vars(module).get("spatial_dims"), int):
        return module.spatial_dims
    if type(module) not in LAYERS:
        return None
    digits = re.search("([123])d$", type(module).__name__)
    if digits:
        return int(digits[1])
    given = [v for v in (module.size, module.scale_factor) if isinstance(v, Sequence)]
    return len(given[0]) if given else UPSAMPLE_RANKS.get(module.mode)


def _shown(name: str) -> str:
    """The dotted name of a module for messages; the network itself is called ``module``."""
    return name or "module"


def _old_dims(found: dict[str, nn.Module], spatial_dims: int) -> int:
    """The number of axes all modules agree on, less than ``spatial_dims``."""
    ranks = {name: rank for name, m in found.items() if (rank := _rank(m)) is not None}
    # In a network with layers of more axes, BatchNorm1d acts on features (N, C) and tells no rank.
    firm = [name for name in ranks if not isinstance(found[name], nn.BatchNorm1d)] or list(ranks)
    if not firm:
        raise ValueError("module must have spatial layers that tell their number of axes, found none")
    first = firm[0]
    for name in firm:
        kind = type(found[name]).__name__
        if ranks[name] >= spatial_dims:
            raise ValueError(
                f"cannot inflate {_shown(name)!r}: {kind} must have fewer than spatial_dims={spatial_dims} "
                f"spatial axes, and has {ranks[name]}"
            )
        if ranks[name] != ranks[first]:
            raise ValueError(
                f"cannot inflate {_shown(name)!r}: {kind} has {ranks[name]} spatial axes and "
                f"{_shown(first)!r} has {ranks[first]}; inflate such parts of a network one by one"
            )
    return ranks[first]


def _weight(layer: Any, axes: NewAxes) -> Tensor:
    """The kernel of the new convolution."""
    old, taps = layer.weight.detach(), axes.taps(layer)
    start = 2 if axes.new_axes == "leading" else old.ndim
    old = old.reshape(*old.shape[:start], *(1,) * len(taps), *old.shape[start:])
    shape = [*layer.weight.shape[:2], *axes.extend(layer.weight.shape[2:], taps)]
    if axes.weights == "average" or layer.transposed:
        return (old if layer.transposed else old / prod(taps)).expand(shape).clone()
    new = old.new_zeros(shape)
    index = [slice(None)] * start + [slice((k - 1) // 2, (k - 1) // 2 + 1) for k in taps]
    new[tuple(index)] = old
    return new


class _Inflation:
    """One run: builds the new layers and records in deepcopy's ``memo`` which replaces which."""

    def __init__(self, axes: NewAxes) -> None:
        self.axes = axes
        self.memo: dict[int, Any] = {}
        self.kernels: dict[int, tuple[Any, ...]] = {}

    def replace(self, layer: Any) -> nn.Module:
        make, rule = LAYERS[type(layer)]
        with torch.device("meta"):  # values come from the old layer, so draw no random numbers
            new = make(self.axes.spatial_dims, **rule(layer, self.axes))
        if isinstance(layer, _ConvNd):
            self._share_weight(layer)
        new._parameters = {k: copy.deepcopy(p, self.memo) for k, p in layer._parameters.items()}
        new._buffers = {k: copy.deepcopy(b, self.memo) for k, b in layer._buffers.items()}
        self.memo[id(layer)] = new.train(layer.training)
        return new

    def _share_weight(self, layer: Any) -> None:
        """Make the new weight, once for all layers that share it."""
        weight, taps = layer.weight, self.axes.taps(layer)
        kernel = (taps, prod(taps) > 1 and layer.transposed)
        if self.kernels.setdefault(id(weight), kernel) != kernel:
            raise ValueError("shares its weight with a layer that needs another kernel on the new axes")
        if id(weight) not in self.memo:
            self.memo[id(weight)] = nn.Parameter(_weight(layer, self.axes), weight.requires_grad)


def _update(module: Any, axes: NewAxes) -> str | None:
    """Update the attributes of a container; returns a description of the change."""
    if hasattr(module, "_inflate_"):
        module._inflate_(axes)
        return f"{type(module).__name__}._inflate_"
    if isinstance(vars(module).get("spatial_dims"), int):
        module.spatial_dims = axes.spatial_dims
        return f"{type(module).__name__}.spatial_dims {axes.old_dims} -> {axes.spatial_dims}"
    return None


def inflate(
    module: M,
    spatial_dims: int,
    *,
    new_axes: str = "leading",
    kernel_size: PerAxis = 1,
    stride: PerAxis = 1,
    weights: str = "average",
    padding_mode: str = "replicate",
) -> M:
    """Copy a network to work on ``spatial_dims`` axes, starting from its trained weights.

    Spatial layers of torch.nn and of convnd are replaced: convolutions, transposed convolutions, max,
    average, power-average and adaptive pools, batch and instance norms, channel dropout, padding and
    ``Upsample``. Modules that do not depend on axes stay. **Only modules are replaced:** functional calls and
    shapes hard-coded in a ``forward`` stay as they are.

    For an input that is constant along the new axes, the output is that of the old network, repeated along
    them: with ``"average"`` in padding modes replicate and circular, with ``"center"`` in every mode.

    Args:
        module: the network, or a single layer. It is not changed.
        spatial_dims: number of spatial axes of the copy, more than ``module`` has.
        new_axes: ``"leading"``: the new axes come before the old spatial ones; ``"trailing"``: after.
        kernel_size: size of convolution kernels on the new axes, int or one per new axis, padded to keep the
            size; transposed convolutions and pools follow ``stride`` instead.
        stride: stride on the new axes, int or one per new axis, of layers that change the resolution of an
            old axis. Transposed convolutions, max and average pools have windows of this size there.
        weights: ``"average"``: the old kernel divided by the number of taps, at every tap; ``"center"``: the
            old kernel at tap ``(k - 1) // 2``, zeros at the others.
        padding_mode: padding mode of convolutions on the new axes: ``"zeros"``, ``"reflect"``,
            ``"replicate"`` or ``"circular"``; old axes keep theirs.

    Returns:
        The copy, with an attribute ``inflated``: a list of strings, one for each change, such as
        ``"layer1.conv: Conv2d(...) -> ConvNd(...)"``. Sharing of modules and parameters, training mode,
        dtype, device, buffers and ``requires_grad`` are kept; hooks on replaced layers are not. An
        adaptive pool keeps the size of the new axes, but reduces them to 1 if it does so with all old axes.
        A ``BatchNorm1d`` stays in networks of more axes, where it normalises features ``(N, C)``.

    Containers: the attribute ``spatial_dims`` of a module that is not a layer is updated. A module with a
    method ``_inflate_`` is not replaced itself; the method is called on the copy after its children have
    been replaced, with one argument that has the fields ``old_dims``, ``spatial_dims``, ``new_axes``,
    ``kernel_size``, ``stride`` (one entry per new axis), ``weights``, ``padding_mode`` and the method
    ``extend(old, new)``, which puts the entries of the new axes before or after those of the old ones.

    Raises:
        ValueError: ``cannot inflate 'layer1.conv': ...`` for a layer that already has as many axes, has
            another rank than the others, is lazy, parametrized, compiled or a subclass, or has no
            counterpart (unfold, pixel shuffle, unpooling, pools with indices, ``Upsample`` to a fixed
            size, ...); also if there is nothing to replace.
        ValueError, TypeError: naming the argument, the rule and the value received.

    >>> import torch
    >>> from torch import nn
    >>> from convnd import inflate
    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
    >>> video = inflate(net, 3, kernel_size=3)
    >>> x = torch.randn(1, 3, 8, 8)
    >>> y = video(x.unsqueeze(2).expand(-1, -1, 5, -1, -1))
    >>> torch.allclose(y, net(x).unsqueeze(2).expand_as(y), atol=1e-5)
    True
    >>> print(video.inflated[0])  # doctest: +ELLIPSIS
    0: Conv2d(3, 8, kernel_size=(3, 3), ...) -> ConvNd(3, 3, 8, kernel_size=(3, 3, 3), ...)
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"module must be a torch.nn.Module, got {type(module).__name__}")
    n = integer(spatial_dims, "spatial_dims")
    choice(new_axes, ("leading", "trailing"), "new_axes")
    choice(weights, ("average", "center"), "weights")
    choice(padding_mode, PADDING_MODES, "padding_mode")
    found = dict(module.named_modules())
    for name, m in found.items():
        reason = None if hasattr(m, "_inflate_") else _refusal(m)
        if reason:
            raise ValueError(f"cannot inflate {_shown(name)!r}: {type(m).__name__} {reason}")
    old = _old_dims(found, n)
    kernel = per_axis(kernel_size, n - old, "kernel_size of the new axes")
    strides = per_axis(stride, n - old, "stride of the new axes")
    axes = NewAxes(old, n, new_axes, kernel, strides, weights, padding_mode)
    return _inflate(module, found, axes)


def _inflate(module: M, found: dict[str, nn.Module], axes: NewAxes) -> M:
    """Build the new layers and copy the network around them."""
    inflation, changes = _Inflation(axes), {}
    for name, layer in found.items():
        if type(layer) not in LAYERS or _rank(layer) not in (None, axes.old_dims):
            continue
        try:
            changes[name] = f"{layer} -> {inflation.replace(layer)}"
        except ValueError as error:
            raise ValueError(f"cannot inflate {_shown(name)!r}: {type(layer).__name__}: {error}") from error
    result = copy.deepcopy(module, inflation.memo)
    updates = {}
    for name in reversed(found):  # children before their parents
        done = None if name in changes else _update(result.get_submodule(name), axes)
        if done:
            updates[name] = done
    changes |= reversed(updates.items())
    if not changes:
        raise ValueError("module must have spatial layers to replace, found none")
    result.inflated = [f"{_shown(name)}: {change}" for name, change in changes.items()]  # type: ignore[assignment]
    return result
