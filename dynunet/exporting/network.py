"""A network as a program of its own, with open batch and sizes: an ONNX model or an archive of torch.export.

It is traced once, at one size; whatever its number of axes, ONNX gets nodes of at most three. Before the
program is used for anything it is run beside the network, at sizes that it was not traced at.
"""

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from importlib import import_module
from itertools import count, cycle, islice
from math import inf, prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..config import unwrapped
from ..nn.levels import takes
from ..nn.network import Network
from ..nn.option import attention_names
from ..nn.spec import NetworkSpec
from ..nn.spectral_mask import SpectralMask

__all__ = ["FILES", "Input", "check", "inputs", "needed", "standalone", "write"]

FILES = {"onnx": "model.onnx", "torch": "model.pt2"}  # a program of each kind
TOLERANCE = 1e-5  # of the largest output, and of 1 where that is less
ROUNDING = 8  # times the error of the network itself in float32, where that is more
_BATCH, _TOKENS = "batch", "tokens"
_OPEN_ATTENTION = "use 'full', 'axial' or 'linear'"

Run = Callable[[dict[str, Tensor]], Tensor]


class _RefusedError(ValueError):
    """A program does not take what it is given."""


@dataclass(frozen=True)
class Input:
    """An input of a network.

    Attributes:
        dtype: of its entries.
        shape: the size of each axis, or the name of one that is open.
        none: the number that stands for nothing given; None for an input that has to be given.
    """

    dtype: str
    shape: tuple[int | str, ...]
    none: float | None = None

    def document(self) -> dict[str, Any]:
        """As JSON holds it."""
        none = {} if self.none is None else {"none": self.none}
        return {"dtype": self.dtype, "shape": list(self.shape), **none}

    def open_axes(self) -> dict[int, Any]:
        """For the exporter."""
        return {i: torch.export.Dim.DYNAMIC for i, n in enumerate(self.shape) if isinstance(n, str)}

    def example(self, sizes: Mapping[str, int]) -> Tensor:
        """Random entries; class labels are -1 and 0, which every network with classes takes."""
        shape = [n if isinstance(n, int) else sizes[n] for n in self.shape]
        return torch.arange(*shape) % 2 - 1 if self.dtype == "int64" else torch.rand(shape)


def inputs(network: Network) -> dict[str, Input]:
    """The inputs of a network, by the names of its arguments."""
    spatial = tuple(f"size_{axis}" for axis in range(network.spatial_dims))
    found = {"x": Input("float32", (_BATCH, network.in_channels, *spatial))}
    if network.time_embedding is not None:
        found["t"] = Input("float32", (_BATCH,))
    if network.num_classes is not None:
        found["class_labels"] = Input("int64", (_BATCH,), -1)
    if network.cond_channels:
        found["cond"] = Input("float32", (_BATCH, network.cond_channels, *spatial))
    if network.cond_features:
        found["features"] = Input("float32", (_BATCH, network.cond_features), 0)
    if network.context_features is not None:
        found["context"] = Input("float32", (_BATCH, _TOKENS, network.context_features), 0)
    return found


def check(network: Any) -> Network:
    """Refuse a network of which no program with open sizes can be made, before any work.

    Raises:
        ValueError: naming the option, and what it would have to be.
    """
    network = unwrapped(network)
    if isinstance(network, SpectralMask):
        raise ValueError(
            "spectral_mask must be left out of a model to be exported, for its transforms of complex numbers "
            f"have no counterpart there: train the UNet alone, got n_fft={network.n_fft}"
        )
    if not isinstance(network, Network):
        raise ValueError(
            "model must have a dynunet.UNet or a dynunet.Encoder as its network to be exported, got "
            f"a {type(network).__name__}"
        )
    for name in ("attention", "skip_attention", "mid_attention"):
        value = getattr(network.spec, name, None)
        for names in value if isinstance(value, tuple) else (value,):
            if isinstance(names, str) and "window" in attention_names(names):
                raise ValueError(
                    f"{name} must not have 'window' in a network to be exported, for its number of windows "
                    f"follows from the size: {_OPEN_ATTENTION}, got {names!r}"
                )
    return network


def needed(to: str) -> None:
    """Refuse to begin without the packages that write and run ONNX."""
    for name in ("onnx", "onnxscript", "onnxruntime") if to == "onnx" else ():
        try:
            import_module(name)
        except ImportError as error:
            raise ImportError(
                f"models are exported to ONNX with {name}, which is not installed: pip install "
                f"'dynunet[export]' ({error})"
            ) from None


def standalone(network: Network) -> Network:
    """A copy in float32 on the CPU, in evaluation mode, without gradients."""
    return deepcopy(network).to("cpu", torch.float32).eval().requires_grad_(False)


def write(network: Network, to: str, folder: Path) -> dict[str, Any]:
    """Write a program of a network as a file of a folder, and compare what it gives with the network.

    A program is traced with several entries along every axis of the deepest level. Whether it holds for one
    as well, which the guards of torch's archives leave out, is found by trying.

    Args:
        network: of :func:`standalone`.
        to: ``"onnx"`` or ``"torch"``.
        folder: that is there.

    Returns:
        Of the output the number of channels, or features, and the least sizes, as JSON holds them.

    Raises:
        ValueError: the program cannot be made, or gives something else.
    """
    path = folder / FILES[to]
    with _quiet():
        program = _traced(network)
        run = (_onnx if to == "onnx" else _archive)(program, path)
        for batch, deepest in ((1, (2, 2)), (3, (3, 2))):
            given = _examples(network, batch, deepest)
            outputs, error, most = _compared(network, run, given)
            if not error <= most:
                raise ValueError(
                    f"the program must give what the network gives, got an error of {error:.2g} for x of "
                    f"shape {tuple(given['x'].shape)}, more than {most:.2g}"
                )
        whole = all(_holds(network, run, deepest) for deepest in ((1, 1), (1, 3), (3, 1)))
    return {"outputs": outputs, "least": _sizes(network.spec, (1, 1) if whole else (2, 2))}


def _traced(network: Network) -> Any:
    examples = _examples(network, 2, (3, 4, 5, 6))
    open_axes = {name: i.open_axes() for name, i in inputs(network).items()}
    try:
        with torch.no_grad():
            return torch.export.export(network, (), examples, dynamic_shapes=open_axes)
    except RuntimeError as error:  # as all errors of Dynamo and of its symbolic sizes are
        own = [name for name in ("in_layer", "out_layer") if getattr(network, name, None) is not None]
        own += ["activation"] * (not isinstance(network.spec.activation, str))
        if not own:
            raise
        with torch.no_grad():
            network(**examples)  # if it fails untraced, too, it says why
        raise ValueError(
            f"{own[0]} must be something that torch.export can trace with open sizes: leave out your own "
            f"{' and '.join(own)}, or write it of torch's operators alone ({error})"
        ) from error


def _examples(network: Network, batch: int, deepest: Sequence[int]) -> dict[str, Tensor]:
    """Inputs of sizes that a network takes, see :func:`_sizes`."""
    sizes = {f"size_{axis}": n for axis, n in enumerate(_sizes(network.spec, deepest))}
    given = inputs(network).items()
    return {name: i.example({_BATCH: batch, _TOKENS: batch + 1, **sizes}) for name, i in given}


def _sizes(spec: NetworkSpec, deepest: Sequence[int]) -> list[int]:
    """The least sizes with so many entries in the deepest level, along one axis after the other in turn."""
    strides = [prod(step.strides[axis] for step in spec.transitions) for axis in range(spec.spatial_dims)]
    wanted = islice(cycle(deepest), spec.spatial_dims)
    firsts = [(n - 1) * stride + 1 for n, stride in zip(wanted, strides, strict=True)]
    return [next(n for n in count(first) if takes(spec, axis, n)) for axis, first in enumerate(firsts)]


def _onnx(program: Any, path: Path) -> Run:
    import onnxruntime

    made: Any = torch.onnx.export(program, dynamo=True, verbose=False)
    made.save(path)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # of errors, which are raised, nothing is printed
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    state: Any = import_module("onnxruntime.capi.onnxruntime_pybind11_state")

    def run(given: dict[str, Tensor]) -> Tensor:
        try:
            found = session.run(None, {name: x.numpy() for name, x in given.items()})[0]
        except (state.Fail, state.InvalidArgument, state.RuntimeException) as error:
            raise _RefusedError(f"onnxruntime refuses its sizes: {error}") from error
        return torch.from_numpy(found)

    return run


def _archive(program: Any, path: Path) -> Run:
    torch.export.save(program, path)
    module = torch.export.load(path).module()

    def run(given: dict[str, Tensor]) -> Tensor:
        try:
            return module(**given)
        except (AssertionError, RuntimeError) as error:  # of its guards, or of its operators
            raise _RefusedError(f"the program refuses its sizes: {error}") from error

    return run


def _compared(network: Network, run: Run, given: dict[str, Tensor]) -> tuple[int, float, float]:
    """Channels of the output, the largest error of the program, and what it may be.

    Errors are those against float64. That of the network itself says how far rounding goes: norms over few
    entries magnify it.
    """
    exact = deepcopy(network).double()
    double = {name: x.double() if x.is_floating_point() else x for name, x in given.items()}
    with torch.no_grad():
        truth, own, found = exact(**double), network(**given), run(given)
    if found.shape != truth.shape:
        return truth.shape[1], inf, 0.0
    error, rounding = ((y - truth).abs().max().item() for y in (found, own))
    return truth.shape[1], error, max(TOLERANCE * max(1.0, truth.abs().max().item()), ROUNDING * rounding)


def _holds(network: Network, run: Run, deepest: Sequence[int]) -> bool:
    try:
        _, error, most = _compared(network, run, _examples(network, 2, deepest))
    except _RefusedError:
        return False
    return error <= most


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporters say to their own authors."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
