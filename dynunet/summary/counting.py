"""Runs a network on the ``meta`` device and counts the FLOPs and memory it would take.

On torch's ``meta`` device a tensor has a shape and a dtype but no data, so even large inputs cost no time or
memory.

FLOPs are counted by ``torch.utils.flop_counter``. Activations are the tensors that autograd saves, each
storage once, without parameters and buffers. Both are attributed to the part of the network whose forward
pass is running.
"""

import copy
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.functional import scaled_dot_product_attention
from torch.nn.modules.conv import _ConvNd
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

_REST = "(other)"
_ATTENTION = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu


def on_meta(network: nn.Module) -> nn.Module:
    """Copy a network to the ``meta`` device, with gradients for all parameters.

    The copy is in evaluation mode, so that batch norm accepts a single entry, but gradient checkpointing
    behaves as in training.
    """
    memo: dict[int, Any] = {}
    for p in network.parameters():
        trains = p.is_floating_point() or p.is_complex()
        memo[id(p)] = nn.Parameter(torch.empty_like(p, device="meta"), requires_grad=trains)
    for b in network.buffers():
        memo[id(b)] = torch.empty_like(b, device="meta")
    copied = copy.deepcopy(network, memo)
    for module in copied.modules():
        module.training = bool(getattr(module, "checkpointing", False))
    return copied


class _Probe(Tensor):
    """A tensor subclass: convnd then composes torch's operators, as for traced tensors, and cuts no work.

    Attention on it is one fused operator, without a matrix of all pairs.
    """

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is scaled_dot_product_attention:
            func = fused_attention
        return super().__torch_function__(func, types, args, kwargs or {})


def probe(value: Any) -> Any:
    """Turn a tensor into one for a network copied by :func:`on_meta`; anything else is returned as it is."""
    return value.detach().to("meta").as_subclass(_Probe) if isinstance(value, Tensor) else value


def fused_attention(q: Tensor, k: Tensor, v: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Fused attention; saves its operands, its result and one number per query."""
    if q.ndim == 4:
        return _ATTENTION(q, k, v)[0]
    flat = (x.reshape(-1, 1, *x.shape[-2:]) for x in (q, k, v))
    return _ATTENTION(*flat)[0].reshape(*q.shape[:-1], v.shape[-1])


def _attention_flops(q: Any, k: Any, v: Any, *args: Any, **kwargs: Any) -> int:
    return sdpa_flop_count(q, k, v)


class _Kept(torch.autograd.Function):
    """Saves the input of a convolution, as convnd does with every algorithm."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.new_empty(())


def _part_names(network: nn.Module) -> Iterator[str]:
    for name, child in network.named_children():
        listed = isinstance(child, nn.ModuleList)
        parts = [(f"{name}.{i}", c) for i, c in child.named_children()] if listed else [(name, child)]
        for part, module in parts:
            yield part
            if type(module).forward is nn.Module.forward:  # it is never called
                inside = module.named_children()
                yield from (f"{part}.{i}" for i, c in inside if not isinstance(c, nn.ModuleList))


class CostCounter:
    """Used around one run: ``with counter: network(x)``, for a network that :func:`on_meta` copied."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        names = [*_part_names(network), _REST]
        self.flops, self.activations = dict.fromkeys(names, 0), dict.fromkeys(names, 0)
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.active = [_REST]
        self.inside_convolution = False
        self.counted = 0
        own = [t.untyped_storage() for t in (*network.parameters(), *network.buffers())]
        # By address; keeping a reference ensures that no other storage gets the same address.
        self.known = {storage._cdata: storage for storage in own}
        self.results: dict[int, tuple[Any, str]] = {}  # the storage and the part whose result it is
        self.counter = FlopCounterMode(display=False, custom_mapping={_ATTENTION: _attention_flops})
        self.stack = ExitStack()

    def __enter__(self) -> Self:
        for name, module in self.network.named_modules():
            part = self._part_of(name)
            if part != _REST:
                self._until_exit(module.register_forward_pre_hook(partial(self._enter, part)))
                self._until_exit(module.register_forward_hook(partial(self._leave, part)))
            if isinstance(module, _ConvNd):
                self._until_exit(module.register_forward_pre_hook(self._enter_convolution))
                self._until_exit(module.register_forward_hook(self._leave_convolution))
        self.stack.enter_context(self.counter)
        self.stack.enter_context(saved_tensors_hooks(self._keep, lambda x: x))
        return self

    def __exit__(self, *error: Any) -> None:
        self._count()
        self.stack.close()

    def rows(self) -> Iterator[tuple[str, tuple[int, ...] | None, int, int, int]]:
        """Name, output shape, parameters, FLOPs and bytes of each part; parts that ran first, in order."""
        parameters = dict.fromkeys(self.flops, 0)
        for name, p in self.network.named_parameters():
            parameters[self._part_of(name)] += p.numel()
        for name in dict.fromkeys([*self.shapes, *self.flops]):
            shape, numbers = (
                self.shapes.get(name),
                (parameters[name], self.flops[name], self.activations[name]),
            )
            if shape or any(numbers):
                yield name, shape, *numbers

    def _until_exit(self, handle: Any) -> None:
        self.stack.callback(handle.remove)

    def _part_of(self, name: str) -> str:
        """The innermost part that holds a module or parameter."""
        while name and name not in self.flops:
            name = name.rpartition(".")[0]
        return name or _REST

    def _count(self) -> None:
        total = self.counter.get_total_flops()
        self.flops[self.active[-1]] += total - self.counted
        self.counted = total

    def _enter(self, part: str, *_: Any) -> None:
        self._count()
        self.active.append(part)

    def _leave(self, part: str, module: nn.Module, inputs: Any, output: Any) -> None:
        self._count()
        self.active.pop()
        if isinstance(output, Tensor):
            self.shapes[part] = tuple(output.shape)  # the last call gives the part's output
            storage = output.untyped_storage()
            self.results[storage._cdata] = storage, part

    def _enter_convolution(self, module: _ConvNd, inputs: Any) -> None:
        _Kept.apply(inputs[0], module.weight)
        self.inside_convolution = True

    def _leave_convolution(self, *_: Any) -> None:
        self.inside_convolution = False

    def _keep(self, x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        if not self.inside_convolution and storage._cdata not in self.known:
            self.known[storage._cdata] = storage
            part = self.active[-1]
            if part == _REST:  # saved between parts: attribute to the part that made it
                part = self.results.get(storage._cdata, (storage, _REST))[1]
            self.activations[part] += storage.nbytes()
        return x
