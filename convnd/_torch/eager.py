"""Tells eager calls, which may read values and write in place, from traced or transformed ones."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import Parameter

# Device types with autocast; determined once, since torch 2.11 cannot compile the query.
_DEVICES = ("cpu", "cuda", "xpu", "mps", "hpu", "xla", "mtia", "maia")
_OTHER = torch._C._get_privateuse1_backend_name()
AUTOCAST = frozenset(filter(torch.amp.is_autocast_available, (*_DEVICES, _OTHER)))


def eager(*tensors: Tensor) -> bool:
    """True for ordinary tensors outside any compiler, tracer, functorch transform or forward-mode level."""
    if torch.compiler.is_compiling():
        return False
    transformed = torch._C._get_tracing_state() or torch._C._are_functorch_transforms_active()
    if transformed or forward_ad._current_level >= 0:
        return False
    for t in tensors:  # a plain loop, for speed: this runs on every call
        if type(t) is not Tensor and type(t) is not Parameter:
            return False
    return True


def compiling() -> bool:
    """True while a graph is being compiled to run in this process: not exported, and not transformed."""
    if not torch.compiler.is_compiling() or torch.compiler.is_exporting():
        return False
    return not torch._C._are_functorch_transforms_active() and forward_ad._current_level < 0


def known(condition: Any) -> bool:
    """True if a condition holds for all sizes that a traced program may get; adds no guard."""
    if not torch.compiler.is_compiling():
        return bool(condition)
    from torch.fx.experimental.symbolic_shapes import statically_known_true

    return statically_known_true(condition)


def varying(sizes: Iterable[int]) -> int:
    """How many of the sizes differ between the calls of one traced program."""
    if not torch.compiler.is_compiling():
        return 0
    from torch.fx.experimental.symbolic_shapes import has_static_value

    return [has_static_value(size) for size in sizes].count(False)


def deterministic(x: Tensor) -> bool:
    """True where torch was asked for deterministic algorithms and not all kernels of the device are."""
    return torch.are_deterministic_algorithms_enabled() and x.device.type != "cpu"


def autocasting(device: str) -> bool:
    return device in AUTOCAST and torch.is_autocast_enabled(device)
