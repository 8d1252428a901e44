"""Gradient checkpointing of modules that keep statistics."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def checkpointed(module: nn.Module, function: Callable[..., Tensor], *args: Any) -> Tensor:
    """``function(*args)``, whose inner results are not kept: the backward pass computes them again.

    It then finds the buffers of ``module`` as they were before, and leaves them as they are. So running
    statistics (of batch norm) count a batch once, and what a step of power iteration (of spectral norm)
    changes is not changed again. Compiled, statistics are written once anyway, at the end.
    """
    if torch.compiler.is_compiling():
        return checkpoint(function, *args, use_reentrant=False)  # type: ignore[return-value]
    before = _Before(module)
    return checkpoint(  # type: ignore[return-value]
        function, *args, use_reentrant=False, context_fn=lambda: (nullcontext(), before)
    )


class _Before:
    """A context, entered once for every way back, with copies of buffers in the place of the module's own.

    They change places: to write into the own ones would be seen by autograd, which may have saved them.
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
