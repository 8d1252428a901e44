"""What a network is made of and what it costs, before anything is computed.

The network runs once on the ``meta`` device: shapes without values, so that neither time nor memory depends on
the size of the input. What is counted:

- parameters, each once;
- FLOPs: multiplications and additions of the definition, whatever algorithm computes it, of convolutions and
  matrix products (``torch.utils.flop_counter``). Everything else is small beside them;
- activations: bytes that autograd keeps for the backward pass, each once. An estimate: it leaves out dropout,
  the statistics of batch norm in training, and what allocators and algorithms need while they work.

A training step computes about three times the FLOPs of this one forward pass. The memory of training is that
of the activations, and four times that of the parameters with Adam (weights, gradients, two moments).
"""

import copy
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.functional import scaled_dot_product_attention
from torch.nn.modules.conv import _ConvNd
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from convnd.arguments import integer

from .drawing import drawing

__all__ = ["Part", "Summary", "drawing", "summarize"]

_REST = "(other)"
_ATTENTION = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu


class Part(NamedTuple):
    """One row of a summary.

    Attributes:
        name: of the module; those of its children are counted here.
        shape: of its output; None if it did not run.
        parameters: how many.
        flops: of one forward pass.
        activations: bytes kept for the backward pass.
    """

    name: str
    shape: tuple[int, ...] | None
    parameters: int
    flops: int
    activations: int


class Summary(NamedTuple):
    """The parts of a network in the order in which they run; printed as a table."""

    parts: tuple[Part, ...]

    @property
    def parameters(self) -> int:
        return sum(part.parameters for part in self.parts)

    @property
    def flops(self) -> int:
        return sum(part.flops for part in self.parts)

    @property
    def activations(self) -> int:
        return sum(part.activations for part in self.parts)

    def __str__(self) -> str:
        rows = [("part", "output shape", "parameters", "FLOPs", "activations")]
        for part in (*self.parts, Part("total", None, self.parameters, self.flops, self.activations)):
            shape = "" if part.shape is None else " x ".join(map(str, part.shape))
            size = _short(part.activations, 1024, "iB")
            rows.append((part.name, shape, f"{part.parameters:,}", _short(part.flops, 1000), size))
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines = [
            "  ".join(
                cell.ljust(w) if i < 2 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths))
            )
            for row in rows
        ]
        rule = "-" * len(lines[0])
        notes = (
            "FLOPs: multiplications and additions of one forward pass; a training step takes about three times",
            "as many. Activations: kept for the backward pass, an estimate; autocast halves most of them.",
        )
        return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1], *notes])


def summarize(network: nn.Module, input_shape: Sequence[int], **inputs: Any) -> Summary:
    """Shapes, parameters, FLOPs and activation memory of every part of a network; nothing is computed.

    The parts are the children of the network, of a ``ModuleList`` its entries. An entry that is not called
    itself (a level) stands for the lists inside it, and its other children (``down``, ``up``) for themselves.

    Args:
        network: a :class:`dynunet.UNet`, a :class:`dynunet.Encoder` or any other module; it stays as it is.
        input_shape: ``(N, C, *spatial)``, as long as the network's ``spatial_dims`` + 2.
        inputs: further arguments of its ``forward``. Times and an image-like condition are made for a network
            that needs them.

    Returns:
        The table, with its numbers as fields.

    Raises:
        ValueError: if ``input_shape`` is not a sequence of so many positive ints.

    >>> from torch import nn
    >>> from dynunet.summary import summarize
    >>> summarize(nn.Sequential(nn.Conv1d(1, 4, 3), nn.ReLU()), (2, 1, 10)).flops
    384
    """
    shape = _checked(network, input_shape)
    copied = _on_meta(network)
    floating = [p.dtype for p in copied.parameters() if p.is_floating_point()]
    dtype = floating[0] if floating else torch.get_default_dtype()
    make = partial(torch.empty, dtype=dtype, device="meta")
    made = {}
    if getattr(network, "time_embedding", None) is not None:
        made["t"] = make(shape[0])
    if getattr(network, "cond_channels", 0):
        made["cond"] = make(shape[0], network.cond_channels, *shape[2:])  # type: ignore[arg-type]
    arguments = {k: _probe(v) for k, v in {**made, **inputs}.items()}
    recorder = _Recorder(copied)
    with recorder, torch.inference_mode(False), torch.enable_grad():
        copied(_probe(make(*shape)), **arguments)
    return recorder.summary()


def _short(value: float, base: int, unit: str = "") -> str:
    """Three digits and a prefix."""
    for prefix in ("", "k" if base == 1000 else "K", "M", "G", "T", "P"):
        if value < 999.5 or prefix == "P":
            break
        value /= base
    return f"{value:.3g} {prefix}{unit if prefix else unit[-1:]}".rstrip()


def _checked(network: nn.Module, input_shape: Any) -> tuple[int, ...]:
    n = getattr(network, "spatial_dims", None)
    rule = "(N, C, *spatial)" if n is None else f"(N, C, *spatial) with {n} spatial axes"
    try:
        shape = tuple(integer(size, "size") for size in input_shape)
    except (TypeError, ValueError) as error:
        raise ValueError(f"input_shape must be {rule}, all positive ints, got {input_shape!r}") from error
    if isinstance(input_shape, str) or len(shape) < 3 or (n is not None and len(shape) != n + 2):
        raise ValueError(f"input_shape must be {rule}, all positive ints, got {input_shape!r}")
    return shape


def _on_meta(network: nn.Module) -> nn.Module:
    """A copy without values, to be evaluated; but what is computed twice in training is."""
    memo: dict[int, Any] = {}
    for p in network.parameters():
        memo[id(p)] = nn.Parameter(
            torch.empty_like(p, device="meta"), p.is_floating_point() or p.is_complex()
        )
    for b in network.buffers():
        memo[id(b)] = torch.empty_like(b, device="meta")
    copied = copy.deepcopy(network, memo).eval()
    for module in copied.modules():
        module.training = bool(getattr(module, "checkpointing", False))
    return copied


def _parts(network: nn.Module) -> list[str]:
    names = []
    for name, child in network.named_children():
        entries = {f"{name}.{i}": c for i, c in child.named_children()}
        for entry, module in entries.items() if isinstance(child, nn.ModuleList) else [(name, child)]:
            names.append(entry)
            if type(module).forward is nn.Module.forward:  # never called
                inside = module.named_children()
                names += [f"{entry}.{i}" for i, c in inside if not isinstance(c, nn.ModuleList)]
    return names


class _Probe(Tensor):
    """A tensor that convnd takes for a traced one: it composes torch's operators and cuts nothing.

    Attention is one fused operator, as it will be: the matrix of all pairs is never made.
    """

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is scaled_dot_product_attention:
            func = _fused_attention
        return super().__torch_function__(func, types, args, kwargs or {})


def _fused_attention(q: Tensor, k: Tensor, v: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Keeps its operands, its result and one number for each query, as every fused kernel does."""
    batch = q.shape[:-2]
    if len(batch) != 2:
        q, k, v = (x.reshape(-1, 1, *x.shape[-2:]) for x in (q, k, v))
    out = _ATTENTION(q, k, v)[0]
    return out if len(batch) == 2 else out.reshape(*batch, *out.shape[-2:])


def _attention_flops(q: Any, k: Any, v: Any, *args: Any, **kwargs: Any) -> int:
    return sdpa_flop_count(q, k, v)


class _Kept(torch.autograd.Function):
    """Keeps a tensor for the backward pass: of a convolution its input, however convnd computes it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.new_empty(())


def _probe(value: Any) -> Any:
    return value.to("meta").as_subclass(_Probe) if isinstance(value, Tensor) else value


class _Recorder:
    """Charges what happens to the part that is running."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self.names = _parts(network)
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.flops = dict.fromkeys([*self.names, _REST], 0)
        self.activations = dict.fromkeys([*self.names, _REST], 0)
        self.running = [_REST]
        self.counted = 0
        self.within_convolution = False
        own = [*network.parameters(), *network.buffers()]
        # Storages by address, which stay alive so that no other has the same.
        self.seen = {s._cdata: s for s in (t.untyped_storage() for t in own)}
        self.counter = FlopCounterMode(display=False, custom_mapping={_ATTENTION: _attention_flops})
        self.stack = ExitStack()

    def __enter__(self) -> None:
        for name, module in self.network.named_modules():
            part = self._part_of(name)
            if part is not None:
                self._hook(module.register_forward_pre_hook(partial(self._enter, part)))
                self._hook(module.register_forward_hook(partial(self._leave, part)))
            if isinstance(module, _ConvNd):
                self._hook(module.register_forward_pre_hook(self._enter_convolution))
                self._hook(module.register_forward_hook(self._leave_convolution))
        self.stack.enter_context(self.counter)
        self.stack.enter_context(saved_tensors_hooks(self._keep, lambda x: x))

    def __exit__(self, *error: Any) -> None:
        self.stack.close()

    def _hook(self, handle: Any) -> None:
        self.stack.callback(handle.remove)

    def _part_of(self, name: str) -> str | None:
        """The part that a module is, or is inside of."""
        path = name.split(".")
        prefixes = (".".join(path[:i]) for i in range(len(path), 0, -1))
        return next((prefix for prefix in prefixes if prefix in self.flops), None)

    def _charge(self) -> None:
        total = self.counter.get_total_flops()
        self.flops[self.running[-1]] += total - self.counted
        self.counted = total

    def _enter(self, part: str, *_: Any) -> None:
        self._charge()
        self.running.append(part)

    def _leave(self, part: str, module: nn.Module, inputs: Any, output: Any) -> None:
        self._charge()
        self.running.pop()
        if isinstance(output, Tensor):
            self.shapes[part] = tuple(output.shape)  # the last one is what leaves the part

    def _enter_convolution(self, module: _ConvNd, inputs: Any) -> None:
        _Kept.apply(inputs[0], module.weight)
        self.within_convolution = True

    def _leave_convolution(self, *_: Any) -> None:
        self.within_convolution = False

    def _keep(self, x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        if not self.within_convolution and storage._cdata not in self.seen:
            self.seen[storage._cdata] = storage
            self.activations[self.running[-1]] += storage.nbytes()
        return x

    def summary(self) -> Summary:
        self._charge()
        parameters = dict.fromkeys([*self.names, _REST], 0)
        for name, p in self.network.named_parameters():
            parameters[self._part_of(name) or _REST] += p.numel()
        names = [*self.shapes, *(name for name in parameters if name not in self.shapes)]
        rows = [Part(n, self.shapes.get(n), parameters[n], self.flops[n], self.activations[n]) for n in names]
        return Summary(tuple(row for row in rows if row.shape or any(row[2:])))
