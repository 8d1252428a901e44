"""One step of training without numbers: which blocks of memory it takes, when, and when it gives them back.

The forward and backward pass run on torch's ``meta`` device, where a tensor has a shape and no data. Python's
and autograd's references are the real ones, so a block lives from the operator that makes it until nothing
refers to it, as it would with numbers; convolutions take the algorithm that they would take on the CPU.
What no operator returns is not seen. Of that the copies that oneDNN makes for a convolution are counted, as
they were measured: the other scratch memory of torch's kernels was found to be small.
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
_CONVOLUTION_BACKWARD = torch.ops.aten.convolution_backward.default
_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}  # by the number of axes
_BLOCK = 16  # channels that oneDNN has side by side


class Event(NamedTuple):
    """A block is taken, or given back: then its size is 0. ``scratch`` says that oneDNN takes it on a CPU."""

    block: int
    size: int
    scratch: bool = False


class Trace(NamedTuple):
    """The memory of a step.

    Attributes:
        weights: bytes of all parameters.
        events: what happens in the forward and the backward pass.
    """

    weights: int
    events: list[Event]


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
            _backward(loss)
            del loss, given
            for weight in copied.parameters():
                weight.grad = None
    left = [Event(block, 0) for block in recorder.known.values()]  # in cycles of references
    return Trace(sum(p.nbytes for p in copied.parameters()), [*recorder.events, *left])


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
        self._note_scratch(func, args, result)
        return result

    def _note(self, storage: Any) -> None:
        address, size = storage._cdata, storage.nbytes()
        if size and address not in self.known:
            self.count += 1
            self.known[address] = self.count
            self.events.append(Event(self.count, size))
            weakref.finalize(storage, self._gone, address, self.count)

    def _note_scratch(self, func: Any, args: Any, result: Any) -> None:
        """Copies with blocks of channels side by side, of what a convolution reads and of what it makes.

        In the forward pass one of the two is there beside the result, in the backward pass both. There are
        none where the channels are last already.
        """
        if func is _CONVOLUTION:
            x, weight, y = *args[:2], result
        elif func is _CONVOLUTION_BACKWARD:
            y, x, weight = args[:3]
        else:
            return
        if any(_has_channels_last(tensor) for tensor in (x, weight)):
            return
        copies = [_BLOCK * -(-t.shape[1] // _BLOCK) * (t.nbytes // t.shape[1]) for t in (x, y)]
        self.count += 1
        size = max(copies) if func is _CONVOLUTION else sum(copies)
        self.events += [Event(self.count, size, scratch=True), Event(self.count, 0, scratch=True)]

    def _gone(self, address: int, block: int) -> None:
        if self.known.pop(address, None) is not None:
            self.events.append(Event(block, 0))


def _has_channels_last(tensor: Tensor) -> bool:
    layout = _CHANNELS_LAST.get(tensor.ndim)
    return layout is not None and tensor.is_contiguous(memory_format=layout) and not tensor.is_contiguous()
