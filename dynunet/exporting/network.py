"""A network as a program of its own, with open batch and sizes: an ONNX model or an archive of torch.export.

It is traced once, at one size; whatever its number of axes, ONNX gets nodes of at most three. Before the
program is used for anything it is run beside the network, at two sizes that it was not traced at.
"""

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from importlib import import_module
from itertools import count
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..config import unwrapped
from ..nn.levels import takes
from ..nn.network import Network
from ..nn.spec import NetworkSpec, attention_names

__all__ = ["FILES", "Input", "check", "inputs", "needed", "standalone", "write"]

FILES = {"onnx": "model.onnx", "torch": "model.pt2"}  # a program of each kind
TOLERANCE = 1e-5  # of the largest output, and of 1 where that is less
_BATCH, _TOKENS = "batch", "tokens"
_OPEN_ATTENTION = "use 'full', 'axial' or 'linear'"

Run = Callable[[dict[str, Tensor]], Tensor]


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
    if not isinstance(network, Network):
        raise ValueError(
            "model must have a dynunet.UNet or dynunet.Encoder as its network to be exported, got a "
            f"{type(network).__name__}"
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


def write(network: Network, to: str, folder: Path) -> int:
    """Write a program of a network as a file of a folder, and compare what it gives with the network.

    Args:
        network: of :func:`standalone`.
        to: ``"onnx"`` or ``"torch"``.
        folder: that is there.

    Returns:
        Channels, or features, of the output.

    Raises:
        ValueError: the program cannot be made, or gives something else.
    """
    path = folder / FILES[to]
    with _quiet():
        program = _traced(network)
        run = (_onnx if to == "onnx" else _archive)(program, path)
        for batch, least in ((1, 1), (3, 2)):
            sizes = _sizes(network.spec, batch, least, 1)
            outputs = _compare(network, run, {k: i.example(sizes) for k, i in inputs(network).items()})
    return outputs


def _traced(network: Network) -> Any:
    given = inputs(network)
    examples = {name: i.example(_sizes(network.spec, 2, 2)) for name, i in given.items()}
    open_axes = {name: i.open_axes() for name, i in given.items()}
    try:
        with torch.no_grad():
            return torch.export.export(network, (), examples, dynamic_shapes=open_axes)
    except Exception as error:
        own = [name for name in ("in_layer", "out_layer") if getattr(network, name, None) is not None]
        own += ["activation"] * (not isinstance(network.spec.activation, str))
        if not own:
            raise
        raise ValueError(
            f"{own[0]} must be something that torch.export can trace with open sizes: leave out your own "
            f"{' and '.join(own)}, or write it of torch's operators alone ({error})"
        ) from error


def _sizes(spec: NetworkSpec, batch: int, least: int, more: int = 0) -> dict[str, int]:
    """Sizes that a network takes: along each axis at least so many entries in the deepest level, and more."""
    found = {_BATCH: batch, _TOKENS: 2 + more}
    sizes = [
        least * prod(step.strides[a] for step in spec.transitions) + more for a in range(spec.spatial_dims)
    ]
    for axis in range(spec.spatial_dims):
        sizes[axis] = found[f"size_{axis}"] = next(
            n for n in count(sizes[axis] + axis) if takes(spec, axis, n)
        )
    return found


def _onnx(program: Any, path: Path) -> Run:
    import onnxruntime

    made: Any = torch.onnx.export(program, dynamo=True, verbose=False)
    made.save(path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda given: torch.from_numpy(session.run(None, {k: v.numpy() for k, v in given.items()})[0])


def _archive(program: Any, path: Path) -> Run:
    torch.export.save(program, path)
    module = torch.export.load(path).module()
    return lambda given: module(**given)


def _compare(network: Network, run: Run, given: dict[str, Tensor]) -> int:
    """Compare outputs, and return how many channels they have."""
    with torch.no_grad():
        wanted, found = network(**given), run(given)
    error = (found - wanted).abs().max().item()
    if not error <= TOLERANCE * max(1.0, wanted.abs().max().item()):
        raise ValueError(
            f"the program must give what the network gives, got a difference of {error:.2g} for x of shape "
            f"{tuple(given['x'].shape)}"
        )
    return wanted.shape[1]


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
