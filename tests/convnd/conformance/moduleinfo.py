"""torch's own module inputs: the same constructor arguments, parameters and input give the same output."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.testing._internal.common_modules import module_db

import convnd

Check = tuple[str, Callable[[], None]]

_PADS = {"ReflectionPad": "reflect", "ReplicationPad": "replicate", "CircularPad": "circular"}
_RANKLESS = {"Fold": 2, "Unfold": 2, "PixelShuffle": 2, "PixelUnshuffle": 2}


def _counterpart(kind: type[nn.Module]) -> Callable[..., nn.Module] | None:
    """The convnd layer that takes a torch layer's constructor arguments."""
    name, rank = kind.__name__, _RANKLESS.get(kind.__name__)
    found = re.fullmatch(r"(.*?)([123])d", name)
    if found:
        name, rank = found[1], int(found[2])
    if rank is None:
        return None
    if name in _PADS:
        return lambda padding: convnd.PadNd(rank, padding, _PADS[name])
    if name in ("ConstantPad", "ZeroPad"):
        return lambda padding, value=0.0: convnd.PadNd(rank, padding, "constant", value)
    ours = getattr(convnd, f"{name}Nd", None)
    return None if ours is None else lambda *args, **kwargs: ours(rank, *args, **kwargs)


def modules(device: str = "cpu") -> Iterator[Check]:
    info: Any
    for info in module_db:
        make = _counterpart(info.module_cls)
        if make is None:
            continue
        for training in (True, False):
            inputs = info.module_inputs_func(
                info, device=device, dtype=torch.float64, requires_grad=True, training=training
            )
            for i, given in enumerate(inputs):
                if given.forward_input is None:
                    continue
                name = f"{info.module_cls.__name__}[{i}] {'training' if training else 'evaluation'}"
                yield name, lambda k=info.module_cls, m=make, g=given, t=training: _compare(k, m, g, t)


def _compare(kind: type[nn.Module], make: Callable[..., nn.Module], given: Any, training: bool) -> None:
    arguments, called = given.constructor_input, given.forward_input
    place = next((a.device for a in called.args if isinstance(a, Tensor)), None)
    torch.manual_seed(0)
    theirs = kind(*arguments.args, **arguments.kwargs).to(place, torch.float64).train(training)
    torch.manual_seed(0)
    ours = make(*arguments.args, **arguments.kwargs).to(place, torch.float64).train(training)
    args, kwargs = list(called.args), dict(called.kwargs)
    inputs = [a for a in args if isinstance(a, Tensor) and a.requires_grad]
    results = []
    for layer in (theirs, ours):
        torch.manual_seed(1)
        results.append(layer(*args, **kwargs))
    for key, value in theirs.state_dict().items():  # the same seed gave the same parameters
        torch.testing.assert_close(ours.state_dict()[key], value, rtol=0, atol=0)
    torch.testing.assert_close(results[1], results[0], rtol=1e-10, atol=1e-10, equal_nan=True)
    outs = [r[0] if isinstance(r, tuple) else r for r in results]
    if inputs and outs[0].requires_grad:
        direction = torch.linspace(-1, 1, outs[0].numel()).to(outs[0]).reshape(outs[0].shape)
        gradients = [torch.autograd.grad(o, inputs, direction, retain_graph=True) for o in outs]
        torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-10, atol=1e-10, equal_nan=True)
