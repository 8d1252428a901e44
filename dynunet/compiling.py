"""Networks compiled by ``torch.compile``, and what its modes with CUDA graphs ask of their callers.

A CUDA graph replays all kernels of a network at once, which pays where starting each takes longer than
running it. Its results lie where the next replay writes its own: those of one *step* stay valid together,
until the next one begins.
"""

from collections.abc import Callable
from typing import Any, Literal, get_args

from .arguments import choice

CompileMode = Literal["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"]
COMPILE_MODES: tuple[str, ...] = get_args(CompileMode)
_GRAPHS = ("reduce-overhead", "max-autotune")


def compile_mode(value: Any, name: str) -> str | None:
    """A mode by its name; True is the default one, False is None: do not compile."""
    if isinstance(value, bool):
        return COMPILE_MODES[0] if value else None
    return choice(value, COMPILE_MODES, name)


def begin_step(mode: str) -> None:
    """From here on CUDA graphs may overwrite their earlier results."""
    import torch  # options of training are read and checked without it

    if mode in _GRAPHS:
        torch.compiler.cudagraph_mark_step_begin()


def compiled(network: Callable[..., Any], mode: str) -> Callable[..., Any]:
    """The network compiled; each call is a step, and its result a copy that stays as it is.

    What was compiled before, of the same network in the same mode, is used again.
    """
    import torch

    run: Callable[..., Any] = torch.compile(network, mode=mode)

    def call(*args: Any, **keywords: Any) -> Any:
        begin_step(mode)
        result = run(*args, **keywords)
        return result.clone() if mode in _GRAPHS and isinstance(result, torch.Tensor) else result

    return call
