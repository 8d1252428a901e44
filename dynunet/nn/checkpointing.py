"""Gradient checkpointing for modules with running statistics."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def checkpointed(module: nn.Module, function: Callable[..., Tensor], *args: Any) -> Tensor:
    """``function(*args)`` without keeping intermediate results: the backward pass recomputes them.

    The recomputation starts from the buffers of ``module`` as they were before the forward pass, and does not
    change them. So running statistics (batch norm) count a batch once, and power iteration (spectral norm)
    takes one step. In a compiled graph statistics are written only once anyway, at the end.
    """
    if torch.compiler.is_compiling():
        return checkpoint(function, *args, use_reentrant=False)  # type: ignore[return-value]
    before = _Before(module)
    return checkpoint(  # type: ignore[return-value]
        function, *args, use_reentrant=False, context_fn=lambda: (nullcontext(), before)
    )


class _Before:
    """A context, entered for each backward pass, in which a module has copies of its earlier buffers.

    The buffers are swapped, not overwritten: autograd may have saved the originals and would detect a write.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module, self.own = module, list[Tensor | None]()
        self.before = [None if b is None else b.clone() for _, _, b in self._buffers()]

    def __enter__(self) -> None:
        self.own = [b for _, _, b in self._buffers()]
        self._put([None if b is None else b.clone() for b in self.before])

    def __exit__(self, *_: object) -> None:
        self._put(self.own)

    def _buffers(self) -> list[tuple[nn.Module, str, Tensor | None]]:
        return [(m, name, buffer) for m in self.module.modules() for name, buffer in m._buffers.items()]

    def _put(self, buffers: list[Tensor | None]) -> None:
        for (module, name, _), buffer in zip(self._buffers(), buffers, strict=True):
            module._buffers[name] = buffer
