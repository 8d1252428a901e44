"""A call of a spatial operator as a value: its operands, its arguments, and how to print it."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from dataclasses import replace as _replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Implementation = Callable[..., Any]

# Arguments with one entry per spatial axis, and the entry that changes nothing.
NEUTRAL: dict[str, Any] = {
    "kernel_size": 1,
    "stride": 1,
    "padding": 0,
    "output_padding": 0,
    "dilation": 1,
    "padding_mode": "zeros",
}
_PRINTED_ENTRIES = 32


@dataclass(frozen=True, eq=False)
class Case:
    """One call: operands and keyword arguments, each argument in full (one entry per axis).

    ``input`` is ``(N, C, *spatial)``; a pool has no ``weight``. ``kwargs`` are in torch's order, so that
    they can also be passed by position. ``operator`` is the operator called: ``"conv"``,
    ``"conv_transpose"``, ``"max_pool"``, ``"avg_pool"``, ``"pad"`` or ``"interpolate"``.

    >>> Case(np.ones((1, 1, 2)), np.ones((1, 1, 1)), kwargs={"stride": (2,)})
    Case(input=np.array([[[1., 1.]]]), weight=np.array([[[1.]]]), kwargs={'stride': (2,)})
    """

    input: Array
    weight: Array | None = None
    bias: Array | None = None
    kwargs: dict[str, Any] = field(default_factory=dict)
    operator: str = "conv"

    @property
    def spatial_dims(self) -> int:
        return self.input.ndim - 2

    def per_axis(self, name: str) -> tuple[Any, ...]:
        """An argument with one entry per axis, neutral where the case does not pass it."""
        return tuple(self.kwargs.get(name, (NEUTRAL[name],) * self.spatial_dims))

    @property
    def padding_pairs(self) -> tuple[tuple[int, int], ...]:
        """``padding`` as one (before, after) pair per axis."""
        return tuple((p, p) if isinstance(p, int) else (p[0], p[1]) for p in self.per_axis("padding"))

    def replace(self, **changes: Any) -> "Case":
        """A copy with changed operands and arguments; arguments that this case does not pass are ignored."""
        operands = {k: v for k, v in changes.items() if k in ("input", "weight", "bias", "operator")}
        kwargs = {k: changes.get(k, v) for k, v in self.kwargs.items()}
        return _replace(self, kwargs=kwargs, **operands)

    def snippet(self, name: str | None = None) -> str:
        """Lines of Python that make the call ``name(...)``; large arrays are shown by their shape."""
        operands = {"input": self.input}
        if self.weight is not None:
            operands |= {"weight": self.weight, "bias": self.bias}  # type: ignore[dict-item]
        lines = [f"{key} = {array_code(value)}" for key, value in operands.items()]
        arguments = [*operands, *(f"{key}={value!r}" for key, value in self.kwargs.items())]
        return "\n".join([*lines, f"{name or self.operator}({', '.join(arguments)})"])

    def __repr__(self) -> str:
        parts = [f"input={array_code(self.input)}"]
        parts += [] if self.weight is None else [f"weight={array_code(self.weight)}"]
        parts += [] if self.bias is None else [f"bias={array_code(self.bias)}"]
        parts += [f"kwargs={self.kwargs!r}"] if self.kwargs else []
        parts += [] if self.operator == "conv" else [f"operator={self.operator!r}"]
        return f"Case({', '.join(parts)})"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """How Hypothesis and IPython print a case."""
        printer.text(repr(self))


def array_code(array: Any) -> str:
    """An array as code, or its shape if it has many entries.

    >>> array_code(np.array([[1.0, -2.5, np.nan]]))
    'np.array([[1., -2.5, np.nan]])'
    >>> array_code(np.zeros((4, 5, 6)))
    '<array of shape (4, 5, 6)>'
    """
    if array is None:
        return "None"
    array = np.asarray(array)
    if array.size > _PRINTED_ENTRIES:
        return f"<array of shape {array.shape}>"
    if not array.size:
        return f"np.zeros({array.shape})"
    text = re.sub(r"\b(\d+)\.0(?![\d])", r"\1.", repr(array.tolist()))
    text = re.sub("(nan|inf)", r"np.\1", text)
    return f"np.array({text})"


def torch_on_arrays(fn: Implementation) -> Implementation:
    """Turn a function of torch tensors into one of NumPy arrays, for the laws.

    >>> import torch
    >>> torch_on_arrays(torch.exp)(np.zeros(2))
    array([1., 1.])
    """
    import torch

    def convert(value: Any) -> Any:
        return torch.from_numpy(value) if isinstance(value, np.ndarray) else value

    def on_arrays(*args: Any, **kwargs: Any) -> Any:
        result = fn(*map(convert, args), **kwargs)
        return result.detach().cpu().numpy() if isinstance(result, torch.Tensor) else result

    on_arrays.__name__ = getattr(fn, "__name__", "fn")
    return on_arrays


def call(fn: Implementation, case: Case) -> Array:
    """Call ``fn(input[, weight, bias], *arguments)`` in torch's order; ``padding_mode`` is passed by name.

    ``fn`` gets copies; if it writes to them, an AssertionError is raised.
    """
    operands = [case.input] if case.weight is None else [case.input, case.weight, case.bias]
    copies = [None if a is None else np.array(a, order="C") for a in operands]
    arguments = [value for name, value in case.kwargs.items() if name != "padding_mode"]
    modes = {name: value for name, value in case.kwargs.items() if name == "padding_mode"}
    result = fn(*copies, *arguments, **modes)
    for name, before, after in zip(("input", "weight", "bias"), operands, copies, strict=False):
        if before is not None and not np.array_equal(before, after, equal_nan=True):  # type: ignore[arg-type]
            raise AssertionError(f"it writes to its argument {name}")
    return np.asarray(result)


class Counterexample(AssertionError):
    """Raised for a case that an implementation gets wrong: ``case``, and the ``laws`` that it breaks."""

    def __init__(self, message: str, case: Case, laws: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.case = case
        self.laws = tuple(laws)
