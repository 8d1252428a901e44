"""One step of training without numbers: which blocks of memory it takes, when, and when it gives them back.

The forward and backward pass run on torch's ``meta`` device, where a tensor has a shape and no data. Python's
and autograd's references are the real ones, so a block lives from the operator that makes it until nothing
refers to it, as it would with numbers; convolutions take the algorithm that they would take on the CPU.
What no operator returns is not seen: scratch memory inside torch's kernels, which on the CPU was found to be
small beside the rest.
"""

import weakref
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ..summary.counting import fused_attention, on_meta

__all__ = ["Event", "Trace", "dry_run"]

_ONEDNN, _CONVOLUTION = torch.ops.aten.mkldnn_convolution.default, torch.ops.aten.convolution.default


class Event(NamedTuple):
    """A block is taken, or given back: then its size is 0.

    ``recorded`` says whether autograd makes nodes for the operators around it: not inside of a function that
    has a backward pass of its own, such as a convolution beyond three axes.
    """

    block: int
    size: int
    recorded: bool = False


class Trace(NamedTuple):
    """The memory of a step.

    Attributes:
        weights: bytes of each parameter.
        forward, backward: what happens in each of the two passes.
    """

    weights: list[int]
    forward: list[Event]
    backward: list[Event]


def dry_run(model: nn.Module, batch: Mapping[str, Tensor]) -> Trace:
    """Follow the memory of a step.

    Args:
        model: with a ``loss``; it is not changed.
        batch: keywords of its loss; only shapes and dtypes count.
    """
    with torch.inference_mode(False), torch.enable_grad():
        copied: Any = on_meta(model).train()
        recorder = _Recorder()
        with _FusedAttention(), recorder:
            given = {name: torch.empty_like(value, device="meta") for name, value in batch.items()}
            loss = copied.loss(**given)
            forward, recorder.events = recorder.events, []
            _backward(loss)
            del loss, given
            for weight in copied.parameters():
                weight.grad = None
    left = [Event(block, 0) for block in recorder.known.values()]  # in cycles of references
    return Trace([p.nbytes for p in copied.parameters()], forward, [*recorder.events, *left])


def _backward(loss: Tensor) -> None:
    """``loss.backward()`` with torch's modes, which that lifts: a checkpoint must compute the same again."""
    engine: Any = torch.autograd.Variable._execution_engine
    ones = torch.ones_like(loss)
    engine.run_backward((loss,), (ones,), False, False, (), allow_unreachable=True, accumulate_grad=True)


class _FusedAttention(TorchFunctionMode):
    """Attention without a matrix of all pairs, as on other devices."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        func = fused_attention if func is scaled_dot_product_attention else func
        return func(*args, **(kwargs or {}))


class _Recorder(TorchDispatchMode):
    """Follows the storage of every tensor that an operator returns."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[Event] = []
        self.count = 0
        self.known: dict[int, int] = {}  # addresses of the storages in use, and their blocks

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is _ONEDNN:  # which has no meaning on the meta device
            x, weight, bias, padding, stride, dilation, groups = args
            zeros = [0] * len(stride)
            func, args = _CONVOLUTION, (x, weight, bias, stride, padding, dilation, False, zeros, groups)
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, Tensor):
                self._note(value.untyped_storage())
        return result

    def _note(self, storage: Any) -> None:
        address, size = storage._cdata, storage.nbytes()
        if size and address not in self.known:
            self.count += 1
            self.known[address] = self.count
            self.events.append(Event(self.count, size, torch.is_grad_enabled()))
            weakref.finalize(storage, self._gone, address, self.count)

    def _gone(self, address: int, block: int) -> None:
        if self.known.pop(address, None) is not None:
            self.events.append(Event(block, 0))
