"""Whether a call may look at its tensors and write in place, or is being traced or transformed."""

import torch
from torch import Tensor
from torch.autograd import forward_ad


def eager(*tensors: Tensor) -> bool:
    """Ordinary tensors, outside every compiler, tracer, functorch transform and forward-mode level."""
    if torch.compiler.is_compiling():
        return False
    transformed = torch._C._get_tracing_state() or torch._C._are_functorch_transforms_active()
    if transformed or forward_ad._current_level >= 0:
        return False
    for t in tensors:  # a loop: this is asked of every call
        if type(t) is not Tensor and type(t) is not torch.nn.Parameter:
            return False
    return True


def known(condition: bool) -> bool:
    """Whether a condition holds; of sizes that are traced, for all that the trace is to serve."""
    if not torch.compiler.is_compiling():
        return condition
    from torch.fx.experimental.symbolic_shapes import statically_known_true

    return statically_known_true(condition)


def autocasting(device: str) -> bool:
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)


def plain(*tensors: Tensor) -> bool:
    """As :func:`eager`, and on the CPU, where reading a value costs nothing."""
    return eager(*tensors) and all(t.device.type == "cpu" for t in tensors)
